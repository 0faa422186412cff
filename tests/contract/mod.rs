mod fuzzed;
mod generated;
mod malformed;

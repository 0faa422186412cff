mod fuzzed;
mod generated;
mod malformed;
mod scenarios;

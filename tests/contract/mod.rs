mod generated;
mod malformed;

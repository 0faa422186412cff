mod keys;
mod sweep;

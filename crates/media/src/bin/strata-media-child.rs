//! The child of this crate's own tests and examples. The program `strata` plays this role itself.

fn main() -> std::process::ExitCode {
    strata_media::child::main(std::env::args_os().skip(1))
}

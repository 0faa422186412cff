//! The binary `strata`: command line, configuration and wiring. It is the only place where the parts are put together;
//! it decides nothing about documents, and the client commands know the server only through HTTP.

mod cli;
mod client;
mod protection;
mod providers;
mod settings;

use clap::Parser;
use std::process::ExitCode;

/// A request makes some hundred small allocations, and what one thread made another often frees; the C library's allocator
/// takes a quarter of the time of its answer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `strata search … | head -1` closes our output early; that is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

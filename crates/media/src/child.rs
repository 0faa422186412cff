//! What runs in a child process. The program that uses this crate starts itself with a hidden subcommand and hands the rest
//! of the arguments to [`main`]. Two things can be asked for:
//!
//! - `worker`: reads requests on standard input and answers on standard output, until the input ends;
//! - `exec`: becomes another program, `ffmpeg`, under limits.
//!
//! Either first lays limits on itself, which no later code can lift: memory, processor time, size of files, open files,
//! and no core dumps. A worker ends when its parent does, since its input ends then; `ffmpeg` does when it next writes, or
//! when its processor time is over.

mod confine;
mod worker;

use std::{ffi::OsString, os::unix::process::CommandExt, path::PathBuf, process::ExitCode};

pub(crate) use confine::Confinement;

pub(crate) const WORKER: &str = "worker";
pub(crate) const EXEC: &str = "exec";
const MEMORY: &str = "--memory-bytes";
const PROCESSOR: &str = "--processor-seconds";
const FILE: &str = "--file-bytes";
const PDFIUM: &str = "--pdfium";
const COMMAND: &str = "--";

/// Runs a child to its end. `arguments` are those after the hidden subcommand. The answer is the exit code; what went wrong
/// is said on standard error.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let run = Arguments::parse(arguments.into_iter()).and_then(|arguments| {
        arguments.confinement.enter().map_err(|error| format!("limits cannot be set: {error}"))?;
        match arguments.role {
            Role::Worker { pdfium } => worker::run(pdfium).map_err(|error| format!("the worker stops: {error}")),
            Role::Exec { program, arguments } => {
                let error = std::process::Command::new(&program).args(arguments).exec();
                Err(format!("`{}` cannot be started: {error}", program.display()))
            }
        }
    });
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of a worker.
pub(crate) fn worker_arguments(confinement: Confinement, pdfium: Option<&std::path::Path>) -> Vec<OsString> {
    let mut arguments = role_arguments(WORKER, confinement);
    if let Some(pdfium) = pdfium {
        arguments.extend([PDFIUM.into(), pdfium.into()]);
    }
    arguments
}

/// The arguments that come before those of `program`.
pub(crate) fn exec_arguments(confinement: Confinement, program: &std::path::Path) -> Vec<OsString> {
    let mut arguments = role_arguments(EXEC, confinement);
    arguments.extend([COMMAND.into(), program.into()]);
    arguments
}

fn role_arguments(role: &str, confinement: Confinement) -> Vec<OsString> {
    vec![
        role.into(),
        MEMORY.into(),
        confinement.memory_bytes.to_string().into(),
        PROCESSOR.into(),
        confinement.processor_seconds.to_string().into(),
        FILE.into(),
        confinement.file_bytes.to_string().into(),
    ]
}

struct Arguments {
    confinement: Confinement,
    role: Role,
}

enum Role {
    Worker { pdfium: Option<PathBuf> },
    Exec { program: PathBuf, arguments: Vec<OsString> },
}

impl Arguments {
    fn parse(mut from: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let role = from.next().ok_or("a child needs a role, `worker` or `exec`")?;
        let (mut memory, mut processor, mut file, mut pdfium) = (None, None, None, None);
        let mut program = None;
        while let Some(name) = from.next() {
            let value = from.next().ok_or_else(|| format!("`{}` needs a value", name.display()))?;
            let number = || value.to_str().and_then(|v| v.parse::<u64>().ok());
            match name.to_str() {
                Some(MEMORY) => memory = number(),
                Some(PROCESSOR) => processor = number(),
                Some(FILE) => file = number(),
                Some(PDFIUM) => pdfium = Some(PathBuf::from(value)),
                Some(COMMAND) => {
                    program = Some(PathBuf::from(value));
                    break;
                }
                _ => return Err(format!("`{}` is no argument of a child", name.display())),
            }
        }
        let (Some(memory_bytes), Some(processor_seconds), Some(file_bytes)) = (memory, processor, file) else {
            return Err("a child needs limits on memory, processor time and files".to_owned());
        };
        let role = match (role.to_str(), program) {
            (Some(WORKER), None) => Role::Worker { pdfium },
            (Some(EXEC), Some(program)) => Role::Exec { program, arguments: from.collect() },
            _ => return Err(format!("`{}` is no role of a child", role.display())),
        };
        Ok(Self { confinement: Confinement { memory_bytes, processor_seconds, file_bytes }, role })
    }
}

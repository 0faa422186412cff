//! Limits that a child lays on itself before it reads a byte of others.

use crate::limits::MAX_CHILD_FILES;
use rustix::{
    io,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

/// What a child may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confinement {
    /// Address space.
    pub memory_bytes: u64,
    /// Processor time, of all its threads.
    pub processor_seconds: u64,
    /// Size of any file that it writes. Pipes are no files.
    pub file_bytes: u64,
}

impl Confinement {
    /// Lays the limits on this process and all that it becomes or starts.
    pub fn enter(self) -> io::Result<()> {
        let limit = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
        limit(Resource::Core, 0)?;
        limit(Resource::As, self.memory_bytes)?;
        limit(Resource::Cpu, self.processor_seconds)?;
        limit(Resource::Fsize, self.file_bytes)?;
        limit(Resource::Nofile, MAX_CHILD_FILES)?;
        set_no_new_privs(true)?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        // When memory runs out the kernel should end a decoder before it ends the server. Not every kernel lets us say so.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        Ok(())
    }
}

//! The workers: a few, kept between requests, replaced when they die, grow or have served long. A worker that dies over a
//! file makes an error that says so; the next request gets a new one.

use crate::{
    child::{self, Confinement},
    decoder::Config,
    fault::Failure,
    limits::{
        MAX_CHILDREN, MAX_IDLE_WORKER_BYTES, MAX_MESSAGE_BYTES, MAX_WORKER_BUSY, MAX_WORKER_REQUESTS,
        WORKER_CPU_SECONDS,
    },
    wire::{self, Answer, Reply, Request},
};
use parking_lot::Mutex;
use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use strata_model::{Error, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};

pub(crate) struct Pool {
    config: Arc<Config>,
    idle: Arc<Mutex<Vec<Worker>>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub fn new(config: Arc<Config>) -> Self {
        let permits = Arc::new(Semaphore::new(config.workers.clamp(1, MAX_CHILDREN)));
        Self { config, idle: Arc::default(), permits }
    }

    /// Sends a request to a worker, as soon as one is free. What is dropped before its end takes its worker along.
    pub async fn ask(&self, request: &Request, body: &[u8]) -> Result<Conversation> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(Error::internal)?;
        let mut worker = match self.take_idle() {
            Some(worker) => worker,
            None => Worker::start(&self.config).await?,
        };
        let started = Instant::now();
        let limit = self.config.worker_timeout;
        match timeout(limit, wire::send(&mut worker.input, request, body)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(worker.death(&self.config).await.into()),
            Err(_) => return Err(Error::internal("a worker does not take its request")),
        }
        Ok(Conversation {
            worker,
            started,
            config: Arc::clone(&self.config),
            idle: Arc::clone(&self.idle),
            _permit: permit,
        })
    }

    /// A worker that waits and still lives.
    fn take_idle(&self) -> Option<Worker> {
        loop {
            let mut worker = self.idle.lock().pop()?;
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Some(worker);
            }
        }
    }
}

/// A request that is being answered. Its worker goes back to the pool after the last answer and only then.
pub(crate) struct Conversation {
    worker: Worker,
    started: Instant,
    config: Arc<Config>,
    idle: Arc<Mutex<Vec<Worker>>>,
    _permit: OwnedSemaphorePermit,
}

impl Conversation {
    /// The next answer. The time limit is for this answer alone.
    pub async fn next(&mut self) -> Result<(Reply, Vec<u8>, WorkerState)> {
        let limit = self.config.worker_timeout;
        match timeout(limit, wire::receive::<Answer>(&mut self.worker.output)).await {
            Ok(Ok((Answer { reply: Reply::Failed(failure), resident_bytes, retire }, _))) => {
                self.worker.note(WorkerState { resident_bytes, retire });
                self.worker.healthy = true;
                Err(failure.into())
            }
            Ok(Ok((Answer { reply, resident_bytes, retire }, body))) => {
                Ok((reply, body, WorkerState { resident_bytes, retire }))
            }
            Ok(Err(_)) => Err(self.worker.death(&self.config).await.into()),
            Err(_) => {
                let _ = self.worker.child.start_kill();
                let message = format!("decoding was stopped after {} s without an end", limit.as_secs_f32());
                Err(Error::TooLarge(message))
            }
        }
    }

    /// The only answer of a request that has one.
    pub async fn only(mut self) -> Result<(Reply, Vec<u8>)> {
        let answer = self.next().await;
        match answer {
            Ok((reply, body, state)) => {
                self.finish(state);
                Ok((reply, body))
            }
            Err(error) => {
                self.give_back();
                Err(error)
            }
        }
    }

    /// Says that the last answer has come.
    pub fn finish(mut self, state: WorkerState) {
        self.worker.note(state);
        self.worker.healthy = true;
        self.give_back();
    }

    /// After an error: a worker that told a reason is good for more, one that died or hung is not.
    pub fn give_back(mut self) {
        self.worker.served += 1;
        self.worker.busy += self.started.elapsed();
        if self.worker.is_good() {
            self.worker.healthy = false;
            self.idle.lock().push(self.worker);
        }
    }
}

/// What an answer tells of its worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerState {
    resident_bytes: u64,
    retire: bool,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    messages: Messages,
    served: u32,
    busy: Duration,
    resident_bytes: u64,
    retire: bool,
    /// It has answered its last request to the end.
    healthy: bool,
}

impl Worker {
    async fn start(config: &Config) -> Result<Self> {
        let confinement = Confinement {
            memory_bytes: config.worker_memory_bytes,
            processor_seconds: WORKER_CPU_SECONDS,
            file_bytes: 0,
        };
        let mut command = command(config);
        command.args(child::worker_arguments(confinement, config.tools.pdfium.as_deref()));
        command.stdin(Stdio::piped());
        let mut child = command.spawn().map_err(|error| cannot_start(config, error))?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::internal("a worker has pipes"));
        };
        let messages = Messages::of(errors);
        let mut worker = Self {
            child,
            input,
            output: BufReader::with_capacity(1 << 16, output),
            messages,
            served: 0,
            busy: Duration::ZERO,
            resident_bytes: 0,
            retire: false,
            healthy: false,
        };
        match timeout(config.worker_timeout, wire::receive::<Answer>(&mut worker.output)).await {
            Ok(Ok((Answer { reply: Reply::Ready, .. }, _))) => Ok(worker),
            _ => {
                let death = worker.death(config).await;
                Err(Error::internal(format!("a worker does not start: {}", death.reason)))
            }
        }
    }

    fn note(&mut self, state: WorkerState) {
        self.resident_bytes = state.resident_bytes;
        self.retire |= state.retire;
    }

    fn is_good(&self) -> bool {
        self.healthy
            && !self.retire
            && self.served < MAX_WORKER_REQUESTS
            && self.busy < MAX_WORKER_BUSY
            && self.resident_bytes < MAX_IDLE_WORKER_BYTES
    }

    /// Why it has died, as far as that can be told.
    async fn death(&mut self, config: &Config) -> Failure {
        let _ = self.child.start_kill();
        let Ok(Ok(status)) = timeout(Duration::from_secs(5), self.child.wait()).await else {
            return Failure::ours("a worker does not end");
        };
        let said = self.messages.last().await;
        death("decoding", status, &said, config.worker_memory_bytes)
    }
}

/// A command that starts this program again, as a child with nothing of our environment.
pub(crate) fn command(config: &Config) -> Command {
    let mut command = Command::new(&config.program);
    command
        .args(&config.arguments)
        .env_clear()
        .env("LC_ALL", "C")
        // Each arena of the allocator reserves addresses, of which a child has few.
        .env("MALLOC_ARENA_MAX", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) fn cannot_start(config: &Config, error: std::io::Error) -> Error {
    Error::internal(format!("`{}` cannot be started: {error}", config.program.display()))
}

/// The end of what a child says on its standard error.
pub(crate) struct Messages {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Messages {
    pub fn of(mut from: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&kept);
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let mut into = into.lock();
                into.extend(&buffer[..read]);
                let over = into.len().saturating_sub(MAX_MESSAGE_BYTES);
                into.drain(..over);
            }
        });
        Self { kept, reading }
    }

    /// All of it, once the child has ended.
    pub async fn last(&mut self) -> String {
        let _ = timeout(Duration::from_secs(1), &mut self.reading).await;
        String::from_utf8_lossy(&self.kept.lock()).trim().to_owned()
    }
}

/// What the end of a child says about the file that it had. `said` is the end of its standard error.
pub(crate) fn death(what: &str, status: ExitStatus, said: &str, memory_bytes: u64) -> Failure {
    const ABORT: i32 = 6;
    const KILL: i32 = 9;
    const PROCESSOR: i32 = 24;
    const FILE_SIZE: i32 = 25;
    let mebibytes = memory_bytes >> 20;
    let out_of_memory = said.contains("memory allocation of") || said.contains("Cannot allocate memory");
    match status.signal() {
        _ if out_of_memory => Failure::limit(format!("{what} takes more memory than the {mebibytes} MiB it may have")),
        Some(PROCESSOR) => Failure::limit(format!("{what} takes more processor time than it may have")),
        Some(FILE_SIZE) => Failure::limit(format!("{what} writes a larger file than it may")),
        Some(KILL) => {
            Failure::limit(format!("{what} was stopped: the machine has no more memory, or it took too long"))
        }
        Some(signal) => {
            let name = if signal == ABORT { "it aborted" } else { "it crashed" };
            Failure::file(format!("{what} ended its process: {name} (signal {signal})"))
        }
        None => Failure::file(format!("{what} ended early ({status}): {said}")),
    }
}

//! The real binary as a child process: started on a free port, killed, stopped, started again on the same directory.

use super::{Api, SOON, wait_for};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// The key of every test server.
pub const KEY: &str = "sk_test_0123456789abcdef0123456789abcdef0123456789abcdef";

/// Directory of a server's own models, beside its data.
const MODELS: &str = "models";

pub struct Server {
    child: Child,
    url: String,
    logs: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
    arguments: Vec<String>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server that has a cross-encoder by the name of `word_overlap` beside the installed models.
    pub fn start_with_cross_encoder() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let models = dir.path().join(MODELS);
        std::fs::create_dir(&models).expect("a directory for the models");
        let installed = std::env::var_os("STRATA_MODELS").expect("STRATA_MODELS names the directory of the models");
        for model in std::fs::read_dir(installed).expect("the models are there") {
            let model = model.expect("the models are readable");
            std::os::unix::fs::symlink(model.path(), models.join(model.file_name())).expect("a link to a model");
        }
        super::cross_encoder::write(&models.join("word_overlap"));
        Self::start_in(dir, &[])
    }

    /// A server with a directory of models of its own, in which there are none.
    pub fn start_without_models() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join(MODELS)).expect("a directory for the models");
        Self::start_in(dir, &[])
    }

    /// [`Server::start`] with more arguments of `strata serve`.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("temporary directory"), arguments)
    }

    /// A server on the data directory that `prepare` makes at the path it is given.
    pub fn start_on(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_on_with(prepare, &[])
    }

    /// [`Server::start_on`] with more arguments of `strata serve`.
    pub fn start_on_with(prepare: impl FnOnce(&Path), arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        prepare(&dir.path().join("data"));
        Self::start_in(dir, arguments)
    }

    /// A server with this configuration file.
    pub fn start_configured(configuration: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("strata.toml");
        std::fs::write(&file, configuration).expect("the configuration is written");
        Self::start_in(dir, &["--config", file.to_str().expect("a UTF-8 path")])
    }

    fn start_in(dir: TempDir, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let logs = Arc::new(Mutex::new(Vec::new()));
        let (child, url) = listening(spawn(&dir.path().join("data"), &arguments, &logs, None), &logs);
        let server = Self { child, url, logs, dir, arguments };
        server.wait_until_healthy();
        server
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Of a server with models of its own.
    pub fn models_dir(&self) -> PathBuf {
        self.dir.path().join(MODELS)
    }

    /// Bytes of memory that the process holds.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most bytes of memory that the process ever held.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process has a size");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kib << 10
    }

    /// A client with the first key.
    pub fn api(&self) -> Api {
        Api::new(&self.url, KEY)
    }

    /// `kill -9`: nothing of the process gets a chance to finish.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server has ended");
    }

    /// A termination signal, and the end of the process that follows it.
    pub fn stop(&mut self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("`kill` runs");
        assert!(sent.success(), "the server takes signals");
        let status = wait_for("the server to stop", SOON, || self.child.try_wait().expect("the server is our child"));
        assert!(status.success(), "the server stopped with {status}\n{}", self.log_text());
    }

    /// Starts again on the same directory after `kill` or `stop`, and waits until it answers.
    pub fn start_again(&mut self) {
        let spawned = spawn(&self.data_dir(), &self.arguments, &self.logs, None);
        (self.child, self.url) = listening(spawned, &self.logs);
        self.wait_until_healthy();
    }

    /// [`Server::start_again`] with this configuration file.
    pub fn start_again_configured(&mut self, configuration: &str) {
        let file = self.dir.path().join("strata.toml");
        std::fs::write(&file, configuration).expect("the configuration is written");
        self.arguments = vec!["--config".to_owned(), file.to_str().expect("a UTF-8 path").to_owned()];
        self.start_again();
    }

    /// Starts again with a fault armed, which may end it before it answers.
    pub fn start_with_fault(&mut self, fault: &str) {
        let (child, address) = spawn(&self.data_dir(), &self.arguments, &self.logs, Some(fault));
        self.child = child;
        if let Ok(url) = address.recv_timeout(SOON) {
            self.url = url;
        }
        wait_for("the server to be healthy or gone", SOON, || {
            let is_gone = self.child.try_wait().expect("the server is our child").is_some();
            let healthy = || self.api().try_send("GET", "/v1/health", None).is_ok_and(|answer| answer.status == 200);
            (is_gone || healthy()).then_some(())
        });
    }

    /// A termination signal to whatever is left of the process, and its end.
    pub fn end(&mut self) {
        // One that is gone takes no signal.
        drop(Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).stderr(Stdio::null()).status());
        wait_for("the server to end", SOON, || self.child.try_wait().expect("the server is our child"));
    }

    fn wait_until_healthy(&self) {
        let api = self.api();
        wait_for("the server to be healthy", SOON, || {
            api.try_send("GET", "/v1/health", None).ok().filter(|answer| answer.status == 200)
        });
    }

    /// Lets the logs begin anew.
    pub fn forget_logs(&self) {
        self.logs.lock().expect("no test panics while it holds the logs").clear();
    }

    /// What the server has logged so far.
    pub fn log_text(&self) -> String {
        self.logs.lock().expect("no test panics while it holds the logs").join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let logs = self.log_text();
            let tail: Vec<&str> = logs.lines().rev().take(60).collect();
            eprintln!("--- the server's last lines, newest first\n{}", tail.join("\n"));
        }
    }
}

/// A process, and where its address will come from.
type Spawned = (Child, Receiver<String>);

fn spawn(data: &Path, arguments: &[String], logs: &Arc<Mutex<Vec<String>>>, fault: Option<&str>) -> Spawned {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
    let models = data.with_file_name(MODELS);
    if models.is_dir() {
        command.env("STRATA_MODELS", models);
    }
    let mut child = command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(arguments)
        .env("STRATA_BOOTSTRAP_KEY", KEY)
        .env("STRATA_LOG", "info")
        .env_remove("STRATA_LISTEN")
        .env_remove("STRATA_DATA")
        .env_remove("STRATA_CONFIG")
        .envs(fault.map(|fault| ("STRATA_FAULT", fault)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (found, address) = channel();
    let kept = logs.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(url) = line.strip_prefix("listening on ") {
                let _ = found.send(url.to_owned());
            }
            kept.lock().expect("no test panics while it holds the logs").push(line);
        }
    });
    (child, address)
}

/// The process, when it has said where it listens.
fn listening((mut child, address): Spawned, logs: &Arc<Mutex<Vec<String>>>) -> (Child, String) {
    match address.recv_timeout(SOON) {
        Ok(url) => (child, url),
        Err(reason) => {
            let _ = child.kill();
            let _ = child.wait();
            let what = match reason {
                RecvTimeoutError::Timeout => "did not listen in time",
                RecvTimeoutError::Disconnected => "ended before it listened",
            };
            panic!("the server {what}\n{}", logs.lock().expect("held by nobody else now").join("\n"));
        }
    }
}

//! A PostgreSQL of the machine, on a free port and a directory of its own, where the machine has one.

use super::{SOON, wait_for};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub const PASSWORD: &str = "correct-horse-battery";
/// PostgreSQL refuses to run as root; this is who it runs as then.
const NOBODY: &str = "65534";

pub struct Postgres {
    child: Child,
    port: u16,
    dir: TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// Starts one, or says loudly that there is none.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!(
                "NOT TESTED: no PostgreSQL on this machine (no `initdb` in STRATA_TEST_POSTGRES, PATH or /usr/lib/postgresql)"
            );
            return None;
        };
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = dir.path().join("data");
        std::fs::create_dir(&home).expect("a directory for the database");
        let password = dir.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the password is written");
        certificate(&home);
        if is_root() {
            run(Command::new("chmod").arg("755").arg(dir.path()));
            run(Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(dir.path()));
        }
        let keys: Vec<PathBuf> = ["server.crt", "server.key"].iter().map(|name| home.join(name)).collect();
        let aside: Vec<PathBuf> = ["server.crt", "server.key"].iter().map(|name| dir.path().join(name)).collect();
        // An empty directory is wanted first.
        for (from, to) in keys.iter().zip(&aside) {
            std::fs::rename(from, to).expect("the certificate moves");
        }
        let mut make = command(&programs.join("initdb"));
        make.arg("-D").arg(&home).args(["-U", "owner", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "--pwfile"]);
        run(make.arg(&password));
        for (from, to) in aside.iter().zip(&keys) {
            std::fs::rename(from, to).expect("the certificate moves");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let mut serve = command(&programs.join("postgres"));
        serve.arg("-D").arg(&home).args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-c",
            "fsync=off",
            "-c",
            "ssl=on",
            "-k",
        ]);
        let child = serve.arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("PostgreSQL runs");
        let server = Self { child, port, dir, programs };
        wait_for("PostgreSQL to answer", SOON, || server.try_sql("SELECT 1").ok());
        Some(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's own certificate, in PEM.
    pub fn certificate(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("data/server.crt")).expect("the certificate is there")
    }

    /// Runs statements as the owner; answers what they print.
    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn try_sql(&self, text: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "owner", "-d", "postgres", "-XAtq"])
            .args(["-v", "ON_ERROR_STOP=1", "-c", text])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It ends its own children only when it is asked to.
        let asked = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let named = std::env::var_os("STRATA_TEST_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let all = named.into_iter().chain(std::env::split_paths(&path)).chain(installed);
    all.into_iter().find(|dir| ["initdb", "postgres", "psql"].iter().all(|name| dir.join(name).is_file()))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("`id` runs");
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

fn command(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
    command
}

/// A certificate for `localhost` that it signed itself.
fn certificate(home: &Path) {
    let mut make = Command::new("openssl");
    make.args(["req", "-new", "-x509", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(home.join("server.key"))
        .arg("-out")
        .arg(home.join("server.crt"));
    run(&mut make);
    run(Command::new("chmod").arg("600").arg(home.join("server.key")));
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

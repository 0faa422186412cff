//! PostgreSQL. A query is one statement of the extended protocol, in a transaction that only reads, below a select of
//! ours, with its values bound; so the database itself refuses everything else.
//!
//! Columns come as JSON: numbers, texts, booleans, arrays, records and JSON as such; times as ISO 8601; `numeric` as text,
//! with all its digits; `bytea` as base64; everything else as PostgreSQL writes it.

use super::{
    config::{Postgres, SslMode},
    value::Bound,
};
use crate::{
    fetch::is_public,
    retrieval::{Lookup, Rows},
};
use futures::TryStreamExt;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde_json::Value;
use std::{net::IpAddr, sync::Arc, time::Duration};
use strata_model::{Error, Fields, Result};
use tokio_postgres::{
    Client, NoTls, Statement,
    config::SslMode as Negotiation,
    types::{Kind, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Beyond the time that the server keeps itself.
const GRACE: Duration = Duration::from_secs(2);
const MAX_COLUMNS: usize = 500;
/// What a value is replaced with that is too large; no JSON.
const TOO_LARGE: &str = "!";

/// Opens a connection to an address that callers may send this server to.
pub async fn connect(config: &Postgres) -> Result<Client> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Error::Upstream(format!("the database at `{}:{}` cannot be reached: {error}", config.host, config.port))
    };
    let mut target = tokio_postgres::Config::new();
    target
        .host(&config.host)
        .port(config.port)
        .dbname(&config.database)
        .user(&config.credentials.username)
        .password(&config.credentials.password)
        .application_name("strata")
        .connect_timeout(CONNECT_TIMEOUT)
        .ssl_mode(match config.ssl_mode {
            SslMode::Disable => Negotiation::Disable,
            SslMode::Prefer => Negotiation::Prefer,
            SslMode::Require | SslMode::Verify => Negotiation::Require,
        });
    let told = |error: tokio_postgres::Error| unreachable(&describe(&error));
    let opening = async {
        target.hostaddr(address(config).await?);
        let client = if config.ssl_mode == SslMode::Disable {
            let (client, connection) = target.connect(NoTls).await.map_err(told)?;
            tokio::spawn(async move { drop(connection.await) });
            client
        } else {
            let (client, connection) = target.connect(tls(config)?).await.map_err(told)?;
            tokio::spawn(async move { drop(connection.await) });
            client
        };
        let schema = config.schema.replace('"', "\"\"");
        client.batch_execute(&format!("SET search_path TO \"{schema}\"")).await.map_err(told)?;
        Ok(client)
    };
    let late = |_| unreachable(&"it does not answer");
    tokio::time::timeout(CONNECT_TIMEOUT * 2, opening).await.map_err(late)?
}

async fn address(config: &Postgres) -> Result<IpAddr> {
    let found = tokio::net::lookup_host((config.host.as_str(), config.port)).await;
    let found: Vec<IpAddr> = found
        .map_err(|_| Error::Upstream(format!("the host `{}` cannot be found", config.host)))?
        .map(|address| address.ip())
        .collect();
    if !config.allow_private && found.iter().any(|ip| !is_public(*ip)) {
        let message = format!(
            "`{}` is not a public address; this server connects to private ones only when it is started with `--allow-private-urls`",
            config.host
        );
        return Err(Error::invalid("provider_config.host", message));
    }
    found.first().copied().ok_or_else(|| Error::Upstream(format!("the host `{}` has no address", config.host)))
}

fn tls(config: &Postgres) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    let client = match config.ssl_mode {
        SslMode::Verify => builder.with_root_certificates(authorities(config)?).with_no_client_auth(),
        _ => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(client))
}

fn authorities(config: &Postgres) -> Result<RootCertStore> {
    let Some(pem) = &config.authorities else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let wrong = |_| Error::invalid("provider_config.ssl_root_certificate", "holds what is no certificate");
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.map_err(wrong)?).map_err(|error| {
            Error::invalid("provider_config.ssl_root_certificate", format!("cannot be trusted: {error}"))
        })?;
    }
    Ok(store)
}

/// Takes any certificate, as `require` means it: the line is encrypted, and who is at its other end is not known.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Connects and asks who is there.
pub async fn test(config: &Postgres) -> Result<Fields> {
    let client = connect(config).await?;
    let row = client
        .query_one("SELECT current_setting('server_version')", &[])
        .await
        .map_err(|error| Error::Upstream(describe(&error)))?;
    let version: String = row.try_get(0).map_err(|error| Error::Upstream(describe(&error)))?;
    Ok(Fields::from_iter([("server_version".to_owned(), Value::from(version))]))
}

/// The rows of a query, and whether the connection is as it was before.
pub async fn look_up(client: &Client, config: &Postgres, lookup: &Lookup) -> (Result<Rows>, bool) {
    let limit = lookup.timeout.min(Duration::from_secs(config.query_timeout_seconds));
    let work = async {
        let ms = limit.as_millis();
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}");
        let begun = client.batch_execute(&begin).await.map_err(|error| Error::Upstream(describe(&error)));
        let rows = match begun {
            Ok(()) => rows(client, lookup).await,
            Err(error) => Err(error),
        };
        // Settings go with the transaction; locks that a query took for the session do not.
        let ended = client.batch_execute("ROLLBACK; SELECT pg_advisory_unlock_all()").await;
        (rows, ended.is_ok())
    };
    match tokio::time::timeout(limit + GRACE, work).await {
        Ok(done) => done,
        Err(_) => {
            let late = format!("the database did not answer within {} s", limit.as_secs_f64());
            (Err(Error::Upstream(late)), false)
        }
    }
}

async fn rows(client: &Client, lookup: &Lookup) -> Result<Rows> {
    let query = lookup.text('$');
    let described =
        client.prepare(&format!("SELECT * FROM (\n{query}\n) AS q")).await.map_err(|error| refusal(&error))?;
    let names: Vec<String> = described.columns().iter().map(|column| column.name().to_owned()).collect();
    if names.is_empty() || names.len() > MAX_COLUMNS {
        return Err(Error::invalid("query", format!("must give 1 to {MAX_COLUMNS} columns")));
    }
    let wrapped = as_json(&query, &described, lookup);
    let statement = client.prepare(&wrapped).await.map_err(|error| refusal(&error))?;
    if statement.params().len() != lookup.values.len() {
        return Err(Error::invalid("query", "has values that nothing reads"));
    }
    let values: Vec<Bound<'_>> = lookup.values.iter().map(Bound).collect();
    let stream = client.query_raw(&statement, values.iter()).await.map_err(|error| refusal(&error))?;
    let mut stream = std::pin::pin!(stream);
    let (mut found, mut bytes) = (Rows::default(), 0);
    while let Some(row) = stream.try_next().await.map_err(|error| refusal(&error))? {
        if found.rows.len() == lookup.max_rows {
            found.is_cut = true;
            continue;
        }
        let mut fields = Fields::new();
        for (place, name) in names.iter().enumerate() {
            let cell: Option<&str> = row.try_get(place).map_err(|error| refusal(&error))?;
            bytes += cell.map_or(0, str::len) + name.len();
            if cell == Some(TOO_LARGE) || bytes > lookup.max_bytes {
                return Err(Error::TooLarge(format!("the rows have more than {} bytes", lookup.max_bytes)));
            }
            let odd = |_| Error::Upstream("the database answered what is no JSON".into());
            let value = cell.map(serde_json::from_str).transpose().map_err(odd)?;
            fields.insert(name.clone(), value.unwrap_or_default());
        }
        found.rows.push(fields);
    }
    Ok(found)
}

/// The query's columns as JSON texts, one more row than wanted, and none of a row that is larger than all may be.
fn as_json(query: &str, described: &Statement, lookup: &Lookup) -> String {
    let (mut shown, mut made, mut names, mut bytes) =
        (String::new(), String::new(), String::new(), String::from("0::bigint"));
    for (place, column) in described.columns().iter().enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        let expression = match base(column.type_()) {
            kind if *kind == Type::NUMERIC => format!("to_json(q.c{place}::text)"),
            kind if *kind == Type::BYTEA => format!("to_json(replace(encode(q.c{place}, 'base64'), E'\\n', ''))"),
            _ => format!("to_json(q.c{place})"),
        };
        let most = lookup.max_bytes;
        shown.push_str(&format!("{comma}CASE WHEN s.bytes > {most} THEN '{TOO_LARGE}' ELSE j.j{place} END"));
        bytes.push_str(&format!(" + coalesce(octet_length(j.j{place}), 0)"));
        made.push_str(&format!("{comma}{expression}::text AS j{place}"));
        names.push_str(&format!("{comma}c{place}"));
    }
    let limit = lookup.max_rows + 1;
    let rows =
        format!("(\n{query}\n) AS q({names}), LATERAL (SELECT {made}) AS j, LATERAL (SELECT {bytes} AS bytes) AS s");
    format!("SELECT {shown} FROM {rows} LIMIT {limit}")
}

/// The type that a domain is made of.
fn base(kind: &Type) -> &Type {
    match kind.kind() {
        Kind::Domain(inner) => base(inner),
        _ => kind,
    }
}

/// What the database has against a query is the query's fault; everything else is the other side's.
fn refusal(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        // Connection exceptions, insufficient resources, operator intervention but for the time limit, system errors.
        Some(db) if matches!(db.code().code().get(..2), Some("08" | "53" | "58")) => Error::Upstream(describe(error)),
        Some(db) if db.code().code() == "57014" => Error::Upstream("the query took too long and was stopped".into()),
        Some(db) if db.code().code().starts_with("57") => Error::Upstream(describe(error)),
        Some(_) => Error::invalid("query", describe(error)),
        None if error.is_closed() => Error::Upstream("the database closed the connection".into()),
        None => Error::invalid("query", describe(error)),
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

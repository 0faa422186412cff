//! Object stores: how one is reached, and what its refusals mean. Keys come from the environment or the settings, never
//! from the place's URL, and nothing here prints them.

use super::transport::Connector;
use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
};
use std::{fmt, time::Duration};
use strata_model::{Error, Result};
use url::{Host, Url};

/// What variables of the environment begin with that say how S3 is reached.
const VARIABLES: &str = "AWS_";
/// For one request with its body: a part of 8 MiB on a slow line. A content that takes longer to read goes on from where
/// it broke off.
const REQUEST_TIME: Duration = Duration::from_secs(300);
/// For the tries of one request.
const RETRY_TIME: Duration = Duration::from_secs(60);
const RETRIES: usize = 5;

/// What is said of an object store besides the environment; what is `None` comes from there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Where a store of its own speaks S3, such as `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_keys = self.access_key_id.is_some() || self.secret_access_key.is_some();
        write!(f, "Access {{ endpoint: {:?}, region: {:?}, has_keys: {has_keys} }}", self.endpoint, self.region)
    }
}

/// The URL of a place. One that holds a key is refused, and not repeated.
pub(super) fn parse(place: &str) -> Result<Url> {
    let url = Url::parse(place).map_err(|e| Error::invalid("place", format!("is no URL: {e}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        let message = "is a bucket and a prefix alone; keys belong into the environment or the configuration";
        return Err(Error::invalid("place", message));
    }
    Ok(url)
}

/// The store of a URL and the prefix in it. Asks nothing yet.
pub(super) fn connect(url: &Url, access: &Access) -> Result<(Box<dyn ObjectStore>, Path)> {
    let wrong = |why: &dyn fmt::Display| Error::invalid("place", format!("`{url}` cannot be used: {why}"));
    if !matches!(url.scheme(), "s3" | "s3a") {
        return Err(wrong(&"it is a directory, `file://` or `s3://bucket/prefix`"));
    }
    let prefix = Path::from_url_path(url.path()).map_err(|e| wrong(&e))?;
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let builder = configured(url, access, variables);
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let (key, secret) = (AmazonS3ConfigKey::AccessKeyId, AmazonS3ConfigKey::SecretAccessKey);
    if builder.get_config_value(&key).is_some() != builder.get_config_value(&secret).is_some() {
        return Err(wrong(&"of `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` there is only one"));
    }
    let builder = match endpoint.as_deref().map(is_near) {
        Some(Err(why)) => return Err(wrong(&why)),
        Some(Ok(true)) => builder.with_allow_http(true),
        Some(Ok(false)) | None => builder,
    };
    // What is wrong with a setting is told without its value.
    let store = builder.build().map_err(|error| match error {
        object_store::Error::UnknownConfigurationKey { key, .. } => wrong(&format!("`{key}` is no setting")),
        _ => wrong(&"a variable that begins with `AWS_` has a value that is none"),
    })?;
    let store: Box<dyn ObjectStore> = Box::new(store);
    Ok((store, prefix))
}

fn configured(url: &Url, access: &Access, variables: impl Iterator<Item = (String, String)>) -> AmazonS3Builder {
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_retry(retry)
        .with_client_options(ClientOptions::new().with_timeout(REQUEST_TIME))
        .with_http_connector(Connector)
        // Not every store knows the request that removes many; what is removed here goes one by one.
        .with_disable_bulk_delete(true)
        .with_url(url.as_str());
    let mut own_endpoint = None;
    for (name, value) in variables.filter(|(name, value)| name.starts_with(VARIABLES) && !value.is_empty()) {
        match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            // That of this service alone; it goes before the one of all, and after the settings.
            Ok(AmazonS3ConfigKey::S3Endpoint) => own_endpoint = Some(value),
            Ok(key) => builder = builder.with_config(key, value),
            Err(_) => {}
        }
    }
    let said = [
        (AmazonS3ConfigKey::Endpoint, own_endpoint),
        (AmazonS3ConfigKey::Endpoint, access.endpoint.clone()),
        (AmazonS3ConfigKey::Region, access.region.clone()),
        (AmazonS3ConfigKey::AccessKeyId, access.access_key_id.clone()),
        (AmazonS3ConfigKey::SecretAccessKey, access.secret_access_key.clone()),
    ];
    said.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
}

/// Whether an endpoint is asked without TLS because it is this machine's or its network's; others say so in
/// `AWS_ALLOW_HTTP`.
fn is_near(endpoint: &str) -> Result<bool, String> {
    let url = Url::parse(endpoint).ok().filter(|url| url.has_host());
    let url = url.ok_or("its endpoint is no URL such as `https://host:port`")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its endpoint must not hold a key".into());
    }
    let is_near = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        // A name without a dot is no other network's.
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost") || !name.contains('.'),
        None => false,
    };
    Ok(url.scheme() == "http" && is_near)
}

/// Whether a store does not know a condition that a write had.
pub(super) fn is_unknown(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => true,
        // Not every server that cannot do something says so in S3's words too.
        other => code(other).is_some_and(|code| code == "NotImplemented") || chain(other).contains("code: 501"),
    }
}

/// Whether it is the bucket that is not there.
pub(super) fn lacks_bucket(error: &object_store::Error) -> bool {
    code(error).is_some_and(|code| code == "NoSuchBucket")
}

/// What a failure of a store means, in words that hold no key. Of a directory, as everywhere.
pub(super) fn failure(error: object_store::Error) -> Error {
    let refused = |what: &str| {
        let said = code(&error).map(|code| format!(" (`{code}`)")).unwrap_or_default();
        Error::Unavailable(format!("the object store {what}{said}"))
    };
    match &error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => refused(
            "refuses the keys, or what is done with them; check `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and what \
             they may do",
        ),
        object_store::Error::NotFound { .. } if lacks_bucket(&error) => refused("has no such bucket; make it first"),
        object_store::Error::Generic { store, .. } if *store != "LocalFileSystem" => {
            let text = chain(&error);
            if text.contains("without LOCATION") {
                return refused("has the bucket in another region; set `AWS_REGION`");
            }
            if text.contains("169.254.") {
                return refused("needs keys: set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`");
            }
            tracing::debug!(error = text, "an object store failed");
            match code(&error) {
                Some(_) => refused("failed"),
                None => Error::Unavailable(format!("the object store failed: {}", innermost(&error))),
            }
        }
        _ => crate::blobs::failure(error),
    }
}

/// The word that S3 has for a failure, as it stands in the answer's body.
fn code(error: &object_store::Error) -> Option<String> {
    let text = chain(error);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_word = !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    is_word.then(|| code.to_owned())
}

/// What an error and its causes say.
fn chain(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(at) = source {
        text.push_str(": ");
        text.push_str(&at.to_string());
        source = at.source();
    }
    text
}

/// What the last cause says: that of a connection that was not made names neither URL nor headers.
fn innermost(error: &object_store::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(access: &Access, variables: &[(&str, &str)]) -> AmazonS3Builder {
        let url = parse("s3://bucket/some/prefix").unwrap();
        configured(&url, access, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn settings_go_before_the_environment_and_its_own_endpoint_before_that_of_all() {
        let said = Access { region: Some("here".into()), ..Access::default() };
        let variables = [
            ("AWS_ENDPOINT_URL_S3", "http://own:1"),
            ("AWS_ENDPOINT_URL", "http://all:1"),
            ("AWS_REGION", "there"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", ""),
            ("HOME", "/root"),
        ];
        let builder = builder(&said, &variables);
        let value = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
        assert_eq!(value(AmazonS3ConfigKey::Endpoint).as_deref(), Some("http://own:1"));
        assert_eq!(value(AmazonS3ConfigKey::Region).as_deref(), Some("here"));
        assert_eq!(value(AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("id"));
        assert_eq!(value(AmazonS3ConfigKey::SecretAccessKey), None);
    }

    #[test]
    fn only_near_endpoints_are_asked_without_tls() {
        for near in ["127.0.0.1:9000", "[::1]:9000", "localhost", "store:9000", "10.1.2.3"] {
            assert_eq!(is_near(&format!("http://{near}")), Ok(true), "{near}");
        }
        for other in ["http://example.com", "https://127.0.0.1", "http://8.8.8.8"] {
            assert_eq!(is_near(other), Ok(false), "{other}");
        }
        for wrong in ["nonsense", "http://key:secret@localhost"] {
            assert!(is_near(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_neither_taken_from_a_url_nor_printed() {
        for place in ["s3://key:s3cret@bucket/x", "s3://bucket/x?secret=s3cret", "s3://bucket/x#s3cret"] {
            let error = parse(place).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let access = Access { secret_access_key: Some("s3cret".into()), ..Access::default() };
        assert!(!format!("{access:?}").contains("s3cret"));
    }

    #[test]
    fn what_a_store_refuses_is_told_by_its_word() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>s3cret</StringToSign></Error>";
        let denied = object_store::Error::PermissionDenied { path: "x".into(), source: body.into() };
        let text = failure(denied).to_string();
        assert!(text.contains("SignatureDoesNotMatch") && !text.contains("s3cret"), "{text}");
        let missing = object_store::Error::NotFound { path: "x".into(), source: "<Code>NoSuchBucket</Code>".into() };
        assert!(lacks_bucket(&missing));
        assert!(failure(missing).to_string().contains("no such bucket"));
        let unknown = object_store::Error::Generic { store: "S3", source: "<Code>NotImplemented</Code>".into() };
        assert!(is_unknown(&unknown));
    }
}

//! Where a request comes from.

use crate::App;
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts},
};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the caller: of the connection, or where a trusted proxy stands in front, the one that it names.
#[derive(Debug, Clone, Copy)]
pub struct Address(pub IpAddr);

impl FromRequestParts<App> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let named = app.config().trust_proxy.then(|| forwarded(&parts.headers)).flatten();
        Ok(Self(named.or(connection).unwrap_or(Ipv4Addr::UNSPECIFIED.into())))
    }
}

/// The last address of `X-Forwarded-For`: the nearest proxy has written it, and whatever stands before may be made up.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let line = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    let last = line.rsplit(',').next()?.trim();
    let bare = last.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| last.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_nearest_proxy_is_believed_and_nobody_before_it() {
        let read = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            forwarded(&headers).map(|address| address.to_string())
        };
        assert_eq!(read(&["1.1.1.1, 10.0.0.7"]).as_deref(), Some("10.0.0.7"));
        assert_eq!(read(&["1.1.1.1", "2001:db8::1"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(read(&["[2001:db8::1]:443"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(read(&["10.0.0.7:5000"]).as_deref(), Some("10.0.0.7"));
        assert_eq!(read(&["1.1.1.1, nonsense"]), None);
        assert_eq!(read(&[]), None);
    }
}

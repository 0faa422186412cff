//! Signed URLs: whoever holds one reads a file, or sends the bytes of an upload. The token in the path is the permission.

use crate::{
    App,
    error::{ApiError, bare},
    extract::Path,
    load::Toll,
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use std::{fmt::Write, ops::Range};
use strata_engine::presign::Claim;
use strata_model::Error;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What content that a browser shows may load: itself, and the styles with which browsers show it.
const SHOWN: &str =
    "default-src 'none'; img-src 'self'; media-src 'self'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(download_blob, upload_blob))
}

/// Read a file
///
/// The content behind a signed URL, whole or the part that a `Range` header asks for. Too many requests from one
/// address answer 429 with `Retry-After`, where the server limits them.
#[utoipa::path(get, path = "/v1/blobs/{token}", tag = "Blobs", params(("token" = String, Path)),
    responses(
        (status = 200, body = serde_json::Value, content_type = "*/*", description = "The content, of any kind."),
        (status = 206, body = serde_json::Value, content_type = "*/*", description = "A part of it."),
        (status = 304, description = "The content is the one that `If-None-Match` names."),
        (status = 416, description = "The content ends before the range begins."),
    ))]
pub async fn download_blob(
    State(app): State<App>,
    _toll: Toll,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Claim::Get { hash, filename, media_type, .. } = app.open_presigned(&token)? else {
        return Err(Error::Forbidden("this URL takes bytes by `PUT` and gives none".into()).into());
    };
    let size = app.content_size(&hash).await?;
    let etag = format!("\"{hash}\"");
    let mut response = StatusCode::OK.into_response();
    describe(response.headers_mut(), &etag, filename.as_deref(), &media_type);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| names(known, &etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let range = match asked(&headers, &etag, size) {
        Asked::Whole => 0..size,
        Asked::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let place = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            set(response.headers_mut(), header::CONTENT_RANGE, &place);
            range
        }
        Asked::Nothing => {
            let message = format!("the range begins at or after the end of the content, which has {size} bytes");
            let mut refusal = bare(StatusCode::RANGE_NOT_SATISFIABLE, message);
            set(refusal.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(refusal);
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if !range.is_empty() {
        *response.body_mut() = Body::from_stream(app.content(&hash, range).await?);
    }
    Ok(response)
}

/// Send a file
///
/// Takes the bytes of an upload, as the body itself. The `ETag` of the answer is their SHA-256; send it when confirming.
/// Too many requests from one address answer 429 with `Retry-After`, where the server limits them.
#[utoipa::path(put, path = "/v1/blobs/{token}", tag = "Blobs", params(("token" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The bytes are here.")))]
pub async fn upload_blob(
    State(app): State<App>,
    _toll: Toll,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<[(HeaderName, String); 1], ApiError> {
    let Claim::Put { upload_id, .. } = app.open_presigned(&token)? else {
        return Err(Error::Forbidden("this URL gives bytes by `GET` and takes none".into()).into());
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let broken = |_| Error::Malformed("the body ended before it was complete".into());
    let pieces = body.into_data_stream().map(move |piece| piece.map_err(broken));
    let hash = app.receive_upload(&upload_id, length, pieces).await?;
    Ok([(header::ETAG, format!("\"{hash}\""))])
}

/// What is said of the content in every answer that stands for it.
fn describe(headers: &mut HeaderMap, etag: &str, filename: Option<&str>, media_type: &str) {
    set(headers, header::ETAG, etag);
    set(headers, header::ACCEPT_RANGES, "bytes");
    // A deleted file must not live on in a cache that is not asked again.
    set(headers, header::CACHE_CONTROL, "private, no-cache");
    set(headers, header::CONTENT_TYPE, "application/octet-stream");
    set(headers, header::CONTENT_TYPE, media_type);
    let opens = opens_in_place(media_type);
    set(headers, header::CONTENT_DISPOSITION, &disposition(opens, filename));
    set(headers, header::CONTENT_SECURITY_POLICY, if opens { SHOWN } else { "sandbox" });
}

/// Sets a header, unless the value is none that a header can have.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether a browser may show the content under this server's name: nothing that can hold a script.
fn opens_in_place(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/pdf" | "text/plain" => true,
        "image/svg+xml" => false,
        other => ["image/", "audio/", "video/"].iter().any(|kind| other.starts_with(kind)),
    }
}

/// `Content-Disposition` with the name in plain characters, and as it is where that differs (RFC 6266).
fn disposition(opens: bool, filename: Option<&str>) -> String {
    let how = if opens { "inline" } else { "attachment" };
    let Some(name) = filename else { return how.to_owned() };
    let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut text = format!("{how}; filename=\"{plain}\"");
    if plain != name {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                // Writing to a text does not fail.
                _ => drop(write!(text, "%{byte:02X}")),
            }
        }
    }
    text
}

/// Whether `If-None-Match` names the content; weak tags compare as strong ones.
fn names(header: &HeaderValue, etag: &str) -> bool {
    let tags = header.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.trim_start_matches("W/")).any(|tag| tag == "*" || tag == etag)
}

/// How much of the content a request wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    /// A range beyond the end.
    Nothing,
}

fn asked(headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::RANGE), text(header::IF_RANGE)) {
        (Some(_), Some(wanted)) if wanted.trim() != etag => Asked::Whole,
        (Some(range), _) => part(range, size),
        (None, _) => Asked::Whole,
    }
}

/// Reads one range of bytes. Several ranges, and what is no range, count as none: the whole content is a fair answer to
/// both (RFC 9110, section 14.2).
fn part(header: &str, size: u64) -> Asked {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let pair = header.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((first, last)) = pair.map(|(first, last)| (first.trim(), last.trim())) else { return Asked::Whole };
    let range = match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        (Some(start), None) if last.is_empty() => start..size,
        (Some(start), Some(end)) if start <= end => start..end.saturating_add(1).min(size),
        _ => return Asked::Whole,
    };
    if range.is_empty() { Asked::Nothing } else { Asked::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_of_the_content() {
        for (header, wanted) in [
            ("bytes=0-3", Asked::Part(0..4)),
            ("bytes=8-", Asked::Part(8..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=4-99999999", Asked::Part(4..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=4-3", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("items=0-3", Asked::Whole),
        ] {
            assert_eq!(part(header, 10), wanted, "{header}");
        }
        assert_eq!(part("bytes=0-", 0), Asked::Nothing);
    }

    #[test]
    fn a_range_of_other_content_is_the_whole_of_this() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
        assert_eq!(asked(&headers, "\"a\"", 10), Asked::Part(1..3));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"b\""));
        assert_eq!(asked(&headers, "\"a\"", 10), Asked::Whole);
    }

    #[test]
    fn names_of_all_scripts_reach_the_other_side() {
        assert_eq!(disposition(true, Some("a b.png")), "inline; filename=\"a b.png\"");
        assert_eq!(
            disposition(false, Some("é\".svg")),
            "attachment; filename=\"__.svg\"; filename*=UTF-8''%C3%A9%22.svg"
        );
        assert_eq!(disposition(true, None), "inline");
    }

    #[test]
    fn what_can_hold_a_script_does_not_open_in_place() {
        for (media_type, opens) in [
            ("image/png", true),
            ("Text/Plain; charset=utf-8", true),
            ("text/html", false),
            ("image/svg+xml", false),
            ("application/octet-stream", false),
        ] {
            assert_eq!(opens_in_place(media_type), opens, "{media_type}");
        }
    }
}

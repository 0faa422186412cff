//! A model in one request: `multipart/form-data` (RFC 7578), read whole.

use super::wire::ModelResourceRequirements;
use crate::error::{ApiError, bare};
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use std::{collections::BTreeMap, str::FromStr};
use strata_engine::org_models::NewModel;
use strata_model::{Error, Result, limits::MAX_BODY_BYTES};

/// Most fields of a form.
const MAX_FIELDS: usize = 32;
/// Longest header of a field, in bytes.
const MAX_HEADER_BYTES: usize = 4096;
const GIB: f64 = (1u64 << 30) as f64;

/// The fields of a form by their names.
pub(super) type Form = BTreeMap<String, Bytes>;

/// Reads a form of at most [`MAX_BODY_BYTES`]: 415 for another content type, 413 for more, 400 for what is no form.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Form, Response> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let Some(boundary) = boundary(kind) else {
        let message = "send the model as `multipart/form-data`, or a large one by `POST /v1/models/uploads`";
        return Err(bare(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    };
    let too_large = || {
        let message = format!("a form has at most {MAX_BODY_BYTES} bytes; larger models go by `POST /v1/models/uploads`");
        ApiError(Error::TooLarge(message)).into_response()
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| too_large())?;
    // Looking through megabytes takes a moment.
    let fields = tokio::task::spawn_blocking(move || fields(&bytes, &boundary)).await;
    let fields = fields.map_err(Error::internal).and_then(|fields| {
        fields.ok_or_else(|| Error::Malformed("the body is not a form as its content type describes it".into()))
    });
    fields.map_err(|error| ApiError(error).into_response())
}

/// The boundary that a content type names, if it is that of a form.
fn boundary(kind: &str) -> Option<String> {
    let (essence, parameters) = kind.split_once(';')?;
    let named = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let mut named = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
    let boundary = named.next()?.1.trim().trim_matches('"').to_owned();
    let is_form = essence.trim().eq_ignore_ascii_case("multipart/form-data");
    (is_form && (1..=70).contains(&boundary.len())).then_some(boundary)
}

/// The fields between the boundaries; `None` for what is no form. Of several of one name the last counts.
fn fields(body: &Bytes, boundary: &str) -> Option<Form> {
    let mark = format!("--{boundary}");
    let between = format!("\r\n{mark}");
    let mut at = find(body, mark.as_bytes())? + mark.len();
    let mut form = Form::new();
    loop {
        let rest = body.slice(at..);
        if rest.starts_with(b"--") {
            return Some(form);
        }
        let head = find(&rest[..rest.len().min(MAX_HEADER_BYTES)], b"\r\n\r\n")?;
        let content = head + 4;
        let length = find(&rest[content..], between.as_bytes())?;
        if form.len() >= MAX_FIELDS {
            return None;
        }
        form.insert(name(std::str::from_utf8(&rest[..head]).ok()?)?, rest.slice(content..content + length));
        at += content + length + between.len();
    }
}

/// The name in the headers of a field.
fn name(headers: &str) -> Option<String> {
    let disposition = headers.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let named = disposition.split(';').filter_map(|parameter| parameter.trim().strip_prefix("name="));
    named.map(|name| name.trim().trim_matches('"').to_owned()).next()
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

/// The model and its archive that a form describes. Clients that send no files may send the archive in base64.
pub(super) fn model(form: &Form) -> Result<(NewModel, Bytes)> {
    let text = |name: &str| -> Result<Option<String>> {
        let Some(bytes) = form.get(name).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid(name, "must be text in UTF-8"))?;
        Ok(Some(text.trim().to_owned()))
    };
    let needed = |name: &str| text(name)?.ok_or_else(|| Error::invalid(name, "is required"));
    let mut resources = ModelResourceRequirements::default();
    if let Some(cores) = number(form, "num_cpus")? {
        resources.num_cpus = cores;
    }
    if let Some(devices) = number(form, "num_gpus")? {
        resources.num_gpus = devices;
    }
    if let Some(gib) = number::<f64>(form, "memory_gb")? {
        resources.memory = (gib * GIB) as i64;
    }
    let new = NewModel {
        name: needed("name")?,
        version: needed("version")?,
        model_format: needed("model_format")?,
        framework: text("framework")?,
        task_type: text("task_type")?,
        resource_requirements: resources.checked("resource_requirements")?,
        ..NewModel::default()
    };
    let file = form.get("file").ok_or_else(|| Error::invalid("file", "is required"))?;
    let is_archive = file.starts_with(&[0x1f, 0x8b]) || file.starts_with(b"PK");
    let archive = match is_archive {
        true => file.clone(),
        false => STANDARD
            .decode(file.trim_ascii())
            .map(Bytes::from)
            .map_err(|_| Error::invalid("file", "is neither a gzipped tar archive nor a zip archive"))?,
    };
    Ok((new, archive))
}

fn number<T: FromStr>(form: &Form, name: &str) -> Result<Option<T>> {
    let Some(bytes) = form.get(name).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    text.parse().map(Some).map_err(|_| Error::invalid(name, format!("`{text}` is no number that fits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_cut_at_its_boundaries_and_nowhere_else() {
        let kind = "multipart/form-data; charset=utf-8; boundary=\"b-1\"";
        let boundary = boundary(kind).unwrap();
        let body = "--b-1\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nsmall\r\n--b-1\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"a.zip\"\r\nContent-Type: application/zip\r\n\r\n\
             PK\r\n\r\n--b\r\n--b-1--\r\n";
        let form = fields(&Bytes::from(body), &boundary).unwrap();
        assert_eq!(form["name"], "small");
        assert_eq!(form["file"], "PK\r\n\r\n--b");
        for broken in ["", "--b-1", "--b-1\r\nx\r\n\r\nno name\r\n--b-1--", "--b-1\r\nContent-Disposition: a; name=x\r\n\r\nno end"]
        {
            assert!(fields(&Bytes::from(broken), "b-1").is_none(), "{broken}");
        }
        assert!(super::boundary("multipart/form-data").is_none() && super::boundary("text/plain; boundary=x").is_none());
    }
}

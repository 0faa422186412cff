//! Bodies of JSON lines, however long: read as they come, a part at a time.

use super::json;
use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use strata_model::{Error, Fields, Result, limits};

/// A part ends when its lines have this many bytes together.
const PART_BYTES: usize = 8 << 20;

/// The objects on the lines of a body.
pub(crate) struct JsonLines {
    body: BodyDataStream,
    /// What came and was not read.
    buffer: BytesMut,
    /// Of `buffer`, how much is known to hold no end of a line.
    searched: usize,
    number: u64,
    is_over: bool,
}

/// A line that is not empty: its number, from 1, and the object on it or what is wrong with it.
pub(crate) type Line = (u64, Result<Fields>);

impl JsonLines {
    pub(crate) fn new(body: Body) -> Self {
        Self { body: body.into_data_stream(), buffer: BytesMut::new(), searched: 0, number: 0, is_over: false }
    }

    /// The next lines, at most `most`; none at the end.
    ///
    /// Errors: `TooLarge` for a line of more than [`limits::MAX_LINE_BYTES`]; `Malformed` where the body breaks off.
    pub(crate) async fn part(&mut self, most: usize) -> Result<Vec<Line>> {
        let (mut lines, mut size) = (Vec::new(), 0);
        while lines.len() < most && size < PART_BYTES {
            let Some(line) = self.line().await? else { break };
            size += line.len();
            if !line.trim_ascii().is_empty() {
                lines.push((self.number, json::read(&line)));
            }
        }
        Ok(lines)
    }

    async fn line(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                self.number += 1;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > limits::MAX_LINE_BYTES {
                let (line, most) = (self.number + 1, limits::MAX_LINE_BYTES);
                return Err(Error::TooLarge(format!("line {line} has more than {most} bytes")));
            }
            if self.is_over {
                self.number += u64::from(!self.buffer.is_empty());
                self.searched = 0;
                return Ok((!self.buffer.is_empty()).then(|| self.buffer.split().freeze()));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(_)) => {
                    return Err(Error::Malformed("the request body ended before it was complete".into()));
                }
                None => self.is_over = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(chunks: &[&str], most: usize) -> Result<Vec<Vec<(u64, bool)>>> {
        let chunks: Vec<std::io::Result<Bytes>> =
            chunks.iter().map(|c| Ok(Bytes::copy_from_slice(c.as_bytes()))).collect();
        let mut lines = JsonLines::new(Body::from_stream(futures::stream::iter(chunks)));
        let mut parts = Vec::new();
        loop {
            let part = lines.part(most).await?;
            if part.is_empty() {
                return Ok(parts);
            }
            parts.push(part.into_iter().map(|(number, read)| (number, read.is_ok())).collect());
        }
    }

    #[tokio::test]
    async fn lines_are_counted_wherever_the_chunks_end() {
        let parts = all(&["{\"a\"", ": 1}\n\n", "nonsense\r", "\n{}\n[1]\n", "{\"b\": 2}"], 2).await.unwrap();
        assert_eq!(parts, [vec![(1, true), (3, false)], vec![(4, true), (5, false)], vec![(6, true)]]);
        assert!(all(&[], 2).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused_before_it_fills_memory() {
        let half = "x".repeat(limits::MAX_LINE_BYTES / 2 + 1);
        let error = all(&["{}\n", &half, &half, &half], 1_000).await.unwrap_err();
        assert!(matches!(&error, Error::TooLarge(m) if m.starts_with("line 2 ")), "{error}");
    }
}

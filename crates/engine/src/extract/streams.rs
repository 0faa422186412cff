//! What decoders give piece by piece, as streams.

use futures::{StreamExt, stream::BoxStream};
use strata_media::{Frame, FrameStream, PdfPage, PdfPages};
use strata_model::Result;

/// Pages in order; ends after the first error.
pub fn pages(pages: PdfPages) -> BoxStream<'static, Result<PdfPage>> {
    let next = |pages: Option<PdfPages>| async move {
        let mut pages = pages?;
        match pages.next().await {
            Ok(page) => Some((Ok(page?), Some(pages))),
            Err(error) => Some((Err(error), None)),
        }
    };
    futures::stream::unfold(Some(pages), next).boxed()
}

/// Frames in order; ends after the first error.
pub fn frames(frames: FrameStream) -> BoxStream<'static, Result<Frame>> {
    let next = |frames: Option<FrameStream>| async move {
        let mut frames = frames?;
        match frames.next().await {
            Ok(frame) => Some((Ok(frame?), Some(frames))),
            Err(error) => Some((Err(error), None)),
        }
    };
    futures::stream::unfold(Some(frames), next).boxed()
}

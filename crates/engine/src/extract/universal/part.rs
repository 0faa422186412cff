//! Documents to be, and their vectors: what is seen and what is said have one space, so one vector can be near to both.

use super::super::{Output, image, multimodal::mean};
use super::index;
use crate::{
    Engine,
    split::{self, SplitBy, SplitConfig},
};
use std::sync::Arc;
use strata_model::{Error, Fields, Result, document::VectorValue};

/// Parts in which a text is embedded: about as much as a model of texts reads at once.
const PIECE: SplitConfig = SplitConfig { split_by: SplitBy::Words, chunk_size: 180, chunk_overlap: 0 };
/// Parts of one text that its vector is made of, at most.
const MAX_PIECES: usize = 64;
/// Characters from which what is said or written tells enough to be found by. A sign, or a digit that was misread,
/// tells less than the picture that it is in.
const TELLING_CHARS: usize = 40;

/// A document to be, and what its vector is made of.
pub(super) struct Part {
    pub output: Output,
    /// What it shows, in the space of images and texts.
    pub seen: Option<Vec<f32>>,
    /// What it says, as far as that counts.
    pub words: Option<String>,
}

/// Whether a text says enough to be found by.
pub(super) fn tells(text: &str) -> bool {
    text.chars().nth(TELLING_CHARS - 1).is_some()
}

/// The outputs with their vectors: the direction between what is seen and what is said, where there are both.
pub(super) async fn embed(engine: &Arc<Engine>, parameters: &Fields, mut parts: Vec<Part>) -> Result<Vec<Output>> {
    let words: Vec<String> = parts.iter_mut().map(|part| part.words.take().unwrap_or_default()).collect();
    let cut = move || words.iter().map(|words| pieces(words)).collect::<Vec<_>>();
    let pieces = tokio::task::spawn_blocking(cut).await.map_err(Error::internal)?;
    let counts: Vec<usize> = pieces.iter().map(Vec::len).collect();
    let pieces: Vec<String> = pieces.into_iter().flatten().collect();
    let vectors = match pieces.is_empty() {
        true => Vec::new(),
        false => engine.image_text_space(image::space_of(parameters)?).await?.embed_texts(pieces).await?,
    };
    let name = index(parameters)?.name;
    let mut vectors = vectors.into_iter();
    let mut outputs = Vec::with_capacity(parts.len());
    for (Part { mut output, seen, .. }, count) in parts.into_iter().zip(counts) {
        let said: Vec<Vec<f32>> = vectors.by_ref().take(count).collect();
        let both: Vec<Vec<f32>> = seen.into_iter().chain(mean(&said)).collect();
        if let Some(vector) = mean(&both) {
            output.vectors.insert(name.clone(), VectorValue::Dense(vector));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// The parts in which a text is embedded, so that its end counts as much as its beginning.
fn pieces(text: &str) -> Vec<String> {
    split::split(text, &PIECE).into_iter().take(MAX_PIECES).map(|chunk| chunk.text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_enough_is_as_long_as_a_short_sentence() {
        assert!(tells(&"ü".repeat(TELLING_CHARS)) && !tells(&"ü".repeat(TELLING_CHARS - 1)) && !tells(""));
    }

    #[test]
    fn a_long_text_is_embedded_in_parts_to_its_end() {
        let text = format!("{}last", "word ".repeat(400));
        let made = pieces(&text);
        assert_eq!(made.len(), 3);
        assert!(made[2].ends_with("last"));
        assert!(pieces(" ").is_empty());
        assert_eq!(pieces(&"word ".repeat(100_000)).len(), MAX_PIECES);
    }
}

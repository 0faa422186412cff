//! The 1,000 classes of ImageNet (Russakovsky et al., 2015, "ImageNet Large Scale Visual Recognition Challenge") in the
//! order of the networks that were trained on them: a WordNet 3.0 synset and its words each.

use std::sync::LazyLock;

/// A line for each class: synset, words and definition, separated by tabulators.
pub(crate) const TABLE: &str = include_str!("../../data/imagenet_1k.tsv");

/// A class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// WordNet 3.0 synset, such as `n02123045`.
    pub synset: &'static str,
    /// Words for it, separated by comma and space, the most common first: `tabby, tabby cat`.
    pub words: &'static str,
    /// What WordNet says it is.
    pub definition: &'static str,
}

impl Label {
    /// The most common word.
    pub fn name(&self) -> &'static str {
        self.words.split(", ").next().unwrap_or(self.words)
    }
}

/// Every class, in order.
pub fn labels() -> &'static [Label] {
    static LABELS: LazyLock<Vec<Label>> = LazyLock::new(|| {
        let label = |line: &'static str| {
            let (synset, rest) = line.split_once('\t')?;
            let (words, definition) = rest.split_once('\t')?;
            Some(Label { synset, words, definition })
        };
        TABLE.lines().filter_map(label).collect()
    });
    &LABELS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_thousand_in_the_order_of_their_synsets() {
        let labels = labels();
        assert_eq!(labels.len(), 1000);
        assert!(labels.is_sorted_by(|a, b| a.synset < b.synset));
        assert_eq!((labels[281].synset, labels[281].name()), ("n02123045", "tabby"));
        assert!(
            labels
                .iter()
                .all(|label| label.synset.len() == 9 && !label.name().is_empty() && !label.definition.is_empty())
        );
    }
}

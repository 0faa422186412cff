//! How alike two texts are.

use std::collections::HashMap;

/// Longest text, in characters, that is compared letter by letter.
const MAX_LETTERS: usize = 256;

/// A text as it is compared: lower case, letters and digits only, one blank between words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal {
    pub text: String,
    letters: Vec<char>,
    words: HashMap<String, usize>,
    count: usize,
}

impl Normal {
    pub fn of(text: &str) -> Self {
        let plain: String = text.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
        let plain = plain.to_lowercase();
        let list: Vec<&str> = plain.split_whitespace().collect();
        let mut words = HashMap::new();
        for word in &list {
            *words.entry((*word).to_owned()).or_insert(0) += 1;
        }
        let text = list.join(" ");
        Self { letters: text.chars().take(MAX_LETTERS + 1).collect(), count: list.len(), words, text }
    }

    /// Whether nothing is left to compare.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// From 0 to 1: the larger of the Sørensen-Dice coefficient of the words and, for short texts, the normalised Levenshtein
/// similarity. Below `least` it may be anything that is below.
pub fn fuzzy(a: &Normal, b: &Normal, least: f64) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let common: usize =
        a.words.iter().map(|(word, count)| b.words.get(word).map_or(0, |other| *count.min(other))).sum();
    let dice = 2.0 * common as f64 / (a.count + b.count) as f64;
    let (short, long) = (a.letters.len().min(b.letters.len()), a.letters.len().max(b.letters.len()));
    // The difference in length alone is so many edits.
    if long > MAX_LETTERS || (short as f64 / long as f64) < dice.max(least) {
        return dice;
    }
    dice.max(1.0 - edits(&a.letters, &b.letters) as f64 / long as f64)
}

/// The Levenshtein distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_of_letters_or_of_words() {
        let of = |a: &str, b: &str| fuzzy(&Normal::of(a), &Normal::of(b), 0.0);
        assert_eq!(of("Red  Car!", "red car"), 1.0);
        assert_eq!(of("car red", "red car"), 1.0, "the same words in another order");
        assert!((of("kitten", "sitting") - 4.0 / 7.0).abs() < 1e-9);
        assert_eq!(of("", "x"), 0.0);
        assert_eq!(of("!!", "??"), 0.0);
        assert_eq!(of("one two", "two three"), 0.5, "one word of two, both sides");
        let long = "word ".repeat(100);
        assert_eq!(of(&long, &long), 1.0);
        assert_eq!(of(&long, "other"), 0.0);
        assert_eq!(edits(&[], &['a', 'b']), 2);
        assert_eq!(of("Straße", "STRASSE"), 1.0 - 2.0 / 7.0);
    }
}

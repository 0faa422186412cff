//! A cross-encoder made by hand, small enough to be checked by hand: an ONNX file with the inputs and the output of a BERT
//! for sequence classification, whose number grows with the words that query and document have in common. And a real BERT
//! with a head of one number on its first token.

use std::path::Path;

/// Words that the model knows, after the special tokens.
const WORDS: [&str; 12] =
    ["violin", "trumpet", "strings", "brass", "river", "bread", "a", "has", "is", "made", "of", "four"];
const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
/// What a shared word adds to the model's number, and what is taken away from the sum.
pub const PER_WORD: f32 = 2.0;
pub const LESS: f32 = 3.0;

/// Writes `model.onnx` and `tokenizer.json` into a directory.
pub fn write(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory for the model");
    std::fs::write(dir.join("model.onnx"), word_overlap()).expect("the model is written");
    std::fs::write(dir.join("tokenizer.json"), tokenizer()).expect("the tokenizer is written");
}

/// The number from 0 to 1 that the model gives for so many shared words.
pub fn score(shared: u32) -> f32 {
    1.0 / (1.0 + (LESS - PER_WORD * shared as f32).exp())
}

fn tokenizer() -> String {
    let vocabulary: Vec<String> =
        SPECIAL.iter().chain(&WORDS).enumerate().map(|(id, word)| format!("\"{word}\": {id}")).collect();
    let added: Vec<String> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| {
            format!(
                "{{\"id\": {id}, \"content\": \"{token}\", \"single_word\": false, \"lstrip\": false, \
                 \"rstrip\": false, \"normalized\": false, \"special\": true}}"
            )
        })
        .collect();
    format!(
        "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [{}], \
         \"normalizer\": {{\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true, \
         \"strip_accents\": null, \"lowercase\": true}}, \"pre_tokenizer\": {{\"type\": \"BertPreTokenizer\"}}, \
         \"post_processor\": {{\"type\": \"BertProcessing\", \"sep\": [\"[SEP]\", 3], \"cls\": [\"[CLS]\", 2]}}, \
         \"decoder\": null, \"model\": {{\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \
         \"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 100, \"vocab\": {{{}}}}}}}",
        added.join(", "),
        vocabulary.join(", ")
    )
}

/// Counts of the words of both sides, multiplied word by word and summed.
fn word_overlap() -> Vec<u8> {
    let size = SPECIAL.len() + WORDS.len();
    let row = |id: usize| (0..size).map(move |word| if id == word && id >= SPECIAL.len() { 1.0 } else { 0.0 });
    let table: Vec<f32> = (0..size).flat_map(row).collect();
    let mut graph = Vec::new();
    for node in [
        node("Gather", &["table", "input_ids"], "embedded", &[("axis", 0)]),
        node("Cast", &["attention_mask"], "mask", &[("to", 1)]),
        node("Cast", &["token_type_ids"], "second", &[("to", 1)]),
        node("Sub", &["one", "second"], "first", &[]),
        node("Mul", &["mask", "first"], "query_mask", &[]),
        node("Mul", &["mask", "second"], "document_mask", &[]),
        node("Unsqueeze", &["query_mask", "two_axis"], "query_column", &[]),
        node("Unsqueeze", &["document_mask", "two_axis"], "document_column", &[]),
        node("Mul", &["embedded", "query_column"], "query_rows", &[]),
        node("Mul", &["embedded", "document_column"], "document_rows", &[]),
        node("ReduceSum", &["query_rows", "one_axis"], "query", &[("keepdims", 0)]),
        node("ReduceSum", &["document_rows", "one_axis"], "document", &[("keepdims", 0)]),
        node("Mul", &["query", "document"], "common", &[]),
        node("ReduceSum", &["common", "one_axis"], "count", &[("keepdims", 1)]),
        node("Mul", &["count", "per_word"], "weighted", &[]),
        node("Sub", &["weighted", "less"], "logits", &[]),
    ] {
        message(&mut graph, 1, &node);
    }
    message(&mut graph, 2, b"word overlap");
    for tensor in [
        floats("table", &[size, size], &table),
        floats("one", &[1], &[1.0]),
        floats("per_word", &[1], &[PER_WORD]),
        floats("less", &[1], &[LESS]),
        integers("one_axis", &[1]),
        integers("two_axis", &[2]),
    ] {
        message(&mut graph, 5, &tensor);
    }
    for name in ["input_ids", "attention_mask", "token_type_ids"] {
        message(&mut graph, 11, &value(name, 7, &["batch", "sequence"]));
    }
    message(&mut graph, 12, &value("logits", 1, &["batch", "one"]));
    let mut opset = Vec::new();
    message(&mut opset, 1, b"");
    number(&mut opset, 2, 13);
    let mut model = Vec::new();
    number(&mut model, 1, 8);
    message(&mut model, 7, &graph);
    message(&mut model, 8, &opset);
    model
}

/// A model with the output `last_hidden_state` as a cross-encoder: one number from the hidden state, of `hidden` numbers, of
/// its first token.
pub fn with_head(model: &[u8], hidden: usize) -> Vec<u8> {
    // No meaning, but a number that depends on everything.
    let weights: Vec<f32> = (0..hidden).map(|i| ((i * 37 % 19) as f32 - 9.0) / 40.0).collect();
    let mut head = Vec::new();
    message(&mut head, 1, &node("Gather", &["last_hidden_state", "first_token"], "first_state", &[("axis", 1)]));
    message(&mut head, 1, &node("MatMul", &["first_state", "head"], "logits", &[]));
    message(&mut head, 5, &floats("head", &[hidden, 1], &weights));
    message(&mut head, 5, &scalar("first_token", 0));
    message(&mut head, 12, &value("logits", 1, &["batch", "one"]));
    let mut made = Vec::with_capacity(model.len() + head.len());
    let mut rest = model;
    while !rest.is_empty() {
        let whole = rest;
        let tag = read(&mut rest);
        match tag & 7 {
            0 => drop(read(&mut rest)),
            2 => {
                let length = usize::try_from(read(&mut rest)).expect("a length");
                let (body, after) = rest.split_at(length);
                rest = after;
                if tag >> 3 == 7 {
                    message(&mut made, 7, &[body, &head].concat());
                    continue;
                }
            }
            5 => rest = &rest[4..],
            1 => rest = &rest[8..],
            other => panic!("the model has a field of kind {other}"),
        }
        made.extend_from_slice(&whole[..whole.len() - rest.len()]);
    }
    made
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, u64)]) -> Vec<u8> {
    let mut node = Vec::new();
    inputs.iter().for_each(|input| message(&mut node, 1, input.as_bytes()));
    message(&mut node, 2, output.as_bytes());
    message(&mut node, 3, output.as_bytes());
    message(&mut node, 4, operator.as_bytes());
    for (name, integer) in attributes {
        let mut attribute = Vec::new();
        message(&mut attribute, 1, name.as_bytes());
        number(&mut attribute, 3, *integer);
        number(&mut attribute, 20, 2);
        message(&mut node, 5, &attribute);
    }
    node
}

fn tensor(name: &str, shape: &[usize], kind: u64, data: &[u8]) -> Vec<u8> {
    let mut tensor = Vec::new();
    shape.iter().for_each(|size| number(&mut tensor, 1, *size as u64));
    number(&mut tensor, 2, kind);
    message(&mut tensor, 8, name.as_bytes());
    message(&mut tensor, 9, data);
    tensor
}

fn floats(name: &str, shape: &[usize], numbers: &[f32]) -> Vec<u8> {
    tensor(name, shape, 1, &numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

fn integers(name: &str, numbers: &[i64]) -> Vec<u8> {
    tensor(name, &[numbers.len()], 7, &numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

fn scalar(name: &str, number: i64) -> Vec<u8> {
    tensor(name, &[], 7, &number.to_le_bytes())
}

/// An input or output with named sizes.
fn value(name: &str, kind: u64, sizes: &[&str]) -> Vec<u8> {
    let mut shape = Vec::new();
    for size in sizes {
        let mut dimension = Vec::new();
        message(&mut dimension, 2, size.as_bytes());
        message(&mut shape, 1, &dimension);
    }
    let mut tensor = Vec::new();
    number(&mut tensor, 1, kind);
    message(&mut tensor, 2, &shape);
    let mut kind = Vec::new();
    message(&mut kind, 1, &tensor);
    let mut value = Vec::new();
    message(&mut value, 1, name.as_bytes());
    message(&mut value, 2, &kind);
    value
}

/// A field of bytes, as protocol buffers write it.
fn message(to: &mut Vec<u8>, field: u64, body: &[u8]) {
    varint(to, field << 3 | 2);
    varint(to, body.len() as u64);
    to.extend_from_slice(body);
}

fn number(to: &mut Vec<u8>, field: u64, number: u64) {
    varint(to, field << 3);
    varint(to, number);
}

fn varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn read(from: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = from[0];
        *from = &from[1..];
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return number;
        }
    }
}

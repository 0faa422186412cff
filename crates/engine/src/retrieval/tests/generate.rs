//! Templates, filters and plans out of bytes, for tests that try many: the same bytes make the same thing, and fewer bytes a
//! simpler one. What is made is near to what callers write, and off by a little often.

use serde_json::{Map, Value, json};

const FIELDS: [&str; 14] = [
    "text",
    "n",
    "kind",
    "metadata.n",
    "metadata",
    "document_id",
    "score",
    "scores.x",
    "missing",
    "root_object_id",
    "a.b.0",
    "start_time",
    "content",
    "",
];
const TEXTS: [&str; 16] = [
    "apple",
    "cake",
    "plant",
    "words",
    "own",
    "col_a",
    "fruit",
    "ret_1",
    "null",
    "",
    "ü\u{0}",
    "2026-01-01",
    "50",
    "true",
    "e5",
    "a, b; c",
];
/// Parts of templates; some do not fit together.
const PARTS: [&str; 42] = [
    "{{",
    "}}",
    "{%",
    "%}",
    " INPUT.query ",
    "INPUT.n",
    " DOC.text",
    "doc.n",
    "CONTEXT.x",
    "STAGE['limit']",
    "INPUT",
    "(",
    ")",
    "[1, 2]",
    " * ",
    " + ",
    " ~ ",
    " ** ",
    "|",
    "upper",
    "tojson",
    "join(',')",
    "default('x')",
    "length",
    "first",
    " 999999999999 ",
    "'text'",
    "if ",
    "else",
    "endif",
    "for a in INPUT.list",
    "endfor",
    "raw",
    "endraw",
    "a",
    " == ",
    " and ",
    "not ",
    "{",
    "}",
    "\"",
    "-",
];

/// Decisions read from bytes; without any left, the first choice each time.
pub struct Choices<'b> {
    bytes: &'b [u8],
}

impl<'b> Choices<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first) % bound.max(1)
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    pub fn template(&mut self) -> String {
        let mut made = String::new();
        if self.below(3) > 0 {
            // Whole ones are seldom made by chance.
            made.push_str("{{ ");
            for _ in 0..=self.below(6) {
                made.push_str(PARTS[4 + self.below(PARTS.len() - 4)]);
            }
            made.push_str(" }}");
        }
        for _ in 0..self.below(8) {
            made.push_str(self.one(&PARTS));
        }
        made
    }

    fn text(&mut self) -> String {
        match self.below(4) {
            0 => self.one(&TEXTS).to_owned(),
            1 => self.one(&FIELDS).to_owned(),
            2 => "{{INPUT.query}}".to_owned(),
            _ => self.template(),
        }
    }

    pub fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth > 3 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 1),
            2 => json!(self.below(12)),
            3 => [json!(-1), json!(0.5), json!(1e300), json!(u64::MAX), json!(i64::MIN), json!(101)][self.below(6)]
                .clone(),
            4 => self.text().into(),
            5 => (0..self.below(4)).map(|_| self.json(depth + 1)).collect(),
            6 => self.filter(depth + 1),
            _ => {
                let entries = (0..self.below(4)).map(|_| (self.one(&FIELDS).to_owned(), self.json(depth + 1)));
                Value::Object(entries.collect::<Map<String, Value>>())
            }
        }
    }

    pub fn filter(&mut self, depth: usize) -> Value {
        let operators = [
            "eq",
            "ne",
            "gt",
            "lt",
            "gte",
            "lte",
            "in",
            "nin",
            "contains",
            "starts_with",
            "ends_with",
            "regex",
            "exists",
            "is_null",
            "text",
            "phrase",
            "words",
            "geo_radius",
            "nothing",
        ];
        match self.below(if depth > 3 { 2 } else { 5 }) {
            0 => json!({"field": self.one(&FIELDS), "operator": self.one(&operators), "value": self.json(depth + 1)}),
            1 => json!({self.one(&FIELDS): self.json(depth + 1)}),
            2 => Value::Array((0..self.below(3)).map(|_| self.filter(depth + 1)).collect()),
            _ => {
                let word = self.one(&["AND", "OR", "NOT"]);
                json!({word: (0..self.below(4)).map(|_| self.filter(depth + 1)).collect::<Vec<_>>()})
            }
        }
    }

    /// A value that a parameter's schema lets through, most of the time.
    fn parameter(&mut self, schema: &Value) -> Value {
        if self.below(8) == 7 {
            return self.json(0);
        }
        if let Some(Value::Array(words)) = schema.get("enum") {
            return words[self.below(words.len())].clone();
        }
        let number = |name: &str, other: f64| schema.get(name).and_then(Value::as_f64).unwrap_or(other);
        match schema.get("type").and_then(Value::as_str) {
            Some("integer") => {
                let least = number("minimum", 0.0) as i64;
                let most = number("maximum", 40.0).min(number("minimum", 0.0) + 40.0) as i64;
                json!(least + (self.below(256) as i64) % (most - least + 1))
            }
            Some("number") => json!(self.below(101) as f64 / 100.0),
            Some("boolean") => json!(self.below(2) == 1),
            Some("array") => {
                let nothing = Value::Null;
                let items = schema.get("items").unwrap_or(&nothing);
                (0..1 + self.below(3)).map(|_| self.parameter(items)).collect()
            }
            Some("object") if schema.get("properties").is_some() => self.parameters(schema),
            Some("object") => self.filter(1),
            Some("string") => match self.below(3) {
                0 => self.one(&FIELDS).into(),
                1 => self.one(&TEXTS).into(),
                _ => self.text().into(),
            },
            _ => self.json(1),
        }
    }

    /// Parameters by their schema: those that are required, and some of the others.
    fn parameters(&mut self, schema: &Value) -> Value {
        let nothing = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|list| list.iter().any(|own| own == name));
        let mut made = Map::new();
        for (name, schema) in properties {
            if is_required(name) || self.below(4) == 3 {
                made.insert(name.clone(), self.parameter(schema));
            }
        }
        Value::Object(made)
    }

    /// Up to four stages; the first brings documents in, most of the time. `known` are ids with their parameters' schemas.
    pub fn stages(&mut self, known: &[(&str, Value)]) -> Value {
        let mut stages = Vec::new();
        match self.below(4) {
            0 => stages.push(json!({"stage_id": "feature_search", "query": "apple", "feature_uri": "words"})),
            1 => stages.push(json!({"stage_id": "feature_search", "query": "apple"})),
            2 => stages.push(
                json!({"stage_id": "attribute_filter", "parameters": {"field": "n", "operator": "gt", "value": 1}}),
            ),
            _ => {}
        }
        for _ in 0..=self.below(3) {
            let (id, schema) = &known[self.below(known.len())];
            let mut stage = json!({"stage_name": self.one(&TEXTS), "config": {"stage_id": id, "parameters": self.parameters(schema)}});
            if self.below(5) == 4 {
                stage["config"]["pre_filters"] = self.filter(0);
            }
            if self.below(5) == 4 {
                stage["config"]["post_filters"] = self.filter(0);
            }
            if self.below(5) == 4 {
                stage["on_error"] = "skip".into();
            }
            if self.below(5) == 4 {
                stage["output_alias"] = "x".into();
            }
            stages.push(stage);
        }
        stages.into()
    }
}

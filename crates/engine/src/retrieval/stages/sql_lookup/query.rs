//! The text of a query, with the places of its values. Values are never written into it.

use crate::retrieval::backend::SqlPart;
use crate::retrieval::template::Node;
use serde_json::Value;
use strata_model::{Error, Result};

/// Longest query, in bytes.
const MAX_BYTES: usize = 64 << 10;
/// Most values of one query.
const MAX_VALUES: usize = 100;

/// A query as its author wrote it.
#[derive(Debug)]
pub(super) struct Query {
    pub parts: Vec<SqlPart>,
    /// Where the values come from, in the order of their places.
    pub values: Vec<Source>,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// `:name` or `$name`.
    Named(String),
    /// `{{DOC.x}}`.
    Template(Node),
}

struct Reader<'q> {
    text: &'q str,
    at: &'q str,
    /// Where the next look is.
    next: usize,
    /// Where the text begins that is not taken over yet.
    from: usize,
    query: Query,
}

impl Query {
    /// Finds `:name`, `$name` and `{{…}}` outside of texts, quoted names and comments.
    pub fn parse(text: &str, at: &str) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(Error::invalid(at, format!("is at most {MAX_BYTES} bytes long")));
        }
        let text = text.trim().trim_end_matches([';', ' ', '\n', '\t', '\r']);
        let query = Query { parts: Vec::new(), values: Vec::new() };
        let mut reader = Reader { text, at, next: 0, from: 0, query };
        reader.read()?;
        reader.take_text(text.len());
        let word: String = without_comments(text).chars().take_while(char::is_ascii_alphabetic).collect();
        if !matches!(word.to_ascii_uppercase().as_str(), "SELECT" | "WITH" | "VALUES" | "TABLE") {
            return Err(Error::invalid(at, "must be one SELECT"));
        }
        if reader.query.values.len() > MAX_VALUES {
            return Err(Error::invalid(at, format!("has at most {MAX_VALUES} values")));
        }
        Ok(reader.query)
    }
}

/// The text from its first word on.
fn without_comments(text: &str) -> &str {
    let mut text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    loop {
        let rest = if text.starts_with("--") {
            text.split_once('\n').map_or("", |(_, rest)| rest)
        } else if text.starts_with("/*") {
            text.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return text;
        };
        text = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    }
}

impl Reader<'_> {
    fn read(&mut self) -> Result<()> {
        while self.next < self.text.len() {
            let rest = &self.text[self.next..];
            let end = match rest.as_bytes()[0] {
                b'\'' if self.is_whole_template(rest) => self.quoted_template(rest)?,
                b'\'' => self.skip_quoted(rest, '\'')?,
                b'"' => self.skip_quoted(rest, '"')?,
                b'`' => self.skip_quoted(rest, '`')?,
                b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                b'/' if rest.starts_with("/*") => self.comment(rest)?,
                b'$' => self.dollar(rest)?,
                b':' if rest.starts_with("::") => 2,
                b':' => self.colon(rest),
                b'{' if rest.starts_with("{{") => self.template(rest)?,
                b';' => return Err(self.wrong("must be one statement")),
                _ => rest.chars().next().map_or(1, char::len_utf8),
            };
            self.next += end;
        }
        Ok(())
    }

    fn wrong(&self, message: &str) -> Error {
        Error::invalid(self.at, message)
    }

    /// Takes the text before `end` over.
    fn take_text(&mut self, end: usize) {
        if end > self.from {
            self.query.parts.push(SqlPart::Text(self.text[self.from..end].to_owned()));
        }
    }

    /// Puts a value in the place of the next `length` bytes.
    fn put(&mut self, length: usize, source: Source) -> usize {
        self.take_text(self.next);
        let known = match &source {
            Source::Named(name) => {
                self.query.values.iter().position(|known| matches!(known, Source::Named(other) if other == name))
            }
            Source::Template(_) => None,
        };
        let place = known.unwrap_or_else(|| {
            self.query.values.push(source);
            self.query.values.len() - 1
        });
        self.query.parts.push(SqlPart::Value(place));
        self.from = self.next + length;
        length
    }

    fn skip_quoted(&self, rest: &str, quote: char) -> Result<usize> {
        // `E'it\'s'` ends at another quote than `'it\'`.
        let escapes = quote == '\'' && {
            let before = &self.text[..self.next];
            let is_prefix = before.ends_with(['e', 'E']);
            is_prefix && !before[..before.len() - 1].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        };
        let mut inside = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = inside.next() {
            if escapes && c == '\\' {
                inside.next();
            } else if c == quote {
                if inside.peek().is_some_and(|(_, next)| *next == quote) {
                    inside.next();
                    continue;
                }
                let text = &rest[..=at];
                if text.contains("{{") && quote == '\'' {
                    return Err(self.wrong(
                        "has a template within a quoted text; join texts with `||`, and write the template without quotes",
                    ));
                }
                return Ok(at + 1);
            }
        }
        Err(self.wrong(&format!("has a {quote} without its end")))
    }

    /// Whether a quoted text is one template and nothing else: it means the value, which needs no quotes.
    fn is_whole_template(&self, rest: &str) -> bool {
        rest.starts_with("'{{") && rest[1..].find('\'').is_some_and(|end| rest[1..=end].ends_with("}}"))
    }

    fn quoted_template(&mut self, rest: &str) -> Result<usize> {
        let end = rest[1..].find('\'').map_or(rest.len(), |end| end + 2);
        let node = self.node(&rest[1..end - 1])?;
        Ok(self.put(end, Source::Template(node)))
    }

    fn template(&mut self, rest: &str) -> Result<usize> {
        let end = rest.find("}}").ok_or_else(|| self.wrong("has a `{{` without its `}}`"))? + 2;
        let node = self.node(&rest[..end])?;
        Ok(self.put(end, Source::Template(node)))
    }

    fn node(&self, text: &str) -> Result<Node> {
        Node::parse(&Value::from(text), self.at)
    }

    fn comment(&self, rest: &str) -> Result<usize> {
        rest.find("*/").map(|end| end + 2).ok_or_else(|| self.wrong("has a comment without its end"))
    }

    /// `$name`, or a text between `$tag$` and `$tag$`.
    fn dollar(&mut self, rest: &str) -> Result<usize> {
        let name = word(&rest[1..]);
        if rest[1 + name.len()..].starts_with('$') {
            let tag = &rest[..name.len() + 2];
            let end = rest[tag.len()..].find(tag).ok_or_else(|| self.wrong(&format!("has a {tag} without its end")))?;
            return Ok(tag.len() + end + tag.len());
        }
        if name.is_empty() {
            return Ok(1);
        }
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.wrong("must name its values, as in `:id` or `$id`, not number them"));
        }
        Ok(self.put(1 + name.len(), Source::Named(name.to_owned())))
    }

    /// `:name`, unless it is a part of a slice such as `list[1:n]`.
    fn colon(&mut self, rest: &str) -> usize {
        let name = word(&rest[1..]);
        let before = self.text[..self.next].chars().next_back();
        let is_slice = before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ')' | ']' | '['));
        if name.is_empty() || is_slice || name.starts_with(|c: char| c.is_ascii_digit()) {
            return 1;
        }
        self.put(1 + name.len(), Source::Named(name.to_owned()))
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let query = Query::parse(text, "query").map_err(|error| error.to_string())?;
        let names: Vec<String> = query
            .values
            .iter()
            .map(|source| match source {
                Source::Named(name) => name.clone(),
                Source::Template(node) => node.references()[0].to_string().replace('`', ""),
            })
            .collect();
        let text = query.parts.iter().map(|part| match part {
            SqlPart::Text(text) => text.clone(),
            SqlPart::Value(place) => format!("<{place}>"),
        });
        Ok(format!("{} | {}", text.collect::<String>(), names.join(",")))
    }

    #[test]
    fn values_are_found_where_sql_has_them() {
        for (text, meant) in [
            (
                "SELECT * FROM t WHERE a = :id AND b = $name AND c = :id;",
                "SELECT * FROM t WHERE a = <0> AND b = <1> AND c = <0> | id,name",
            ),
            ("select a::text, b[1:n] from t where a=:x::int", "select a::text, b[1:n] from t where a=<0>::int | x"),
            ("SELECT '{{DOC.id}}', {{ INPUT.q }}", "SELECT <0>, <1> | DOC.id,INPUT.q"),
            (
                "SELECT ':a $b', \":c\", $$ :d ' $$, $t$ $e $t$, E'it\\'s :f' -- :g\n, :h /* :i */",
                "SELECT ':a $b', \":c\", $$ :d ' $$, $t$ $e $t$, E'it\\'s :f' -- :g\n, <0> /* :i */ | h",
            ),
            ("SELECT 'it''s :a', :b", "SELECT 'it''s :a', <0> | b"),
            (
                "-- first\n/* then */ (WITH x AS (SELECT 1) SELECT :a FROM x)",
                "-- first\n/* then */ (WITH x AS (SELECT 1) SELECT <0> FROM x) | a",
            ),
            ("SELECT 'é' || :ä || :a", "SELECT 'é' || :ä || <0> | a"),
            ("SELECT 1;  \n;", "SELECT 1 | "),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_single_select_is_refused() {
        for (text, word) in [
            ("DELETE FROM t", "one SELECT"),
            ("", "one SELECT"),
            ("-- only", "one SELECT"),
            ("SELECT 1; DROP TABLE t", "one statement"),
            ("SELECT 'a", "without its end"),
            ("SELECT $t$ a", "without its end"),
            ("SELECT /* a", "without its end"),
            ("SELECT {{DOC.a", "without its `}}`"),
            ("SELECT 'x{{DOC.a}}'", "within a quoted text"),
            ("SELECT $1", "name its values"),
            ("SELECT {{nobody.a}}", "not a template namespace"),
            ("SELECT {{SECRET.a}}", "secrets are not available"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
        assert!(read(&format!("SELECT {}", (0..101).map(|n| format!(":a{n}")).collect::<Vec<_>>().join(","))).is_err());
    }
}

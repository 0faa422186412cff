//! Functions, methods and classes of source files, found by tree-sitter's grammars. A file that does not fit its grammar
//! gives what could be understood of it.

use super::grammars::Grammar;
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};
use tree_sitter::{Language, Node, ParseOptions, ParseState, Parser, Point, TreeCursor};

/// Longest that one file is parsed.
const MAX_PARSING: Duration = Duration::from_secs(10);
/// Characters of a signature and of a doc comment.
const MAX_SIGNATURE_CHARS: usize = 600;
const MAX_DOC_CHARS: usize = 2000;
/// Definitions within each other, and declarators around a name in C.
const MAX_DEPTH: usize = 32;

/// A function, a method or a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// With the names around it.
    pub name: String,
    /// `function`, `method` or `class`.
    pub kind: &'static str,
    /// From 1.
    pub start_line: usize,
    pub end_line: usize,
    pub code: String,
    /// What stands before its body, on one line.
    pub signature: String,
    /// What its author says of it.
    pub doc: Option<String>,
}

/// The definitions of a source file in their order; empty where there is none, or where parsing takes too long. Blocking.
pub fn definitions(grammar: &Grammar, source: &str) -> Vec<Definition> {
    let mut parser = Parser::new();
    if parser.set_language(&Language::from(grammar.language)).is_err() {
        return Vec::new();
    }
    let bytes = source.as_bytes();
    let until = Instant::now() + MAX_PARSING;
    let mut goes_on = |_: &ParseState| match Instant::now() < until {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let options = ParseOptions::new().progress_callback(&mut goes_on);
    let mut from = |at: usize, _: Point| bytes.get(at..).unwrap_or_default();
    let Some(tree) = parser.parse_with_options(&mut from, None, Some(options)) else { return Vec::new() };
    let reading = Reading { grammar, source };
    let mut found = Vec::new();
    let mut cursor = tree.walk();
    let mut open = vec![(tree.root_node(), Scope::default())];
    while let Some((node, scope)) = open.pop() {
        let inner = match reading.look(node, &scope, &mut found) {
            Inside::Nothing => continue,
            Inside::Same => scope,
            Inside::Within(inner) if inner.depth > MAX_DEPTH => continue,
            Inside::Within(inner) => inner,
        };
        let children: Vec<Node<'_>> = node.named_children(&mut cursor).collect();
        open.extend(children.into_iter().rev().map(|child| (child, inner.clone())));
    }
    found
}

/// The names around a place.
#[derive(Debug, Clone, Default)]
struct Scope {
    /// Ends with a separator, unless it is empty.
    prefix: String,
    /// Whether functions in it are methods.
    is_class: bool,
    depth: usize,
}

/// What is looked at below a node.
enum Inside {
    Nothing,
    Same,
    Within(Scope),
}

struct Reading<'a> {
    grammar: &'a Grammar,
    source: &'a str,
}

impl<'a> Reading<'a> {
    fn text(&self, node: Node<'_>) -> &'a str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    /// Notes a definition.
    fn look(&self, node: Node<'_>, scope: &Scope, found: &mut Vec<Definition>) -> Inside {
        let kind = node.kind();
        let grammar = self.grammar;
        if grammar.functions.contains(&kind) {
            if let Some((name, body)) = self.function(node) {
                let kind = if scope.is_class || name.contains(grammar.separator) { "method" } else { "function" };
                found.push(self.definition(node, kind, format!("{}{name}", scope.prefix), body));
                return Inside::Nothing;
            }
        } else if grammar.classes.contains(&kind) {
            let name = node.child_by_field_name("name").map(|name| self.text(name));
            // `struct point p;` names a class, and is none.
            let body = node.child_by_field_name("body").or_else(|| go_type(node));
            if let Some(name) = name.filter(|_| body.is_some() || grammar.name == "rust") {
                let name = format!("{}{name}", scope.prefix);
                let inner = self.below(&name, true, scope);
                found.push(self.definition(node, "class", name, body));
                return Inside::Within(inner);
            }
        } else if grammar.scopes.contains(&kind) {
            let name = node.child_by_field_name("type").or_else(|| node.child_by_field_name("name"));
            let Some(name) = name.map(|name| without_arguments(self.text(name))) else { return Inside::Same };
            return Inside::Within(self.below(&format!("{}{name}", scope.prefix), kind == "impl_item", scope));
        }
        Inside::Same
    }

    fn below(&self, name: &str, is_class: bool, around: &Scope) -> Scope {
        Scope { prefix: format!("{name}{}", self.grammar.separator), is_class, depth: around.depth + 1 }
    }

    /// A function's name and its body.
    fn function<'t>(&self, node: Node<'t>) -> Option<(String, Option<Node<'t>>)> {
        let body = node.child_by_field_name("body");
        let field = |name: &str| node.child_by_field_name(name);
        match (self.grammar.name, node.kind()) {
            ("javascript", "variable_declarator" | "field_definition" | "assignment_expression") => {
                let value = field("value").or_else(|| field("right"))?;
                if !matches!(value.kind(), "arrow_function" | "function_expression" | "generator_function") {
                    return None;
                }
                let name = field("name").or_else(|| field("property")).or_else(|| field("left"))?;
                Some((one_line(self.text(name), MAX_SIGNATURE_CHARS), value.child_by_field_name("body")))
            }
            ("c" | "cpp", _) => Some((one_line(self.text(declared(node)?), MAX_SIGNATURE_CHARS), body)),
            ("go", "method_declaration") => {
                let receiver = self.text(field("receiver")?);
                let receiver = without_arguments(receiver).trim_matches(['(', ')', ' ']);
                let of = receiver.rsplit([' ', '*']).next().unwrap_or_default();
                Some((format!("{of}.{}", self.text(field("name")?)), body))
            }
            _ => Some((self.text(field("name")?).to_owned(), body)),
        }
    }

    fn definition(&self, node: Node<'_>, kind: &'static str, name: String, body: Option<Node<'_>>) -> Definition {
        let whole = with_wrappers(node);
        let end = body.map_or(whole.end_byte(), |body| body.start_byte());
        let head = self.source.get(node.start_byte()..end).unwrap_or_default();
        let head = if body.is_none() { head.lines().next().unwrap_or_default() } else { head };
        let code = self.text(whole).trim_end();
        let start_line = whole.start_position().row + 1;
        Definition {
            name,
            kind,
            start_line,
            end_line: start_line + code.matches('\n').count(),
            signature: one_line(head, MAX_SIGNATURE_CHARS),
            doc: self.doc(whole, body),
            code: code.to_owned(),
        }
    }

    /// The comments right above a definition, or in Python the text that its body begins with.
    fn doc(&self, whole: Node<'_>, body: Option<Node<'_>>) -> Option<String> {
        if self.grammar.name == "python" {
            let first = self.text(body?).trim_start();
            let text = first.trim_start_matches(['r', 'R', 'u', 'U', 'b', 'B']);
            let mark = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|mark| text.starts_with(mark))?;
            let inner = text[mark.len()..].split(mark).next()?;
            return Some(shortened(inner.trim(), MAX_DOC_CHARS)).filter(|doc| !doc.is_empty());
        }
        let mut comments: Vec<&str> = Vec::new();
        let (mut below, mut at) = (whole.start_position().row, whole.prev_named_sibling());
        while let Some(node) = at {
            let is_near = node.end_position().row + 1 >= below;
            match node.kind() {
                _ if !is_near => break,
                kind if kind.contains("comment") => comments.push(self.text(node)),
                "attribute_item" => {}
                _ => break,
            }
            below = node.start_position().row;
            at = node.prev_named_sibling();
        }
        let plain = |line: &str| {
            let line = line.trim().trim_end_matches("*/").trim_start_matches(['/', '*', '!']).trim().to_owned();
            (!line.is_empty()).then_some(line)
        };
        let lines: Vec<String> = comments.iter().rev().flat_map(|comment| comment.lines()).filter_map(plain).collect();
        Some(shortened(&lines.join("\n"), MAX_DOC_CHARS)).filter(|doc| !doc.is_empty())
    }
}

/// What stands for the body of a type in Go.
fn go_type(node: Node<'_>) -> Option<Node<'_>> {
    let of = node.child_by_field_name("type")?;
    let is_class = node.kind() == "type_spec" && matches!(of.kind(), "struct_type" | "interface_type");
    is_class.then_some(of)
}

/// The name that a function of C declares, below pointers, references and the list of its parameters.
fn declared(node: Node<'_>) -> Option<Node<'_>> {
    let mut at = node.child_by_field_name("declarator")?;
    for _ in 0..MAX_DEPTH {
        let mut cursor: TreeCursor<'_> = at.walk();
        let unnamed = at.named_children(&mut cursor).find(|child| child.kind().ends_with("declarator"));
        match at.child_by_field_name("declarator").or(unnamed) {
            Some(inner) => at = inner,
            None => return Some(at),
        }
    }
    None
}

/// A definition with its decorators, `export`, `template <…>` and the like.
fn with_wrappers(node: Node<'_>) -> Node<'_> {
    let mut whole = node;
    while let Some(parent) = whole.parent() {
        let begins_with_it = parent.start_position().row == whole.start_position().row;
        let is_wrapper = match parent.kind() {
            "decorated_definition" | "template_declaration" => true,
            "export_statement"
            | "lexical_declaration"
            | "variable_declaration"
            | "expression_statement"
            | "type_declaration" => begins_with_it,
            _ => false,
        };
        if !is_wrapper {
            break;
        }
        whole = parent;
    }
    whole
}

/// A type without what stands in its angle or square brackets.
fn without_arguments(name: &str) -> &str {
    name.split(['<', '[']).next().unwrap_or_default().trim()
}

/// Text with single spaces, at most so long.
fn one_line(text: &str, max_chars: usize) -> String {
    shortened(&text.split_whitespace().collect::<Vec<_>>().join(" "), max_chars)
}

fn shortened(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).collect()
}

#[cfg(test)]
mod tests {
    use super::super::grammars::GRAMMARS;
    use super::*;

    fn found(name: &str, source: &str) -> Vec<Found> {
        let grammar = GRAMMARS.iter().find(|grammar| grammar.name == name).expect("a grammar");
        let one = |d: Definition| (d.name, d.kind, d.start_line, d.end_line);
        definitions(grammar, source).into_iter().map(one).collect()
    }

    type Found = (String, &'static str, usize, usize);

    fn named(name: &str, kind: &'static str, start_line: usize, end_line: usize) -> Found {
        (name.to_owned(), kind, start_line, end_line)
    }

    #[test]
    fn python() {
        let source = "import os\n\n@cached\ndef f(a,\n      b):\n    \"\"\"Adds.\"\"\"\n    return a + b\n\nclass A(B):\n    \
                      def m(self):\n        pass\n";
        let expected = [named("f", "function", 3, 7), named("A", "class", 9, 11), named("A.m", "method", 10, 11)];
        assert_eq!(found("python", source), expected);
        let first = definitions(&GRAMMARS[0], source).remove(0);
        assert_eq!((first.signature.as_str(), first.doc.as_deref()), ("def f(a, b):", Some("Adds.")));
        assert!(first.code.starts_with("@cached\ndef f"));
    }

    #[test]
    fn rust() {
        let source = "/// Says.\n/// Twice.\n#[inline]\npub fn f<T>(a: T) -> u8 {\n    1\n}\n\nimpl<T> Show for Foo<T> {\n    \
                      fn m(&self) {}\n}\n\nmod x {\n    pub struct S;\n}\n";
        let expected = [named("f", "function", 4, 6), named("Foo::m", "method", 9, 9), named("x::S", "class", 13, 13)];
        assert_eq!(found("rust", source), expected);
        let first = definitions(&GRAMMARS[4], source).remove(0);
        assert_eq!(first.signature, "pub fn f<T>(a: T) -> u8");
        assert_eq!(first.doc.as_deref(), Some("Says.\nTwice."));
    }

    #[test]
    fn c_and_cpp() {
        let source = "/* Adds. */\nstatic int *add(int a)\n{\n    return 0;\n}\n\nstruct p { int x; };\nstruct p z;\n";
        assert_eq!(found("c", source), [named("add", "function", 2, 5), named("p", "class", 7, 7)]);
        let source = "namespace n {\nclass A {\n    int &m(int x) { return x; }\n};\n}\nint n::A::q() const { return 1; }\n\
                      template <class T>\nT id(T x) { return x; }\n";
        let expected = [
            named("n::A", "class", 2, 4),
            named("n::A::m", "method", 3, 3),
            named("n::A::q", "method", 6, 6),
            named("id", "function", 7, 8),
        ];
        assert_eq!(found("cpp", source), expected);
    }

    #[test]
    fn javascript() {
        let source = "/** Doc. */\nexport function f(a) { return a }\nconst g = (x) => {\n  return x\n};\n\
                      class A extends B {\n  m() {}\n  h = () => 1;\n}\nexports.z = function () {};\nconst n = 1;\n";
        let expected = [
            named("f", "function", 2, 2),
            named("g", "function", 3, 5),
            named("A", "class", 6, 9),
            named("A.m", "method", 7, 7),
            named("A.h", "method", 8, 8),
            named("exports.z", "method", 10, 10),
        ];
        assert_eq!(found("javascript", source), expected);
        assert_eq!(definitions(&GRAMMARS[1], source)[0].doc.as_deref(), Some("Doc."));
    }

    #[test]
    fn java_and_go() {
        let source = "package a;\n\n/** Doc. */\npublic class A {\n    A() {}\n    public int m(int x) {\n        return x;\n    }\n}\n";
        let expected = [named("A", "class", 4, 9), named("A.A", "method", 5, 5), named("A.m", "method", 6, 8)];
        assert_eq!(found("java", source), expected);
        let source = "package m\n\n// Doc.\nfunc F(a int) int { return 1 }\nfunc (s *Srv[T]) M() {}\ntype S struct {\n\ta int\n}\n";
        let expected = [named("F", "function", 4, 4), named("Srv.M", "method", 5, 5), named("S", "class", 6, 8)];
        assert_eq!(found("go", source), expected);
        assert_eq!(definitions(&GRAMMARS[3], source)[0].doc.as_deref(), Some("Doc."));
    }

    #[test]
    fn what_is_no_code_has_no_definitions() {
        for grammar in &GRAMMARS {
            assert_eq!(definitions(grammar, ""), []);
            definitions(grammar, &"({[<".repeat(500));
            definitions(grammar, "def \u{fffd} (((( fn class { \u{0} }");
        }
    }
}

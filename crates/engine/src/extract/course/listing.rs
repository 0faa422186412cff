//! Code in the pages of a book: whether a block is code, what it looks like with its indentation, and in which language it is.

use strata_media::{Block, BlockKind, Line};

/// How wide a letter of code is, as a share of the size of its type.
const LETTER_WIDTH: f32 = 0.6;
/// Lines of a block without a monospaced font, at least, and the shares of its lines and characters that must look like code.
const MIN_LINES: usize = 2;
const LINES_SHARE: f64 = 0.6;
const SIGNS_SHARE: f64 = 0.08;
/// Spaces that a line is indented by, at most.
const MAX_INDENT: usize = 120;

/// A block's code as it stands on the page; `None` for a block that is none. `lines` and `text` are those of its page.
pub fn code_in(block: &Block, lines: &[Line], text: &str) -> Option<String> {
    if matches!(block.kind, BlockKind::Figure | BlockKind::Header | BlockKind::Footer | BlockKind::Heading) {
        return None;
    }
    let own: Vec<&Line> = block.lines.iter().filter_map(|at| lines.get(*at as usize)).collect();
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let words = |line: &Line| -> &str {
        let at = |character: u32| starts.get(character as usize).copied().unwrap_or(text.len());
        text.get(at(line.start)..at(line.end)).unwrap_or_default()
    };
    let is_listing = !own.is_empty() && own.iter().all(|line| line.monospaced);
    let texts: Vec<&str> = own.iter().map(|line| words(line)).collect();
    if !is_listing && (block.kind == BlockKind::Table || !looks_like_code(&texts)) {
        return None;
    }
    let left = own.iter().map(|line| line.bounds.x0).fold(f32::INFINITY, f32::min);
    let spaces = |gap: f32, size: f32| {
        let letters = (gap / (size.max(1.0) * LETTER_WIDTH)).round() as usize;
        " ".repeat(letters.min(MAX_INDENT))
    };
    let mut code = String::new();
    let mut before: Option<&Line> = None;
    for (line, words) in own.into_iter().zip(texts) {
        let middle = (line.bounds.y0 + line.bounds.y1) / 2.0;
        let beside = before.filter(|last| middle > last.bounds.y0 && middle < last.bounds.y1);
        match beside {
            Some(last) => code.push_str(&spaces((line.bounds.x0 - last.bounds.x1).max(0.0), line.font_size)),
            None => {
                if before.is_some() {
                    code.push('\n');
                }
                code.push_str(&spaces(line.bounds.x0 - left, line.font_size));
            }
        }
        code.push_str(words);
        before = Some(line);
    }
    Some(code)
}

/// Whether lines read like code by their signs, for files that do not say which font is monospaced.
fn looks_like_code(lines: &[&str]) -> bool {
    const BEGINNINGS: [&str; 22] = [
        "def ", "class ", "import ", "from ", "return ", "if (", "for (", "while (", "#include", "#define", "fn ",
        "let ", "pub ", "use ", "func ", "package ", "public ", "private ", "var ", "const ", "//", "@",
    ];
    const WITHIN: [&str; 9] = [" = ", "<-", "->", "=>", "::", "==", "();", "[]", "+="];
    let is_code = |line: &&&str| {
        let line = line.trim();
        line.ends_with([';', '{', '}'])
            || line.ends_with("):")
            || BEGINNINGS.iter().any(|beginning| line.starts_with(beginning))
            || WITHIN.iter().any(|sign| line.contains(sign))
    };
    let letters = || lines.iter().flat_map(|line| line.chars()).filter(|c| !c.is_whitespace());
    let signs = letters().filter(|c| "{}()[];=<>_+*/&|\"'#:".contains(*c)).count() as f64;
    lines.len() >= MIN_LINES
        && lines.iter().filter(is_code).count() as f64 >= lines.len() as f64 * LINES_SHARE
        && signs >= letters().count() as f64 * SIGNS_SHARE
}

/// The language of some code by words that only it has; `None` where nothing speaks for one.
pub fn language_of(code: &str) -> Option<&'static str> {
    const MARKS: [(&str, &[&str]); 9] = [
        ("python", &["def ", "elif ", "import ", "self.", "):\n", "print(", "None", ">>> ", "lambda "]),
        ("javascript", &["const ", "let ", "=> ", "function (", "===", "console.log", "document.", "var ", "async "]),
        ("java", &["public class", "public static void", "System.out", "private ", "extends ", "@Override", "String "]),
        ("go", &["func ", "package main", ":= ", "fmt.", "chan ", "defer ", "go func"]),
        ("rust", &["fn ", "let mut ", "impl ", "pub fn", "println!", "::<", "&str", "-> ", "match "]),
        ("c", &["#include <stdio", "printf(", "malloc(", "int main(", "#define ", "struct ", "char *", "->"]),
        (
            "cpp",
            &["std::", "#include <iostream", "cout <<", "template <", "class ", "nullptr", "namespace ", "const &"],
        ),
        ("r", &["<- ", "library(", "data.frame", "> ", "c(", "read.table", "function("]),
        ("sql", &["SELECT ", "FROM ", "WHERE ", "INSERT INTO", "CREATE TABLE", "JOIN "]),
    ];
    let speaks = |marks: &[&str]| marks.iter().filter(|mark| code.contains(**mark)).count();
    let mut found: Vec<(usize, &'static str)> = MARKS.iter().map(|(name, marks)| (speaks(marks), *name)).collect();
    found.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let (best, name) = found[0];
    (best >= 2 && best > found[1].0).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_media::PageBox;

    /// A block of lines with so much space before each, ten points high.
    fn page(rows: &[(f32, &str)], monospaced: bool) -> (Block, Vec<Line>, String) {
        let (mut lines, mut text) = (Vec::new(), String::new());
        for (at, (x0, words)) in rows.iter().enumerate() {
            let start = text.chars().count() as u32 + u32::from(at > 0);
            if at > 0 {
                text.push('\n');
            }
            text.push_str(words);
            let end = text.chars().count() as u32;
            let y0 = at as f32 * 12.0;
            let bounds = PageBox { x0: *x0, y0, x1: x0 + words.len() as f32 * 6.0, y1: y0 + 10.0 };
            lines.push(Line { start, end, bounds, font_size: 10.0, bold: false, monospaced });
        }
        let block = Block {
            kind: BlockKind::Paragraph,
            bounds: PageBox { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 },
            lines: (0..lines.len() as u32).collect(),
            text: text.clone(),
            font_size: 10.0,
            bold: false,
        };
        (block, lines, text)
    }

    #[test]
    fn monospaced_lines_are_code_with_their_indentation() {
        let (block, lines, text) = page(&[(50.0, "größe <- 1"), (62.0, "x"), (50.0, "y")], true);
        assert_eq!(code_in(&block, &lines, &text).as_deref(), Some("größe <- 1\n  x\ny"));
    }

    #[test]
    fn signs_tell_code_where_fonts_do_not() {
        let code = [(50.0, "for (int i = 0; i < n; i++) {"), (62.0, "sum += a[i];"), (50.0, "}")];
        let (block, lines, text) = page(&code, false);
        assert!(code_in(&block, &lines, &text).is_some());
        let words = [(50.0, "This is a sentence about importance; it goes on"), (50.0, "here (and there) and ends.")];
        let (block, lines, text) = page(&words, false);
        assert_eq!(code_in(&block, &lines, &text), None);
    }

    #[test]
    fn languages_are_told_by_their_words() {
        for (code, language) in [
            ("def f(self):\n    return self.x\nprint(f)", Some("python")),
            ("#include <stdio.h>\nint main(void) { printf(\"x\"); }", Some("c")),
            ("fn main() {\n    let mut x = 1;\n    println!(\"{x}\");\n}", Some("rust")),
            ("x <- c(1, 2)\nlibrary(foreign)", Some("r")),
            ("hello", None),
        ] {
            assert_eq!(language_of(code), language, "{code}");
        }
    }
}

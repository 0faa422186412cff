//! The languages whose functions are found, with the kinds of nodes that tell them in tree-sitter's grammars.

use tree_sitter_language::LanguageFn;

/// A language whose functions are found.
pub struct Grammar {
    pub name: &'static str,
    pub extensions: &'static [&'static str],
    pub language: LanguageFn,
    /// Between the parts of a qualified name.
    pub separator: &'static str,
    /// Kinds of nodes that are a function or a method.
    pub functions: &'static [&'static str],
    /// Kinds of nodes that are a class or the like.
    pub classes: &'static [&'static str],
    /// Kinds of nodes that only give a name to what is in them.
    pub scopes: &'static [&'static str],
}

/// The names of all languages, as parameters have them.
pub const LANGUAGES: &[&str] = &["python", "javascript", "java", "go", "rust", "c", "cpp"];

/// All of them.
pub static GRAMMARS: [Grammar; 7] = [
    Grammar {
        name: "python",
        extensions: &["py", "pyi"],
        language: tree_sitter_python::LANGUAGE,
        separator: ".",
        functions: &["function_definition"],
        classes: &["class_definition"],
        scopes: &[],
    },
    Grammar {
        name: "javascript",
        extensions: &["js", "mjs", "cjs", "jsx"],
        language: tree_sitter_javascript::LANGUAGE,
        separator: ".",
        functions: &[
            "function_declaration",
            "generator_function_declaration",
            "method_definition",
            "variable_declarator",
            "field_definition",
            "assignment_expression",
        ],
        classes: &["class_declaration"],
        scopes: &[],
    },
    Grammar {
        name: "java",
        extensions: &["java"],
        language: tree_sitter_java::LANGUAGE,
        separator: ".",
        functions: &["method_declaration", "constructor_declaration"],
        classes: &["class_declaration", "interface_declaration", "enum_declaration", "record_declaration"],
        scopes: &[],
    },
    Grammar {
        name: "go",
        extensions: &["go"],
        language: tree_sitter_go::LANGUAGE,
        separator: ".",
        functions: &["function_declaration", "method_declaration"],
        classes: &["type_spec"],
        scopes: &[],
    },
    Grammar {
        name: "rust",
        extensions: &["rs"],
        language: tree_sitter_rust::LANGUAGE,
        separator: "::",
        functions: &["function_item", "macro_definition"],
        classes: &["struct_item", "enum_item", "union_item", "trait_item"],
        scopes: &["impl_item", "mod_item"],
    },
    Grammar {
        name: "c",
        extensions: &["c", "h"],
        language: tree_sitter_c::LANGUAGE,
        separator: "::",
        functions: &["function_definition"],
        classes: &["struct_specifier", "enum_specifier", "union_specifier"],
        scopes: &[],
    },
    Grammar {
        name: "cpp",
        extensions: &["cc", "cpp", "cxx", "hh", "hpp", "hxx", "h"],
        language: tree_sitter_cpp::LANGUAGE,
        separator: "::",
        functions: &["function_definition"],
        classes: &["class_specifier", "struct_specifier", "enum_specifier", "union_specifier"],
        scopes: &["namespace_definition"],
    },
];

impl Grammar {
    /// By the end of a file's name, among the languages that are `wanted`.
    pub fn of_file(path: &str, wanted: &[String]) -> Option<&'static Self> {
        let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
        let extension = extension.to_ascii_lowercase();
        let suits = |grammar: &&Self| {
            grammar.extensions.contains(&extension.as_str()) && wanted.iter().any(|name| name == grammar.name)
        };
        GRAMMARS.iter().find(suits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_its_grammar() {
        assert_eq!(GRAMMARS.each_ref().map(|grammar| grammar.name), *LANGUAGES);
        let all: Vec<String> = LANGUAGES.iter().map(|name| (*name).to_owned()).collect();
        let of = |path: &str, wanted: &[String]| Grammar::of_file(path, wanted).map(|grammar| grammar.name);
        assert_eq!(of("a/b.PY", &all), Some("python"));
        assert_eq!(of("x.h", &all), Some("c"));
        assert_eq!(of("x.h", &["cpp".to_owned()]), Some("cpp"));
        assert_eq!((of("x.py", &["c".to_owned()]), of("py", &all), of("a.py/b", &all)), (None, None, None));
    }
}

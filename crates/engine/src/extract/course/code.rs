//! Source code: a document for each function, method and class of an archive or of one file, or for each file.

use super::super::{InputFile, Output};
use super::{
    archive::{self, SourceFile},
    check_count, file_key,
    functions::{self, Definition},
    grammars::Grammar,
};
use crate::Engine;
use std::{collections::HashMap, sync::Arc};
use strata_media::Family;
use strata_model::{Error, Result};

/// Bytes of code that one document holds; the rest of a longer definition is left out.
const MAX_CODE_BYTES: usize = 64 << 10;
/// Names of what a file defines that a document of a whole file tells.
const MAX_NAMES: usize = 200;

/// What is wanted of source code.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of languages.
    pub languages: Vec<String>,
    /// A document for each definition, not for each file.
    pub by_function: bool,
}

/// The documents of a ZIP or of one source file.
pub async fn documents(engine: &Arc<Engine>, file: &InputFile, settings: &Settings) -> Result<Vec<Output>> {
    let key = file_key(file);
    let settings = settings.clone();
    if file.family() == Family::Archive {
        if file.size_bytes > archive::MAX_ARCHIVE_BYTES {
            let (has, most) = (file.size_bytes, archive::MAX_ARCHIVE_BYTES);
            return Err(Error::TooLarge(format!("the archive has {has} bytes; at most {most} are read")));
        }
        let stored = engine.blobs.file(&file.hash).await?;
        let path = stored.path().to_owned();
        return blocking(move || {
            let files = archive::read(&path, &settings.languages)?;
            if files.is_empty() {
                return Err(none(&settings));
            }
            described(&key, files, &settings)
        })
        .await;
    }
    if file.size_bytes > archive::MAX_FILE_BYTES {
        let (has, most) = (file.size_bytes, archive::MAX_FILE_BYTES);
        return Err(Error::TooLarge(format!("the source file has {has} bytes; at most {most} are read")));
    }
    let name = file.filename.clone().unwrap_or_else(|| file.property.clone());
    let bytes = engine.blobs.get(&file.hash).await?;
    blocking(move || {
        let grammar = Grammar::of_file(&name, &settings.languages).ok_or_else(|| none(&settings))?;
        let text = archive::text(&bytes).ok_or_else(|| none(&settings))?;
        described(&key, vec![SourceFile { path: name, grammar, text }], &settings)
    })
    .await
}

async fn blocking(work: impl FnOnce() -> Result<Vec<Output>> + Send + 'static) -> Result<Vec<Output>> {
    // A reader that panics has met an archive that it cannot read.
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::invalid("code_archive", "cannot be read"))?
}

fn none(settings: &Settings) -> Error {
    let message = format!("holds no source file in {}", settings.languages.join(", "));
    Error::invalid("code_archive", message)
}

fn described(key: &str, files: Vec<SourceFile>, settings: &Settings) -> Result<Vec<Output>> {
    let mut outputs = Vec::new();
    for file in files {
        let definitions = functions::definitions(file.grammar, &file.text);
        if !settings.by_function || definitions.is_empty() {
            outputs.push(whole(key, &file, &definitions));
        } else {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for definition in definitions {
                // Names come again where a language lets functions differ by their arguments.
                let time = seen.entry(definition.name.clone()).or_default();
                *time += 1;
                let key = format!("{key}:{}:{}:{time}", file.path, definition.name);
                outputs.push(one(key, &file, definition));
            }
        }
        check_count(&outputs)?;
    }
    Ok(outputs)
}

fn output(key: String, file: &SourceFile) -> Output {
    let mut output = Output { key: Some(key), ..Output::default() };
    output.put("unit_type", "code_function");
    output.put("doc_type", "code");
    output.put("code_language", file.grammar.name);
    output.put("file_path", file.path.as_str());
    output
}

fn one(key: String, file: &SourceFile, definition: Definition) -> Output {
    let mut output = output(key, file);
    let Definition { name, kind, start_line, end_line, code, signature, doc } = definition;
    let text = [Some(name.as_str()), doc.as_deref(), Some(signature.as_str())];
    output.put("text_content", text.into_iter().flatten().collect::<Vec<_>>().join("\n"));
    output.put("title", name.as_str());
    output.put("element_type", kind);
    output.put("start_line", start_line);
    output.put("end_line", end_line);
    output.put("code_content", bounded(code));
    output
}

/// A file as one document: what it is called, and what it defines.
fn whole(key: &str, file: &SourceFile, definitions: &[Definition]) -> Output {
    let mut output = output(format!("{key}:{}", file.path), file);
    let names = definitions.iter().take(MAX_NAMES).map(|definition| definition.name.as_str());
    let text: Vec<&str> = [file.path.as_str()].into_iter().chain(names).collect();
    output.put("text_content", text.join("\n"));
    output.put("title", file.path.as_str());
    output.put("element_type", "file");
    output.put("start_line", 1);
    output.put("end_line", file.text.lines().count().max(1));
    output.put("code_content", bounded(file.text.clone()));
    output
}

fn bounded(mut code: String) -> String {
    code.truncate(code.floor_char_boundary(MAX_CODE_BYTES));
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn documents(by_function: bool, text: &str) -> Vec<Output> {
        let settings = Settings { languages: vec!["python".into()], by_function };
        let grammar = Grammar::of_file("a.py", &settings.languages).unwrap();
        described("f", vec![SourceFile { path: "a.py".into(), grammar, text: text.into() }], &settings).unwrap()
    }

    #[test]
    fn each_function_is_a_document_whose_key_is_its_name() {
        let made = documents(true, "def f():\n    \"\"\"Says.\"\"\"\n\ndef g(): pass\ndef f(): pass\n");
        let keys: Vec<&str> = made.iter().filter_map(|output| output.key.as_deref()).collect();
        assert_eq!(keys, ["f:a.py:f:1", "f:a.py:g:1", "f:a.py:f:2"]);
        assert_eq!(made[0].fields["text_content"], "f\nSays.\ndef f():");
        assert_eq!((&made[1].fields["start_line"], &made[1].fields["end_line"]), (&json!(4), &json!(4)));
    }

    #[test]
    fn a_file_without_functions_is_one_document() {
        for (by_function, text) in [(true, "x = 1\ny = 2\n"), (false, "x = 1\ndef f(): pass\n")] {
            let made = documents(by_function, text);
            assert_eq!((made.len(), &made[0].fields["end_line"]), (1, &json!(2)));
            assert_eq!(made[0].fields["code_content"], text);
        }
    }
}

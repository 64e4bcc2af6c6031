//! The table of what works, `docs/models.md`, made of the lists that the code goes by.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use model_core::config::SUPPORTED_ARCHITECTURES;
use model_core::gguf::{Array, GgmlType, KeyError, Metadata, keys};
use model_core::quant::Operation;
use model_core::tokenizer::{Error, Tokenizer};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/models.md");

const HEAD: &str = "# What works with what

Written by a test from the lists that the code goes by: `ICLLAMA_UPDATE=1 cargo test -p model-core --test model support` renews it.

Every architecture takes tensors of every format below, mixed as they are, and either kind of tokenizer: formats and
vocabularies are read before an architecture sees them. Each architecture is held to llama.cpp's logits, each format to the
`gguf` package's numbers, each tokenizer to the ids of Hugging Face's `tokenizers` or of `sentencepiece`. What is not here is
refused by name.
";

const TOKENIZERS: &str = "
## Tokenizers

| `tokenizer.ggml.model` | `tokenizer.ggml.pre` |
| --- | --- |
";

fn table() -> String {
    let mut text = HEAD.to_owned();
    let formats = || GgmlType::ALL.iter().filter(|ty| Operation::Decode.supports(**ty));
    write!(text, "\n## Architectures and formats\n\n| format |").unwrap();
    SUPPORTED_ARCHITECTURES.iter().for_each(|name| write!(text, " `{name}` |").unwrap());
    write!(text, " `icllama quantize` writes it |\n| --- |{}\n", " :-: |".repeat(SUPPORTED_ARCHITECTURES.len() + 1))
        .unwrap();
    for format in formats() {
        let written = if Operation::Encode.supports(*format) { "yes" } else { "" };
        let marks = "yes | ".repeat(SUPPORTED_ARCHITECTURES.len());
        writeln!(text, "| {} | {marks}{written} |", format.name()).unwrap();
    }
    text.push_str(TOKENIZERS);
    for (model, names) in Tokenizer::supported() {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let names = if names.is_empty() { "any".to_owned() } else { names.join(", ") };
        writeln!(text, "| `{model}` | {names} |").unwrap();
    }
    text
}

#[test]
fn the_table_shows_what_the_code_supports() {
    if std::env::var_os("ICLLAMA_UPDATE").is_some() {
        std::fs::write(TABLE, table()).unwrap();
    }
    let kept = std::fs::read_to_string(TABLE).unwrap();
    assert!(kept == table(), "docs/models.md is not up to date; renew it as its first lines say");
}

/// What is in the table is accepted, and what is not is refused.
#[test]
fn every_tokenizer_of_the_table_is_read() {
    let build = |model: &str, pre: Option<&str>| {
        let mut meta = Metadata::default();
        meta.insert(keys::TOKENIZER_MODEL, model);
        meta.insert(keys::TOKENS, Array::String(["a", "b", "c"].iter().collect()));
        meta.insert(keys::SCORES, Array::F32(vec![0.0; 3]));
        meta.insert(keys::MERGES, Array::String(std::iter::empty::<&str>().collect()));
        pre.into_iter().for_each(|pre| meta.insert(keys::TOKENIZER_PRE, pre));
        Tokenizer::from_gguf(&meta)
    };
    for (model, names) in Tokenizer::supported() {
        assert!(names.iter().all(|name| build(model, Some(name)).is_ok()), "{model}: {names:?}");
        let unknown = build(model, Some("unheard of"));
        assert_eq!(unknown.is_ok(), names.is_empty(), "{model}");
    }
    assert!(matches!(build("bert", None), Err(Error::UnsupportedModel { .. })));
    assert!(matches!(Tokenizer::from_gguf(&Metadata::default()), Err(Error::Metadata(KeyError::Missing { .. }))));
}

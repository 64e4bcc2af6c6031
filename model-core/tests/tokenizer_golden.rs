//! Token ids equal to those of the Hugging Face `tokenizers` library, on vectors written by
//! `scripts/golden/tokenizer_vectors.py`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a golden file that cannot be read must fail the test")]

use std::path::PathBuf;

use model_core::TokenId;
use model_core::gguf::{Array, File, Metadata, keys};
use model_core::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as TokenId).collect()
}

/// Every row is `[text, ids]` or `[text, ids, ids with special tokens obeyed]`. Returns the number of rows.
fn check(what: &str, tokenizer: &Tokenizer, cases: &Value) -> usize {
    let cases = cases.as_array().unwrap();
    for case in cases {
        let text = case[0].as_str().unwrap();
        for (parse_special, expected) in [(false, &case[1]), (true, case.get(2).unwrap_or(&case[1]))] {
            let found = tokenizer.encode(text, EncodeOptions { parse_special, add_bos: false }).unwrap();
            assert_eq!(found, ids(expected), "{what}, parse_special {parse_special}: {text:?}");
        }
    }
    cases.len()
}

fn strings(value: &Value) -> Array {
    Array::String(value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect())
}

fn metadata(model: &str, golden: &Value) -> Metadata {
    let mut meta = Metadata::default();
    meta.insert(keys::TOKENIZER_MODEL, model);
    meta.insert(keys::TOKENS, strings(&golden["tokens"]));
    let types = golden["token_types"].as_array().unwrap().iter().map(|kind| kind.as_i64().unwrap() as i32);
    meta.insert(keys::TOKEN_TYPES, Array::I32(types.collect()));
    meta
}

fn smollm2() -> Tokenizer {
    let path = std::env::var_os("ICLLAMA_MODEL").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    );
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/fetch-model.sh or set ICLLAMA_MODEL", path.display()));
    Tokenizer::from_gguf(File::read(&bytes).unwrap().metadata()).unwrap()
}

#[test]
fn smollm2_gives_the_ids_of_hugging_face() {
    let checked = check("SmolLM2", &smollm2(), &golden("tokenizer_smollm2.json")["cases"]);
    assert!(checked >= 1000, "only {checked} strings");
}

#[test]
fn every_pre_tokenizer_gives_the_ids_of_hugging_face() {
    let golden = golden("tokenizer_bytelevel.json");
    for name in ["default", "gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let mut meta = metadata("gpt2", &golden);
        meta.insert(keys::TOKENIZER_PRE, name);
        meta.insert(keys::MERGES, strings(&golden["merges"]));
        let checked = check(name, &Tokenizer::from_gguf(&meta).unwrap(), &golden[format!("cases {name}")]);
        assert!(checked >= 200, "only {checked} strings for {name}");
    }
}

fn sentence_piece(golden: &Value) -> Metadata {
    let mut meta = metadata("llama", golden);
    let scores = golden["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32);
    meta.insert(keys::SCORES, Array::F32(scores.collect()));
    meta
}

#[test]
fn sentence_piece_gives_the_ids_of_hugging_face() {
    let golden = golden("tokenizer_sentencepiece.json");
    let mut meta = sentence_piece(&golden);
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    assert!(check("with space prefix", &tokenizer, &golden["cases"]) >= 300);
    meta.insert(keys::ADD_SPACE_PREFIX, false);
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    assert!(check("without space prefix", &tokenizer, &golden["cases without space prefix"]) >= 80);
}

#[test]
fn a_tokenizer_json_gives_the_ids_of_hugging_face() {
    let golden = golden("tokenizer_bytelevel.json");
    let json = serde_json::to_vec(&golden["json"]).unwrap();
    check("byte level", &Tokenizer::from_json(&json, &Metadata::default()).unwrap(), &golden["cases llama-bpe"]);
    let golden = self::golden("tokenizer_sentencepiece.json");
    let json = serde_json::to_vec(&golden["json"]).unwrap();
    check("SentencePiece", &Tokenizer::from_json(&json, &Metadata::default()).unwrap(), &golden["cases"]);
}

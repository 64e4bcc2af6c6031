//! Token ids equal to those of the Hugging Face `tokenizers` library and of `sentencepiece`, on vectors written by
//! `scripts/golden/tokenizer_vectors.py` and `scripts/golden/sentencepiece_vectors.py`.

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

/// The vocabulary in the fields that end in `suffix`.
fn metadata(model: &str, golden: &Value, suffix: &str) -> Metadata {
    let mut meta = Metadata::default();
    meta.insert(keys::TOKENIZER_MODEL, model);
    meta.insert(keys::TOKENS, strings(&golden[format!("tokens{suffix}")]));
    let types = golden[format!("token_types{suffix}")].as_array().unwrap().iter();
    let types = types.map(|kind| kind.as_i64().unwrap() as i32);
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
    for (name, names) in Tokenizer::supported().filter_map(|(_, names)| Some((*names.first()?, names))) {
        for same in names {
            let mut meta = metadata("gpt2", &golden, "");
            meta.insert(keys::TOKENIZER_PRE, *same);
            meta.insert(keys::MERGES, strings(&golden["merges"]));
            let checked = check(same, &Tokenizer::from_gguf(&meta).unwrap(), &golden[format!("cases {name}")]);
            assert!(checked >= 200, "only {checked} strings for {same}");
        }
    }
}

/// The vocabulary in the fields that end in `suffix`.
fn sentence_piece(golden: &Value, suffix: &str) -> Metadata {
    let mut meta = metadata("llama", golden, suffix);
    let scores =
        golden[format!("scores{suffix}")].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32);
    meta.insert(keys::SCORES, Array::F32(scores.collect()));
    meta
}

#[test]
fn sentence_piece_gives_the_ids_of_hugging_face() {
    let golden = golden("tokenizer_sentencepiece.json");
    let mut meta = sentence_piece(&golden, "");
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    assert!(check("with space prefix", &tokenizer, &golden["cases"]) >= 300);
    meta.insert(keys::ADD_SPACE_PREFIX, false);
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    assert!(check("without space prefix", &tokenizer, &golden["cases without space prefix"]) >= 80);
}

#[test]
fn sentence_piece_gives_its_own_ids() {
    let golden = golden("tokenizer_sentencepiece_models.json");
    let mut meta = sentence_piece(&golden, " llama2");
    assert!(check("Llama 2", &Tokenizer::from_gguf(&meta).unwrap(), &golden["cases llama2"]) >= 300);
    meta = sentence_piece(&golden, " gemma");
    meta.insert(keys::ADD_SPACE_PREFIX, false);
    assert!(check("Gemma", &Tokenizer::from_gguf(&meta).unwrap(), &golden["cases gemma"]) >= 300);
}

/// llama.cpp's converter writes user-defined tokens with spaces, but did not always.
#[test]
fn user_defined_tokens_may_be_spelled_with_visible_spaces() {
    let mut golden = golden("tokenizer_sentencepiece_models.json");
    let user_defined: Vec<bool> =
        golden["token_types gemma"].as_array().unwrap().iter().map(|kind| kind.as_i64() == Some(4)).collect();
    let mut changed = 0;
    for (token, user_defined) in golden["tokens gemma"].as_array_mut().unwrap().iter_mut().zip(user_defined) {
        let text = token.as_str().unwrap();
        if user_defined && text.contains(' ') {
            *token = text.replace(' ', "\u{2581}").into();
            changed += 1;
        }
    }
    assert_eq!(changed, 7);
    let mut meta = sentence_piece(&golden, " gemma");
    meta.insert(keys::ADD_SPACE_PREFIX, false);
    check("Gemma", &Tokenizer::from_gguf(&meta).unwrap(), &golden["cases gemma"]);
}

#[test]
fn the_special_tokens_of_phi_3_swallow_white_space() {
    let mut golden = golden("tokenizer_sentencepiece.json");
    for (key, added) in [("token_types", 3.into()), ("scores", 0.0.into())] {
        golden[key].as_array_mut().unwrap().extend(vec![added; 4]);
    }
    let special = ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"];
    golden["tokens"].as_array_mut().unwrap().extend(special.map(Value::from));
    let meta = sentence_piece(&golden, "");
    for (key, value) in [(keys::NAME, "Phi3"), (keys::NAME, "Phi-3 mini"), (keys::ARCHITECTURE, "phi3")] {
        let mut meta = meta.clone();
        meta.insert(key, value);
        assert!(check(value, &Tokenizer::from_gguf(&meta).unwrap(), &golden["cases phi-3"]) >= 80);
    }
    let text = "<|end|> \na";
    let ids = |meta: &Metadata| {
        let options = EncodeOptions { parse_special: true, add_bos: false };
        Tokenizer::from_gguf(meta).unwrap().encode(text, options).unwrap()
    };
    let mut other = meta.clone();
    other.insert(keys::NAME, "Llama 2");
    assert_eq!(ids(&other).len(), ids(&meta).len());
    other.insert(keys::NAME, "Phi3");
    assert!(ids(&other).len() < ids(&meta).len());
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

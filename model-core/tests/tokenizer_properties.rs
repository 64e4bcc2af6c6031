//! What holds for every text: decoding gives it back, streams cut it nowhere, special tokens come only when asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::LazyLock;

use model_core::TokenId;
use model_core::fixtures::TinyLlama;
use model_core::gguf::{Array, File, Metadata, keys};
use model_core::tokenizer::{EncodeOptions, TextStream, TokenKind, Tokenizer};
use proptest::prelude::*;

const PLAIN: EncodeOptions = EncodeOptions { add_bos: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_bos: true, parse_special: true };

fn from_file(bytes: Vec<u8>) -> Tokenizer {
    Tokenizer::from_gguf(File::read(&bytes).unwrap().metadata()).unwrap()
}

static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| from_file(TinyLlama::default().build()));
static SENTENCE_PIECE: LazyLock<Tokenizer> = LazyLock::new(|| from_file(TinyLlama::sentence_piece().build()));

static SMOLLM2: LazyLock<Tokenizer> = LazyLock::new(|| {
    let path = std::env::var_os("ICLLAMA_MODEL").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    );
    let hint = format!("{} is needed; run scripts/fetch-model.sh or set ICLLAMA_MODEL", path.display());
    from_file(std::fs::read(&path).map_err(|error| format!("{error}: {hint}")).unwrap())
});

/// The bytes for which SmolLM2's vocabulary has no token.
const MISSING: [u8; 21] = [
    0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD,
    0xFE, 0xFF,
];

/// Text of all kinds, with the spelling of special tokens in it.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[ -~]{0,12}",
        2 => any::<String>(),
        2 => "[ \t\r\n]{0,6}",
        2 => "[0-9]{1,7}",
        1 => proptest::sample::select(vec!["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<0x41>", "▁", "'s"])
            .prop_map(str::to_owned),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

/// All pieces through a stream, as a session shows them.
fn streamed(tokenizer: &Tokenizer, ids: &[TokenId]) -> String {
    let mut stream = TextStream::default();
    let mut text = String::new();
    for &id in ids {
        text.push_str(&stream.push(tokenizer.token_bytes(id).unwrap()));
    }
    text + &stream.finish()
}

proptest! {
    #[test]
    fn byte_level_text_comes_back(text in text()) {
        let ids = BYTE_LEVEL.encode(&text, PLAIN).unwrap();
        prop_assert_eq!(BYTE_LEVEL.decode(&ids).unwrap(), text.as_bytes());
        prop_assert_eq!(streamed(&BYTE_LEVEL, &ids), text);
    }

    #[test]
    fn smollm2_text_comes_back_but_for_the_bytes_it_lacks(text in text()) {
        let ids = SMOLLM2.encode(&text, PLAIN).unwrap();
        let expected: Vec<u8> = text.bytes().filter(|byte| !MISSING.contains(byte)).collect();
        prop_assert_eq!(SMOLLM2.decode(&ids).unwrap(), expected);
    }

    #[test]
    fn sentence_piece_text_comes_back_without_the_space_in_front(text in text()) {
        let ids = SENTENCE_PIECE.encode(&text, PLAIN).unwrap();
        // A visible space is a space to such vocabularies.
        let text = text.replace('▁', " ");
        prop_assert_eq!(SENTENCE_PIECE.decode(&ids).unwrap(), text.as_bytes());
        if !text.is_empty() {
            prop_assert_eq!(streamed(&SENTENCE_PIECE, &ids), format!(" {text}"));
        }
    }

    #[test]
    fn plain_text_never_gives_control_tokens(text in text()) {
        for tokenizer in [&BYTE_LEVEL, &SENTENCE_PIECE, &SMOLLM2] {
            prop_assert!(!tokenizer.encode(&text, PLAIN).unwrap().iter().any(|&id| tokenizer.is_control(id)));
        }
    }
}

#[test]
fn special_tokens_are_obeyed_on_request() {
    let ids = SMOLLM2.encode("<|im_start|>user\nHi<|im_end|>", SPECIAL).unwrap();
    assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&2)));
    assert_eq!(SMOLLM2.decode(&ids).unwrap(), b"user\nHi");
    assert_eq!(SMOLLM2.token_text(1).unwrap(), "<|im_start|>");
    assert_eq!(SMOLLM2.token_kind(1).unwrap(), TokenKind::Control);
}

#[test]
fn bos_is_added_once_and_only_where_the_model_wants_it() {
    let bos = SENTENCE_PIECE.bos().unwrap();
    let bos_text = SENTENCE_PIECE.token_text(bos).unwrap();
    let count = |text: &str| SENTENCE_PIECE.encode(text, SPECIAL).unwrap().iter().filter(|&&id| id == bos).count();
    assert!(SENTENCE_PIECE.adds_bos() && !SMOLLM2.adds_bos());
    assert_eq!(count("a"), 1);
    assert_eq!(count(""), 1);
    assert_eq!(count(&format!("{bos_text}a")), 1);
    assert!(SMOLLM2.encode("", SPECIAL).unwrap().is_empty());
    assert!(SMOLLM2.bos().is_some());
}

#[test]
fn eos_is_added_where_the_model_wants_it() {
    let bytes = TinyLlama::default().build();
    let mut file = File::read(&bytes).unwrap();
    file.metadata_mut().insert(keys::ADD_EOS, true);
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    assert_eq!(tokenizer.encode("a", SPECIAL).unwrap().last().copied(), tokenizer.eos());
    assert_ne!(tokenizer.encode("a", PLAIN).unwrap().last().copied(), tokenizer.eos());
}

#[test]
fn every_role_in_the_file_ends_a_generation() {
    let text = |id: &TokenId| SMOLLM2.token_text(*id).unwrap();
    let ends: Vec<_> = SMOLLM2.end_of_generation().iter().map(text).collect();
    assert_eq!(ends, ["<|endoftext|>", "<|im_end|>", "<reponame>"]);
    let bytes = TinyLlama::default().build();
    let mut file = File::read(&bytes).unwrap();
    for (key, id) in [(keys::EOS_ID, 10u32), (keys::EOT_ID, 11), (keys::EOM_ID, 12)] {
        file.metadata_mut().insert(key, id);
    }
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    assert!([10, 11, 12].iter().all(|id| tokenizer.end_of_generation().contains(id)));
}

#[test]
fn smollm2_lacks_exactly_the_bytes_that_are_left_out() {
    let alone: Vec<u8> = (0..SMOLLM2.vocab_size() as TokenId)
        .filter_map(|id| <[u8; 1]>::try_from(SMOLLM2.token_bytes(id).unwrap()).ok())
        .map(|[byte]| byte)
        .collect();
    let missing: Vec<u8> = (0..=255).filter(|byte| !alone.contains(byte)).collect();
    assert_eq!(missing, MISSING);
    // The byte itself gives nothing, and what surrounds it does not merge across it.
    assert!(SMOLLM2.encode("\u{4}", PLAIN).unwrap().is_empty());
    let [whole, apart] = ["!!", "!\u{4}!"].map(|text| SMOLLM2.encode(text, PLAIN).unwrap());
    assert_eq!((whole.len(), apart.len()), (1, 2));
}

#[test]
fn token_types_may_be_absent() {
    let bytes = TinyLlama::sentence_piece().build();
    let file = File::read(&bytes).unwrap();
    let mut bare = Metadata::default();
    let kept = file.metadata().iter().filter(|(key, _)| *key != keys::TOKEN_TYPES);
    kept.for_each(|(key, value)| bare.insert(key, value.clone()));
    let tokenizer = Tokenizer::from_gguf(&bare).unwrap();
    for text in ["hello <s> 語", "  a\n"] {
        assert_eq!(tokenizer.encode(text, PLAIN).unwrap(), SENTENCE_PIECE.encode(text, PLAIN).unwrap(), "{text:?}");
    }
    assert!(tokenizer.is_control(tokenizer.bos().unwrap()));
}

#[test]
fn unused_tokens_are_never_produced_and_have_no_text() {
    let mut meta = Metadata::default();
    meta.insert(keys::TOKENIZER_MODEL, "gpt2");
    meta.insert(keys::TOKENS, Array::String(["a", "b", "[PAD]", "a b"].iter().collect()));
    meta.insert(keys::TOKEN_TYPES, Array::I32(vec![1, 1, 5, 1]));
    meta.insert(keys::MERGES, Array::String(["a b"; 0].iter().collect()));
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    assert_eq!(tokenizer.encode("[PAD]ab", PLAIN).unwrap(), [0, 1]);
    assert_eq!(tokenizer.token_bytes(2).unwrap(), b"");
    // Spelled outside the alphabet: shown as it is, reached by no text.
    assert_eq!(tokenizer.token_bytes(3).unwrap(), b"a b");
}

#[test]
fn long_runs_are_cut_in_reasonable_time() {
    for unit in [" ", "a", "\n", "1", "=", "語", " a", "\u{4}"] {
        let text = unit.repeat(200_000 / unit.len());
        for tokenizer in [&BYTE_LEVEL, &SENTENCE_PIECE, &SMOLLM2] {
            assert!(tokenizer.encode(&text, PLAIN).unwrap().len() <= text.len() + 1, "{unit:?}");
        }
    }
}

//! Vocabularies with one defect each: every one is refused by name, or harmless, and none panics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use model_core::TokenId;
use model_core::gguf::{Array, Metadata, Value, keys};
use model_core::tokenizer::{EncodeOptions, Error, TokenKind, Tokenizer};

/// A byte-level vocabulary: `a`, `b`, `ab`, a control token and a user-defined one.
fn byte_level() -> Metadata {
    let mut meta = Metadata::default();
    meta.insert(keys::TOKENIZER_MODEL, "gpt2");
    meta.insert(keys::TOKENIZER_PRE, "gpt-2");
    meta.insert(keys::TOKENS, strings(&["a", "b", "ab", "<end>", "<user>"]));
    meta.insert(keys::TOKEN_TYPES, Array::I32(vec![1, 1, 1, 3, 4]));
    meta.insert(keys::MERGES, strings(&["a b"]));
    meta.insert(keys::EOS_ID, 3u32);
    meta
}

/// A SentencePiece-style vocabulary without byte tokens.
fn sentence_piece() -> Metadata {
    let mut meta = Metadata::default();
    meta.insert(keys::TOKENIZER_MODEL, "llama");
    meta.insert(keys::TOKENS, strings(&["<unk>", "<s>", "</s>", "a", "▁", "▁a"]));
    meta.insert(keys::TOKEN_TYPES, Array::I32(vec![2, 3, 3, 1, 1, 1]));
    meta.insert(keys::SCORES, Array::F32(vec![0.0, 0.0, 0.0, -1.0, -2.0, -0.5]));
    meta
}

fn strings<S: AsRef<[u8]>>(texts: &[S]) -> Array {
    Array::String(texts.iter().collect())
}

/// What becomes of a file whose `key` is set to `value`.
fn with(mut meta: Metadata, key: &str, value: impl Into<Value>) -> Result<Tokenizer, Error> {
    meta.insert(key, value);
    Tokenizer::from_gguf(&meta)
}

fn without(meta: &Metadata, key: &str) -> Metadata {
    let mut rest = Metadata::default();
    meta.iter().filter(|(name, _)| *name != key).for_each(|(name, value)| rest.insert(name, value.clone()));
    rest
}

/// Checks that the file is refused with the given variant, and that the message names what is wrong.
macro_rules! assert_refused {
    ($result:expr, $pattern:pat, $named:literal) => {{
        let error = $result.map(|_| "accepted").unwrap_err();
        assert!(matches!(error, $pattern), "{error:?}");
        assert!(error.to_string().contains($named), "{error}");
    }};
}

#[test]
fn the_base_files_are_sound() {
    let plain = EncodeOptions::default();
    let tokenizer = Tokenizer::from_gguf(&byte_level()).unwrap();
    assert_eq!(tokenizer.encode("aab<end><user>b", plain).unwrap(), [0, 2, 4, 1]);
    let tokenizer = Tokenizer::from_gguf(&sentence_piece()).unwrap();
    assert_eq!(tokenizer.encode("a", EncodeOptions { add_bos: true, ..plain }).unwrap(), [1, 5]);
}

#[test]
fn missing_arrays_and_wrong_types_are_named() {
    for key in [keys::TOKENIZER_MODEL, keys::TOKENS, keys::MERGES] {
        let error = Tokenizer::from_gguf(&without(&byte_level(), key)).unwrap_err();
        assert!(matches!(error, Error::Metadata(_)) && error.to_string().contains(key), "{error}");
    }
    let scoreless = without(&sentence_piece(), keys::SCORES);
    assert_refused!(Tokenizer::from_gguf(&scoreless), Error::Metadata(_), "tokenizer.ggml.scores");
    assert_refused!(with(byte_level(), keys::TOKENS, 7u32), Error::Metadata(_), "tokenizer.ggml.tokens");
    assert_refused!(with(byte_level(), keys::EOS_ID, "3"), Error::Metadata(_), "tokenizer.ggml.eos_token_id");
    assert_refused!(with(byte_level(), keys::TOKENIZER_PRE, true), Error::Metadata(_), "tokenizer.ggml.pre");
}

#[test]
fn unsupported_kinds_are_refused_with_the_supported_ones() {
    assert_refused!(with(byte_level(), keys::TOKENIZER_MODEL, "t5"), Error::UnsupportedModel { .. }, "gpt2, llama");
    let refused = with(byte_level(), keys::TOKENIZER_PRE, "bloom");
    assert_refused!(refused, Error::UnsupportedPreTokenizer { .. }, "default, gpt-2");
}

#[test]
fn arrays_of_other_lengths_are_refused() {
    let short = with(byte_level(), keys::TOKEN_TYPES, Array::I32(vec![1; 4]));
    assert_refused!(short, Error::LengthMismatch { expected: 5, found: 4, .. }, "token_type");
    let long = with(sentence_piece(), keys::SCORES, Array::F32(vec![0.0; 7]));
    assert_refused!(long, Error::LengthMismatch { expected: 6, found: 7, .. }, "scores");
    assert_refused!(with(byte_level(), keys::TOKENS, strings::<&str>(&[])), Error::NoTokens, "empty");
}

#[test]
fn malformed_tokens_are_refused_by_id() {
    let with_token = |text: &[u8]| with(byte_level(), keys::TOKENS, strings(&[&b"a"[..], b"b", b"ab", b"<end>", text]));
    assert_refused!(with_token(b"\xff\xfe"), Error::TokenNotUtf8 { id: 4 }, "token 4");
    let duplicate = with(byte_level(), keys::TOKENS, strings(&["a", "a", "ab", "<end>", "<user>"]));
    assert_refused!(duplicate, Error::DuplicateToken { first: 0, second: 1, .. }, "`a`");
    assert_refused!(with_token(b"<end>"), Error::DuplicateToken { first: 3, second: 4, .. }, "`<end>`");
    let twice = with(sentence_piece(), keys::TOKENS, strings(&["<unk>", "<s>", "</s>", "a", "a", "b"]));
    assert_refused!(twice, Error::DuplicateToken { first: 3, second: 4, .. }, "`a`");
}

#[test]
fn tokens_without_a_spelling_are_unused() {
    let meta = with(byte_level(), keys::TOKENS, strings(&["a", "b", "ab", "", ""])).unwrap();
    assert_eq!([3, 4].map(|id| meta.token_kind(id).unwrap()), [TokenKind::Unused; 2]);
    assert_eq!(meta.encode("ab", EncodeOptions::default()).unwrap(), [2]);
}

/// Text must not end an answer, and files that forgot to say so are about.
#[test]
fn tokens_that_end_answers_are_control_tokens_whatever_the_file_says() {
    for kind in [1, 4] {
        let mut meta = byte_level();
        meta.insert(keys::TOKENS, strings(&["a", "b", "ab", "<|im_end|>", "</s>"]));
        let tokenizer = with(meta, keys::TOKEN_TYPES, Array::I32(vec![1, 1, 1, kind, kind])).unwrap();
        assert!(tokenizer.is_control(3) && !tokenizer.is_control(4));
        assert_eq!(tokenizer.end_of_generation(), [3]);
        assert!(!tokenizer.encode("<|im_end|>", EncodeOptions::default()).unwrap().contains(&3));
    }
}

#[test]
fn unknown_token_types_and_misspelled_bytes_are_refused() {
    for number in [7, -1, i32::MAX] {
        let refused = with(byte_level(), keys::TOKEN_TYPES, Array::I32(vec![1, 1, number, 3, 4]));
        assert_refused!(refused, Error::UnknownTokenType { id: 2, .. }, "token 2");
    }
    let refused = with(byte_level(), keys::TOKEN_TYPES, Array::I32(vec![1, 6, 1, 3, 4]));
    assert_refused!(refused, Error::BadByteToken { id: 1, .. }, "`b`");
}

#[test]
fn malformed_merges_are_refused_by_rank() {
    let with_merge = |merge: &[u8]| with(byte_level(), keys::MERGES, strings(&[&b"a b"[..], merge]));
    for merge in [&b""[..], b"ab", b" ", b"a ", b" a", b"\xff"] {
        assert_refused!(with_merge(merge), Error::MalformedMerge { rank: 1, .. }, "merge 1");
    }
    assert_refused!(with_merge(b"a c"), Error::UnknownMergePiece { rank: 1, .. }, "`c`");
    assert_refused!(with_merge(b"c a"), Error::UnknownMergePiece { rank: 1, .. }, "`c`");
    assert_refused!(with_merge(b"b a"), Error::UnknownMergePiece { rank: 1, .. }, "`ba`");
    assert_refused!(with_merge(b"a  "), Error::UnknownMergePiece { rank: 1, .. }, "` `");
    assert_refused!(with_merge(b"a \xff"), Error::UnknownMergePiece { rank: 1, .. }, "\u{FFFD}");
    assert_refused!(with_merge("語 a".as_bytes()), Error::UnknownMergePiece { rank: 1, .. }, "`語`");
    assert!(with_merge(b"a b").is_ok(), "a repeated merge changes nothing");
}

#[test]
fn merges_never_make_special_tokens_out_of_text() {
    let mut meta = byte_level();
    meta.insert(keys::TOKENS, strings(&["<", ">", "<>", "x", "ab"]));
    meta.insert(keys::TOKEN_TYPES, Array::I32(vec![1, 1, 3, 1, 1]));
    meta.insert(keys::MERGES, strings(&["< >"]));
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    assert_eq!(tokenizer.encode("<>", EncodeOptions::default()).unwrap(), [0, 1]);
}

#[test]
fn special_ids_beyond_the_vocabulary_are_refused() {
    for key in [keys::BOS_ID, keys::EOS_ID, keys::EOT_ID, keys::EOM_ID, keys::UNKNOWN_ID] {
        for (meta, size) in [(byte_level(), 5u32), (sentence_piece(), 6)] {
            let error = with(meta, key, size).unwrap_err();
            assert!(matches!(error, Error::SpecialOutOfRange { .. }) && error.to_string().contains(key), "{error}");
        }
    }
}

#[test]
fn tokens_to_add_must_exist() {
    assert_refused!(with(byte_level(), keys::ADD_BOS, true), Error::MissingSpecial { .. }, "bos_token_id");
    let endless = without(&byte_level(), keys::EOS_ID);
    assert_refused!(with(endless, keys::ADD_EOS, true), Error::MissingSpecial { .. }, "eos_token_id");
}

#[test]
fn scores_must_be_numbers_of_any_size() {
    let scores = |score| with(sentence_piece(), keys::SCORES, Array::F32(vec![0.0, 0.0, 0.0, score, -2.0, -1.0]));
    assert_refused!(scores(f32::NAN), Error::ScoreNotANumber { id: 3 }, "token 3");
    for score in [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0] {
        scores(score).unwrap().encode("a a", EncodeOptions::default()).unwrap();
    }
}

#[test]
fn what_cannot_be_spelled_is_unknown_or_refused() {
    let unknown = sentence_piece();
    let tokenizer = Tokenizer::from_gguf(&unknown).unwrap();
    assert_eq!(tokenizer.encode("axyza", EncodeOptions::default()).unwrap(), [5, 0, 3]);
    let few = ["a", "▁"];
    let mut meta = sentence_piece();
    meta.insert(keys::TOKENS, strings(&few));
    meta.insert(keys::TOKEN_TYPES, Array::I32(vec![1, 1]));
    meta.insert(keys::SCORES, Array::F32(vec![0.0, 0.0]));
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    let error = tokenizer.encode("aé", EncodeOptions::default()).unwrap_err();
    assert_eq!(error, Error::Unspellable { character: 'é' });
    assert!(error.to_string().contains("U+00E9"), "{error}");
}

#[test]
fn what_cannot_be_spelled_does_not_become_a_control_token() {
    let refused = Error::Unspellable { character: 'x' };
    let with = |id: u32, kind: i32| {
        let mut types = vec![2, 3, 3, 1, 1, 1];
        types[id as usize] = kind;
        let mut meta = sentence_piece();
        meta.insert(keys::TOKEN_TYPES, Array::I32(types));
        meta.insert(keys::UNKNOWN_ID, id);
        Tokenizer::from_gguf(&meta).unwrap().encode("axa", EncodeOptions::default())
    };
    assert_eq!(with(0, 3), Err(refused.clone()), "a control token");
    assert_eq!(with(1, 2), Err(refused.clone()), "the token that begins texts");
    assert_eq!(with(2, 2), Err(refused), "the token that ends texts");
    assert_eq!(with(0, 2).unwrap(), [5, 0, 3]);
}

#[test]
fn ids_beyond_the_vocabulary_are_refused_when_used() {
    let tokenizer = Tokenizer::from_gguf(&byte_level()).unwrap();
    for id in [5, TokenId::MAX - 1, TokenId::MAX] {
        let refused = Error::IdOutOfRange { id, vocab_size: 5 };
        assert_eq!(tokenizer.token_bytes(id).unwrap_err(), refused);
        assert_eq!(tokenizer.token_text(id).unwrap_err(), refused);
        assert_eq!(tokenizer.token_kind(id).unwrap_err(), refused);
        assert_eq!(tokenizer.decode(&[0, id]).unwrap_err(), refused);
        assert!(!tokenizer.is_control(id));
    }
}

#[test]
fn long_spellings_are_shortened_in_messages() {
    let long = "語".repeat(10_000);
    let refused = with(byte_level(), keys::MERGES, strings(&[format!("a {long}")]));
    assert!(refused.unwrap_err().to_string().len() < 400);
}

#[test]
fn a_tokenizer_json_that_would_make_its_library_panic_is_refused() {
    let build = |json: &str| Tokenizer::from_json(json.as_bytes(), &Metadata::default());
    let model = |merges: &str| {
        format!(r#"{{"model": {{"type": "BPE", "vocab": {{"a": 0, "b": 1, "ab": 2}}, "merges": {merges}}}}}"#)
    };
    let sound = build(&model(r#"["a b"]"#)).unwrap();
    assert_eq!(sound.encode("ab", EncodeOptions::default()).unwrap(), [2]);
    assert_refused!(build(&model(r#"[["ab", "ab"]]"#)), Error::UnknownMergePiece { rank: 0, .. }, "`abab`");
    assert_refused!(build(&model(r#"["a b c"]"#)), Error::MalformedMerge { rank: 0, .. }, "`a b c`");
    assert_refused!(build(&model("[7]")), Error::Json { .. }, "tokenizer.json");
    assert_refused!(build(r#"{"model": {"type": "Unigram", "vocab": []}}"#), Error::Json { .. }, "Unigram");
    assert_refused!(build("{"), Error::Json { .. }, "tokenizer.json");
    assert_refused!(build("\u{0}"), Error::Json { .. }, "tokenizer.json");
    let far = r#"{"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}}"#;
    assert_refused!(build(far), Error::TooManyTokens { .. }, "4000000001");
    let prefixed =
        r###"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "##"}}"###;
    assert_refused!(build(prefixed), Error::Json { .. }, "continuing_subword_prefix");
    let mut meta = Metadata::default();
    meta.insert(keys::EOS_ID, 9u32);
    let refused = Tokenizer::from_json(model("[]").as_bytes(), &meta);
    assert_refused!(refused, Error::SpecialOutOfRange { id: 9, vocab_size: 3, .. }, "eos_token_id");
}

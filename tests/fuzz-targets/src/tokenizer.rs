//! The tokenizer: built from a vocabulary of any content, and used on any text.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use model_core::fixtures::TinyLlama;
use model_core::gguf::{Array, File, Metadata, keys};
use model_core::tokenizer::{EncodeOptions, TextStream, Tokenizer};

use crate::pieces::{float, number, one_of, rest, several, short_text};

/// What tokens and texts are made of: pieces that merge, and spellings with a meaning.
const WORDS: [&str; 26] = [
    "a",
    "b",
    "ab",
    "aa",
    "abab",
    "Ġ",
    "Ġa",
    "▁",
    "▁a",
    " ",
    "  ",
    "\n",
    "é",
    "日",
    "Ã",
    "©",
    "<s>",
    "</s>",
    "<unk>",
    "<0x41>",
    "<0xFF>",
    "<0xZZ>",
    "<|im_start|>",
    "<|im_end|>",
    "1",
    "'s",
];
const PRE: [&str; 8] = ["default", "llama-bpe", "gpt-2", "qwen2", "smollm", "tekken", "gpt-4o", "deepseek-llm"];

/// One of the complete vocabularies of the tests, or one that the input describes; then a text.
pub fn run(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(kind) = u8::arbitrary(&mut input) else { return };
    match kind % 4 {
        0 => check_complete(&BYTE_LEVEL, &rest(&mut input).unwrap_or_default(), false),
        1 => check_complete(&SENTENCE_PIECE, &rest(&mut input).unwrap_or_default(), true),
        _ => {
            let Ok(meta) = metadata(&mut input, kind % 4 == 2) else { return };
            let Ok(tokenizer) = Tokenizer::from_gguf(&meta) else { return };
            check(&tokenizer, &text(&mut input).unwrap_or_default());
        }
    }
}

static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| built(&TinyLlama::default()));
static SENTENCE_PIECE: LazyLock<Tokenizer> = LazyLock::new(|| built(&TinyLlama::sentence_piece()));

fn built(model: &TinyLlama) -> Tokenizer {
    Tokenizer::from_gguf(File::read(&model.build()).unwrap().metadata()).unwrap()
}

/// Words, then whatever bytes are left.
fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let words = several(input, 12, |input| one_of(input, &WORDS))?.concat();
    Ok(words + &rest(input)?)
}

fn metadata(input: &mut Unstructured<'_>, byte_level: bool) -> Result<Metadata> {
    let mut meta = Metadata::default();
    meta.insert(keys::TOKENIZER_MODEL, if byte_level { "gpt2" } else { "llama" });
    meta.insert(keys::TOKENIZER_PRE, one_of(input, &PRE)?);
    let mut tokens = several(input, 24, word)?;
    if !byte_level && input.ratio(1, 2)? {
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    }
    let count = tokens.len();
    if input.ratio(3, 4)? {
        let types = (0..count).map(|_| Ok(i32::from(u8::arbitrary(input)? % 8))).collect::<Result<_>>()?;
        meta.insert(keys::TOKEN_TYPES, Array::I32(types));
    }
    if !byte_level || input.ratio(1, 8)? {
        meta.insert(keys::SCORES, Array::F32((0..count).map(|_| float(input)).collect::<Result<_>>()?));
    }
    let merges = several(input, 16, |input| Ok(format!("{} {}", word(input)?, word(input)?)))?;
    meta.insert(keys::MERGES, Array::String(merges.iter().collect()));
    meta.insert(keys::TOKENS, Array::String(tokens.iter().collect()));
    for key in [keys::BOS_ID, keys::EOS_ID, keys::EOT_ID, keys::EOM_ID, keys::UNKNOWN_ID] {
        if input.ratio(1, 3)? {
            let id = if input.ratio(1, 8)? { number(input)? } else { u64::from(u8::arbitrary(input)? % 32) };
            meta.insert(key, id);
        }
    }
    for key in [keys::ADD_BOS, keys::ADD_EOS, keys::ADD_SPACE_PREFIX] {
        if input.ratio(1, 3)? {
            meta.insert(key, bool::arbitrary(input)?);
        }
    }
    Ok(meta)
}

fn word(input: &mut Unstructured<'_>) -> Result<String> {
    if input.ratio(1, 6)? { short_text(input) } else { Ok(one_of(input, &WORDS)?.to_owned()) }
}

/// What holds for every vocabulary.
fn check(tokenizer: &Tokenizer, text: &str) {
    for parse_special in [false, true] {
        for add_bos in [false, true] {
            let Ok(ids) = tokenizer.encode(text, EncodeOptions { add_bos, parse_special }) else { continue };
            // A byte gives at most a token, and a visible space in front of each fragment three.
            assert!(ids.len() <= 4 * text.len() + 8, "{} tokens for {text:?}", ids.len());
            let bytes = tokenizer.decode(&ids).unwrap();
            let pieces: Vec<&[u8]> = ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
            assert!(pieces.concat().ends_with(&bytes));
            check_stream(&pieces);
            assert!(parse_special || add_bos || !ids.iter().any(|&id| tokenizer.is_control(id)), "{text:?}: {ids:?}");
        }
    }
    let size = tokenizer.vocab_size() as u32;
    assert!(tokenizer.end_of_generation().iter().all(|&id| id < size));
    assert!(tokenizer.token_bytes(size).is_err() && tokenizer.decode(&[u32::MAX]).is_err());
}

/// What is shown piece by piece is what would be shown at once.
fn check_stream(pieces: &[&[u8]]) {
    let mut stream = TextStream::default();
    let mut shown: String = pieces.iter().map(|piece| stream.push(piece)).collect();
    shown.push_str(&stream.finish());
    assert_eq!(shown, String::from_utf8_lossy(&pieces.concat()));
}

/// A vocabulary that can spell everything gives the text back.
fn check_complete(tokenizer: &Tokenizer, text: &str, spaces_are_visible: bool) {
    check(tokenizer, text);
    let ids = tokenizer.encode(text, EncodeOptions::default()).unwrap();
    let expected = if spaces_are_visible { text.replace('▁', " ") } else { text.to_owned() };
    assert_eq!(String::from_utf8_lossy(&tokenizer.decode(&ids).unwrap()), expected);
}

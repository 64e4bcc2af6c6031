//! What tokenizers cost in the canister, with vocabularies as large as they come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use canister::api::*;
use end_to_end::{Icllama, ShimHost, ask};
use model_core::fixtures::TinyLlama;
use model_core::tokenizer::Tokenizer;

/// Instructions that a step of loading may take for the vocabulary: far below the 40e9 that the platform allows a message.
const MOST_TO_BUILD: u64 = 1_000_000_000;

/// Instructions per byte of a prompt, what the session stores and the pages of the tables included.
const MOST_PER_BYTE: u64 = 2_000;

/// A canister that serves a model of 152,000 tokens, nearly as many merges and little else.
fn large(model: TinyLlama) -> Icllama<ShimHost> {
    let size = TinyLlama { vocab: 152_000, dim: 32, layers: 1, heads: 2, kv_heads: 1, hidden: 32, ..model };
    let file = TinyLlama { context: 1 << 20, ..size }.build();
    let config =
        ConfigUpdate { max_input_bytes: Some(2 << 20), max_session_tokens: Some(1 << 20), ..ConfigUpdate::default() };
    let mut icllama = Icllama::install(Box::new(ShimHost::new()), config);
    let upload_id = icllama.announce("model", &file).upload_id;
    icllama.send(upload_id, &end_to_end::chunks(&file, 1_900_000));
    icllama.verify(upload_id, None).unwrap();
    icllama
}

/// Instructions of the call that takes `text` for a prompt.
fn cost(icllama: &mut Icllama<ShimHost>, text: &str) -> u64 {
    icllama.host.heaviest();
    let session_id = icllama.session_create(ask(text, 1)).unwrap().session_id;
    let cost = icllama.host.heaviest();
    icllama.session_delete(SessionIdArg { session_id }).unwrap();
    cost
}

/// Long texts of every kind, and long words that no one means.
fn texts() -> Vec<(&'static str, String)> {
    let texts = [
        ("English", "The quick brown fox jumps over the lazy dog, and it's what we've said: they'll go. ", 1_200),
        ("code", "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\r\n\t}\r\n", 160),
        ("Chinese", "我能吞下玻璃而不伤身体。", 280),
        ("Arabic", "نص حكيم له سر قاطع وذو شأن عظيم ", 200),
        ("Hindi", "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण ", 100),
        ("pictures", "👩\u{200d}👩\u{200d}👧\u{200d}👦🙂", 320),
        ("combining marks", "e\u{301}a\u{308}", 1_700),
        ("one letter", "a", 10_000),
        ("one letter, longer", "a", 200_000),
        ("letters", "abcdefghijklmnopqrstuvwxyz", 400),
        ("capitals", "aBcDe", 2_000),
        ("digits", "1234567890", 1_000),
        ("signs", "!?.,-=", 1_700),
        ("apostrophes", "'", 10_000),
        ("contractions", "it's ", 2_000),
        ("spaces", " ", 10_000),
        ("line breaks", "\n", 10_000),
        ("white space", " \n\t", 3_400),
        ("beginnings of special tokens", "<|im_", 2_000),
        ("control characters", "\u{1}\u{7f}\u{80}", 2_500),
    ];
    texts.map(|(name, text, times)| (name, text.repeat(times))).into()
}

fn check_costs(name: &str, model: TinyLlama) {
    let mut icllama = large(model);
    icllama.host.heaviest();
    // One unit of work a call: the header, the tokenizer, and the first rows.
    for _ in 0..3 {
        icllama.model_load_step(ModelLoadStepArg { max_instructions: Some(1) }).unwrap();
        let step = icllama.host.heaviest();
        assert!(step < MOST_TO_BUILD, "{name}: a step takes {step} instructions");
    }
    icllama.load(None);
    // The first call is charged for pages that others need too.
    let least = cost(&mut icllama, "a");
    for (text_name, text) in texts() {
        let bytes = text.len() as u64;
        let each = cost(&mut icllama, &text).saturating_sub(least) / bytes;
        assert!(each <= MOST_PER_BYTE, "{name}: {text_name}: {each} instructions for each of {bytes} bytes");
    }
}

#[test]
fn byte_level_tokenizers_are_built_in_a_step_and_cheap() {
    let kinds = Tokenizer::supported().filter_map(|(_, names)| names.first());
    for &pre in kinds {
        check_costs(pre, TinyLlama { pre, ..TinyLlama::default() });
    }
}

#[test]
fn sentence_piece_tokenizers_are_built_in_a_step_and_cheap() {
    check_costs("SentencePiece", TinyLlama::sentence_piece());
}

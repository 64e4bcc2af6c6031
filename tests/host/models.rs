//! Models and questions that tests share.

use canister::api::{ChatMessage, MessageText, SessionCreateArg, SessionInput, SessionOptions};
use model_core::fixtures::TinyLlama;

/// A small model with a chat template; other seeds give other weights.
pub fn tiny(seed: u64) -> TinyLlama {
    TinyLlama { seed, ..TinyLlama::default() }
}

/// Continues `text` greedily by exactly `max_tokens` tokens, with digests.
pub fn ask(text: &str, max_tokens: u32) -> SessionCreateArg {
    SessionCreateArg { input: SessionInput::Text(text.into()), options: audited(max_tokens) }
}

/// Exactly `max_tokens` greedy tokens, with digests.
pub fn audited(max_tokens: u32) -> SessionOptions {
    SessionOptions {
        max_tokens: Some(max_tokens),
        temperature: Some(0.0),
        ignore_eos: Some(true),
        audit: Some(true),
        ..SessionOptions::default()
    }
}

/// A chat of one system and one user message.
pub fn chat(system: &str, user: &str) -> SessionInput {
    let text = |content: &str| MessageText { content: content.into() };
    SessionInput::Messages(vec![ChatMessage::System(text(system)), ChatMessage::User(text(user))])
}

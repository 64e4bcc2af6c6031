//! What several tests share.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use model_core::TokenId;
use model_core::budget::{CountDown, Unlimited};
use model_core::fixtures::TinyLlama;
use model_core::gguf::GgmlType;
use model_core::kernels::Kernel;
use model_core::model::{LoadOptions, Model};
use model_core::sample::Sampling;
use model_core::session::{Session, SessionOptions, Step};

/// The real model, which `scripts/fetch-model.sh` brings.
pub fn smollm2() -> Vec<u8> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("ICLLAMA_MODEL").map_or_else(|| beside.into(), PathBuf::from);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run scripts/fetch-model.sh", path.display()))
}

/// A small model with awkward sizes: three query heads per key head, a head that is no multiple of 8.
pub fn tiny() -> TinyLlama {
    let types = vec![("attn_v.weight", GgmlType::F16), ("ffn_down.weight", GgmlType::Q4_1)];
    TinyLlama { layers: 3, heads: 6, kv_heads: 2, head_dim: 32, types, ..TinyLlama::default() }
}

pub fn load(file: &[u8]) -> Model {
    Model::load(&file.to_vec(), &LoadOptions::default()).unwrap()
}

pub fn load_with(file: &[u8], kernel: Kernel) -> Model {
    Model::load(&file.to_vec(), &LoadOptions { kernel: Some(kernel), ..LoadOptions::default() }).unwrap()
}

/// Tokens that look random and lie below `vocab`.
pub fn tokens(count: usize, vocab: usize) -> Vec<TokenId> {
    (0..count).map(|i| ((i * i * 31 + i * 7 + 11) % vocab) as TokenId).collect()
}

/// Options that let a tiny model talk to the end of its limit and keep digests.
pub fn audited(max_tokens: u32, sampling: Sampling) -> SessionOptions {
    SessionOptions { max_tokens, sampling, ignore_eos: true, audit: true, ..SessionOptions::default() }
}

/// Everything that must not depend on how a session was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub tokens: Vec<TokenId>,
    pub digests: Vec<u64>,
    pub text: String,
    pub logits: Vec<u32>,
}

impl Outcome {
    pub fn of(session: &Session) -> Self {
        Self {
            tokens: session.tokens().to_vec(),
            digests: session.digests().to_vec(),
            text: session.full_text().to_owned(),
            logits: session.logits().iter().map(|logit| logit.to_bits()).collect(),
        }
    }
}

/// Runs a session to its end in one go; returns the pieces of text.
pub fn finish(session: &mut Session, model: &Model) -> Vec<String> {
    let mut pieces = Vec::new();
    loop {
        match session.step(model, &mut Unlimited).unwrap() {
            Step::Token { piece, .. } => pieces.push(piece),
            Step::Finished(reason) => {
                assert_eq!(session.finish_reason(), Some(reason));
                return pieces;
            }
            Step::Prefill { done, total } => assert!(done < total),
            Step::Suspended => panic!("an unlimited budget ended"),
        }
    }
}

/// Runs a session for at most `units` units of work; `false` once it is finished.
pub fn run_units(session: &mut Session, model: &Model, units: u64) -> bool {
    !matches!(session.step(model, &mut CountDown::new(units)).unwrap(), Step::Finished(_))
}

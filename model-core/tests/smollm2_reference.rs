//! SmolLM2 against logits of an independent evaluation (`scripts/golden/smollm2_logits.py`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use model_core::model::{CachePrecision, LoadOptions, Model};
use model_core::pack::Precision;
use model_core::prompt;
use model_core::reference::Reference;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    sample_every: usize,
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    top: Vec<usize>,
    top_logits: Vec<f32>,
    sample_logits: Vec<f32>,
}

impl Golden {
    fn read() -> Self {
        serde_json::from_str(include_str!("golden/smollm2_logits.json")).unwrap()
    }
}

impl Position {
    /// Largest difference from the golden logits.
    fn distance(&self, every: usize, logits: &[f32]) -> f32 {
        let top = self.top.iter().map(|&id| logits[id]).zip(&self.top_logits);
        let sample = logits.iter().step_by(every).copied().zip(&self.sample_logits);
        top.chain(sample).map(|(found, golden)| (found - golden).abs()).fold(0.0, f32::max)
    }
}

/// The model file, which `scripts/fetch-model.sh` brings.
fn model() -> Vec<u8> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("ICLLAMA_MODEL").map_or_else(|| beside.into(), PathBuf::from);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run scripts/fetch-model.sh", path.display()))
}

#[test]
fn the_plain_f32_evaluation_equals_the_independent_one() {
    let golden = Golden::read();
    let reference = Reference::load(&model()).unwrap();
    let mut worst = 0.0f32;
    let mut seen = 0;
    reference
        .logits_of(&golden.tokens, |position, logits| {
            worst = worst.max(golden.positions[position].distance(golden.sample_every, logits));
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, golden.positions.len());
    assert!(worst < 2e-3, "logits differ by {worst}");
}

#[test]
fn the_integer_kernels_stay_close_to_the_independent_evaluation() {
    let golden = Golden::read();
    let model = Model::load(&model(), &LoadOptions::default()).unwrap();
    let (mut worst, mut first_choices) = (0.0f32, 0);
    model
        .logits_for(&golden.tokens, |position, logits| {
            let expected = &golden.positions[position];
            worst = worst.max(expected.distance(golden.sample_every, logits));
            first_choices += usize::from(logits.iter().all(|&logit| logit <= logits[expected.top[0]]));
        })
        .unwrap();
    assert!(worst < 0.05, "logits differ by {worst}");
    assert!(first_choices + 1 >= golden.positions.len(), "{first_choices} likeliest tokens agree");
}

/// `-ln` of the probability of `token`.
fn surprise(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| libm::exp(f64::from(logit - most))).sum();
    libm::log(sum) - f64::from(logits[token as usize] - most)
}

#[test]
fn precisions_of_caches_move_the_perplexity_by_three_thousandths_at_most_and_of_activations_by_ten() {
    let text = include_str!("../../tests/data/moby-dick-chapter-1.txt");
    let file = model();
    let [model, narrow] = [Precision::Quantized, Precision::Activations8]
        .map(|precision| Model::load(&file, &LoadOptions { precision, ..LoadOptions::default() }).unwrap());
    let mut tokens = prompt::text(&model.tokenizer, text, false).unwrap();
    tokens.truncate(256);
    let mut plain = 0.0;
    let add = |sum: &mut f64, position: usize, logits: &[f32]| {
        *sum += tokens.get(position + 1).map_or(0.0, |&next| surprise(logits, next));
    };
    Reference::load(&file).unwrap().logits_of(&tokens, |position, logits| add(&mut plain, position, logits)).unwrap();
    let change = |model: &Model, cache: CachePrecision| {
        let mut sum = 0.0;
        model.logits_with(cache, &tokens, |position, logits| add(&mut sum, position, logits)).unwrap();
        libm::exp((sum - plain) / (tokens.len() - 1) as f64) - 1.0
    };
    for cache in [CachePrecision::Bits16, CachePrecision::Bits8] {
        let change = change(&model, cache);
        assert!(change.abs() < 0.003, "{cache:?} moves the perplexity by {change}");
    }
    let change = change(&narrow, CachePrecision::Bits16);
    assert!(change.abs() < 0.01, "activations of 8 bits move the perplexity by {change}");
}

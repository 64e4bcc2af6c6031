//! Tiny models of every architecture against llama.cpp (`scripts/golden/architecture_vectors.py`), and the same bits
//! however they are run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::common::{Outcome, audited, finish, load, load_with, run_units};
use model_core::TokenId;
use model_core::config::{self, Config, SUPPORTED_ARCHITECTURES};
use model_core::fixtures::GgufBuilder;
use model_core::gguf::{Array, File, GgmlType, Value};
use model_core::kernels::Kernel;
use model_core::model::{CachePrecision, LoadOptions, Model};
use model_core::quant;
use model_core::reference::Reference;
use model_core::sample::Sampling;
use model_core::session::{Session, SessionOptions, SessionRecord, digest};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<TokenId>,
    /// By the name of the file: `[positions, vocab]`.
    logits: BTreeMap<String, Vec<Vec<f32>>>,
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/architectures"))
}

fn golden() -> Golden {
    serde_json::from_slice(&std::fs::read(directory().join("logits.json")).unwrap()).unwrap()
}

/// Calls `check` with every model's name, file and logits.
fn each(mut check: impl FnMut(&str, Vec<u8>, &[TokenId], &[Vec<f32>])) {
    let Golden { tokens, logits } = golden();
    assert!(logits.len() >= 14);
    for (name, logits) in &logits {
        let file = std::fs::read(directory().join(format!("{name}.gguf"))).unwrap();
        assert_eq!((logits.len(), tokens.len()), (16, 16));
        check(name, file, &tokens, logits);
    }
}

/// Largest difference from `expected`, in parts of its largest magnitude.
fn distance(logits: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(logits.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    logits.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn there_is_a_model_of_every_architecture() {
    let mut found = BTreeSet::new();
    each(|_, file, _, _| {
        found.insert(load(&file).config.architecture.clone());
    });
    assert_eq!(found, SUPPORTED_ARCHITECTURES.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn the_plain_evaluation_equals_llama_cpp() {
    each(|name, file, tokens, expected| {
        // GGML takes the GeLU from a table of F16 numbers; without it, only the order of sums differs.
        let bound = if name.starts_with("gemma3") { 1e-3 } else { 1e-5 };
        let mut seen = 0;
        let check = |position: usize, logits: &[f32]| {
            let worst = distance(logits, &expected[position]);
            assert!(worst < bound, "{name}: logits of position {position} differ by {worst}");
            seen += 1;
        };
        Reference::load(&file).unwrap().logits_of(tokens, check).unwrap();
        assert_eq!(seen, expected.len());
    });
}

#[test]
fn every_kernel_equals_llama_cpp() {
    each(|name, file, tokens, expected| {
        let digests = Kernel::available().into_iter().map(|kernel| {
            let mut digests = Vec::new();
            let check = |position: usize, logits: &[f32]| {
                let worst = distance(logits, &expected[position]);
                assert!(worst < 1e-3, "{name}: logits of position {position} differ by {worst}");
                digests.push(digest(logits));
            };
            load_with(&file, kernel).logits_for(tokens, check).unwrap();
            assert_eq!(digests.len(), expected.len());
            digests
        });
        let mut digests: Vec<_> = digests.collect();
        digests.dedup();
        assert_eq!(digests.len(), 1, "{name}: kernels differ");
    });
}

/// What the vectors can tell apart: every value of a key that is not the file's.
#[test]
fn another_value_of_a_key_would_be_noticed() {
    let cases: [(&str, &str, Value); 14] = [
        ("llama", "llama.rope.freq_base", Value::F32(10_000.0)),
        ("llama-yarn", "llama.rope.scaling.original_context_length", Value::U32(1000)),
        ("llama-yarn", "llama.rope.scaling.type", "linear".into()),
        ("llama-longrope", "llama.rope.scaling.attn_factor", Value::F32(1.0)),
        ("llama-longrope", "llama.context_length", Value::U32(256)),
        ("mistral", "llama.attention.sliding_window", Value::U32(6)),
        ("phi3", "phi3.attention.sliding_window", Value::U32(5)),
        ("phi3-long", "phi3.context_length", Value::U32(256)),
        ("phi3-short", "phi3.context_length", Value::U32(257)),
        ("gemma3", "gemma3.attention.sliding_window", Value::U32(6)),
        ("gemma3", "gemma3.attention.sliding_window_pattern", Value::U32(5)),
        ("gemma3", "gemma3.rope.freq_base_swa", Value::F32(1e6)),
        ("gemma3", "gemma3.rope.scaling.factor", Value::F32(4.0)),
        ("gemma3-pattern", "gemma3.final_logit_softcapping", Value::F32(3.1)),
    ];
    let Golden { tokens, logits } = golden();
    for (name, key, value) in cases {
        let file = std::fs::read(directory().join(format!("{name}.gguf"))).unwrap();
        let options = LoadOptions { overrides: vec![(key.to_owned(), value)], ..LoadOptions::default() };
        let mut worst = 0.0f32;
        let compare = |position: usize, found: &[f32]| worst = worst.max(distance(found, &logits[name][position]));
        Model::load(&file, &options).unwrap().logits_for(&tokens, compare).unwrap();
        assert!(worst > 2e-3, "{name}: {key} changes logits by {worst}");
    }
}

/// Gemma 3 with 27 billion weights, known by its layers, scales its scores otherwise than its sisters.
#[test]
fn the_largest_gemma_scales_scores_by_the_width_per_head() {
    let mut file = File::read(&std::fs::read(directory().join("gemma3.gguf")).unwrap()).unwrap();
    for (layers, width) in [(7, 16.0f32), (62, 12.0)] {
        file.metadata_mut().insert("gemma3.block_count", Value::U32(layers));
        assert_eq!(Config::from_gguf(&file).unwrap().attention_scale, 1.0 / width.sqrt());
    }
    file.metadata_mut().insert("gemma3.attention.sliding_window_pattern", Array::Bool(vec![true; 3]));
    let error = Config::from_gguf(&file).unwrap_err();
    assert!(matches!(error, config::Error::LayerCount { found: 3, layers: 62, .. }), "{error}");
}

/// The file with queries, keys and values in Q8_0 and with biases, in one tensor of each layer or in three.
fn with_projections(file: &[u8], fused: bool) -> Vec<u8> {
    let header = File::read(&file.to_vec()).unwrap();
    let mut builder = GgufBuilder::new();
    for (key, value) in header.metadata().iter() {
        builder = builder.kv(key, value.clone());
    }
    for info in header.tensors() {
        let bytes = file[info.offset as usize..][..info.bytes as usize].to_vec();
        let Some(layer) = info.name.strip_suffix(".attn_qkv.weight") else {
            builder = builder.tensor(&info.name, &info.shape, info.ty, bytes);
            continue;
        };
        let weights: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let bias: Vec<u8> = (0..info.shape[1]).flat_map(|row| (row as f32 * 0.01 - 0.3).to_le_bytes()).collect();
        let parts: &[_] =
            if fused { &[("attn_qkv", 0, 64)] } else { &[("attn_q", 0, 32), ("attn_k", 32, 16), ("attn_v", 48, 16)] };
        for &(part, first, rows) in parts {
            let (name, columns) = (format!("{layer}.{part}"), info.shape[0] as usize);
            let weight = quant::quantize(GgmlType::Q8_0, &weights[first * columns..][..rows * columns]).unwrap();
            builder = builder
                .tensor(&format!("{name}.weight"), &[columns as u64, rows as u64], GgmlType::Q8_0, weight)
                .tensor(&format!("{name}.bias"), &[rows as u64], GgmlType::F32, bias[4 * first..][..4 * rows].to_vec());
        }
    }
    builder.build()
}

#[test]
fn fused_tensors_are_taken_apart_by_their_rows() {
    let file = std::fs::read(directory().join("phi3.gguf")).unwrap();
    let digests = [false, true].map(|fused| {
        let (mut packed, mut plain) = (Vec::new(), Vec::new());
        let file = with_projections(&file, fused);
        load(&file).logits_for(&golden().tokens, |_, logits| packed.push(digest(logits))).unwrap();
        Reference::load(&file).unwrap().logits_of(&golden().tokens, |_, logits| plain.push(digest(logits))).unwrap();
        (packed, plain)
    });
    assert_eq!(digests[0], digests[1]);
}

/// Whatever tensor of a file has another name is missed, or is one too many.
#[test]
fn every_tensor_counts() {
    each(|name, file, _, _| {
        let tensors = File::read(&file).unwrap().tensors().to_vec();
        for tensor in tensors.iter().map(|info| info.name.as_str()) {
            let other = tensor.replace(".weight", ".wright").replace(".bias", ".bios");
            let at = file.windows(tensor.len()).position(|window| window == tensor.as_bytes()).unwrap();
            let mut renamed = file.clone();
            renamed[at..at + tensor.len()].copy_from_slice(other.as_bytes());
            let Err(error) = Model::load(&renamed, &LoadOptions::default()) else { panic!("{name}: {tensor}") };
            let message = error.to_string();
            // Without the fused tensor, its parts could do.
            let missed = tensor.replace("attn_qkv", "attn_q");
            assert!(message.contains(&missed) || message.contains(&other), "{name}: {tensor}: {message}");
        }
    });
}

/// A prompt of 16 tokens and 40 generated ones: windows and segments of the cache end on the way.
fn whole(model: &Model, tokens: &[TokenId], options: SessionOptions) -> Outcome {
    let mut session = Session::new(model, tokens.to_vec(), options).unwrap();
    finish(&mut session, model);
    Outcome::of(&session)
}

/// The same in slices of three units of work, and restored from its record after 20 tokens.
fn sliced(model: &Model, tokens: &[TokenId], options: SessionOptions) -> Outcome {
    let mut session = Session::new(model, tokens.to_vec(), options).unwrap();
    while session.generated().len() < 20 {
        assert!(run_units(&mut session, model, 3));
    }
    let stored = session.record().to_bytes();
    let mut session = Session::restore(model, SessionRecord::from_bytes(&stored).unwrap()).unwrap();
    while run_units(&mut session, model, 3) {}
    Outcome::of(&session)
}

#[test]
fn sessions_have_the_same_bits_in_batches_in_single_tokens_and_when_restored() {
    each(|name, file, tokens, _| {
        let model = load(&file);
        let greedy = audited(40, Sampling { temperature: 0.0, ..Sampling::default() });
        for kv_cache in [CachePrecision::Bits16, CachePrecision::Bits8] {
            let options = |prefill_batch| SessionOptions { prefill_batch, kv_cache, ..greedy.clone() };
            let expected = whole(&model, tokens, options(32));
            assert_eq!(expected.digests.len(), 40, "{name}");
            assert!(whole(&model, tokens, options(1)) == expected, "{name}: token by token, {kv_cache:?}");
            assert!(sliced(&model, tokens, options(7)) == expected, "{name}: in slices, {kv_cache:?}");
        }
    });
}

#[test]
fn keys_and_values_in_8_bits_are_close_to_llama_cpp() {
    each(|name, file, tokens, expected| {
        let check = |position: usize, logits: &[f32]| {
            let worst = distance(logits, &expected[position]);
            // Seven layers of random weights amplify what 8-bit codes round.
            assert!(worst < 6e-2, "{name}: logits of position {position} differ by {worst}");
        };
        load(&file).logits_with(CachePrecision::Bits8, tokens, check).unwrap();
    });
}

//! From file to model: step by step or at once, and every way in which a file can be refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::common::{load, tiny, tokens};
use model_core::budget::CountDown;
use model_core::chat::{self, ChatMessage, Variables};
use model_core::config;
use model_core::fixtures::TinyLlama;
use model_core::gguf::{Array, File, GgmlType, Value};
use model_core::kernels::Kernel;
use model_core::model::{self, LoadOptions, Loader, Model, Part};
use model_core::pack::{self, Precision};
use model_core::session::digest;
use model_core::{Error, TokenId, prompt};

fn overriding(overrides: &[(&str, Value)]) -> LoadOptions {
    let overrides = overrides.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    LoadOptions { overrides, ..LoadOptions::default() }
}

fn refused(file: &[u8], options: &LoadOptions) -> Error {
    match Model::load(&file.to_vec(), options) {
        Ok(_) => panic!("the file was loaded"),
        Err(error) => error,
    }
}

/// The file with one tensor under another name of the same length.
fn renamed(mut file: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    file[at..at + to.len()].copy_from_slice(to.as_bytes());
    file
}

/// The file with other bytes at the beginning of a tensor.
fn patched(mut file: Vec<u8>, tensor: &str, bytes: &[u8]) -> Vec<u8> {
    let at = File::read(&file).unwrap().tensor(tensor).unwrap().offset as usize;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn digests(model: &Model) -> Vec<u64> {
    let tokens: Vec<TokenId> = tokens(40, model.config.vocab);
    let mut digests = Vec::new();
    model.logits_for(&tokens, |_, logits| digests.push(digest(logits))).unwrap();
    digests
}

#[test]
fn loading_in_single_units_equals_loading_at_once() {
    let file = tiny().build();
    let mut loader = Loader::new(LoadOptions::default());
    assert_eq!((loader.progress().done_bytes, loader.progress().total_bytes), (0, 0));
    let (mut steps, mut last) = (0, loader.progress());
    while !last.ready {
        let progress = loader.step(&file, &mut CountDown::new(1)).unwrap();
        assert!(progress.done_bytes >= last.done_bytes && progress.done_bytes <= progress.total_bytes);
        (steps, last) = (steps + 1, progress);
    }
    assert_eq!(last.done_bytes, last.total_bytes);
    // The header, the tokenizer, and every tensor (small enough for one unit each).
    assert_eq!(steps, 2 + File::read(&file).unwrap().tensors().len());
    assert_eq!(loader.step(&file, &mut CountDown::new(1)).unwrap(), last, "a ready loader stays as it is");
    let (stepped, whole) = (loader.finish().unwrap(), load(&file));
    assert_eq!((stepped.packed_bytes(), stepped.kernel()), (whole.packed_bytes(), Kernel::detect()));
    assert_eq!(digests(&stepped), digests(&whole));
}

#[test]
fn an_unfinished_loader_gives_no_model() {
    let file = tiny().build();
    let mut loader = Loader::new(LoadOptions::default());
    loader.step(&file, &mut CountDown::new(4)).unwrap();
    let error = loader.finish().unwrap_err();
    assert!(matches!(error, Error::Model(model::Error::NotReady { done_bytes: 1.., .. })), "{error}");
}

#[test]
fn sizes_are_those_of_the_matrices() {
    let shape = TinyLlama::default();
    let (block, head) = (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96, 320 * 64);
    assert_eq!(load(&shape.build()).weights_per_token(), 2 * block + head);
    let untied = load(&TinyLlama { tied: false, ..shape }.build());
    assert_eq!(untied.weights_per_token(), 2 * block + head);
    assert!(untied.packed_bytes() >= 2 * block + 2 * head);
}

#[test]
fn precision_f32_computes_nearly_the_same() {
    let file = tiny().build();
    let options = LoadOptions { precision: Precision::F32, ..LoadOptions::default() };
    let (coded, float) = (load(&file), Model::load(&file, &options).unwrap());
    assert!(float.packed_bytes() > coded.packed_bytes());
    let tokens = tokens(20, coded.config.vocab);
    let mut expected = Vec::new();
    float.logits_for(&tokens, |_, logits| expected.push(logits.to_vec())).unwrap();
    coded
        .logits_for(&tokens, |position, logits| {
            for (a, b) in logits.iter().zip(&expected[position]) {
                assert!((a - b).abs() < 1e-2, "{a} {b}");
            }
        })
        .unwrap();
}

#[test]
fn a_broken_chat_template_refuses_conversations_and_nothing_else() {
    let broken = TinyLlama { chat_template: Some("line one\n{% if %}".into()), ..TinyLlama::default() };
    let model = load(&broken.build());
    assert!(prompt::text(&model.tokenizer, "hello", false).is_ok());
    let message = ChatMessage::new("user", "hello");
    let refused =
        prompt::conversation(&model.tokenizer, model.chat.as_ref().unwrap(), &[message], &Variables::default());
    assert!(matches!(&refused, Err(prompt::Error::Chat(chat::Error::Syntax { line: 2, .. }))), "{refused:?}");
}

#[test]
fn a_missing_tensor_is_named() {
    let file = TinyLlama { tied: false, ..TinyLlama::default() }.build();
    let parts =
        ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];
    let names = parts.map(|part| format!("blk.1.{part}.weight"));
    for name in names.iter().map(String::as_str).chain(["output_norm.weight"]) {
        let error = refused(&renamed(file.clone(), name, &name.replace(".weight", ".wright")), &LoadOptions::default());
        assert!(matches!(&error, Error::Model(model::Error::MissingTensor { tensor }) if tensor == name), "{error}");
    }
    let file = renamed(file, "token_embd.weight", "token_embd.wright");
    assert!(matches!(refused(&file, &LoadOptions::default()), Error::Config(config::Error::NoEmbedding)));
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let options = overriding(&[("llama.feed_forward_length", Value::U32(128))]);
    let error = refused(&TinyLlama::default().build(), &options);
    let Error::Model(model::Error::Misshapen { tensor, expected, found }) = &error else { panic!("{error}") };
    assert_eq!(
        (tensor.as_str(), expected.as_slice(), found.as_slice()),
        ("blk.0.ffn_gate.weight", &[64, 128][..], &[64, 96][..])
    );
}

#[test]
fn tensors_that_would_change_the_result_are_refused_and_harmless_ones_ignored() {
    let with = |name: &str| TinyLlama::default().builder().tensor(name, &[8], GgmlType::F32, vec![0; 32]).build();
    for name in
        ["blk.0.attn_q_norm.weight", "blk.0.post_ffw_norm.weight", "rope_factors_long.weight", "cls.output.bias"]
    {
        let error = refused(&with(name), &LoadOptions::default());
        assert!(
            matches!(&error, Error::Model(model::Error::UnexpectedTensor { tensor, .. }) if tensor == name),
            "{error}"
        );
        let message = error.to_string();
        assert!(["llama", "qwen2", "qwen3", "phi3", "gemma3"].iter().all(|known| message.contains(known)), "{message}");
    }
    assert_eq!(digests(&load(&with("blk.0.attn_rot_embd.weight"))), digests(&load(&TinyLlama::default().build())));
}

#[test]
fn an_unsupported_format_is_refused_by_name() {
    let shape = TinyLlama { dim: 256, head_dim: 64, ..TinyLlama::default() };
    let bytes = 320 * GgmlType::IQ3_S.block_bytes();
    let file = shape.builder().tensor("output.weight", &[256, 320], GgmlType::IQ3_S, vec![0; bytes]).build();
    let error = refused(&file, &LoadOptions::default());
    assert!(
        matches!(&error, Error::Pack(pack::Error::Unsupported { tensor, ty: GgmlType::IQ3_S }) if tensor == "output.weight"),
        "{error}"
    );
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let file = TinyLlama { rope_freqs: Some(vec![1.0; 8]), ..TinyLlama::default() }.build();
    let bad = |tensor: &str, bytes: &[u8]| refused(&patched(file.clone(), tensor, bytes), &LoadOptions::default());
    let nan = f32::NAN.to_le_bytes();
    let error = bad("blk.1.ffn_norm.weight", &nan);
    assert!(
        matches!(&error, Error::Model(model::Error::BadValue { tensor, index: 0, .. }) if tensor == "blk.1.ffn_norm.weight"),
        "{error}"
    );
    let error = bad("rope_freqs.weight", &0.0f32.to_le_bytes());
    assert!(
        matches!(&error, Error::Model(model::Error::BadValue { tensor, .. }) if tensor == "rope_freqs.weight"),
        "{error}"
    );
    // The scale of the first block of Q8_0.
    let error = bad("blk.0.attn_k.weight", &[0x00, 0x7c]);
    assert!(
        matches!(&error, Error::Pack(pack::Error::NotFinite { tensor, .. }) if tensor == "blk.0.attn_k.weight"),
        "{error}"
    );
}

#[test]
fn numbers_that_overflow_are_errors_that_name_the_layer() {
    let run = |tensor: &str| {
        let file = TinyLlama { ty: GgmlType::F32, ..TinyLlama::default() }.build();
        let huge: Vec<u8> = (0..64).flat_map(|_| 3e38f32.to_le_bytes()).collect();
        load(&patched(file, tensor, &huge)).logits_for(&[1, 2], |_, _| {}).unwrap_err()
    };
    let error = run("blk.1.ffn_down.weight");
    assert!(matches!(error, Error::Model(model::Error::NonFinite { layer: 1, part: Part::Residual })), "{error}");
    let error = run("blk.0.attn_v.weight");
    assert!(matches!(error, Error::Model(model::Error::NonFinite { layer: 0, part: Part::Attention })), "{error}");
    let error = run("output_norm.weight");
    assert!(matches!(error, Error::Model(model::Error::NonFiniteLogits)), "{error}");
}

#[test]
fn a_tokenizer_with_more_tokens_than_rows_is_refused() {
    let file = TinyLlama::default().build();
    let header = File::read(&file).unwrap();
    let meta = header.metadata();
    let mut tokens: Vec<Vec<u8>> = meta.strings("tokenizer.ggml.tokens").unwrap().iter().map(<[u8]>::to_vec).collect();
    let mut types = meta.i32s("tokenizer.ggml.token_type").unwrap().into_owned();
    tokens.push(b"onemore".to_vec());
    types.push(1);
    let options = overriding(&[
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens.iter().collect()))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
    ]);
    let error = refused(&file, &options);
    assert!(matches!(error, Error::Model(model::Error::VocabularyMismatch { tokens: 321, rows: 320 })), "{error}");
}

#[test]
fn impossible_descriptions_are_refused_and_the_key_is_named() {
    let file = TinyLlama::default().build();
    let number = |n: u64| Value::U64(n);
    let cases: [(&str, Value); 26] = [
        ("general.architecture", "mamba".into()),
        ("llama.expert_count", number(8)),
        ("llama.embedding_length", number(0)),
        ("llama.embedding_length", number(1 << 40)),
        ("llama.embedding_length", number(66)),
        ("llama.block_count", number(u64::MAX)),
        ("llama.attention.head_count", number(0)),
        ("llama.attention.head_count_kv", number(3)),
        ("llama.attention.head_count_kv", number(0)),
        ("llama.attention.key_length", number(1 << 19)),
        ("llama.attention.value_length", number(32)),
        ("llama.rope.dimension_count", number(7)),
        ("llama.rope.dimension_count", number(18)),
        ("llama.context_length", number(0)),
        ("llama.feed_forward_length", number(1 << 30)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
        ("llama.rope.freq_base", Value::F32(0.0)),
        ("llama.rope.scaling.type", "dynamic".into()),
        ("llama.rope.scaling.factor", Value::F32(f32::INFINITY)),
        ("llama.rope.scaling.factor", Value::F32(-2.0)),
        ("llama.rope.scaling.attn_factor", Value::F32(0.0)),
        ("llama.attention.scale", Value::F32(-0.5)),
        ("llama.attention.sliding_window", number(1 << 40)),
        ("llama.attention.sliding_window", "4096".into()),
        ("llama.final_logit_softcapping", Value::F32(f32::NAN)),
    ];
    for (key, value) in cases {
        let error = refused(&file, &overriding(&[(key, value.clone())]));
        let named = error.to_string().contains(key) || error.to_string().contains("mamba");
        assert!(matches!(error, Error::Config(_)) && named, "{key} {value:?}: {error}");
    }
    let message = refused(&file, &overriding(&[("general.architecture", "mamba".into())])).to_string();
    assert!(message.contains("mamba") && message.contains("llama, qwen2, qwen3"), "{message}");
    // Passes every check of its own, but 32 positions of cache would take 16 GiB.
    let absurd = [("llama.block_count", number(4096)), ("llama.attention.key_length", number(1 << 14))];
    let error = refused(&file, &overriding(&absurd));
    assert!(matches!(error, Error::Config(config::Error::CacheTooLarge { .. })), "{error}");
}

#[test]
fn every_key_that_is_read_changes_the_result() {
    let file = TinyLlama::default().build();
    let plain = digests(&load(&file));
    let yarn = ("llama.rope.scaling.type", Value::from("yarn"));
    let four = ("llama.rope.scaling.factor", Value::F32(4.0));
    let changes: [&[(&str, Value)]; 11] = [
        &[("llama.rope.freq_base", Value::F32(500.0))],
        &[("llama.attention.layer_norm_rms_epsilon", Value::F32(0.1))],
        &[("llama.attention.scale", Value::F32(0.5))],
        &[("llama.rope.dimension_count", Value::U32(8))],
        &[("llama.rope.scaling.type", "linear".into()), four.clone()],
        &[yarn.clone(), four.clone()],
        &[yarn, four.clone(), ("llama.rope.scaling.original_context_length", Value::U32(8))],
        &[("llama.rope.scaling.attn_factor", Value::F32(1.2))],
        &[("llama.attention.sliding_window", Value::U32(30))],
        &[("llama.final_logit_softcapping", Value::F32(2.0))],
        &[("llama.rope.scale_linear", Value::F32(8.0))],
    ];
    let mut seen = std::collections::BTreeSet::from([plain.clone()]);
    for overrides in changes {
        let changed = Model::load(&file, &overriding(overrides)).unwrap();
        assert!(seen.insert(digests(&changed)), "{overrides:?}");
    }
    let same: [&[(&str, Value)]; 4] = [
        &[("llama.rope.scaling.type", "none".into()), four],
        &[("llama.rope.scaling.factor", Value::F32(0.0))],
        &[("llama.attention.sliding_window", Value::U32(0))],
        &[("llama.attention.sliding_window", Value::U32(40))],
    ];
    for overrides in same {
        assert_eq!(digests(&Model::load(&file, &overriding(overrides)).unwrap()), plain, "{overrides:?}");
    }
    let short = Model::load(&file, &overriding(&[("llama.context_length", Value::U32(4))])).unwrap();
    let error = short.logits_for(&[1; 5], |_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Model(model::Error::ContextTooShort { tokens: 5, context_length: 4 })), "{error}");
}

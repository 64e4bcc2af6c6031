//! The model files that other tests are built on: readable, deterministic, with the parts that were asked for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use model_core::fixtures::{GgufBuilder, RopeScaling, TinyLlama, Vocabulary};
use model_core::gguf::{Array, File, GgmlType, Value, keys};
use model_core::quant;

fn read(model: &TinyLlama) -> File {
    File::read(&model.build()).unwrap()
}

#[test]
fn every_value_type_survives_a_round_trip() {
    let values = [
        Value::U8(1),
        Value::I8(-2),
        Value::U16(3),
        Value::I16(-4),
        Value::U32(5),
        Value::I32(-6),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F32(0.25),
        Value::F64(-1e300),
        Value::Bool(true),
        Value::String(b"\xffraw".to_vec()),
        Value::Array(Array::U8(vec![1, 2])),
        Value::Array(Array::I8(vec![-1])),
        Value::Array(Array::U16(vec![1; 40_000])), // across chunks of the reader
        Value::Array(Array::I16(vec![-1; 3])),
        Value::Array(Array::U32(vec![7; 20_001])),
        Value::Array(Array::I32((0..50_000).collect())),
        Value::Array(Array::U64((0..20_000).collect())),
        Value::Array(Array::I64(vec![i64::MIN])),
        Value::Array(Array::F32(vec![1.5, -0.0])),
        Value::Array(Array::F64(vec![])),
        Value::Array(Array::Bool(vec![true, false])),
        Value::Array(Array::String((0..20_000).map(|i| i.to_string()).collect())),
        Value::Array(Array::Array(vec![Array::U8(vec![9]), Array::Array(vec![Array::Bool(vec![])])])),
    ];
    let builder = values
        .iter()
        .enumerate()
        .fold(GgufBuilder::new(), |builder, (i, value)| builder.kv(&format!("key.{i}"), value.clone()));
    let file = File::read(&builder.build()).unwrap();
    let found: Vec<_> = file.metadata().iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(found, values);
}

#[test]
fn a_tiny_llama_has_the_tensors_of_its_config() {
    let model = TinyLlama { heads: 3, kv_heads: 1, head_dim: 32, tied: false, ..TinyLlama::default() };
    let file = read(&model);
    let shape = |name: &str| file.tensor(name).unwrap().shape.clone();
    assert_eq!(shape("token_embd.weight"), [64, 320]);
    assert_eq!(shape("output.weight"), [64, 320]);
    assert_eq!(shape("blk.1.attn_q.weight"), [64, 96]);
    assert_eq!(shape("blk.1.attn_k.weight"), [64, 32]);
    assert_eq!(shape("blk.1.attn_output.weight"), [96, 64]);
    assert_eq!(shape("blk.1.ffn_down.weight"), [96, 64]);
    assert_eq!(file.tensors().len(), 3 + 2 * 9);
    assert_eq!(file.metadata().u32(&keys::key_length("llama")), Ok(32));
    assert_eq!(read(&TinyLlama::default()).tensor("output.weight"), None);
}

#[test]
fn the_weights_of_a_tensor_depend_on_seed_and_name_only() {
    let values = |model: &TinyLlama, name: &str| {
        let bytes = model.build();
        let file = File::read(&bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let mut values = vec![0.0; tensor.elements() as usize];
        let data = &bytes[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize];
        quant::dequantize(tensor.ty, data, &mut values).unwrap();
        (tensor.ty, values)
    };
    let plain = TinyLlama { ty: GgmlType::F32, ..TinyLlama::default() };
    let mixed = TinyLlama {
        types: vec![("weight", GgmlType::Q4_0), ("attn_v.weight", GgmlType::F32)],
        tied: false,
        alignment: Some(64),
        ..plain.clone()
    };
    assert_eq!(values(&plain, "blk.0.attn_v.weight"), values(&mixed, "blk.0.attn_v.weight"));
    assert_eq!(values(&mixed, "blk.0.attn_k.weight").0, GgmlType::Q4_0);
    assert_ne!(values(&plain, "blk.0.attn_v.weight"), values(&plain, "blk.1.attn_v.weight"));
    let other = TinyLlama { seed: 2, ..plain.clone() };
    assert_ne!(values(&plain, "blk.0.attn_v.weight"), values(&other, "blk.0.attn_v.weight"));
    assert_eq!(plain.build(), plain.build());
}

#[test]
fn rope_options_reach_the_file() {
    let scaling = RopeScaling { kind: "linear".into(), factor: 4.0 };
    let model = TinyLlama {
        rope_freqs: Some(vec![1.0; 8]),
        rope_scaling: Some(scaling),
        rope_theta: 5e5,
        ..TinyLlama::default()
    };
    let file = read(&model);
    let meta = file.metadata();
    assert_eq!(file.tensor("rope_freqs.weight").unwrap().shape, [8]);
    assert_eq!(meta.str(&keys::rope_scaling_type("llama")), Ok("linear"));
    assert_eq!(meta.f32(&keys::rope_scaling_factor("llama")), Ok(4.0));
    assert_eq!(meta.f32(&keys::rope_freq_base("llama")), Ok(5e5));
}

#[test]
fn both_vocabularies_have_the_size_asked_for() {
    for vocabulary in [Vocabulary::ByteBpe, Vocabulary::SentencePiece] {
        for vocab in [vocabulary.min_size(), 1_000] {
            let file = read(&TinyLlama { vocabulary, vocab, ..TinyLlama::default() });
            let meta = file.metadata();
            let tokens = meta.strings(keys::TOKENS).unwrap();
            assert_eq!(tokens.len(), vocab);
            assert_eq!(meta.i32s(keys::TOKEN_TYPES).unwrap().len(), vocab);
            let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
            assert_eq!(distinct.len(), vocab);
            let bos = meta.u32(keys::BOS_ID).unwrap() as usize;
            assert!([&b"<|begin_of_text|>"[..], b"<s>"].contains(&tokens.get(bos).unwrap()));
            assert_eq!(meta.opt_f32s(keys::SCORES).unwrap().is_some(), vocabulary == Vocabulary::SentencePiece);
        }
    }
}

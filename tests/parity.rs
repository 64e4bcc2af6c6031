//! The numeric contract, end to end: a model gives the same tokens from the same logits, bit for bit, on
//! this machine (every kernel, one thread and two) and in the canister's wasm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use canister::api::*;
use end_to_end::{Icllama, Native, ask, audited, chat, full, random_budgets, real_model, tiny};
use model_core::fixtures::{RopeScaling, TinyLlama};
use model_core::gguf::GgmlType;
use model_core::kernels::Kernel;
use model_core::quant;

/// Inputs of every kind and options of every kind.
fn questions() -> Vec<SessionCreateArg> {
    let random = SessionOptions {
        temperature: Some(1.2),
        top_k: Some(50),
        top_p: Some(0.97),
        min_p: Some(0.01),
        repeat_penalty: Some(1.1),
        repeat_last_n: Some(20),
        frequency_penalty: Some(0.1),
        presence_penalty: Some(0.3),
        seed: Some(11),
        ..audited(10)
    };
    let list = Grammar::Gbnf(r#"root ::= "[" [a-zé]{2,9} ("," ([0-9] | "true")+){3} "]""#.into());
    let bound = SessionOptions {
        temperature: Some(2.0),
        top_k: Some(0),
        grammar: Some(list),
        logprobs: Some(4),
        seed: Some(2),
        ..audited(40)
    };
    let tokens = SessionInput::Tokens((30..75).collect());
    let narrow = SessionOptions { kv_cache_bits: Some(8), ..random.clone() };
    vec![
        ask("hello the world: 1 + 1 = 2, ça va?", 10),
        SessionCreateArg { input: chat("You are small.", "hello world"), options: random },
        SessionCreateArg { input: tokens.clone(), options: SessionOptions { prefill_batch: Some(7), ..audited(6) } },
        SessionCreateArg { input: tokens, options: narrow },
        SessionCreateArg { input: SessionInput::Text("a list:".into()), options: bound },
    ]
}

/// Holds the canister on every host to the native run on every path.
fn assert_same_bits(name: &str, file: &[u8], questions: &[SessionCreateArg]) {
    let reference = Native::load(file, Kernel::SCALAR, 1);
    let expected: Vec<_> = questions.iter().map(|question| reference.generate(question)).collect();
    for (generation, _) in &expected {
        assert_eq!(generation.digests.len(), generation.tokens.len() - generation.prompt_tokens as usize, "{name}");
        assert!(generation.digests.len() > 5, "{name}: {generation:?}");
    }
    for (kernel, threads) in Kernel::available().into_iter().flat_map(|kernel| [(kernel, 1), (kernel, 2)]) {
        let native = Native::load(file, kernel, threads);
        for (question, expected) in questions.iter().zip(&expected) {
            assert!(native.generate(question) == *expected, "{name}: {kernel:?} with {threads} threads differs");
        }
    }
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve(name, file);
        assert_eq!(icllama.model_status().serving.unwrap().weights_per_token, reference.model.weights_per_token());
        for (question, (generation, logits)) in questions.iter().zip(&expected) {
            for budgets in [&mut full as &mut dyn FnMut() -> _, &mut random_budgets(1, 1 << 26)] {
                let session_id = icllama.session_create(question.clone()).unwrap().session_id;
                icllama.finish(session_id, budgets);
                assert_eq!(icllama.generation(session_id), *generation, "{name}");
                let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
                assert!(bits(&icllama.logits(session_id)) == bits(logits), "{name}: last logits differ");
            }
        }
    }
}

fn assert_tiny_same_bits(name: &str, model: &TinyLlama) {
    assert_same_bits(name, &model.build(), &questions());
}

#[test]
fn every_tensor_type() {
    for &ty in GgmlType::ALL.iter().filter(|ty| quant::supports(**ty)) {
        let shape = if ty.block_elements() > quant::GROUP { wide(1) } else { tiny(1) };
        assert_tiny_same_bits(ty.name(), &TinyLlama { ty, ..shape });
    }
}

/// A model whose rows are whole super-blocks.
fn wide(seed: u64) -> TinyLlama {
    TinyLlama { dim: 256, heads: 4, head_dim: 64, hidden: 256, layers: 1, ..tiny(seed) }
}

#[test]
fn mixed_tensor_types_as_real_files_have_them() {
    let types = vec![
        ("token_embd.weight", GgmlType::Q8_0),
        ("attn_v.weight", GgmlType::F16),
        ("ffn_down.weight", GgmlType::Q5_1),
    ];
    assert_tiny_same_bits("mixed", &TinyLlama { ty: GgmlType::Q4_0, types, ..tiny(2) });
    let types = vec![("token_embd.weight", GgmlType::Q6_K), ("attn_v.weight", GgmlType::Q2_K)];
    assert_tiny_same_bits("K-quants", &TinyLlama { ty: GgmlType::Q4_K, types, ..wide(3) });
}

#[test]
fn head_shapes_of_all_kinds() {
    let shapes = [
        ("one head for each", TinyLlama { heads: 4, kv_heads: 4, ..tiny(3) }),
        ("one key head for all", TinyLlama { heads: 4, kv_heads: 1, ..tiny(4) }),
        ("three to one", TinyLlama { dim: 96, heads: 6, kv_heads: 2, head_dim: 16, hidden: 160, ..tiny(5) }),
        ("an odd head size", TinyLlama { dim: 64, heads: 3, kv_heads: 3, head_dim: 32, ..tiny(6) }),
        ("heads of no power of two", TinyLlama { heads: 8, kv_heads: 2, head_dim: 20, ..tiny(7) }),
        ("heads wider than the model", TinyLlama { dim: 64, heads: 2, kv_heads: 1, head_dim: 80, ..tiny(8) }),
        ("rows that fill no tile", TinyLlama { hidden: 32 * 5, vocab: 333, layers: 1, ..tiny(9) }),
    ];
    for (name, model) in shapes {
        assert_tiny_same_bits(name, &model);
    }
}

#[test]
fn an_output_head_of_its_own() {
    assert_tiny_same_bits("untied", &TinyLlama { tied: false, ..tiny(10) });
    let types = vec![("output.weight", GgmlType::F16)];
    assert_tiny_same_bits("untied in f16", &TinyLlama { tied: false, types, ty: GgmlType::Q4_1, ..tiny(11) });
}

#[test]
fn every_form_of_rotation() {
    let factors = (0..8).map(|index| 1.0 + index as f32).collect();
    let linear = RopeScaling { kind: "linear".into(), factor: 4.0 };
    let forms = [
        ("long factors", TinyLlama { rope_freqs: Some(factors), rope_theta: 500_000.0, ..tiny(12) }),
        ("linear scaling", TinyLlama { rope_scaling: Some(linear), ..tiny(13) }),
        ("another epsilon", TinyLlama { norm_eps: 1e-3, rope_theta: 1_000_000.0, ..tiny(14) }),
    ];
    for (name, model) in forms {
        assert_tiny_same_bits(name, &model);
    }
}

/// The models whose logits equal those of llama.cpp (`model-core/tests/architectures.rs`).
#[test]
fn every_architecture() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../model-core/tests/golden/architectures");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    files.sort();
    assert!(files.len() >= 14, "{files:?}");
    // Windows and a segment of the cache end on the way.
    let tokens = SessionInput::Tokens((3..19).collect());
    let options = SessionOptions { prefill_batch: Some(5), ..audited(24) };
    let question = SessionCreateArg { input: tokens, options };
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy();
        assert_same_bits(&name, &std::fs::read(&path).unwrap(), std::slice::from_ref(&question));
    }
}

#[test]
fn a_sentence_piece_vocabulary() {
    assert_tiny_same_bits("sentence piece", &TinyLlama { seed: 15, ..TinyLlama::sentence_piece() });
}

#[test]
fn a_prompt_of_many_batches_and_a_full_context() {
    let model = TinyLlama { context: 512, ..tiny(16) };
    let tokens = SessionInput::Tokens((0..500).map(|index| index * 7 % 256).collect());
    let long = SessionCreateArg { input: tokens, options: audited(100) };
    let file = model.build();
    let (generation, _) = Native::load(&file, Kernel::detect(), 2).generate(&long);
    assert_eq!((generation.tokens.len(), generation.finish), (512, Some(FinishReason::ContextFull)));
    assert_same_bits("long", &file, &[long]);
}

#[test]
fn the_real_model() {
    let greedy = SessionCreateArg {
        input: chat(
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
            "What is the capital of France?",
        ),
        options: SessionOptions {
            temperature: Some(0.0),
            audit: Some(true),
            max_tokens: Some(12),
            ..SessionOptions::default()
        },
    };
    let random = SessionOptions { temperature: Some(0.8), seed: Some(5), ..audited(10) };
    let continued =
        SessionCreateArg { input: SessionInput::Text("The quick brown fox\n\t — 123 né".into()), options: random };
    let questions = [greedy, continued];

    let file = real_model();
    let expected = questions.each_ref().map(|question| Native::load(file, Kernel::SCALAR, 1).generate(question));
    assert!(expected[0].0.text.contains("Paris"), "{:?}", expected[0].0.text);
    for (kernel, threads) in Kernel::available().into_iter().flat_map(|kernel| [(kernel, 1), (kernel, 2)]) {
        let native = Native::load(file, kernel, threads);
        assert!(questions.each_ref().map(|question| native.generate(question)) == expected, "{kernel:?} × {threads}");
    }
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("SmolLM2", file);
        for (question, (generation, logits)) in questions.iter().zip(&expected) {
            let session_id = icllama.session_create(question.clone()).unwrap().session_id;
            // The first half in slivers, an upgrade in the middle, the second half in whole calls.
            for _ in 0..40 {
                let max_instructions = Some(30_000_000);
                let arg = SessionAdvanceArg { session_id, max_instructions, max_tokens: None, profile: None };
                icllama.session_advance(arg).unwrap();
            }
            if question == &questions[0] {
                icllama.upgrade();
                icllama.wait_until_ready();
            }
            icllama.finish(session_id, &mut full);
            assert_eq!(icllama.generation(session_id), *generation);
            assert!(icllama.logits(session_id) == *logits, "last logits differ");
        }
    }
}

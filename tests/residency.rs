//! Weights that are kept wide or compact in the canister's heap: the bits of answers are the same, the operator's choice
//! takes effect at the next load, and the automatic one goes by the room and the length of calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use canister::api::*;
use end_to_end::{Icllama, Native, ShimHost, ask, full, tiny};
use model_core::fixtures::TinyLlama;
use model_core::gguf::GgmlType;
use model_core::kernels::Kernel;
use model_core::pack::Precision;

/// Heap that the canister keeps for other things than weights and caches.
const WORKING_BYTES: u64 = 128 << 20;
const CACHE_BYTES: u64 = 1 << 20;

fn model(ty: GgmlType) -> Vec<u8> {
    TinyLlama { ty, ..tiny(31) }.build()
}

fn with(residency: Residency) -> ConfigUpdate {
    ConfigUpdate { residency: Some(residency), ..ConfigUpdate::default() }
}

fn with_8_bits(residency: Residency) -> ConfigUpdate {
    ConfigUpdate { activation_bits: Some(ActivationBits::Bits8), ..with(residency) }
}

/// Settings that leave `weight_bytes` for weights.
fn room_for(weight_bytes: u64) -> ConfigUpdate {
    let max_heap_bytes = Some(WORKING_BYTES + CACHE_BYTES + weight_bytes);
    ConfigUpdate { max_heap_bytes, cache_heap_bytes: Some(CACHE_BYTES), ..ConfigUpdate::default() }
}

fn kept(icllama: &mut Icllama) -> (String, u64) {
    let info = icllama.model_status().serving.unwrap();
    (info.residency, info.packed_bytes)
}

/// Sets `config` and has the model loaded again.
fn reload(icllama: &mut Icllama, config: ConfigUpdate) {
    icllama.config_set(config).unwrap();
    icllama.upgrade();
    icllama.wait_until_ready();
}

#[test]
fn activations_of_8_bits_have_one_result_everywhere_and_sessions_that_others_do_not_take_over() {
    for ty in [GgmlType::Q4_0, GgmlType::Q4_1] {
        let file = model(ty);
        let question = ask("hello the world: 1 + 1 = 2, ça va?", 12);
        let [(usual, _), (expected, logits)] = [Precision::Quantized, Precision::Activations8]
            .map(|precision| Native::load_with(&file, Kernel::SCALAR, 1, precision).generate(&question));
        assert_ne!(usual.digests, expected.digests, "{ty}");
        for kernel in Kernel::available() {
            let native = Native::load_with(&file, kernel, 2, Precision::Activations8);
            assert!(native.generate(&question) == (expected.clone(), logits.clone()), "{ty} {kernel:?}");
        }
        for mut icllama in Icllama::everywhere(with_8_bits(Residency::Wide)) {
            icllama.serve("model", &file);
            assert_eq!(icllama.generate(&question, &mut full), expected, "{ty} wide");
            reload(&mut icllama, with_8_bits(Residency::Compact));
            let info = icllama.model_status().serving.unwrap();
            assert_eq!((info.residency.as_str(), info.activation_bits), ("compact", 8));
            assert_eq!(icllama.generate(&question, &mut full), expected, "{ty} compact");
            let session_id = icllama.session_create(question.clone()).unwrap().session_id;
            reload(
                &mut icllama,
                ConfigUpdate { activation_bits: Some(ActivationBits::Bits16), ..with(Residency::Wide) },
            );
            let some = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
            assert_eq!(icllama.session_advance(some).unwrap_err(), Error::ModelChanged);
            assert_eq!(icllama.generate(&question, &mut full), usual, "{ty} after all");
        }
    }
}

#[test]
fn a_session_goes_on_with_the_same_bits_when_the_residency_is_switched() {
    for ty in [GgmlType::Q4_0, GgmlType::Q4_1] {
        let file = model(ty);
        let question = ask("hello the world: 1 + 1 = 2, ça va?", 12);
        let (expected, logits) = Native::load(&file, Kernel::SCALAR, 1).generate(&question);
        for mut icllama in Icllama::everywhere(with(Residency::Wide)) {
            icllama.serve("model", &file);
            assert_eq!(icllama.generate(&question, &mut full), expected, "{ty} wide");
            let session_id = icllama.session_create(question.clone()).unwrap().session_id;
            let some = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(5), profile: None };
            icllama.session_advance(some).unwrap();
            let (residency, wide_bytes) = kept(&mut icllama);
            icllama.config_set(with(Residency::Compact)).unwrap();
            assert_eq!((residency.as_str(), kept(&mut icllama).0.as_str()), ("wide", "wide"));
            reload(&mut icllama, with(Residency::Compact));
            let (residency, compact_bytes) = kept(&mut icllama);
            assert_eq!(residency, "compact");
            assert!(10 * compact_bytes < 7 * wide_bytes, "{compact_bytes} {wide_bytes}");
            icllama.finish(session_id, &mut full);
            assert_eq!(icllama.generation(session_id), expected, "{ty} wide, then compact");
            assert_eq!(icllama.logits(session_id), logits);
            assert_eq!(icllama.generate(&question, &mut full), expected, "{ty} compact");
        }
    }
}

#[test]
fn the_automatic_choice_goes_by_room_and_calls() {
    let file = model(GgmlType::Q4_0);
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let (residency, wide_bytes) = kept(&mut icllama);
        assert_eq!(residency, "wide");
        reload(&mut icllama, ConfigUpdate { max_instructions: Some(1_000), ..ConfigUpdate::default() });
        let (residency, compact_bytes) = kept(&mut icllama);
        assert_eq!(residency, "compact");
        let long_calls = ConfigUpdate { max_instructions: Some(1_000_000_000), ..ConfigUpdate::default() };
        icllama.config_set(long_calls).unwrap();
        // The sizes leave norms aside, which are few.
        reload(&mut icllama, room_for(wide_bytes + 65_536));
        assert_eq!(kept(&mut icllama), ("wide".into(), wide_bytes));
        reload(&mut icllama, room_for((wide_bytes + compact_bytes) / 2));
        assert_eq!(kept(&mut icllama), ("compact".into(), compact_bytes));
    }
}

#[test]
fn a_model_without_room_is_refused_with_the_numbers_until_there_is_room() {
    let file = model(GgmlType::Q4_0);
    for mut icllama in Icllama::everywhere(room_for(1_000)) {
        icllama.store("model", &file);
        icllama.wait_until("the model is refused", |icllama| icllama.model_status().rejected.is_some());
        let message = icllama.model_status().rejected.unwrap().message;
        assert!(message.contains("may take 1000;") && message.contains("compact"), "{message}");
        icllama.config_set(room_for(100 << 20)).unwrap();
        icllama.serve("model", &file);
        assert_eq!(kept(&mut icllama).0, "wide");
    }
}

/// Instructions per weight and token of the products in the feed-forward network, in one call of 60 tokens.
fn feed_forward_cost(ty: GgmlType, residency: Residency) -> f64 {
    const TOKENS: u32 = 60;
    let shape = TinyLlama { dim: 512, heads: 4, kv_heads: 2, head_dim: 128, hidden: 1024, layers: 1, ty, ..tiny(5) };
    let mut icllama = Icllama::install(Box::new(ShimHost::new()), with(residency));
    icllama.serve("model", &shape.build());
    let session_id = icllama.session_create(ask("a", TOKENS)).unwrap().session_id;
    let all = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: Some(true) };
    let parts = icllama.session_advance(all).unwrap().profile.unwrap();
    let products = ["product: gate", "product: up", "product: down"];
    let spent: u64 =
        parts.iter().filter(|part| products.contains(&part.part.as_str())).map(|part| part.instructions).sum();
    spent as f64 / f64::from(TOKENS) / (3 * shape.dim * shape.hidden) as f64
}

#[test]
fn weights_of_three_values_cost_two_thirds_of_others() {
    let eight_bits = feed_forward_cost(GgmlType::Q8_0, Residency::Wide);
    for ty in [GgmlType::TQ1_0, GgmlType::TQ2_0] {
        let [wide, compact] = [Residency::Wide, Residency::Compact].map(|residency| feed_forward_cost(ty, residency));
        println!("{ty}: {wide:.3} instructions per weight wide, {compact:.3} compact; Q8_0: {eight_bits:.3}");
        assert!(wide < 0.65 * eight_bits && compact < 0.75 * eight_bits, "{ty}: {wide} {compact} {eight_bits}");
    }
}

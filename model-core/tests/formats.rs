//! Models in every format, alone and mixed as llama-quantize mixes them: close to the plain evaluation of the same file,
//! and the same bits on every kernel.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::common::{load_with, tokens};
use model_core::fixtures::TinyLlama;
use model_core::gguf::GgmlType::{self, *};
use model_core::kernels::Kernel;
use model_core::quant;
use model_core::reference::Reference;
use model_core::session::digest;

/// A model whose rows are whole super-blocks.
fn shape(ty: GgmlType) -> TinyLlama {
    TinyLlama { dim: 256, heads: 4, kv_heads: 2, head_dim: 64, hidden: 512, layers: 1, ty, ..TinyLlama::default() }
}

fn assert_agreement(name: &str, shape: &TinyLlama) {
    let file = shape.build();
    let tokens = tokens(13, shape.vocab);
    let mut expected = Vec::new();
    Reference::load(&file).unwrap().logits_of(&tokens, |_, logits| expected.push(logits.to_vec())).unwrap();
    let run = |kernel: Kernel| {
        let mut digests = Vec::new();
        let each = |position: usize, logits: &[f32]| {
            let largest = expected[position].iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let worst = logits.iter().zip(&expected[position]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            // Random scales and offsets make cruder weights than trained ones; a misread code would differ by tenths.
            assert!(worst < 6e-3 * largest, "{name}: position {position} differs by {worst} of {largest}");
            digests.push(digest(logits));
        };
        load_with(&file, kernel).logits_for(&tokens, each).unwrap();
        assert_eq!(digests.len(), tokens.len());
        digests
    };
    let scalar = run(Kernel::SCALAR);
    for kernel in Kernel::available() {
        assert_eq!(run(kernel), scalar, "{name} on {}", kernel.name());
    }
}

#[test]
fn every_format_agrees_with_the_plain_evaluation() {
    let formats: Vec<GgmlType> = GgmlType::ALL.iter().copied().filter(|ty| quant::supports(*ty)).collect();
    assert_eq!(formats.len(), 18);
    for ty in formats {
        assert_agreement(ty.name(), &shape(ty));
    }
}

#[test]
fn mixed_files_agree_with_the_plain_evaluation() {
    let mixes = [
        (
            "Q2_K",
            Q2_K,
            vec![
                ("token_embd.weight", Q6_K),
                ("attn_v.weight", Q4_K),
                ("attn_output.weight", Q3_K),
                ("ffn_down.weight", Q3_K),
            ],
        ),
        (
            "Q3_K_M",
            Q3_K,
            vec![
                ("token_embd.weight", Q6_K),
                ("attn_v.weight", Q5_K),
                ("attn_output.weight", Q4_K),
                ("ffn_down.weight", Q4_K),
            ],
        ),
        ("Q4_K_M", Q4_K, vec![("token_embd.weight", Q6_K), ("attn_v.weight", Q6_K), ("ffn_down.weight", Q6_K)]),
        ("Q5_K_M", Q5_K, vec![("token_embd.weight", Q6_K), ("attn_v.weight", Q6_K), ("ffn_down.weight", Q6_K)]),
        ("IQ4_XS", IQ4_XS, vec![("token_embd.weight", Q6_K), ("attn_v.weight", Q5_K), ("ffn_down.weight", Q5_K)]),
        ("TQ1_0", TQ1_0, vec![("token_embd.weight", Q4_K), ("attn_output.weight", TQ2_0)]),
    ];
    for (name, ty, types) in mixes {
        assert_agreement(name, &TinyLlama { types, ..shape(ty) });
    }
}

/// Rows that are no whole super-blocks fall back to blocks of 32; here only `ffn_down` has columns for super-blocks.
#[test]
fn files_with_fallback_rows_agree_with_the_plain_evaluation() {
    let narrow =
        TinyLlama { dim: 96, heads: 3, kv_heads: 3, head_dim: 32, hidden: 256, layers: 1, ..TinyLlama::default() };
    let mixes = [
        ("Q4_K_M", Q5_0, vec![("token_embd.weight", Q8_0), ("attn_v.weight", Q8_0), ("ffn_down.weight", Q6_K)]),
        ("Q5_K_S", Q5_1, vec![("token_embd.weight", Q8_0), ("ffn_down.weight", Q5_K)]),
        ("Q2_K", IQ4_NL, vec![("token_embd.weight", Q8_0), ("attn_v.weight", Q5_0), ("ffn_down.weight", Q2_K)]),
    ];
    for (name, ty, types) in mixes {
        assert_agreement(name, &TinyLlama { ty, types, ..narrow.clone() });
    }
}

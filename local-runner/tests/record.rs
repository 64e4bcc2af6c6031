//! The committed records of what the canister costs (`bench/record`) against the canister as it is now. Counts of
//! instructions repeat exactly, so any difference is one of the code. `scripts/bench-record.sh` renews the records.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::common::{Tiny, failure, icllama};
use model_core::fixtures::TinyLlama;
use model_core::gguf::GgmlType;

fn record(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/record").join(format!("{name}.tsv"))
}

/// Compares the record with what is measured now with these options, or renews it.
fn holds(name: &str, model: &str, options: &[&str]) {
    let record = record(name);
    let verb = if std::env::var_os("ICLLAMA_UPDATE").is_some() { "--record" } else { "--check" };
    let output = icllama(&[&["bench", model, "--backend", "shim", verb, record.to_str().unwrap()], options].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {told}\nall records: scripts/bench-record.sh");
    // Not with `eprintln`, which would be kept from sight while the test passes.
    for line in told.lines().skip_while(|line| !line.starts_with("better than")) {
        std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Small, but wide enough that products outweigh everything else, and with room for 512 positions.
fn small(ty: GgmlType) -> TinyLlama {
    TinyLlama {
        dim: 256,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        hidden: 768,
        vocab: 4096,
        context: 1024,
        ty,
        ..TinyLlama::default()
    }
}

fn small_holds(name: &str, ty: GgmlType) {
    holds(name, &Tiny::new(&small(ty)).path(), &[]);
}

#[test]
fn of_a_small_model_with_symmetric_4_bit_weights() {
    small_holds("small-q4_0", GgmlType::Q4_0);
}

#[test]
fn of_a_small_model_with_affine_4_bit_weights() {
    small_holds("small-q4_1", GgmlType::Q4_1);
}

#[test]
fn of_a_small_model_with_8_bit_weights() {
    small_holds("small-q8_0", GgmlType::Q8_0);
}

#[test]
fn of_a_small_model_with_float_weights() {
    small_holds("small-f16", GgmlType::F16);
}

fn demo_model() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let model =
        std::env::var_os("ICLLAMA_MODEL").map_or_else(|| folder.join("SmolLM2-135M-Instruct.Q4_1.gguf"), PathBuf::from);
    model.to_str().unwrap().to_owned()
}

#[test]
fn of_the_demo_model() {
    holds("smollm2-135m-instruct-q4_1", &demo_model(), &[]);
}

#[test]
fn of_the_demo_model_held_compact() {
    holds("smollm2-135m-instruct-q4_1-compact", &demo_model(), &["--residency", "compact"]);
}

#[test]
fn of_the_demo_model_with_activations_of_8_bits() {
    holds("smollm2-135m-instruct-q4_1-activations-8", &demo_model(), &["--activations", "8"]);
}

#[test]
fn of_the_demo_model_held_compact_with_activations_of_8_bits() {
    let options = ["--residency", "compact", "--activations", "8"];
    holds("smollm2-135m-instruct-q4_1-compact-activations-8", &demo_model(), &options);
}

#[test]
fn a_figure_that_grew_fails_and_says_how_to_renew() {
    let tiny = Tiny::new(&TinyLlama::default());
    let (model, record) = (tiny.path(), tiny.folder.path().join("record.tsv"));
    let bench = |verb: &str| icllama(&["bench", &model, "--backend", "shim", verb, record.to_str().unwrap()]);
    assert!(bench("--record").status.success());
    assert!(bench("--check").status.success(), "counts repeat exactly");

    let text = std::fs::read_to_string(&record).unwrap();
    let line = text.lines().find(|line| line.starts_with("load:")).unwrap();
    let (name, value) = line.split_once('\t').unwrap();
    let value: f64 = value.parse().unwrap();
    let change = |factor: f64| text.replace(line, &format!("{name}\t{:.4}", value * factor));
    std::fs::write(&record, change(0.98)).unwrap();
    let worse = bench("--check");
    let told = String::from_utf8_lossy(&worse.stderr);
    assert_eq!(worse.status.code(), Some(1));
    assert!(told.contains("load: instructions per weight: from ") && told.contains("(+2.0 %)"), "{told}");
    assert!(told.contains("--backend shim --record"), "{told}");
    std::fs::write(&record, change(1.02)).unwrap();
    let better = bench("--check");
    assert!(better.status.success());
    assert!(String::from_utf8_lossy(&better.stderr).contains("please renew"), "an improvement is told");
    assert!(failure(&["bench", &model, "--check", record.to_str().unwrap()]).contains("--backend shim"));
}

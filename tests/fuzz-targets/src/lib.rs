//! What is tried with inputs that a fuzzer invents: one function for each part of icllama that reads what strangers send.
//!
//! Each takes any bytes and must return: it fails by panicking, where the part panics or breaks a promise that holds for
//! every input (what is written is read back, two ways lead to the same, memory and time have a bound). `fuzz/` runs
//! them under libFuzzer, and the tests run them with the inputs that are committed there.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a finding is a panic")]

pub mod candid;
#[cfg(feature = "endpoint")]
pub mod cbor;
pub mod gguf;
pub mod grammar;
mod pieces;
pub mod template;
pub mod tokenizer;

/// A part of icllama, tried with some bytes.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("candid", candid::run),
    #[cfg(feature = "endpoint")]
    ("cbor", cbor::run),
    ("gguf", gguf::run),
    ("grammar", grammar::run),
    ("template", template::run),
    ("tokenizer", tokenizer::run),
];

//! Llama-family inference with the same bits on every target.

pub mod budget;
mod characters;
pub mod chat;
pub mod config;
pub mod error;
#[cfg(feature = "fixtures")]
pub mod fixtures;
pub mod gguf;
pub mod grammar;
pub mod kernels;
pub mod math;
pub mod model;
pub mod pack;
mod parallel;
pub mod profile;
pub mod prompt;
pub mod quant;
pub mod reference;
pub mod sample;
pub mod session;
pub mod source;
pub mod tokenizer;

pub use error::Error;

/// Index of a token in the vocabulary.
pub type TokenId = u32;

//! Llama-family inference with the same bits on every target.

pub mod budget;
pub mod source;

/// Index of a token in the vocabulary.
pub type TokenId = u32;

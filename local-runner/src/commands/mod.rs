//! One file per verb: its arguments and what it does.

pub mod bench;
pub mod chat;
pub mod config;
pub mod inspect;
pub mod logits;
mod logprobs;
pub mod logs;
pub mod parity;
pub mod perplexity;
pub mod quantize;
pub mod replica;
pub mod run;
pub mod serve;
pub mod sessions;
pub mod shim;
pub mod status;
pub mod tokenize;
pub mod upload;

//! The crate from outside, against golden vectors and real models.

mod architectures;
mod chat_golden;
mod common;
mod defects;
mod fixtures;
mod formats;
mod gguf_malformed;
mod gguf_real_model;
mod grammar;
mod loading;
mod quant_golden;
mod session;
mod session_storage;
mod smollm2_reference;
mod smollm2_session;
mod support;
mod tokenizer_golden;
mod tokenizer_malformed;
mod tokenizer_properties;

//! The real canister wasm and the `icllama` command, end to end.

mod access;
mod budget;
mod extremes;
mod faults;
mod fuzz_corpus;
mod hostile;
mod kernels;
mod life;
mod llm;
mod malformed;
mod model_based;
mod module;
mod parity;
mod public;
mod residency;
mod rollback;
mod soak;
mod tokenizer;
mod upgrade;
mod upload;

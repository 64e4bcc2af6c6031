//! Quantizing a model file: `plan` chooses types, `stream` moves the data. The command is in `commands::quantize`.

pub mod plan;
pub mod stream;

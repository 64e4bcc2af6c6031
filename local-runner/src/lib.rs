//! What the `icllama` command is made of.

pub mod endpoint;
pub mod http;
pub mod shim;

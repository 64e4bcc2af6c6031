//! What the `icllama` command is made of.

pub mod shim;

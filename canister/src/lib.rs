//! icllama's Internet Computer canister.

pub mod api;

//! The commands that talk to deployed canisters, against the real canister at a local endpoint. The wasm is the one that
//! `scripts/build-canister.sh` leaves in the target folder.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

pub mod fixture;
mod operate;
mod proxy;
mod run;
mod upload;

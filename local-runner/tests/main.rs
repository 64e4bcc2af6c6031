//! The real `icllama` command and the local endpoint.

mod cli;
mod cli_canister;
mod common;
mod docs;
mod endpoint;
mod estimate;
mod hub;
mod native_faults;
mod network;
mod quantize;
mod record;
mod serve;
mod split;
mod trace;

//! The shim: runs any Internet Computer canister module on this machine, with the platform's metering and rollback.
//!
//! Layers, lowest first; no layer knows the ones above it:
//! - [`costs`]: what operators, system calls and page accesses cost (data only);
//! - [`trap`]: why an execution fails, with the platform's codes and texts;
//! - [`module`]: decodes a module and refuses what the platform refuses;
//! - [`meter`]: rewrites a module so that it counts its own instructions;
//! - [`heap`]: a canister's linear memory between messages, with page tracking and rollback;
//! - [`engine`]: compiles modules and runs one entry point of one canister at a time.

pub mod costs;
pub mod engine;
pub mod heap;
pub mod meter;
pub mod module;
pub mod trap;

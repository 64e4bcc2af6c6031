//! The shim: runs any Internet Computer canister module on this machine, with the platform's metering and rollback.
//!
//! Layers, lowest first; no layer knows the ones above it:
//! - [`costs`]: what operators, system calls and page accesses cost (data only);
//! - [`trap`]: why an execution fails, with the platform's codes and texts;
//! - [`module`]: decodes a module and refuses what the platform refuses;
//! - [`meter`]: rewrites a module so that it counts its own instructions;
//! - [`heap`]: a canister's linear memory between messages, with page tracking and rollback;
//! - [`engine`]: compiles modules and runs one entry point of one canister at a time;
//! - [`limits`], [`mode`], [`cycles`], [`reject`], [`stable`], [`log`]: ceilings, kinds of execution, prices, failures,
//!   stable memory and logs, each for itself;
//! - [`execution`] and `ic0`: one execution as the system API sees it, and the system API;
//! - [`call_context`], [`history`], [`canister`], [`message`]: open calls and changes of one canister, the canister,
//!   one message;
//! - [`replica`] and the management canister: the queue, the clock and everything between canisters;
//! - [`candid_text`]: arguments and replies as text, for people.
//!
//! What it covers, how it charges and where it deviates from the platform: `docs/shim.md`.

pub mod call_context;
pub mod candid_text;
pub mod canister;
pub mod config;
pub mod costs;
pub mod cycles;
pub mod engine;
pub mod execution;
pub mod heap;
pub mod history;
mod ic0;
pub mod limits;
pub mod log;
mod management;
pub mod message;
pub mod meter;
pub mod mode;
pub mod module;
pub mod queue;
pub mod reject;
pub mod replica;
pub mod report;
pub mod stable;
#[cfg(test)]
mod tests;
pub mod trap;

pub use canister::Canister;
pub use config::Config;
pub use reject::{Reject, RejectCode};
pub use replica::{InstallMode, Replica};
pub use report::{CallReport, MessageReport};

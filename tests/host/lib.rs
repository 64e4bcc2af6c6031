//! What the end-to-end tests share: the [`Host`] trait with the shim and PocketIC behind it, a typed
//! client of the canister, the same generation natively, and where built files lie.
//!
//! A failure in here is a failed test, so helpers panic with what went wrong.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a failure is a failed test"
)]

mod artifacts;
mod chunks;
mod host;
mod icllama;
mod models;
mod native;
#[cfg(feature = "pocket-ic")]
mod pocket_ic;
mod shim;

pub use artifacts::{artifact, canister_module, real_model};
pub use chunks::{Chunk, chunks, shuffle};
pub use host::{CallKind, Host, InstallMode, Reject, hosts};
pub use icllama::{Generation, Icllama, METHODS, Outcome, controller, full, is_finished, principal, random_budgets};
pub use models::{ask, audited, chat, tiny};
pub use native::Native;
pub use shim::ShimHost;

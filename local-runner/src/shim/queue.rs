//! Messages between users, canisters and the management canister.

use candid::Principal;

use super::call_context::{CallbackId, Origin};
use super::mode::Mode;
use super::reject::Reject;

/// A call to a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who waits for the answer.
    pub origin: Origin,
    /// Who calls.
    pub caller: Principal,
    /// Canister that is called.
    pub callee: Principal,
    /// Method that is called.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
    /// Cycles sent along.
    pub cycles: u128,
    /// Deadline of a best-effort call in nanoseconds; 0 if none.
    pub deadline_ns: u64,
}

/// The answer to a canister's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The canister that called.
    pub canister: Principal,
    /// Its callback.
    pub callback: CallbackId,
    /// The answer.
    pub result: Result<Vec<u8>, Reject>,
    /// Cycles that were not accepted.
    pub refund: u128,
}

/// Something to be done, in the order of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A call.
    Request(Request),
    /// An answer.
    Response(Response),
    /// A heartbeat, timer or low-memory hook.
    Task {
        /// The canister.
        canister: Principal,
        /// Which task.
        mode: Mode,
    },
}

/// The entry point of a task.
pub fn task_export(mode: Mode) -> &'static str {
    match mode {
        Mode::Heartbeat => "canister_heartbeat",
        Mode::LowWasmMemory => "canister_on_low_wasm_memory",
        _ => "canister_global_timer",
    }
}

//! How a call fails for its caller: reject codes, error codes and the platform's texts.
//!
//! Numbers are those of the interface specification (reject codes) and of the replica's error table (error codes);
//! the first digit of an error code is the reject code it belongs to. Knows nothing of how messages are run.

use candid::Principal;

use super::trap::Trap;

/// The class of a failure (interface specification, "Reject codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectCode {
    /// Fatal system error; trying again will not help.
    SysFatal = 1,
    /// Transient system error; trying again may help.
    SysTransient = 2,
    /// The destination does not exist or does not accept the call.
    DestinationInvalid = 3,
    /// The canister rejected the call itself.
    CanisterReject = 4,
    /// The canister failed: a trap, no reply, no such method.
    CanisterError = 5,
    /// Outcome unknown; only for calls with a deadline.
    SysUnknown = 6,
}

impl RejectCode {
    /// The number that `ic0.msg_reject_code` returns.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The class that an error code belongs to.
    pub fn of_error(error_code: u32) -> Self {
        match error_code / 100 {
            1 => Self::SysFatal,
            2 => Self::SysTransient,
            3 => Self::DestinationInvalid,
            4 => Self::CanisterReject,
            6 => Self::SysUnknown,
            _ => Self::CanisterError,
        }
    }
}

/// Error codes of failures that do not start as a [`Trap`] (those have their own).
pub mod error_code {
    /// The id that was asked for is taken.
    pub const CANISTER_ID_ALREADY_EXISTS: u32 = 205;
    /// A `stop_canister` call was not answered in time.
    pub const STOP_CANISTER_TIMEOUT: u32 = 206;
    /// The replica does not take part any more; the platform's code for a subnet that cools down.
    pub const SHUTTING_DOWN: u32 = 211;
    /// The canister's balance does not cover the call.
    pub const CANISTER_OUT_OF_CYCLES: u32 = 207;
    /// No canister with this id.
    pub const CANISTER_NOT_FOUND: u32 = 301;
    /// The management canister has no such method, or not for this kind of call.
    pub const CANISTER_METHOD_NOT_PROVIDED: u32 = 302;
    /// The canister rejected the call with `msg_reject`, or refused an ingress message.
    pub const CANISTER_REJECTED_MESSAGE: u32 = 406;
    /// Arguments that the management canister cannot decode.
    pub const INVALID_MANAGEMENT_PAYLOAD: u32 = 408;
    /// The module is not valid.
    pub const CANISTER_INVALID_WASM: u32 = 505;
    /// The call ended without an answer.
    pub const CANISTER_DID_NOT_REPLY: u32 = 506;
    /// The canister is stopped.
    pub const CANISTER_STOPPED: u32 = 508;
    /// The canister is stopping.
    pub const CANISTER_STOPPING: u32 = 509;
    /// The canister must be stopped for this.
    pub const CANISTER_NOT_STOPPED: u32 = 510;
    /// A `stop_canister` call was cancelled by `start_canister`.
    pub const CANISTER_STOPPING_CANCELLED: u32 = 511;
    /// The sender does not control the canister.
    pub const CANISTER_INVALID_CONTROLLER: u32 = 512;
    /// A query call graph visits a canister that is still being executed.
    pub const QUERY_CALL_GRAPH_LOOP: u32 = 517;
    /// Not enough cycles came with the call.
    pub const INSUFFICIENT_CYCLES_IN_CALL: u32 = 520;
    /// The query call graph is too deep.
    pub const QUERY_CALL_GRAPH_TOO_DEEP: u32 = 525;
    /// The query call graph used too many instructions.
    pub const QUERY_CALL_GRAPH_INSTRUCTIONS: u32 = 526;
    /// A composite query was called in replicated execution.
    pub const COMPOSITE_QUERY_IN_REPLICATED_MODE: u32 = 527;
    /// No such method.
    pub const CANISTER_METHOD_NOT_FOUND: u32 = 536;
    /// The canister has no module.
    pub const CANISTER_WASM_MODULE_NOT_FOUND: u32 = 537;
    /// The canister already has a module.
    pub const CANISTER_NOT_EMPTY: u32 = 538;
    /// The call's deadline passed.
    pub const DEADLINE_EXPIRED: u32 = 601;
    /// The shim gave up waiting for an answer.
    pub const RESPONSE_DROPPED: u32 = 602;
}

/// A failed call as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reject code {}, error code IC0{error_code:03}: {message}", .code.number())]
pub struct Reject {
    /// Class of the failure.
    pub code: RejectCode,
    /// The platform's error code, such as 503.
    pub error_code: u32,
    /// What went wrong, in the platform's words where they are known.
    pub message: String,
}

impl Reject {
    /// A failure with this error code; the reject code follows from it.
    pub fn new(error_code: u32, message: impl Into<String>) -> Self {
        Self { code: RejectCode::of_error(error_code), error_code, message: message.into() }
    }

    /// What the caller of `canister` sees when an execution there trapped.
    pub fn from_trap(canister: Principal, trap: &Trap) -> Self {
        Self::from_canister(canister, trap.error_code(), &trap.to_string())
    }

    /// A failure that the platform reports in the name of `canister`.
    pub fn from_canister(canister: Principal, error_code: u32, text: &str) -> Self {
        Self::new(error_code, format!("Error from Canister {canister}: {text}"))
    }

    /// The canister itself rejected the call with `msg_reject`.
    pub fn by_canister(message: impl Into<String>) -> Self {
        Self::new(error_code::CANISTER_REJECTED_MESSAGE, message)
    }

    /// The error code as the platform shows it, such as `IC0503`.
    pub fn error_code_name(&self) -> String {
        format!("IC0{:03}", self.error_code)
    }

    /// No canister with this id.
    pub fn not_found(canister: Principal) -> Self {
        Self::new(error_code::CANISTER_NOT_FOUND, format!("Canister {canister} not found"))
    }

    /// The canister has no module.
    pub fn no_module(canister: Principal) -> Self {
        let text = "Attempted to execute a message, but the canister contains no Wasm module.";
        Self::from_canister(canister, error_code::CANISTER_WASM_MODULE_NOT_FOUND, text)
    }

    /// The canister exports no method `name` of this kind (`update`, `query` or `composite_query`).
    pub fn no_method(canister: Principal, kind: &str, name: &str) -> Self {
        let text = format!("Canister has no {kind} method '{name}'.");
        Self::from_canister(canister, error_code::CANISTER_METHOD_NOT_FOUND, &text)
    }

    /// The call ended and nothing is left that could answer it.
    pub fn did_not_reply(canister: Principal) -> Self {
        let text = "Canister did not reply to the call";
        Self::from_canister(canister, error_code::CANISTER_DID_NOT_REPLY, text)
    }
}

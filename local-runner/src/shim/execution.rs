//! One execution as the system API sees it: what goes in, what may be asked, what comes out.
//!
//! The effects collected here reach the canister only if the execution ends without a trap: the message layer applies
//! them. Knows nothing of WebAssembly; the functions of `ic0` translate between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candid::Principal;

use super::costs::PageCharges;
use super::cycles::Tariff;
use super::log::CanisterLog;
use super::mode::Mode;
use super::reject::RejectCode;
use super::stable::StableMemory;

/// What the message brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Who called; the management canister in system tasks.
    pub caller: Principal,
    /// Argument, or the payload of a reply in a reply callback.
    pub arg: Vec<u8>,
    /// Method name, for inspect_message.
    pub method: String,
    /// Why the call failed, in a reject callback.
    pub reject: Option<(RejectCode, String)>,
    /// Cycles of the call that were not accepted yet.
    pub cycles_available: u128,
    /// Cycles that came back with a response.
    pub cycles_refunded: u128,
    /// Deadline of a best-effort call, in nanoseconds since 1970; 0 if none.
    pub deadline_ns: u64,
    /// The call was answered by an earlier execution.
    pub answered: bool,
    /// Instructions of earlier executions of the same call.
    pub earlier_instructions: u64,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            caller: Principal::management_canister(),
            arg: Vec::new(),
            method: String::new(),
            reject: None,
            cycles_available: 0,
            cycles_refunded: 0,
            deadline_ns: 0,
            answered: false,
            earlier_instructions: 0,
        }
    }
}

/// What the canister may ask about itself and the replica during an execution.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The canister.
    pub canister: Principal,
    /// 1 running, 2 stopping, 3 stopped.
    pub status: u32,
    /// The canister's version.
    pub version: u64,
    /// Principals that control the canister.
    pub controllers: BTreeSet<Principal>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Time in nanoseconds since 1970.
    pub time_ns: u64,
    /// The subnet's id.
    pub subnet: Principal,
    /// The subnet's public key, DER.
    pub root_key: Arc<[u8]>,
    /// Certificate of the canister's certified data, in queries.
    pub certificate: Option<Vec<u8>>,
    /// Cycles that the canister must keep.
    pub frozen_cycles: u128,
    /// Prices.
    pub tariff: Tariff,
    /// Unanswered calls to each canister.
    pub open_calls: BTreeMap<Principal, usize>,
}

/// Ceilings of this execution.
#[derive(Debug, Clone)]
pub struct Ceilings {
    /// Instructions.
    pub instructions: u64,
    /// Instructions that a callback may use, which a call has to reserve cycles for.
    pub callback_instructions: u64,
    /// Bytes of stable memory that may be accessed, and separately written.
    pub stable_access_bytes: u64,
    /// The same for ordinary messages, install steps and queries, as the error texts name them.
    pub stable_access_kinds: [u64; 3],
    /// Size of stable memory, in bytes.
    pub stable_bytes: u64,
    /// Bytes of a reply.
    pub reply_bytes: u64,
    /// Bytes of a reply to an inter-canister call, which a call has to reserve cycles for.
    pub call_reply_bytes: u64,
    /// Bytes of a request.
    pub request_bytes: u64,
    /// Bytes of a method name.
    pub method_name_bytes: u64,
    /// Unanswered calls to one canister.
    pub queue_messages: usize,
    /// Longest deadline of a best-effort call, in seconds.
    pub best_effort_seconds: u64,
    /// Page charges.
    pub pages: PageCharges,
    /// Refuse calls that the balance does not cover.
    pub enforce_cycles: bool,
}

/// A function of the table with the value it is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closure {
    /// Index in table 0.
    pub function: u32,
    /// Argument of the function.
    pub environment: u32,
}

/// A call to another canister, being built or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingCall {
    /// Canister that is called.
    pub callee: Principal,
    /// Method that is called.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
    /// Runs when a reply comes.
    pub on_reply: Closure,
    /// Runs when a reject comes.
    pub on_reject: Closure,
    /// Runs when the callback traps.
    pub on_cleanup: Option<Closure>,
    /// Cycles sent along.
    pub cycles: u128,
    /// For calls that give up waiting.
    pub timeout_seconds: Option<u64>,
}

impl OutgoingCall {
    /// Bytes of the request that are paid for.
    pub fn bytes(&self) -> u64 {
        (self.arg.len() + self.method.len()) as u64
    }
}

/// The answer to a call: a reply, or the text of a reject.
pub type Answer = Result<Vec<u8>, String>;

/// What an execution did, to be applied if it does not trap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Data appended for a reply that is not sent yet.
    pub reply_data: Vec<u8>,
    /// The answer, once given.
    pub answer: Option<Answer>,
    /// Calls made, in order.
    pub calls: Vec<OutgoingCall>,
    /// A call under construction.
    pub pending_call: Option<OutgoingCall>,
    /// Cycles accepted from the call.
    pub cycles_accepted: u128,
    /// Cycles destroyed.
    pub cycles_burned: u128,
    /// The new deadline of the global timer; 0 deactivates it.
    pub timer: Option<u64>,
    /// New certified data.
    pub certified_data: Option<Vec<u8>>,
    /// `accept_message` was called.
    pub accepted_message: bool,
}

/// State of one execution.
///
/// The canister's stable memory and log are moved in for the time of the execution.
#[derive(Debug)]
pub struct Execution {
    /// What the execution is run for.
    pub mode: Mode,
    /// What the message brings.
    pub input: Input,
    /// What may be asked.
    pub facts: Facts,
    /// Ceilings.
    pub ceilings: Ceilings,
    /// Balance including what this execution accepted and sent.
    pub balance: u128,
    /// Deadline of the global timer before the execution; 0 if inactive.
    pub timer_ns: u64,
    /// Stable memory.
    pub stable: StableMemory,
    /// Log; what is written stays even after a trap.
    pub log: CanisterLog,
    /// Bytes that this execution added to the log.
    pub logged_bytes: u64,
    /// Texts printed by this execution, whatever becomes of the log.
    pub printed: Vec<String>,
    /// What was done.
    pub effects: Effects,
    /// Instructions charged by system calls, pages excluded.
    pub system_instructions: u64,
    /// Instructions for the stable pages of the single system call that touched most.
    pub largest_stable_pages: u64,
}

/// Most bytes of printed text that a report keeps.
const PRINTED_BYTES: u64 = 2 << 20;

impl Execution {
    /// Writes a text to the log and the report.
    pub fn print(&mut self, text: &[u8]) {
        self.log.push(self.facts.time_ns, text);
        self.logged_bytes = self.logged_bytes.saturating_add(text.len() as u64);
        if self.logged_bytes <= PRINTED_BYTES {
            self.printed.push(String::from_utf8_lossy(text).into_owned());
        }
    }

    /// Balance that may be spent: what is above the cycles the canister must keep.
    pub fn liquid_balance(&self) -> u128 {
        self.balance.saturating_sub(self.facts.frozen_cycles)
    }

    /// Cycles that a call with this many bytes of name and argument has to reserve.
    pub fn call_price(&self, request_bytes: u64) -> u128 {
        let ceilings = &self.ceilings;
        self.facts.tariff.call_reservation(request_bytes, ceilings.call_reply_bytes, ceilings.callback_instructions)
    }
}

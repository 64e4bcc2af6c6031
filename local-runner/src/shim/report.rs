//! What messages did and cost, for people and tests.

use std::time::Duration;

use candid::Principal;

use super::costs::PageCharge;
use super::cycles::{Tariff, Usage};
use super::mode::Mode;
use super::reject::Reject;
use super::trap::Trap;

/// Pages of one kind of memory that a message touched, and what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageReport {
    /// 4 KiB pages charged for being accessed.
    pub accessed: u64,
    /// 4 KiB pages charged for being written.
    pub written: u64,
    /// Instructions for first accesses.
    pub access_instructions: u64,
    /// Instructions for first writes.
    pub write_instructions: u64,
}

impl PageReport {
    /// Prices pages; `query` where changes are discarded and writes therefore free.
    pub fn new(accessed: u64, written: u64, charge: PageCharge, query: bool) -> Self {
        let access_instructions = charge.total(accessed, 0, query);
        let write_instructions = charge.total(0, written, query);
        Self { accessed, written, access_instructions, write_instructions }
    }

    /// Instructions for accesses and writes.
    pub fn instructions(&self) -> u64 {
        self.access_instructions + self.write_instructions
    }
}

impl std::ops::AddAssign for PageReport {
    fn add_assign(&mut self, other: Self) {
        self.accessed += other.accessed;
        self.written += other.written;
        self.access_instructions += other.access_instructions;
        self.write_instructions += other.write_instructions;
    }
}

/// One execution.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageReport {
    /// The canister that executed.
    pub canister: Principal,
    /// What was executed.
    pub mode: Mode,
    /// The method, for updates and queries.
    pub method: String,
    /// All instructions: operators, system calls and pages.
    pub instructions: u64,
    /// Instructions charged by system calls, pages excluded.
    pub system_instructions: u64,
    /// Pages of the heap.
    pub heap: PageReport,
    /// Pages of stable memory.
    pub stable: PageReport,
    /// Upper bound for the instructions of the largest operation that cannot be interrupted, pages included.
    ///
    /// From [`SLICE_INSTRUCTIONS`](super::costs::SLICE_INSTRUCTIONS) on the platform may fail the message, from twice
    /// that it always does; here it passes.
    pub largest_operation: u64,
    /// What has a price.
    pub usage: Usage,
    /// Why it was rolled back.
    pub trap: Option<Trap>,
    /// What it printed with `debug_print`.
    pub printed: Vec<String>,
    /// Time it took on this machine.
    pub wall: Duration,
}

/// One call from outside: its answer and every execution that happened on the way to it.
#[derive(Debug, Clone, PartialEq)]
pub struct CallReport {
    /// The reply, or why there is none.
    pub result: Result<Vec<u8>, Reject>,
    /// Executions in order, on all canisters.
    pub messages: Vec<MessageReport>,
    /// Instructions charged for compiling modules that were installed.
    pub compile_instructions: u64,
    /// What has a price, ingress included.
    pub usage: Usage,
}

impl CallReport {
    /// Instructions of all executions and of compiling modules.
    pub fn instructions(&self) -> u64 {
        self.compile_instructions + self.messages.iter().map(|message| message.instructions).sum::<u64>()
    }

    /// Instructions of the largest execution: what has to stay below the limit per message.
    pub fn largest_message_instructions(&self) -> u64 {
        self.messages.iter().map(|message| message.instructions).max().unwrap_or(0)
    }

    /// Instructions for pages of heap and stable memory in all executions.
    pub fn page_instructions(&self) -> u64 {
        self.messages.iter().map(|message| message.heap.instructions() + message.stable.instructions()).sum()
    }

    /// Estimated cycles on a subnet of `nodes` nodes.
    pub fn cycles(&self, nodes: u64) -> u128 {
        Tariff::for_nodes(nodes).total(&self.usage)
    }

    /// Time all executions took on this machine.
    pub fn wall(&self) -> Duration {
        self.messages.iter().map(|message| message.wall).sum()
    }
}

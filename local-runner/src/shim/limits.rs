//! The ceilings of the platform, as data that a test or a user can change.
//!
//! Defaults are those of an application subnet (dfinity/ic `rs/config/src/subnet_config.rs`, `embedders.rs`,
//! `execution_environment.rs` and the interface specification). Nothing here enforces anything.

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// All ceilings of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Instructions per execution.
    pub instructions: InstructionLimits,
    /// Sizes and counts of messages.
    pub messages: MessageLimits,
    /// Memory of one canister.
    pub memory: MemoryLimits,
}

/// Instructions that one execution may use, by kind of message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionLimits {
    /// Updates, replicated queries, callbacks, heartbeats and timers.
    pub update: u64,
    /// Queries; for composite queries the whole call graph.
    pub query: u64,
    /// Added to a composite query's total for every call it makes.
    pub composite_query_call: u64,
    /// All steps of an install or upgrade together.
    pub install: u64,
    /// `canister_inspect_message`.
    pub inspect_message: u64,
    /// Cleanup after a trapping callback.
    pub cleanup: u64,
}

impl Default for InstructionLimits {
    fn default() -> Self {
        Self {
            update: 40_000_000_000,
            query: 5_000_000_000,
            composite_query_call: 50_000_000,
            install: 300_000_000_000,
            inspect_message: 200_000_000,
            // Five percent of the message limit.
            cleanup: 2_000_000_000,
        }
    }
}

/// Sizes and counts of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageLimits {
    /// Argument and method name of an ingress message, in bytes.
    pub ingress_bytes: u64,
    /// Argument and method name of an inter-canister request, in bytes.
    pub request_bytes: u64,
    /// Reply in replicated execution, in bytes.
    pub reply_bytes: u64,
    /// Reply of a query, in bytes.
    pub query_reply_bytes: u64,
    /// Method name of an inter-canister call, in bytes.
    pub method_name_bytes: u64,
    /// Calls from one canister to one other that may be unanswered at the same time.
    pub queue_messages: usize,
    /// Depth of a composite query's call graph.
    pub query_depth: usize,
    /// Longest deadline of a best-effort call, in seconds.
    pub best_effort_seconds: u64,
    /// Longest reject message that a caller sees, in bytes.
    pub reject_bytes: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            ingress_bytes: 2 * MIB,
            request_bytes: 10 * MIB,
            reply_bytes: 2 * MIB,
            query_reply_bytes: 3 * MIB,
            method_name_bytes: 20_000,
            queue_messages: 500,
            query_depth: 6,
            best_effort_seconds: 300,
            reject_bytes: 8 * 1024,
        }
    }
}

/// Memory of one canister.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Stable memory, in bytes.
    pub stable_bytes: u64,
    /// Stable memory that one update-like message may access, and separately write, in bytes.
    pub stable_access_update: u64,
    /// The same for init, pre-upgrade and post-upgrade, each by itself.
    pub stable_access_install: u64,
    /// The same for queries and inspect_message.
    pub stable_access_query: u64,
    /// `wasm_memory_limit` of a new canister, in bytes; 0 means none.
    pub wasm_memory_limit: u64,
    /// Log of a new canister, in bytes.
    pub log_bytes: u64,
    /// Chunks waiting for an install, in bytes.
    pub chunk_store_bytes: u64,
    /// One uploaded chunk, in bytes.
    pub chunk_bytes: u64,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            stable_bytes: 500 * GIB,
            stable_access_update: 2 * GIB,
            stable_access_install: 8 * GIB,
            stable_access_query: GIB,
            wasm_memory_limit: 3 * GIB,
            log_bytes: 4096,
            chunk_store_bytes: 100 * MIB,
            chunk_bytes: MIB,
        }
    }
}

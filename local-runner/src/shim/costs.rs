//! What the Internet Computer charges, as data: operators, system calls, page accesses.
//!
//! Nothing here runs anything. `instruction-costs.csv` lists every operator of the accepted proposals under its
//! `wasmparser::Operator` name with its cost in a 32-bit and in a 64-bit module; it was taken from the cost tables of
//! dfinity/ic `rs/embedders/src/wasm_utils/instrumentation.rs` (2025, unchanged in the late-2025 rewrite). System-call
//! overheads are those of `wasmtime_embedder/system_api_complexity.rs` (mid-2026), the per-byte parts those of
//! `wasmtime_embedder/linker.rs`.

use std::collections::HashMap;
use std::sync::OnceLock;

use wasmparser::Operator;

const OPERATOR_CSV: &str = include_str!("instruction-costs.csv");

/// Cost of an operator that the table does not list.
pub const DEFAULT_OPERATOR_COST: u64 = 1;

/// What every function is charged on entry, besides its operators: even an empty function costs something.
pub const FUNCTION_ENTRY_COST: u64 = 1;

macro_rules! operator_positions {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        /// Names of all operators that the parser knows, in the order of [`operator_position`].
        pub const OPERATOR_NAMES: &[&str] = &[$(stringify!($op)),*];

        /// Position of an operator's variant in [`OPERATOR_NAMES`].
        pub fn operator_position(operator: &Operator<'_>) -> usize {
            // One dense number per variant: the compiler turns the match below into a table.
            #[allow(clippy::upper_case_acronyms, dead_code, reason = "mirrors the parser's variant names")]
            enum Position { $($op),* }
            #[allow(unreachable_patterns, reason = "the parser's enum is non-exhaustive")]
            match operator {
                $(Operator::$op { .. } => Position::$op as usize,)*
                _ => OPERATOR_NAMES.len(),
            }
        }
    };
}
wasmparser::for_each_operator!(operator_positions);

/// Values per operator, found by variant name; what is not listed has the default.
pub(super) struct OperatorTable {
    values: Vec<u64>,
    default: u64,
}

impl OperatorTable {
    /// Builds the table from `(operator name, value)` pairs.
    pub(super) fn new<'a>(entries: impl IntoIterator<Item = (&'a str, u64)>, default: u64) -> Self {
        let named: HashMap<&str, u64> = entries.into_iter().collect();
        let values = OPERATOR_NAMES.iter().map(|name| named.get(name).copied().unwrap_or(default)).collect();
        Self { values, default }
    }

    /// The value of this operator.
    pub(super) fn get(&self, operator: &Operator<'_>) -> u64 {
        self.values.get(operator_position(operator)).copied().unwrap_or(self.default)
    }
}

/// Rows of the embedded table: operator name and its cost in a 32-bit module.
fn csv_rows() -> impl Iterator<Item = (&'static str, u64)> {
    OPERATOR_CSV.lines().skip(1).filter_map(|line| {
        let mut cells = line.split(',');
        Some((cells.next()?, cells.next()?.parse().ok()?))
    })
}

/// Static cost of one operator in a module with a 32-bit memory, in instructions.
pub fn operator_cost(operator: &Operator<'_>) -> u64 {
    static TABLE: OnceLock<OperatorTable> = OnceLock::new();
    TABLE.get_or_init(|| OperatorTable::new(csv_rows(), DEFAULT_OPERATOR_COST)).get(operator)
}

/// One function of the system API: its type in a 32-bit module and what a call costs besides the `call` operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemFunction {
    /// Name in the module `ic0`.
    pub name: &'static str,
    /// Parameter types: `i` is i32, `I` is i64.
    pub params: &'static str,
    /// Result types, written as `params`.
    pub results: &'static str,
    /// Instructions per call.
    pub fixed: u64,
    /// Instructions per byte of the function's size argument.
    pub per_byte: u64,
}

impl SystemFunction {
    /// Instructions charged for a call that handles `bytes` bytes.
    pub fn cost(&self, bytes: u64) -> u64 {
        self.fixed.saturating_add(self.per_byte.saturating_mul(bytes))
    }
}

const fn api(
    name: &'static str,
    params: &'static str,
    results: &'static str,
    fixed: u64,
    per_byte: u64,
) -> SystemFunction {
    SystemFunction { name, params, results, fixed, per_byte }
}

/// Every `ic0` function a 32-bit module may import (interface specification 0.66 and the older 32-bit forms).
///
/// `debug_print` and `trap` cost more than their row when the canister keeps a log: see [`log_cost`].
pub const SYSTEM_FUNCTIONS: &[SystemFunction] = &[
    api("msg_arg_data_size", "", "i", 500, 0),
    api("msg_arg_data_copy", "iii", "", 500, 1),
    api("msg_caller_size", "", "i", 500, 0),
    api("msg_caller_copy", "iii", "", 500, 1),
    api("msg_caller_info_data_size", "", "i", 500, 0),
    api("msg_caller_info_data_copy", "iii", "", 500, 1),
    api("msg_caller_info_signer_size", "", "i", 500, 0),
    api("msg_caller_info_signer_copy", "iii", "", 500, 1),
    api("msg_reject_code", "", "i", 500, 0),
    api("msg_reject_msg_size", "", "i", 500, 0),
    api("msg_reject_msg_copy", "iii", "", 500, 1),
    api("msg_deadline", "", "I", 500, 0),
    api("msg_reply_data_append", "ii", "", 500, 50),
    api("msg_reply", "", "", 500, 0),
    api("msg_reject", "ii", "", 500, 50),
    api("msg_cycles_available", "", "I", 500, 0),
    api("msg_cycles_available128", "i", "", 500, 0),
    api("msg_cycles_refunded", "", "I", 500, 0),
    api("msg_cycles_refunded128", "i", "", 500, 0),
    api("msg_cycles_accept", "I", "I", 500, 0),
    api("msg_cycles_accept128", "IIi", "", 500, 0),
    api("cycles_burn128", "IIi", "", 500, 0),
    api("canister_self_size", "", "i", 500, 0),
    api("canister_self_copy", "iii", "", 500, 1),
    api("subnet_self_size", "", "i", 500, 0),
    api("subnet_self_copy", "iii", "", 500, 1),
    api("canister_cycle_balance", "", "I", 500, 0),
    api("canister_cycle_balance128", "i", "", 500, 0),
    api("canister_liquid_cycle_balance128", "i", "", 500, 0),
    api("canister_status", "", "i", 500, 0),
    api("canister_version", "", "I", 500, 0),
    api("msg_method_name_size", "", "i", 500, 0),
    api("msg_method_name_copy", "iii", "", 500, 1),
    api("accept_message", "", "", 500, 0),
    api("call_new", "iiiiiiii", "", 1_500, 1),
    api("call_on_cleanup", "ii", "", 500, 0),
    api("call_data_append", "ii", "", 500, 50),
    api("call_with_best_effort_response", "i", "", 500, 0),
    api("call_cycles_add", "I", "", 500, 0),
    api("call_cycles_add128", "II", "", 500, 0),
    api("call_perform", "", "i", 5_000, 0),
    api("stable_size", "", "i", 0, 0),
    api("stable_grow", "i", "i", 100, 0),
    api("stable_write", "iii", "", 20, 1),
    api("stable_read", "iii", "", 20, 1),
    api("stable64_size", "", "I", 0, 0),
    api("stable64_grow", "I", "I", 100, 0),
    api("stable64_write", "III", "", 20, 1),
    api("stable64_read", "III", "", 20, 1),
    api("root_key_size", "", "i", 500, 0),
    api("root_key_copy", "iii", "", 500, 1),
    api("certified_data_set", "ii", "", 500, 1),
    api("data_certificate_present", "", "i", 500, 0),
    api("data_certificate_size", "", "i", 500, 0),
    api("data_certificate_copy", "iii", "", 500, 1),
    api("time", "", "I", 500, 0),
    api("global_timer_set", "I", "I", 500, 0),
    api("performance_counter", "i", "I", 200, 0),
    api("is_controller", "ii", "i", 1_000, 1),
    api("in_replicated_execution", "", "i", 500, 0),
    api("cost_call", "IIi", "", 500, 0),
    api("cost_create_canister", "i", "", 500, 0),
    api("cost_http_request", "IIi", "", 500, 0),
    api("cost_http_request_v2", "iii", "", 10_000, 0),
    api("cost_sign_with_ecdsa", "iiii", "i", 500, 1),
    api("cost_sign_with_schnorr", "iiii", "i", 500, 1),
    api("cost_vetkd_derive_key", "iiii", "i", 500, 1),
    api("env_var_count", "", "i", 500, 0),
    api("env_var_name_size", "i", "i", 500, 0),
    api("env_var_name_copy", "iiii", "", 500, 1),
    api("env_var_name_exists", "ii", "i", 500, 0),
    api("env_var_value_size", "ii", "i", 500, 0),
    api("env_var_value_copy", "iiiii", "", 500, 1),
    api("debug_print", "ii", "", 100, 0),
    api("trap", "ii", "", 500, 1),
];

/// Finds a system API function by name. Meant for link time: keep the result, not the name.
pub fn system_function(name: &str) -> Option<&'static SystemFunction> {
    SYSTEM_FUNCTIONS.iter().find(|function| function.name == name)
}

/// Instructions for logging a text of `len` bytes, on top of the fixed cost of `debug_print` or `trap`.
///
/// `capacity` is the log's size in bytes and `left` how many bytes this message may still add to it.
pub fn log_cost(len: u64, capacity: u64, left: u64) -> u64 {
    len.min(capacity).saturating_mul(2).saturating_add(len.min(left).saturating_mul(50))
}

/// Instructions of a slice: long executions are interrupted after so many, between two operations.
pub const SLICE_INSTRUCTIONS: u64 = 2_000_000_000;

/// Instructions charged at install for compiling one operator of the instrumented module.
pub const COMPILE_COST_PER_OPERATOR: u64 = 6_000;

/// Bytes of a WebAssembly page, the unit in which page accesses are tracked.
pub const WASM_PAGE_BYTES: u64 = 65_536;

/// What touching a page costs, for one kind of memory, per 4 KiB operating-system page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCharge {
    /// Instructions on the first access (read or write) of a page in a message.
    pub access: u64,
    /// Instructions on the first write of a page in a message, besides `access`.
    pub write: u64,
}

impl PageCharge {
    /// Instructions for one message that touched `accessed` and wrote `written` pages of 4 KiB.
    ///
    /// Where modifications are discarded (`query`) pages are mapped writable at first touch: only access is charged.
    pub fn total(&self, accessed: u64, written: u64, query: bool) -> u64 {
        let writes = if query { 0 } else { self.write.saturating_mul(written) };
        self.access.saturating_mul(accessed).saturating_add(writes)
    }
}

/// Page-access charges of one version of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCharges {
    /// Name for reports and options.
    pub name: &'static str,
    /// The linear memory.
    pub heap: PageCharge,
    /// Stable memory.
    pub stable: PageCharge,
    /// 4 KiB pages that one touch brings in: 16 where a whole WebAssembly page is mapped at once, else 1.
    pub unit: u64,
}

impl PageCharges {
    /// Since 30 July 2026: 5,000 per page on first access and 5,000 on first write, mapped 64 KiB at a time.
    pub const DMT_2026_07: Self = Self {
        name: "dmt-2026-07",
        heap: PageCharge { access: 5_000, write: 5_000 },
        stable: PageCharge { access: 5_000, write: 5_000 },
        unit: 16,
    };

    /// Before: reads are free, 1,000 per written page.
    ///
    /// The platform counted written heap pages of 4 KiB; the heap is tracked in units of 64 KiB here, so heap charges
    /// of this profile are an upper bound.
    pub const LEGACY: Self = Self {
        name: "legacy",
        heap: PageCharge { access: 0, write: 1_000 },
        stable: PageCharge { access: 0, write: 1_000 },
        unit: 1,
    };

    /// No charge for pages.
    pub const NONE: Self = Self {
        name: "none",
        heap: PageCharge { access: 0, write: 0 },
        stable: PageCharge { access: 0, write: 0 },
        unit: 16,
    };

    /// All profiles, the default first.
    pub const ALL: [Self; 3] = [Self::DMT_2026_07, Self::LEGACY, Self::NONE];

    /// Finds a profile by name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }
}

impl Default for PageCharges {
    fn default() -> Self {
        Self::DMT_2026_07
    }
}

#[cfg(test)]
mod tests;

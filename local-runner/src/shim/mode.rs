//! The kinds of execution and which system calls each may make.
//!
//! Data only; the table is section "Overview of imports" of the interface specification 0.66.

use std::fmt;

/// What an execution is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The module's start function.
    Start,
    /// `canister_init`.
    Init,
    /// `canister_post_upgrade`; the platform treats it as `init`.
    PostUpgrade,
    /// `canister_pre_upgrade`.
    PreUpgrade,
    /// An update method.
    Update,
    /// A query method called as an update: runs with an update's limits, changes are dropped.
    ReplicatedQuery,
    /// A query method.
    NonReplicatedQuery,
    /// A composite query method.
    CompositeQuery,
    /// Callback for a reply.
    ReplyCallback,
    /// Callback for a reject.
    RejectCallback,
    /// Callback for a reply inside a composite query.
    CompositeReplyCallback,
    /// Callback for a reject inside a composite query.
    CompositeRejectCallback,
    /// Cleanup after a trapping callback.
    Cleanup,
    /// The same inside a composite query.
    CompositeCleanup,
    /// `canister_inspect_message`.
    InspectMessage,
    /// `canister_heartbeat`.
    Heartbeat,
    /// `canister_global_timer`.
    GlobalTimer,
    /// `canister_on_low_wasm_memory`.
    LowWasmMemory,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 18] = [
        Self::Start,
        Self::Init,
        Self::PostUpgrade,
        Self::PreUpgrade,
        Self::Update,
        Self::ReplicatedQuery,
        Self::NonReplicatedQuery,
        Self::CompositeQuery,
        Self::ReplyCallback,
        Self::RejectCallback,
        Self::CompositeReplyCallback,
        Self::CompositeRejectCallback,
        Self::Cleanup,
        Self::CompositeCleanup,
        Self::InspectMessage,
        Self::Heartbeat,
        Self::GlobalTimer,
        Self::LowWasmMemory,
    ];

    /// The name in the platform's error texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Init | Self::PostUpgrade => "init",
            Self::PreUpgrade => "pre upgrade",
            Self::Update => "update",
            Self::ReplicatedQuery => "replicated query",
            Self::NonReplicatedQuery => "non replicated query",
            Self::CompositeQuery => "composite query",
            Self::ReplyCallback => "reply callback",
            Self::RejectCallback => "reject callback",
            Self::CompositeReplyCallback => "composite reply callback",
            Self::CompositeRejectCallback => "composite reject callback",
            Self::Cleanup => "cleanup",
            Self::CompositeCleanup => "composite cleanup",
            Self::InspectMessage => "inspect message",
            Self::Heartbeat => "heartbeat",
            Self::GlobalTimer => "global timer",
            Self::LowWasmMemory => "on low Wasm memory",
        }
    }

    /// True in the modes whose changes to the canister are dropped at the end of the message or call graph.
    pub fn discards_changes(self) -> bool {
        matches!(
            self,
            Self::ReplicatedQuery
                | Self::NonReplicatedQuery
                | Self::CompositeQuery
                | Self::CompositeReplyCallback
                | Self::CompositeRejectCallback
                | Self::CompositeCleanup
                | Self::InspectMessage
        )
    }

    /// True where `in_replicated_execution` answers 1.
    pub fn is_replicated(self) -> bool {
        self == Self::ReplicatedQuery || !self.discards_changes()
    }

    /// True where `wasm_memory_limit` is enforced on growing the heap.
    pub fn enforces_wasm_memory_limit(self) -> bool {
        matches!(self, Self::Start | Self::Init | Self::PostUpgrade | Self::Update)
    }

    /// True for the steps of an install or upgrade.
    pub fn is_install(self) -> bool {
        matches!(self, Self::Start | Self::Init | Self::PostUpgrade | Self::PreUpgrade)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeSet(u32);

impl ModeSet {
    const fn of(modes: &[Mode]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < modes.len() {
            bits |= 1 << modes[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the mode is in the set.
    pub fn contains(self, mode: Mode) -> bool {
        self.0 & (1 << mode as u32) != 0
    }
}

const ANY: ModeSet = ModeSet::of(&Mode::ALL);
const ANY_BUT_START: ModeSet = ModeSet(ANY.0 & !(1 << Mode::Start as u32));
const INIT: ModeSet = ModeSet::of(&[Mode::Init, Mode::PostUpgrade]);
const TASKS: ModeSet = ModeSet::of(&[Mode::Heartbeat, Mode::GlobalTimer, Mode::LowWasmMemory]);
const CALLBACKS: ModeSet = ModeSet::of(&[Mode::ReplyCallback, Mode::RejectCallback]);
const COMPOSITE_CALLBACKS: ModeSet = ModeSet::of(&[Mode::CompositeReplyCallback, Mode::CompositeRejectCallback]);
const REJECTS: ModeSet = ModeSet::of(&[Mode::RejectCallback, Mode::CompositeRejectCallback]);
const QUERIES: ModeSet = ModeSet::of(&[Mode::ReplicatedQuery, Mode::NonReplicatedQuery, Mode::CompositeQuery]);
const UPDATE: ModeSet = ModeSet::of(&[Mode::Update]);
const INSPECT: ModeSet = ModeSet::of(&[Mode::InspectMessage]);
const CLEANUP: ModeSet = ModeSet::of(&[Mode::Cleanup]);
const PRE_UPGRADE: ModeSet = ModeSet::of(&[Mode::PreUpgrade]);
/// Executions that belong to a call someone may be waiting for.
const ANSWERING: ModeSet = UPDATE.and(QUERIES).and(CALLBACKS).and(COMPOSITE_CALLBACKS);
const HAS_ARGUMENT: ModeSet =
    INIT.and(UPDATE).and(QUERIES).and(INSPECT).and(ModeSet::of(&[Mode::ReplyCallback, Mode::CompositeReplyCallback]));
const HAS_CALLER_INFO: ModeSet = ANSWERING.and(INSPECT).and(CLEANUP).and(ModeSet::of(&[Mode::CompositeCleanup]));
const HAS_REJECT_CODE: ModeSet = CALLBACKS.and(COMPOSITE_CALLBACKS).and(CLEANUP);
const HAS_CYCLES: ModeSet = UPDATE.and(CALLBACKS).and(ModeSet::of(&[Mode::ReplicatedQuery]));
const REPLICATED: ModeSet = INIT.and(PRE_UPGRADE).and(HAS_CYCLES).and(CLEANUP).and(TASKS);
const SETS_TIMER: ModeSet = INIT.and(PRE_UPGRADE).and(UPDATE).and(CALLBACKS).and(CLEANUP).and(TASKS);
const CERTIFIES: ModeSet = INIT.and(PRE_UPGRADE).and(UPDATE).and(CALLBACKS).and(TASKS);
const SENDS_CYCLES: ModeSet = UPDATE.and(CALLBACKS).and(TASKS);
const CALLS: ModeSet = SENDS_CYCLES.and(COMPOSITE_CALLBACKS).and(ModeSet::of(&[Mode::CompositeQuery]));
const HAS_CERTIFICATE: ModeSet = ModeSet::of(&[Mode::NonReplicatedQuery, Mode::CompositeQuery]);

/// The modes in which the system call `name` is allowed.
pub fn allowed_modes(name: &str) -> ModeSet {
    match name {
        "msg_arg_data_size" | "msg_arg_data_copy" => HAS_ARGUMENT,
        "msg_caller_info_data_size"
        | "msg_caller_info_data_copy"
        | "msg_caller_info_signer_size"
        | "msg_caller_info_signer_copy" => HAS_CALLER_INFO,
        "msg_reject_code" => HAS_REJECT_CODE,
        "msg_reject_msg_size" | "msg_reject_msg_copy" => REJECTS,
        "msg_deadline" | "msg_reply_data_append" | "msg_reply" | "msg_reject" => ANSWERING,
        "msg_cycles_available" | "msg_cycles_available128" | "msg_cycles_accept" | "msg_cycles_accept128" => HAS_CYCLES,
        "msg_cycles_refunded" | "msg_cycles_refunded128" => CALLBACKS,
        "cycles_burn128" | "root_key_size" | "root_key_copy" => REPLICATED,
        "msg_method_name_size" | "msg_method_name_copy" | "accept_message" => INSPECT,
        "call_new" | "call_on_cleanup" | "call_data_append" | "call_with_best_effort_response" | "call_perform" => {
            CALLS
        }
        "call_cycles_add" | "call_cycles_add128" => SENDS_CYCLES,
        "certified_data_set" => CERTIFIES,
        "data_certificate_size" | "data_certificate_copy" => HAS_CERTIFICATE,
        "global_timer_set" => SETS_TIMER,
        name if allowed_in_start(name) => ANY,
        _ => ANY_BUT_START,
    }
}

/// System calls without any restriction: they need no message.
fn allowed_in_start(name: &str) -> bool {
    name.starts_with("stable")
        || name.starts_with("cost_")
        || matches!(name, "performance_counter" | "is_controller" | "in_replicated_execution" | "debug_print" | "trap")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_what_the_specification_allows() {
        let update = |name: &str| allowed_modes(name).contains(Mode::Update);
        let query = |name: &str| allowed_modes(name).contains(Mode::NonReplicatedQuery);
        assert!(update("call_new") && !query("call_new"));
        assert!(!update("data_certificate_copy") && query("data_certificate_copy"));
        assert!(!allowed_modes("msg_reply").contains(Mode::Cleanup));
        assert!(allowed_modes("stable64_read").contains(Mode::Start));
        assert!(!allowed_modes("time").contains(Mode::Start));
        assert!(allowed_modes("time").contains(Mode::InspectMessage));
        assert!(!allowed_modes("certified_data_set").contains(Mode::Cleanup));
        assert!(allowed_modes("global_timer_set").contains(Mode::Cleanup));
        assert!(!allowed_modes("msg_arg_data_size").contains(Mode::RejectCallback));
        assert!(!allowed_modes("call_cycles_add128").contains(Mode::CompositeQuery));
    }

    #[test]
    fn knows_which_modes_are_replicated() {
        let replicated: Vec<_> = Mode::ALL.into_iter().filter(|mode| mode.is_replicated()).collect();
        assert_eq!(replicated.len(), 12);
        assert!(!Mode::InspectMessage.is_replicated());
        assert!(Mode::ReplicatedQuery.is_replicated() && Mode::ReplicatedQuery.discards_changes());
    }
}

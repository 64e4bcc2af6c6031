//! Candid types of the management canister, as the interface specification gives them.

use candid::{CandidType, Nat, Principal};
use serde::Deserialize;
use serde_bytes::ByteBuf;

/// Most methods name one canister.
#[derive(CandidType, Deserialize, Debug)]
pub(super) struct CanisterArg {
    pub(super) canister_id: Principal,
}

#[derive(CandidType, Deserialize, Debug, Clone)]
pub(super) struct EnvironmentVariable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(CandidType, Deserialize, Debug, Clone)]
pub(super) enum LogVisibility {
    #[serde(rename = "controllers")]
    Controllers,
    #[serde(rename = "public")]
    Public,
    #[serde(rename = "allowed_viewers")]
    AllowedViewers(Vec<Principal>),
}

#[derive(CandidType, Deserialize, Debug, Default, Clone)]
pub(super) struct CanisterSettings {
    pub(super) controllers: Option<Vec<Principal>>,
    pub(super) compute_allocation: Option<Nat>,
    pub(super) memory_allocation: Option<Nat>,
    pub(super) freezing_threshold: Option<Nat>,
    pub(super) reserved_cycles_limit: Option<Nat>,
    pub(super) log_visibility: Option<LogVisibility>,
    pub(super) log_memory_limit: Option<Nat>,
    pub(super) wasm_memory_limit: Option<Nat>,
    pub(super) wasm_memory_threshold: Option<Nat>,
    pub(super) environment_variables: Option<Vec<EnvironmentVariable>>,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct CreateArg {
    pub(super) settings: Option<CanisterSettings>,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct ProvisionalCreateArg {
    pub(super) amount: Option<Nat>,
    pub(super) settings: Option<CanisterSettings>,
    pub(super) specified_id: Option<Principal>,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct TopUpArg {
    pub(super) canister_id: Principal,
    pub(super) amount: Nat,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct UpdateSettingsArg {
    pub(super) canister_id: Principal,
    pub(super) settings: CanisterSettings,
}

#[derive(CandidType, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WasmMemoryPersistence {
    #[serde(rename = "keep")]
    Keep,
    #[serde(rename = "replace")]
    Replace,
}

#[derive(CandidType, Deserialize, Debug, Clone, Copy)]
pub(super) struct UpgradeFlags {
    pub(super) skip_pre_upgrade: Option<bool>,
    pub(super) wasm_memory_persistence: Option<WasmMemoryPersistence>,
}

#[derive(CandidType, Deserialize, Debug, Clone, Copy)]
pub(super) enum CodeMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<UpgradeFlags>),
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct InstallArg {
    pub(super) mode: CodeMode,
    pub(super) canister_id: Principal,
    pub(super) wasm_module: ByteBuf,
    pub(super) arg: ByteBuf,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct ChunkHash {
    pub(super) hash: ByteBuf,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct InstallChunkedArg {
    pub(super) mode: CodeMode,
    pub(super) target_canister: Principal,
    pub(super) store_canister: Option<Principal>,
    pub(super) chunk_hashes_list: Vec<ChunkHash>,
    pub(super) wasm_module_hash: ByteBuf,
    pub(super) arg: ByteBuf,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct UploadChunkArg {
    pub(super) canister_id: Principal,
    pub(super) chunk: ByteBuf,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) enum StatusName {
    #[serde(rename = "running")]
    Running,
    #[serde(rename = "stopping")]
    Stopping,
    #[serde(rename = "stopped")]
    Stopped,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct DefiniteSettings {
    pub(super) controllers: Vec<Principal>,
    pub(super) compute_allocation: Nat,
    pub(super) memory_allocation: Nat,
    pub(super) freezing_threshold: Nat,
    pub(super) reserved_cycles_limit: Nat,
    pub(super) log_visibility: LogVisibility,
    pub(super) log_memory_limit: Nat,
    pub(super) wasm_memory_limit: Nat,
    pub(super) wasm_memory_threshold: Nat,
    pub(super) environment_variables: Vec<EnvironmentVariable>,
}

#[derive(CandidType, Deserialize, Debug, Default)]
pub(super) struct MemoryMetrics {
    pub(super) wasm_memory_size: Nat,
    pub(super) stable_memory_size: Nat,
    pub(super) global_memory_size: Nat,
    pub(super) wasm_binary_size: Nat,
    pub(super) custom_sections_size: Nat,
    pub(super) canister_history_size: Nat,
    pub(super) wasm_chunk_store_size: Nat,
    pub(super) snapshots_size: Nat,
}

/// The shim counts no queries: all zero.
#[derive(CandidType, Deserialize, Debug, Default)]
pub(super) struct QueryStats {
    pub(super) num_calls_total: Nat,
    pub(super) num_instructions_total: Nat,
    pub(super) request_payload_bytes_total: Nat,
    pub(super) response_payload_bytes_total: Nat,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct StatusResult {
    pub(super) status: StatusName,
    pub(super) ready_for_migration: bool,
    pub(super) version: u64,
    pub(super) settings: DefiniteSettings,
    pub(super) module_hash: Option<ByteBuf>,
    pub(super) memory_size: Nat,
    pub(super) memory_metrics: MemoryMetrics,
    pub(super) cycles: Nat,
    pub(super) reserved_cycles: Nat,
    pub(super) idle_cycles_burned_per_day: Nat,
    pub(super) query_stats: QueryStats,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct InfoArg {
    pub(super) canister_id: Principal,
    pub(super) num_requested_changes: Option<u64>,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) enum ChangeOrigin {
    #[serde(rename = "from_user")]
    FromUser { user_id: Principal },
    #[serde(rename = "from_canister")]
    FromCanister { canister_id: Principal, canister_version: Option<u64> },
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) enum DeployMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) enum ChangeDetails {
    #[serde(rename = "creation")]
    Creation { controllers: Vec<Principal>, environment_variables_hash: Option<ByteBuf> },
    #[serde(rename = "code_uninstall")]
    CodeUninstall,
    #[serde(rename = "code_deployment")]
    CodeDeployment { mode: DeployMode, module_hash: ByteBuf },
    #[serde(rename = "controllers_change")]
    ControllersChange { controllers: Vec<Principal> },
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct Change {
    pub(super) timestamp_nanos: u64,
    pub(super) canister_version: u64,
    pub(super) origin: ChangeOrigin,
    pub(super) details: ChangeDetails,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct InfoResult {
    pub(super) total_num_changes: u64,
    pub(super) recent_changes: Vec<Change>,
    pub(super) module_hash: Option<ByteBuf>,
    pub(super) controllers: Vec<Principal>,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct LogRecord {
    pub(super) idx: u64,
    pub(super) timestamp_nanos: u64,
    pub(super) content: ByteBuf,
}

#[derive(CandidType, Deserialize, Debug)]
pub(super) struct LogsResult {
    pub(super) canister_log_records: Vec<LogRecord>,
}

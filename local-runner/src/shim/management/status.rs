//! `canister_status` and `canister_info`.

use serde_bytes::ByteBuf;

use super::super::canister::{Canister, Code, Status};
use super::super::history::{Author, Change, Entry};
use super::super::reject::{Reject, error_code};
use super::super::replica::{InstallMode, Replica};
use super::types::{
    self, CanisterArg, ChangeDetails, ChangeOrigin, DeployMode, InfoArg, InfoResult, MemoryMetrics, QueryStats,
    StatusName, StatusResult,
};
use super::{Call, Reply, decode, encode, settings};

impl Replica {
    /// Answers controllers and the canister itself.
    pub(super) fn canister_status(&mut self, call: &mut Call<'_>) -> Reply {
        let (CanisterArg { canister_id },) = decode(call)?;
        let canister = self.managed(canister_id)?;
        if call.caller != canister_id {
            canister.check_controller(call.caller)?;
        }
        let idle_day = self.world.tariff().idle_day(
            canister.memory_bytes().max(canister.settings.memory_allocation),
            canister.settings.compute_allocation,
        );
        encode((status(canister, idle_day),))
    }
}

impl Replica {
    /// Answers any canister.
    pub(super) fn canister_info(&mut self, call: &Call<'_>) -> Reply {
        let (InfoArg { canister_id, num_requested_changes },) = decode(call)?;
        if !call.from_canister {
            let text = "canister_info can only be called by canisters";
            return Err(Reject::new(error_code::CANISTER_METHOD_NOT_PROVIDED, text));
        }
        let canister = self.managed(canister_id)?;
        let changes = canister.history().newest(num_requested_changes.unwrap_or(0));
        encode((InfoResult {
            total_num_changes: canister.history().total(),
            recent_changes: changes.map(change).collect(),
            module_hash: canister.module_hash().map(ByteBuf::from),
            controllers: canister.settings().controllers.iter().copied().collect(),
        },))
    }
}

fn change(entry: &Entry) -> types::Change {
    types::Change {
        timestamp_nanos: entry.time_ns,
        canister_version: entry.version,
        origin: match entry.author {
            Author::User(user_id) => ChangeOrigin::FromUser { user_id },
            Author::Canister(canister_id) => ChangeOrigin::FromCanister { canister_id, canister_version: None },
        },
        details: match &entry.change {
            Change::Created { controllers } => {
                ChangeDetails::Creation { controllers: controllers.clone(), environment_variables_hash: None }
            }
            Change::Installed { mode, module_hash } => ChangeDetails::CodeDeployment {
                mode: match mode {
                    InstallMode::Install => DeployMode::Install,
                    InstallMode::Reinstall => DeployMode::Reinstall,
                    InstallMode::Upgrade { .. } => DeployMode::Upgrade,
                },
                module_hash: ByteBuf::from(*module_hash),
            },
            Change::Uninstalled => ChangeDetails::CodeUninstall,
            Change::Controllers { controllers } => {
                ChangeDetails::ControllersChange { controllers: controllers.clone() }
            }
        },
    }
}

fn status(canister: &Canister, idle_day: u128) -> StatusResult {
    let code = canister.code();
    let chunks: usize = canister.chunks.values().map(Vec::len).sum();
    let metadata = code.map_or(0, |code| code.info().metadata.values().map(|section| section.bytes.len()).sum());
    StatusResult {
        status: match canister.status() {
            Status::Running => StatusName::Running,
            Status::Stopping(_) => StatusName::Stopping,
            Status::Stopped => StatusName::Stopped,
        },
        ready_for_migration: *canister.status() == Status::Stopped,
        version: canister.version(),
        settings: settings::definite(canister.settings()),
        module_hash: canister.module_hash().map(ByteBuf::from),
        memory_size: canister.memory_bytes().into(),
        memory_metrics: MemoryMetrics {
            wasm_memory_size: canister.heap_bytes().into(),
            stable_memory_size: canister.stable().bytes().into(),
            wasm_binary_size: code.map_or(0, Code::uploaded_bytes).into(),
            custom_sections_size: metadata.into(),
            wasm_chunk_store_size: chunks.into(),
            ..MemoryMetrics::default()
        },
        cycles: canister.balance().into(),
        reserved_cycles: 0u8.into(),
        idle_cycles_burned_per_day: idle_day.into(),
        query_stats: QueryStats::default(),
    }
}

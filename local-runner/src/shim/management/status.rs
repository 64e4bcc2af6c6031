//! `canister_status`.

use serde_bytes::ByteBuf;

use super::super::canister::{Canister, Status};
use super::super::replica::Replica;
use super::types::{CanisterArg, MemoryMetrics, QueryStats, StatusName, StatusResult};
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
            wasm_binary_size: code.map_or(0, |code| code.uploaded_bytes).into(),
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

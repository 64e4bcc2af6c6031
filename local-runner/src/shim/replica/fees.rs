//! Taking fees from balances, if the replica is set up to do so.

use super::super::canister::Canister;
use super::super::cycles::Usage;
use super::super::message::World;
use super::super::mode::Mode;
use super::super::reject::{Reject, error_code};
use super::Replica;

impl Canister {
    /// Takes the price of `usage` from the balance.
    pub(crate) fn charge(&mut self, world: &World, usage: &Usage) {
        self.charge_cycles(world, world.tariff().total(usage));
    }

    /// Takes cycles from the balance, as far as there are any.
    pub(crate) fn charge_cycles(&mut self, world: &World, cycles: u128) {
        if world.config.enforce_cycles {
            self.balance = self.balance.saturating_sub(cycles);
        }
    }

    /// Refuses a message if the balance does not cover its largest price above what must be kept.
    pub(crate) fn check_balance(&self, world: &World) -> Result<(), Reject> {
        if !world.config.enforce_cycles {
            return Ok(());
        }
        let tariff = world.tariff();
        let largest = tariff.executions(1) + tariff.instructions(world.instruction_limit(Mode::Update));
        let needed = largest.saturating_add(world.frozen_cycles(self));
        if self.balance >= needed {
            return Ok(());
        }
        let missing = needed - self.balance;
        Err(Reject::new(
            error_code::CANISTER_OUT_OF_CYCLES,
            format!(
                "Canister {} is out of cycles: please top up the canister with at least {missing} additional cycles",
                self.id
            ),
        ))
    }
}

impl Replica {
    /// Charges all canisters for the time that passed.
    pub(super) fn charge_idle_time(&mut self, elapsed_ns: u64) {
        const DAY_NS: u128 = 86_400_000_000_000;
        let world = self.world.clone();
        for canister in self.canisters.values_mut() {
            let bytes = canister.memory_bytes().max(canister.settings.memory_allocation);
            let day = world.tariff().idle_day(bytes, canister.settings.compute_allocation);
            canister.charge_cycles(&world, day.saturating_mul(elapsed_ns.into()) / DAY_NS);
        }
    }
}

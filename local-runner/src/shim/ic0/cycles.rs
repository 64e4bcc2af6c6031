//! Cycles: balance, cycles of the call, burning.

use super::super::trap::{Trap, WasmTrap};
use super::context::Context;

fn as_u64(cycles: u128) -> Result<u64, Trap> {
    u64::try_from(cycles).map_err(|_| Trap::Wasm(WasmTrap::CyclesTooBigFor64Bit))
}

fn join(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn available(c: &Context<'_>) -> u128 {
    c.input.cycles_available.saturating_sub(c.effects.cycles_accepted)
}

fn accept(c: &mut Context<'_>, most: u128) -> u128 {
    let amount = most.min(available(c));
    c.effects.cycles_accepted += amount;
    c.balance = c.balance.saturating_add(amount);
    amount
}

pub(super) fn msg_cycles_available(c: &mut Context<'_>) -> Result<u64, Trap> {
    as_u64(available(c))
}

pub(super) fn msg_cycles_available128(c: &mut Context<'_>, dst: u32) -> Result<(), Trap> {
    let cycles = available(c);
    c.write_u128(dst, cycles)
}

pub(super) fn msg_cycles_refunded(c: &mut Context<'_>) -> Result<u64, Trap> {
    as_u64(c.input.cycles_refunded)
}

pub(super) fn msg_cycles_refunded128(c: &mut Context<'_>, dst: u32) -> Result<(), Trap> {
    let cycles = c.input.cycles_refunded;
    c.write_u128(dst, cycles)
}

pub(super) fn msg_cycles_accept(c: &mut Context<'_>, most: u64) -> Result<u64, Trap> {
    as_u64(accept(c, most.into()))
}

pub(super) fn msg_cycles_accept128(c: &mut Context<'_>, high: u64, low: u64, dst: u32) -> Result<(), Trap> {
    let amount = accept(c, join(high, low));
    c.write_u128(dst, amount)
}

pub(super) fn cycles_burn128(c: &mut Context<'_>, high: u64, low: u64, dst: u32) -> Result<(), Trap> {
    let amount = join(high, low).min(c.liquid_balance());
    c.balance -= amount;
    c.effects.cycles_burned += amount;
    c.write_u128(dst, amount)
}

pub(super) fn canister_cycle_balance(c: &mut Context<'_>) -> Result<u64, Trap> {
    as_u64(c.balance)
}

pub(super) fn canister_cycle_balance128(c: &mut Context<'_>, dst: u32) -> Result<(), Trap> {
    let cycles = c.balance;
    c.write_u128(dst, cycles)
}

pub(super) fn canister_liquid_cycle_balance128(c: &mut Context<'_>, dst: u32) -> Result<(), Trap> {
    let cycles = c.liquid_balance();
    c.write_u128(dst, cycles)
}

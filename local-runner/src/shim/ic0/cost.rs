//! Prices that a canister may ask for. Asking is provided even where the shim does not provide the service itself.

use super::super::cycles::threshold_key;
use super::super::trap::Trap;
use super::context::Context;

const PRICED: u32 = 0;
const UNKNOWN_KIND: u32 = 1;
const UNKNOWN_KEY: u32 = 2;

pub(super) fn cost_call(c: &mut Context<'_>, name_len: u64, arg_len: u64, dst: u32) -> Result<(), Trap> {
    let price = c.call_price(name_len.saturating_add(arg_len));
    c.write_u128(dst, price)
}

pub(super) fn cost_create_canister(c: &mut Context<'_>, dst: u32) -> Result<(), Trap> {
    let price = c.facts.tariff.create_canister();
    c.write_u128(dst, price)
}

pub(super) fn cost_http_request(c: &mut Context<'_>, request: u64, response: u64, dst: u32) -> Result<(), Trap> {
    let price = c.facts.tariff.http_request(request, response);
    c.write_u128(dst, price)
}

/// The price depends on a candid record that the shim does not read.
pub(super) fn cost_http_request_v2(c: &mut Context<'_>, _src: u32, _len: u32, _dst: u32) -> Result<(), Trap> {
    Err(Trap::Shim(format!("ic0.{} is not provided; use ic0.cost_http_request", c.function.name)))
}

/// Threshold keys: `kinds` is the number of curves or algorithms that the function knows.
fn key_price(c: &mut Context<'_>, (src, len): (u32, u32), kind: u32, kinds: u32, dst: u32) -> Result<u32, Trap> {
    let name = c.read_text(src, len)?;
    if kind >= kinds {
        return Ok(UNKNOWN_KIND);
    }
    let Some(price) = threshold_key(&name) else { return Ok(UNKNOWN_KEY) };
    c.write_u128(dst, price)?;
    Ok(PRICED)
}

/// One curve: secp256k1 for ECDSA, BLS12-381 G2 for vetKD.
pub(super) fn cost_one_curve(c: &mut Context<'_>, src: u32, len: u32, kind: u32, dst: u32) -> Result<u32, Trap> {
    key_price(c, (src, len), kind, 1, dst)
}

/// Two algorithms: BIP340 and Ed25519.
pub(super) fn cost_schnorr(c: &mut Context<'_>, src: u32, len: u32, kind: u32, dst: u32) -> Result<u32, Trap> {
    key_price(c, (src, len), kind, 2, dst)
}

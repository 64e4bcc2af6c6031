//! Building and making calls to other canisters.

use candid::Principal;

use super::super::execution::{Closure, OutgoingCall};
use super::super::trap::Trap;
use super::context::Context;

/// `call_perform`: the call is queued; exactly one of its callbacks will run.
const QUEUED: u32 = 0;
/// `call_perform`: the call is not made and no callback will run.
const NOT_QUEUED: u32 = 2;

/// The four words that name the two callbacks of `call_new`.
pub(super) type Callbacks = [u32; 4];

/// Drops a call under construction; its cycles return.
fn discard_pending(c: &mut Context<'_>) {
    if let Some(call) = c.effects.pending_call.take() {
        c.balance = c.balance.saturating_add(call.cycles);
    }
}

fn pending<'a>(c: &'a mut Context<'_>) -> Result<&'a mut OutgoingCall, Trap> {
    let name = c.function.name;
    c.effects
        .pending_call
        .as_mut()
        .ok_or_else(|| Trap::ContractViolation(format!("ic0.{name} called when no call is under construction.")))
}

pub(super) fn call_new(
    c: &mut Context<'_>,
    (callee_src, callee_len): (u32, u32),
    (name_src, name_len): (u32, u32),
    [reply_function, reply_environment, reject_function, reject_environment]: Callbacks,
) -> Result<(), Trap> {
    discard_pending(c);
    let max = c.ceilings.method_name_bytes;
    if u64::from(name_len) > max {
        return Err(c.violation(format_args!("method name of {name_len} bytes cannot be longer than {max}")));
    }
    let callee = c.read_bytes(callee_src, callee_len)?;
    let callee = Principal::try_from_slice(&callee)
        .map_err(|error| c.violation(format_args!("the callee is not a principal: {error}")))?;
    let method = c.read_text(name_src, name_len)?;
    c.effects.pending_call = Some(OutgoingCall {
        callee,
        method,
        arg: Vec::new(),
        on_reply: Closure { function: reply_function, environment: reply_environment },
        on_reject: Closure { function: reject_function, environment: reject_environment },
        on_cleanup: None,
        cycles: 0,
        timeout_seconds: None,
    });
    Ok(())
}

pub(super) fn call_on_cleanup(c: &mut Context<'_>, function: u32, environment: u32) -> Result<(), Trap> {
    if pending(c)?.on_cleanup.is_some() {
        return Err(c.violation("on_cleanup is already set"));
    }
    pending(c)?.on_cleanup = Some(Closure { function, environment });
    Ok(())
}

pub(super) fn call_data_append(c: &mut Context<'_>, src: u32, len: u32) -> Result<(), Trap> {
    let max = c.ceilings.request_bytes;
    let bytes = pending(c)?.arg.len() as u64 + u64::from(len);
    if bytes > max {
        return Err(c.violation(format_args!("application payload size ({bytes}) cannot be larger than {max}.")));
    }
    c.with_bytes(src, len, |bytes, exec| {
        if let Some(call) = exec.effects.pending_call.as_mut() {
            call.arg.extend_from_slice(bytes);
        }
    })
}

pub(super) fn call_with_best_effort_response(c: &mut Context<'_>, seconds: u32) -> Result<(), Trap> {
    let longest = c.ceilings.best_effort_seconds;
    if pending(c)?.timeout_seconds.is_some() {
        return Err(c.violation("a timeout is already set"));
    }
    pending(c)?.timeout_seconds = Some(u64::from(seconds).min(longest));
    Ok(())
}

pub(super) fn call_cycles_add(c: &mut Context<'_>, amount: u64) -> Result<(), Trap> {
    add_cycles(c, amount.into())
}

pub(super) fn call_cycles_add128(c: &mut Context<'_>, high: u64, low: u64) -> Result<(), Trap> {
    add_cycles(c, u128::from(high) << 64 | u128::from(low))
}

fn add_cycles(c: &mut Context<'_>, amount: u128) -> Result<(), Trap> {
    pending(c)?;
    let available = c.liquid_balance();
    if amount > available {
        return Err(Trap::OutOfCycles { needed: amount, available });
    }
    c.balance -= amount;
    let call = pending(c)?;
    call.cycles = call.cycles.saturating_add(amount);
    Ok(())
}

pub(super) fn call_perform(c: &mut Context<'_>) -> Result<u32, Trap> {
    pending(c)?;
    if !can_queue(c) {
        discard_pending(c);
        return Ok(NOT_QUEUED);
    }
    let call = c.effects.pending_call.take();
    c.effects.calls.extend(call);
    Ok(QUEUED)
}

/// Whether the queue to the callee has room and, if cycles are enforced, the balance covers the call's price.
fn can_queue(c: &Context<'_>) -> bool {
    let Some(call) = &c.effects.pending_call else { return false };
    let open = c.facts.open_calls.get(&call.callee).copied().unwrap_or(0);
    let made = c.effects.calls.iter().filter(|made| made.callee == call.callee).count();
    if open + made >= c.ceilings.queue_messages {
        return false;
    }
    !c.ceilings.enforce_cycles || c.call_price(call.bytes()) <= c.liquid_balance()
}

//! Time, timer, instruction counter, certified data, log and trap.

use super::super::costs::log_cost;
use super::super::trap::Trap;
use super::context::{Context, size};

/// Most bytes of certified data.
const CERTIFIED_DATA_BYTES: u32 = 32;

pub(super) fn time(c: &mut Context<'_>) -> Result<u64, Trap> {
    Ok(c.facts.time_ns)
}

pub(super) fn global_timer_set(c: &mut Context<'_>, deadline_ns: u64) -> Result<u64, Trap> {
    let before = c.effects.timer.replace(deadline_ns);
    Ok(before.unwrap_or(c.timer_ns))
}

pub(super) fn performance_counter(c: &mut Context<'_>, kind: u32) -> Result<u64, Trap> {
    let used = c.used_instructions();
    match kind {
        0 => Ok(used),
        1 => Ok(c.input.earlier_instructions.saturating_add(used)),
        other => Err(Trap::ContractViolation(format!("Error getting performance counter type {other}"))),
    }
}

pub(super) fn certified_data_set(c: &mut Context<'_>, src: u32, len: u32) -> Result<(), Trap> {
    if len > CERTIFIED_DATA_BYTES {
        let text = format!(
            "ic0_certified_data_set failed because the passed data must be no larger than {CERTIFIED_DATA_BYTES} \
             bytes. Found {len} bytes"
        );
        return Err(Trap::ContractViolation(text));
    }
    let data = c.read_bytes(src, len)?;
    c.effects.certified_data = Some(data);
    Ok(())
}

pub(super) fn data_certificate_present(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(c.facts.certificate.is_some().into())
}

pub(super) fn data_certificate_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    match &c.facts.certificate {
        Some(certificate) => Ok(size(certificate)),
        None => Err(c.violation("no data certificate is available")),
    }
}

pub(super) fn data_certificate_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    if c.facts.certificate.is_none() {
        return Err(c.violation("no data certificate is available"));
    }
    c.copy_out((dst, offset, len), |exec| exec.facts.certificate.as_deref().unwrap_or_default())
}

/// Charges for logging a text of `len` bytes.
fn charge_log(c: &mut Context<'_>, len: u32) -> Result<(), Trap> {
    let capacity = c.log.capacity_bytes();
    let left = capacity.saturating_sub(c.logged_bytes);
    c.charge(log_cost(len.into(), capacity, left))
}

pub(super) fn debug_print(c: &mut Context<'_>, src: u32, len: u32) -> Result<(), Trap> {
    charge_log(c, len)?;
    if c.with_bytes(src, len, |bytes, exec| exec.print(bytes)).is_err() {
        c.print(b"(debug_print message out of memory bounds)");
    }
    Ok(())
}

pub(super) fn trap(c: &mut Context<'_>, src: u32, len: u32) -> Result<(), Trap> {
    charge_log(c, len)?;
    let text = match c.read_bytes(src, len) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => "(trap message out of memory bounds)".to_owned(),
    };
    Err(Trap::Called(text))
}

//! Stable memory: the 64-bit functions and the old 32-bit ones.
//!
//! Checks come in the platform's order: instructions, empty range, stable bounds, heap bounds, page limits, copy.

use super::super::costs::WASM_PAGE_BYTES;
use super::super::stable::OS_PAGE_BYTES;
use super::super::trap::{Trap, WasmTrap};
use super::context::Context;

/// Pages that the 32-bit functions can address.
const PAGES_32: u64 = 1 << 16;

pub(super) fn stable64_size(c: &mut Context<'_>) -> Result<u64, Trap> {
    Ok(c.stable.pages())
}

pub(super) fn stable64_grow(c: &mut Context<'_>, more: u64) -> Result<u64, Trap> {
    let max = c.ceilings.stable_bytes / WASM_PAGE_BYTES;
    Ok(c.stable.grow(more, max).unwrap_or(u64::MAX))
}

pub(super) fn stable64_read(c: &mut Context<'_>, dst: u64, offset: u64, len: u64) -> Result<(), Trap> {
    let Some(dst) = prepare(c, offset, dst, len, false)? else { return Ok(()) };
    let read = c.with_heap_mut(dst, len, |heap, exec| exec.stable.read(offset, heap).is_ok());
    stable_bounds(read == Some(true))
}

pub(super) fn stable64_write(c: &mut Context<'_>, offset: u64, src: u64, len: u64) -> Result<(), Trap> {
    let Some(src) = prepare(c, offset, src, len, true)? else { return Ok(()) };
    let written = c.with_heap(src, len, |heap, exec| exec.stable.write(offset, heap).is_ok());
    stable_bounds(written == Some(true))
}

fn stable_bounds(inside: bool) -> Result<(), Trap> {
    if inside { Ok(()) } else { Err(Trap::Wasm(WasmTrap::StableOutOfBounds)) }
}

/// All checks and charges before a copy; answers the heap address, or `None` if there is nothing to copy.
fn prepare(c: &mut Context<'_>, offset: u64, heap: u64, len: u64, write: bool) -> Result<Option<u64>, Trap> {
    if len == 0 {
        return Ok(None);
    }
    stable_bounds(c.stable.check(offset, len).is_ok())?;
    let inside = heap.checked_add(len).is_some_and(|end| end <= c.heap_bytes());
    if !inside {
        return Err(Trap::Wasm(WasmTrap::HeapOutOfBounds));
    }
    check_limits(c, offset, len, write)?;
    let touch = c.stable.touch(offset, len, write);
    let (accessed, written) = touch.charged_pages(c.ceilings.pages.unit);
    let charge = c.ceilings.pages.stable;
    c.charge_stable_pages(charge.total(accessed, written, c.mode.discards_changes()))?;
    Ok(Some(heap))
}

fn check_limits(c: &Context<'_>, offset: u64, len: u64, write: bool) -> Result<(), Trap> {
    let limit = c.ceilings.stable_access_bytes / OS_PAGE_BYTES;
    let so_far = c.stable.touched();
    let more = c.stable.preview(offset, len, write);
    let [messages, installs, queries] = c.ceilings.stable_access_kinds.map(|bytes| bytes / 1024);
    if so_far.accessed + more.accessed > limit {
        return Err(Trap::MemoryAccessLimit(format!(
            "Exceeded the limit for the number of accessed pages in the stable memory in a single message execution: \
             limit {messages} KB for regular messages and {queries} KB for queries."
        )));
    }
    if so_far.written + more.written > limit {
        return Err(Trap::MemoryAccessLimit(format!(
            "Exceeded the limit for the number of modified pages in the stable memory in a single execution: limit \
             {messages} KB for regular messages, {installs} KB for upgrade messages and {queries} KB for queries."
        )));
    }
    Ok(())
}

/// The 32-bit functions trap on a memory that they cannot address.
fn check_32(c: &Context<'_>) -> Result<(), Trap> {
    if c.stable.pages() > PAGES_32 {
        return Err(Trap::Wasm(WasmTrap::StableTooBigFor32Bit));
    }
    Ok(())
}

pub(super) fn stable_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    check_32(c)?;
    Ok(c.stable.pages() as u32)
}

pub(super) fn stable_grow(c: &mut Context<'_>, more: u32) -> Result<u32, Trap> {
    check_32(c)?;
    let max = (c.ceilings.stable_bytes / WASM_PAGE_BYTES).min(PAGES_32);
    Ok(c.stable.grow(more.into(), max).map_or(u32::MAX, |old| old as u32))
}

pub(super) fn stable_read(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    check_32(c)?;
    stable64_read(c, dst.into(), offset.into(), len.into())
}

pub(super) fn stable_write(c: &mut Context<'_>, offset: u32, src: u32, len: u32) -> Result<(), Trap> {
    check_32(c)?;
    stable64_write(c, offset.into(), src.into(), len.into())
}

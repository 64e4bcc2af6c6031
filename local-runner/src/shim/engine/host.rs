//! What host functions see of the execution that calls them: its state, its counter, its heap.

use std::sync::Arc;

use wasmtime::{AsContextMut, Global, ResourceLimiter, StoreContextMut, Val};

use crate::shim::costs::{PageCharges, WASM_PAGE_BYTES};
use crate::shim::heap::{HeapRange, PageCounts, Region};
use crate::shim::trap::Trap;

/// Data of the store during one execution.
pub struct Context<T> {
    /// The host's own state.
    pub state: T,
    pub(super) heap: Arc<Region>,
    pub(super) meter: Meter,
    pub(super) growth: GrowthLimit,
}

/// The instruction counter's bookkeeping.
pub(super) struct Meter {
    /// Set once the instance exists.
    pub(super) counter: Option<Global>,
    pub(super) limit: u64,
    pub(super) charges: PageCharges,
    pub(super) query: bool,
    /// Instructions charged for heap pages so far.
    pub(super) page_charge: u64,
    /// Instructions of the most expensive system call so far, its heap pages not included.
    pub(super) largest_call: u64,
}

/// Heap pages are 16 operating-system pages of 4 KiB, the unit of charging.
const OS_PAGES: u64 = 16;

impl Meter {
    /// Page charges that are due but not yet subtracted; counts them as charged.
    fn take_due(&mut self, pages: PageCounts) -> u64 {
        let total = self.charges.heap.total(pages.accessed * OS_PAGES, pages.written * OS_PAGES, self.query);
        let due = total - self.page_charge;
        self.page_charge = total;
        due
    }

    /// Upper bound for the instructions of one uninterruptible operation that handled at most `bytes` bytes.
    ///
    /// Its pages, at most those of a source and a target, may all have been touched by it for the first time.
    pub(super) fn largest_operation(&self, bytes: u64) -> u64 {
        let largest = bytes.max(self.largest_call);
        let pages = (largest / WASM_PAGE_BYTES + 2).saturating_mul(OS_PAGES);
        let page_charge = self.charges.heap.total(pages.saturating_mul(2), pages, self.query);
        largest.saturating_add(page_charge.min(self.page_charge))
    }
}

/// Enforces the canister's limit on its heap, which traps instead of letting `memory.grow` return -1.
pub(super) struct GrowthLimit {
    pub(super) bytes: Option<u64>,
    /// False while the instance is created: taking over the heap is no growth.
    pub(super) active: bool,
}

impl ResourceLimiter for GrowthLimit {
    fn memory_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = maximum.is_none_or(|maximum| desired <= maximum);
        match self.bytes {
            Some(limit) if self.active && fits && desired as u64 > limit => {
                Err(Trap::WasmMemoryLimit { limit, bytes: desired as u64 }.into())
            }
            _ => Ok(fits),
        }
    }

    fn table_growing(&mut self, _current: usize, _desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

/// Subtracts `amount` and the page charges that are due; returns what is left, negative if overdrawn.
pub(super) fn charge<T: 'static>(mut store: StoreContextMut<'_, Context<T>>, amount: u64) -> i64 {
    let context = store.data_mut();
    let pages = context.heap.counts();
    let amount = amount.saturating_add(context.meter.take_due(pages));
    let Some(counter) = context.meter.counter else { return 0 };
    let left = counter.get(&mut store).i64().unwrap_or(0).saturating_sub_unsigned(amount);
    // The counter is a mutable i64 by construction, so setting it cannot fail.
    counter.set(&mut store, Val::I64(left)).ok();
    left
}

/// Services for host functions, on `wasmtime::Caller<'_, Context<T>>`.
pub trait HostCall<T> {
    /// Charges the execution and settles page charges.
    ///
    /// # Errors
    /// If that overdraws the instruction limit.
    fn charge(&mut self, instructions: u64) -> Result<(), Trap>;

    /// Instructions used so far by this execution, page charges included.
    fn instructions_used(&mut self) -> u64;

    /// Size of the heap in bytes.
    fn heap_size(&self) -> u64;

    /// Copies bytes out of the heap.
    ///
    /// # Errors
    /// If the range leaves the heap; nothing is allocated then.
    fn heap_read(&self, offset: u64, len: u64) -> Result<Vec<u8>, HeapRange>;

    /// Copies bytes into the heap.
    ///
    /// # Errors
    /// If the range leaves the heap; nothing is written then.
    fn heap_write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), HeapRange>;

    /// Lends `f` a range of the heap to read, and the host's state.
    ///
    /// # Errors
    /// If the range leaves the heap; `f` is not called then.
    fn with_heap<R>(&mut self, offset: u64, len: u64, f: impl FnOnce(&[u8], &mut T) -> R) -> Result<R, HeapRange>;

    /// Lends `f` a range of the heap to write, and the host's state. All of its pages count as written.
    ///
    /// # Errors
    /// If the range leaves the heap; `f` is not called then.
    fn with_heap_mut<R>(
        &mut self,
        offset: u64,
        len: u64,
        f: impl FnOnce(&mut [u8], &mut T) -> R,
    ) -> Result<R, HeapRange>;
}

impl<T: 'static> HostCall<T> for wasmtime::Caller<'_, Context<T>> {
    fn charge(&mut self, instructions: u64) -> Result<(), Trap> {
        let meter = &mut self.data_mut().meter;
        meter.largest_call = meter.largest_call.max(instructions);
        let left = charge(self.as_context_mut(), instructions);
        if left < 0 { Err(Trap::InstructionLimit { limit: self.data().meter.limit }) } else { Ok(()) }
    }

    fn instructions_used(&mut self) -> u64 {
        let left = charge(self.as_context_mut(), 0);
        self.data().meter.limit.saturating_sub(left.max(0) as u64)
    }

    fn heap_size(&self) -> u64 {
        self.data().heap.size() as u64
    }

    fn heap_read(&self, offset: u64, len: u64) -> Result<Vec<u8>, HeapRange> {
        self.data().heap.with_bytes(offset, len, <[u8]>::to_vec)
    }

    fn heap_write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), HeapRange> {
        self.data().heap.with_bytes_mut(offset, bytes.len() as u64, |out| out.copy_from_slice(bytes))
    }

    fn with_heap<R>(&mut self, offset: u64, len: u64, f: impl FnOnce(&[u8], &mut T) -> R) -> Result<R, HeapRange> {
        let Context { heap, state, .. } = self.data_mut();
        heap.with_bytes(offset, len, |bytes| f(bytes, state))
    }

    fn with_heap_mut<R>(
        &mut self,
        offset: u64,
        len: u64,
        f: impl FnOnce(&mut [u8], &mut T) -> R,
    ) -> Result<R, HeapRange> {
        let Context { heap, state, .. } = self.data_mut();
        heap.with_bytes_mut(offset, len, |bytes| f(bytes, state))
    }
}

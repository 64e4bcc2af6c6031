//! What every system call needs: the execution it belongs to, the caller's heap, and the instruction counter.

use std::ops::{Deref, DerefMut};

use super::super::costs::SystemFunction;
use super::super::engine::{self, HostCall};
use super::super::execution::Execution;
use super::super::mode::ModeSet;
use super::super::trap::Trap;

/// The running instance, with the execution as its state.
pub(super) type Caller<'a> = wasmtime::Caller<'a, engine::Context<Execution>>;

/// A part of something to be copied to the heap: heap address, offset in the source, length.
pub(super) type CopyRange = (u32, u32, u32);

/// One system call in progress; dereferences to the execution that makes it.
pub(super) struct Context<'a> {
    /// Price and name of the function.
    pub(super) function: &'static SystemFunction,
    caller: Caller<'a>,
}

impl Deref for Context<'_> {
    type Target = Execution;

    fn deref(&self) -> &Execution {
        &self.caller.data().state
    }
}

impl DerefMut for Context<'_> {
    fn deref_mut(&mut self) -> &mut Execution {
        &mut self.caller.data_mut().state
    }
}

impl<'a> Context<'a> {
    /// Charges for a call that handles `bytes` bytes, then checks that it is allowed in this mode.
    pub(super) fn enter(
        function: &'static SystemFunction,
        modes: ModeSet,
        caller: Caller<'a>,
        bytes: u64,
    ) -> Result<Self, Trap> {
        let mut context = Self { function, caller };
        context.charge(function.cost(bytes))?;
        if !modes.contains(context.mode) {
            let text = format!("\"ic0_{}\" cannot be executed in {} mode", function.name, context.mode);
            return Err(Trap::ContractViolation(text));
        }
        Ok(context)
    }

    /// Charges instructions of the call itself.
    pub(super) fn charge(&mut self, instructions: u64) -> Result<(), Trap> {
        self.system_instructions = self.system_instructions.saturating_add(instructions);
        self.caller.charge(instructions)
    }

    /// Charges instructions for stable memory pages.
    pub(super) fn charge_stable_pages(&mut self, instructions: u64) -> Result<(), Trap> {
        self.largest_stable_pages = self.largest_stable_pages.max(instructions);
        self.caller.charge(instructions)
    }

    /// Instructions used by this execution so far, page accesses included.
    pub(super) fn used_instructions(&mut self) -> u64 {
        self.caller.instructions_used()
    }

    /// A violation of the contract by this function, in the platform's form.
    pub(super) fn violation(&self, text: impl std::fmt::Display) -> Trap {
        Trap::ContractViolation(format!("ic0.{}: {text}", self.function.name))
    }

    fn bad_range(&self, what: &str, src: u32, len: u32, size: u64) -> Trap {
        let name = self.function.name;
        let text = format!("ic0.{name} {what}: src={src} + length={len} exceeds the slice size={size}");
        Trap::ContractViolation(text)
    }

    /// Size of the heap in bytes.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.caller.heap_size()
    }

    /// Runs `f` on a range of the heap and on the execution.
    pub(super) fn with_bytes<R>(
        &mut self,
        src: u32,
        len: u32,
        f: impl FnOnce(&[u8], &mut Execution) -> R,
    ) -> Result<R, Trap> {
        let result = self.caller.with_heap(src.into(), len.into(), f);
        result.map_err(|range| self.bad_range("heap", src, len, range.size))
    }

    /// A copy of a range of the heap.
    pub(super) fn read_bytes(&mut self, src: u32, len: u32) -> Result<Vec<u8>, Trap> {
        self.with_bytes(src, len, |bytes, _| bytes.to_vec())
    }

    /// A range of the heap as text.
    pub(super) fn read_text(&mut self, src: u32, len: u32) -> Result<String, Trap> {
        let bytes = self.read_bytes(src, len)?;
        String::from_utf8(bytes).map_err(|error| self.violation(format_args!("invalid UTF-8 string provided: {error}")))
    }

    /// Writes bytes to the heap.
    pub(super) fn write_bytes(&mut self, dst: u32, bytes: &[u8]) -> Result<(), Trap> {
        let written = self.caller.heap_write(dst.into(), bytes);
        written.map_err(|range| self.bad_range("heap", dst, size(bytes), range.size))
    }

    /// Writes a 128-bit value in little-endian order.
    pub(super) fn write_u128(&mut self, dst: u32, value: u128) -> Result<(), Trap> {
        self.write_bytes(dst, &value.to_le_bytes())
    }

    /// Runs `f` on a range of the heap, for writing, and on the execution; `None` if the range leaves the heap.
    pub(super) fn with_heap_mut<R>(
        &mut self,
        dst: u64,
        len: u64,
        f: impl FnOnce(&mut [u8], &mut Execution) -> R,
    ) -> Option<R> {
        self.caller.with_heap_mut(dst, len, f).ok()
    }

    /// Runs `f` on a range of the heap and on the execution; `None` if the range leaves the heap.
    pub(super) fn with_heap<R>(&mut self, src: u64, len: u64, f: impl FnOnce(&[u8], &mut Execution) -> R) -> Option<R> {
        self.caller.with_heap(src, len, f).ok()
    }

    /// The body of every `*_copy(dst, offset, size)`: copies part of what `source` finds in the execution.
    pub(super) fn copy_out(
        &mut self,
        (dst, offset, len): CopyRange,
        source: impl for<'e> Fn(&'e Execution) -> &'e [u8],
    ) -> Result<(), Trap> {
        let (start, end) = (offset as usize, offset as usize + len as usize);
        let available = source(self).len();
        if end > available {
            return Err(self.bad_range("payload", offset, len, available as u64));
        }
        let copied = self.caller.with_heap_mut(dst.into(), len.into(), |heap, exec| {
            heap.copy_from_slice(&source(exec)[start..end]);
        });
        copied.map_err(|range| self.bad_range("heap", dst, len, range.size))
    }
}

/// A length as the system API returns it.
pub(super) fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

//! Connects a canister's heap to wasmtime: as the memory of new instances and as the handler of page faults.

use std::cell::RefCell;
use std::sync::Arc;

use wasmtime::{LinearMemory, MemoryCreator, MemoryType, Store};

use crate::shim::heap::{GUARD_BYTES, PAGE, RESERVED_BYTES, Region};

thread_local! {
    /// The heap for the instance that this thread is creating.
    static NEXT_HEAP: RefCell<Option<Arc<Region>>> = const { RefCell::new(None) };
}

/// Gives new instances the heap named by [`with_heap`].
pub(super) struct HeapCreator;

/// Runs `instantiate`, which creates one instance with one memory, on this thread; that memory will be `heap`.
pub(super) fn with_heap<R>(heap: Arc<Region>, instantiate: impl FnOnce() -> R) -> R {
    NEXT_HEAP.set(Some(heap));
    let result = instantiate();
    NEXT_HEAP.take();
    result
}

// SAFETY: the memory returned is a reservation of at least the size asked for plus guard, its base never moves, bytes
// beyond its size always fault, and the region is kept alive by the returned object.
unsafe impl MemoryCreator for HeapCreator {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let region = NEXT_HEAP.take().ok_or("no heap was prepared for this instance")?;
        if reserved.is_some_and(|bytes| bytes > RESERVED_BYTES) || guard > GUARD_BYTES || minimum > region.size() {
            return Err(format!("the heap of {} bytes does not fit a memory of {minimum}", region.size()));
        }
        Ok(Box::new(HeapMemory { region }))
    }
}

struct HeapMemory {
    region: Arc<Region>,
}

// SAFETY: base and size are those of the region, which outlives this object; see `HeapCreator`.
unsafe impl LinearMemory for HeapMemory {
    fn byte_size(&self) -> usize {
        self.region.size()
    }

    fn byte_capacity(&self) -> usize {
        RESERVED_BYTES
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if self.region.grow_to(new_size) {
            Ok(())
        } else {
            Err(wasmtime::format_err!("a heap of {} pages exceeds its maximum", new_size / PAGE))
        }
    }

    fn as_ptr(&self) -> *mut u8 {
        self.region.base()
    }
}

/// Serves page faults inside `region` while the store executes.
pub(super) fn handle_faults<T: 'static>(store: &mut Store<T>, region: Arc<Region>) {
    use wasmtime::unix::StoreExt;
    let handler = move |signal: libc::c_int, info: *const libc::siginfo_t, context: *const libc::c_void| {
        if signal != libc::SIGSEGV && signal != libc::SIGBUS {
            return false;
        }
        // SAFETY: the kernel passes valid siginfo and context to a handler of these signals.
        let (address, write) = unsafe { ((*info).si_addr() as usize, is_write(context)) };
        region.handle_fault(address, write)
    };
    // SAFETY: the handler only compares addresses, changes page protection and copies within reserved memory, all of
    // which is async-signal-safe.
    unsafe { store.set_signal_handler(handler) };
}

/// Whether the faulting access was a write, from the processor's error code.
///
/// # Safety
/// `context` must be the context the kernel passed to the signal handler.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn is_write(context: *const libc::c_void) -> Option<bool> {
    /// Bit of the page-fault error code that is set for writes (Intel SDM volume 3, 4.7).
    const WRITE_BIT: i64 = 2;
    // SAFETY: by this function's contract.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_ERR as usize] & WRITE_BIT != 0)
}

/// Not told here: the page is opened for reading first, and a write faults once more.
///
/// # Safety
/// None needed on this platform.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
unsafe fn is_write(_context: *const libc::c_void) -> Option<bool> {
    None
}

//! Reserved address ranges whose pages are opened and closed by protection changes.
//!
//! A thin, checked layer over mmap, mprotect and madvise; it knows nothing of WebAssembly.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

/// What may be done with the bytes of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// Every access faults.
    Closed,
    /// Writes fault.
    Read,
    /// Nothing faults.
    ReadWrite,
}

impl Protection {
    fn flags(self) -> libc::c_int {
        match self {
            Self::Closed => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// An anonymous private mapping, zero-filled, that uses memory only where it was written.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory owned by this value; it has no tie to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of address space with one protection.
    pub(super) fn reserve(len: usize, protection: Protection) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection.flags(), flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned address zero"))?;
        Ok(Self { base, len })
    }

    /// First byte of the range.
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes reserved.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Address of the byte at `offset`, which must lie inside.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        // SAFETY: callers pass offsets inside the mapping, so the result stays in the same allocation.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Changes the protection of `range`, given in bytes on page boundaries. Async-signal-safe.
    pub(super) fn protect(&self, range: Range<usize>, protection: Protection) -> io::Result<()> {
        debug_assert!(range.end <= self.len);
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: the range lies inside this mapping, so no other memory changes its protection.
        let result = unsafe { libc::mprotect(self.at(range.start).cast(), range.len(), protection.flags()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Asks for large pages, which make first use of much memory faster; the system may ignore it.
    pub(super) fn prefer_large_pages(&self) {
        #[cfg(target_os = "linux")]
        // SAFETY: advice on this mapping, which changes no contents.
        unsafe {
            libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE)
        };
    }

    /// Gives the memory of `range` back: its bytes are zero afterwards and have this protection.
    pub(super) fn discard(&self, range: Range<usize>, protection: Protection) -> io::Result<()> {
        debug_assert!(range.end <= self.len);
        if range.is_empty() {
            return Ok(());
        }
        self.protect(range.clone(), protection)?;
        self.refill(range, protection)
    }

    #[cfg(target_os = "linux")]
    fn refill(&self, range: Range<usize>, _protection: Protection) -> io::Result<()> {
        // SAFETY: the range lies inside this private anonymous mapping, which Linux refills with zeros.
        let result = unsafe { libc::madvise(self.at(range.start).cast(), range.len(), libc::MADV_DONTNEED) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Elsewhere the advice need not clear the memory, so that the range is mapped anew.
    #[cfg(not(target_os = "linux"))]
    fn refill(&self, range: Range<usize>, protection: Protection) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let start = self.at(range.start).cast();
        // SAFETY: the range lies inside this mapping, so that only its own bytes are replaced.
        let result = unsafe { libc::mmap(start, range.len(), protection.flags(), flags, -1, 0) };
        if result == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of the mapping made in `reserve`, and nothing refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

//! Memory of packed codes: an allocation for each matrix, or one for all of a model's, which a system can serve with a few
//! large pages.

use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::alloc::{Layout, alloc, dealloc};
use std::sync::Arc;

/// Where an allocation begins: at a cache line.
const ALIGN: usize = 64;

/// An allocation that is given away from front to back, each byte once.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    layout: Layout,
    /// Bytes given away.
    given: AtomicUsize,
}

// SAFETY: the memory belongs to the region alone, and every byte of it to at most one `Bytes` that writes.
unsafe impl Send for Region {}
// SAFETY: as above; what is shared is the count of bytes given away, which is atomic.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nothing refers to it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl Region {
    /// So many bytes, or `None` if there is no memory for them.
    pub fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        Some(Self { start, layout, given: AtomicUsize::new(0) })
    }

    /// All of it, while none is given away.
    pub fn unwritten(&mut self) -> &mut [MaybeUninit<u8>] {
        let given = *self.given.get_mut();
        // SAFETY: the allocation is that long, and what is not given away is referred to by nothing else.
        unsafe {
            core::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.layout.size() * usize::from(given == 0))
        }
    }

    /// The next bytes, if there are as many.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Bytes> {
        let taken = |given: usize| given.checked_add(bytes).filter(|&end| end <= self.layout.size());
        let start = self.given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Bytes { region: Arc::clone(self), start, len: 0, capacity: bytes })
    }
}

/// Bytes of a region: those that have been written.
#[derive(Debug)]
pub(super) struct Bytes {
    region: Arc<Region>,
    start: usize,
    len: usize,
    /// No other `Bytes` has bytes of the region from `start + len` to `start + capacity`.
    capacity: usize,
}

impl Clone for Bytes {
    /// The same bytes, without room for more.
    fn clone(&self) -> Self {
        Self { region: Arc::clone(&self.region), capacity: self.len, ..*self }
    }
}

impl Bytes {
    /// Room for so many bytes in an allocation of their own, or `None` if there is no memory for them.
    pub fn with_capacity(bytes: usize) -> Option<Self> {
        Arc::new(Region::new(bytes)?).take(bytes)
    }

    /// What has not been written yet.
    pub fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the range lies inside the allocation, and no one else has these bytes.
        unsafe {
            let start = self.region.start.as_ptr().add(self.start + self.len);
            core::slice::from_raw_parts_mut(start.cast(), self.capacity - self.len)
        }
    }

    /// Takes the first `bytes` of [`Bytes::spare`] for written.
    ///
    /// # Safety
    /// They are, and there are as many.
    pub unsafe fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.capacity - self.len);
        self.len += bytes;
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies inside the allocation, has been written, and is not written again.
        unsafe { core::slice::from_raw_parts(self.region.start.as_ptr().add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(bytes: &mut Bytes, value: u8, count: usize) {
        bytes.spare()[..count].fill(MaybeUninit::new(value));
        // SAFETY: just written.
        unsafe { bytes.advance(count) };
    }

    #[test]
    fn a_region_is_given_away_once() {
        let mut region = Region::new(100).unwrap();
        assert_eq!(region.unwritten().len(), 100);
        let region = Arc::new(region);
        let (mut first, mut second) = (region.take(60).unwrap(), region.take(40).unwrap());
        assert!(region.take(1).is_none() && region.take(usize::MAX).is_none() && region.take(0).is_some());
        append(&mut first, 1, 60);
        append(&mut second, 2, 39);
        let copy = second.clone();
        append(&mut second, 3, 1);
        drop(region);
        assert_eq!((&*first, &*copy, second[39]), (&[1; 60][..], &[2; 39][..], 3));
        assert_eq!((second.spare().len(), copy.clone().spare().len()), (0, 0));
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        assert!(Region::new(usize::MAX).is_none() && Bytes::with_capacity(isize::MAX as usize).is_none());
        assert!(Bytes::with_capacity(0).unwrap().is_empty());
    }

    #[test]
    fn nothing_is_shown_for_unwritten_once_it_may_be_written() {
        let region = Arc::new(Region::new(10).unwrap());
        let bytes = region.take(4).unwrap();
        drop(bytes);
        assert!(Arc::into_inner(region).unwrap().unwritten().is_empty());
    }
}

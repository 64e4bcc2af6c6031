//! The stable memory of one canister: lazily allocated pages, undo of the current message or of everything since the
//! last commit, and the marks of which pages a message touched.
//!
//! A page is 64 KiB; a page that was never written takes no memory. Marks are kept per 4 KiB page, the unit of the
//! platform's access limits. Knows nothing of limits, charges or modes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::costs::WASM_PAGE_BYTES;

/// Bytes of the pages that access limits count.
pub const OS_PAGE_BYTES: u64 = 4096;

const PAGE: usize = WASM_PAGE_BYTES as usize;

/// What a page holds; `None` is all zero. Shared with the undo log until the next write copies it.
type Page = Option<Arc<Box<[u8]>>>;

/// One bit per 4 KiB page of a 64 KiB page.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    accessed: u16,
    written: u16,
    /// The message for which the page's old content went into the undo log last.
    saved_for: u32,
}

/// Pages that one access touches for the first time in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touch {
    /// 4 KiB pages not accessed before.
    pub accessed: u64,
    /// 4 KiB pages not written before.
    pub written: u64,
    /// 64 KiB pages of which nothing was accessed before.
    pub accessed_units: u64,
    /// 64 KiB pages of which nothing was written before.
    pub written_units: u64,
}

impl std::ops::AddAssign for Touch {
    fn add_assign(&mut self, other: Self) {
        self.accessed += other.accessed;
        self.written += other.written;
        self.accessed_units += other.accessed_units;
        self.written_units += other.written_units;
    }
}

impl Touch {
    /// 4 KiB pages to pay for, accessed and written, when pages come in units of `unit`.
    pub fn charged_pages(&self, unit: u64) -> (u64, u64) {
        if unit == 1 { (self.accessed, self.written) } else { (self.accessed_units * unit, self.written_units * unit) }
    }
}

/// A range that is not inside the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stable memory has {size} bytes, but bytes {offset}..{offset}+{len} were asked for")]
pub struct OutOfBounds {
    /// First byte asked for.
    pub offset: u64,
    /// Bytes asked for.
    pub len: u64,
    /// Size of the memory in bytes.
    pub size: u64,
}

/// Stable memory with undo and page marks.
#[derive(Debug, Default)]
pub struct StableMemory {
    pages: Vec<Page>,
    marks: Vec<Marks>,
    marked: Vec<usize>,
    undo: Vec<(usize, Page)>,
    committed_pages: usize,
    /// Counts messages; pages saved for an older one are saved again.
    message: u32,
    /// Size of the memory and of the undo log when the message began.
    message_pages: usize,
    message_undo: usize,
    touched: Touch,
    /// Pages that were committed since the memory was kept elsewhere; none if it never was.
    unsaved: Option<BTreeSet<usize>>,
}

/// A page without content.
static ZEROS: [u8; PAGE] = [0; PAGE];

impl StableMemory {
    /// Size in 64 KiB pages.
    pub fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.pages() * WASM_PAGE_BYTES
    }

    /// Memory of this machine that holds content, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.pages.iter().flatten().count() as u64 * WASM_PAGE_BYTES
    }

    /// The pages that hold content, with their numbers.
    pub fn filled_pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let numbered = (0..).zip(&self.pages);
        numbered.filter_map(|(number, page)| Some((number, page.as_deref()?.as_ref())))
    }

    /// The pages that were committed since [`StableMemory::mark_saved`], with their numbers; none if there was no such.
    pub fn unsaved_pages(&self) -> Option<impl Iterator<Item = (u64, &[u8])>> {
        let content = |page: usize| self.pages.get(page)?.as_deref().map(AsRef::as_ref);
        let numbered = move |&page: &usize| (page as u64, content(page).unwrap_or(&ZEROS));
        Some(self.unsaved.as_ref()?.iter().map(numbered))
    }

    /// Notes that all that is committed was kept elsewhere.
    pub fn mark_saved(&mut self) {
        self.unsaved = Some(BTreeSet::new());
    }

    /// The memory as committed, sharing pages until they are written; not kept elsewhere.
    pub fn fork(&self) -> Self {
        let marks = vec![Marks::default(); self.pages.len()];
        let mut fork = Self { pages: self.pages.clone(), marks, ..Self::default() };
        fork.commit();
        fork
    }

    /// Grows by `more` zero pages unless the result exceeds `max_pages`; answers the old size in pages.
    pub fn grow(&mut self, more: u64, max_pages: u64) -> Option<u64> {
        let old = self.pages();
        let new = old.checked_add(more).filter(|new| *new <= max_pages)?;
        let new = usize::try_from(new).ok()?;
        self.pages.resize(new, None);
        self.marks.resize(new, Marks::default());
        Some(old)
    }

    /// Whether the range is inside the memory.
    pub fn check(&self, offset: u64, len: u64) -> Result<(), OutOfBounds> {
        let size = self.bytes();
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(OutOfBounds { offset, len, size }),
        }
    }

    /// Copies `out.len()` bytes from `offset`. Marks nothing: see [`StableMemory::touch`].
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(offset, out.len() as u64)?;
        for part in Parts::new(offset, out.len()) {
            let target = &mut out[part.done..part.done + part.len];
            match self.pages.get(part.page).and_then(Option::as_ref) {
                Some(page) => target.copy_from_slice(&page[part.start..part.start + part.len]),
                None => target.fill(0),
            }
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`, keeping what was there for a rollback. Marks nothing.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), OutOfBounds> {
        self.check(offset, bytes.len() as u64)?;
        for part in Parts::new(offset, bytes.len()) {
            let source = &bytes[part.done..part.done + part.len];
            self.save(part.page);
            if part.len == PAGE {
                self.pages[part.page] = Some(Arc::new(source.into()));
                continue;
            }
            let page = self.pages[part.page].get_or_insert_with(|| Arc::new(vec![0; PAGE].into_boxed_slice()));
            Arc::make_mut(page)[part.start..part.start + part.len].copy_from_slice(source);
        }
        Ok(())
    }

    /// Puts the page's content into the undo log, once per message; pages that the message added need no undo.
    fn save(&mut self, page: usize) {
        if page >= self.message_pages || self.marks[page].saved_for == self.message {
            return;
        }
        self.marks[page].saved_for = self.message;
        self.undo.push((page, self.pages[page].clone()));
    }

    /// The pages that an access of this range would touch for the first time in this message.
    ///
    /// The range must be inside the memory; what lies beyond is ignored.
    pub fn preview(&self, offset: u64, len: u64, write: bool) -> Touch {
        let mut touch = Touch::default();
        for (page, mask) in masks(offset, len) {
            let Some(marks) = self.marks.get(page) else { break };
            touch.accessed += u64::from((mask & !marks.accessed).count_ones());
            touch.accessed_units += u64::from(marks.accessed == 0);
            if write {
                touch.written += u64::from((mask & !marks.written).count_ones());
                touch.written_units += u64::from(marks.written == 0);
            }
        }
        touch
    }

    /// Marks the range as accessed, and as written if `write`; answers what [`StableMemory::preview`] would have.
    pub fn touch(&mut self, offset: u64, len: u64, write: bool) -> Touch {
        let touch = self.preview(offset, len, write);
        for (page, mask) in masks(offset, len) {
            let Some(marks) = self.marks.get_mut(page) else { break };
            if marks.accessed == 0 {
                self.marked.push(page);
            }
            marks.accessed |= mask;
            if write {
                marks.written |= mask;
            }
        }
        self.touched += touch;
        touch
    }

    /// Everything touched since [`StableMemory::begin_message`].
    pub fn touched(&self) -> Touch {
        self.touched
    }

    /// Starts a message: forgets all page marks, for pages are charged and counted per message, and remembers the
    /// state to which [`StableMemory::undo_message`] returns.
    pub fn begin_message(&mut self) {
        for page in self.marked.drain(..) {
            if let Some(marks) = self.marks.get_mut(page) {
                (marks.accessed, marks.written) = (0, 0);
            }
        }
        self.touched = Touch::default();
        self.message = self.message.wrapping_add(1);
        self.message_pages = self.pages.len();
        self.message_undo = self.undo.len();
    }

    /// Undoes what the current message did, growth included; what earlier messages did stays uncommitted.
    pub fn undo_message(&mut self) {
        self.undo_to(self.message_undo, self.message_pages);
    }

    /// Makes everything since the last commit permanent.
    pub fn commit(&mut self) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.extend(self.undo.iter().map(|(page, _)| *page));
            unsaved.extend(self.committed_pages..self.pages.len());
        }
        self.undo.clear();
        self.committed_pages = self.pages.len();
        self.begin_message();
    }

    /// Undoes everything since the last commit, growth included.
    pub fn rollback(&mut self) {
        self.undo_to(0, self.committed_pages);
        self.begin_message();
    }

    /// Restores the newest contents first, so that the oldest win.
    fn undo_to(&mut self, entries: usize, pages: usize) {
        while self.undo.len() > entries {
            let Some((page, content)) = self.undo.pop() else { break };
            self.pages[page] = content;
            self.marks[page].saved_for = self.message.wrapping_sub(1);
        }
        self.pages.truncate(pages);
        self.marks.truncate(pages);
    }
}

/// The part of a range that lies in one page.
struct Part {
    page: usize,
    start: usize,
    len: usize,
    /// Bytes of the range before this part.
    done: usize,
}

/// Splits a range at page borders.
struct Parts {
    offset: u64,
    done: usize,
    len: usize,
}

impl Parts {
    fn new(offset: u64, len: usize) -> Self {
        Self { offset, done: 0, len }
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if self.done == self.len {
            return None;
        }
        let at = self.offset + self.done as u64;
        let start = (at % WASM_PAGE_BYTES) as usize;
        let len = (PAGE - start).min(self.len - self.done);
        let part = Part { page: (at / WASM_PAGE_BYTES) as usize, start, len, done: self.done };
        self.done += len;
        Some(part)
    }
}

/// The 64 KiB pages of a range, each with one bit per 4 KiB page inside the range; nothing for an empty range.
fn masks(offset: u64, len: u64) -> impl Iterator<Item = (usize, u16)> {
    let units_per_page = WASM_PAGE_BYTES / OS_PAGE_BYTES;
    let first = offset / OS_PAGE_BYTES;
    let end = (offset + len).div_ceil(OS_PAGE_BYTES);
    let end_page = if len == 0 { 0 } else { end.div_ceil(units_per_page) };
    (first / units_per_page..end_page).map(move |page| {
        let base = page * units_per_page;
        let from = first.saturating_sub(base);
        let to = (end - base).min(units_per_page);
        let mask = ((1u32 << to) - 1) & !((1u32 << from) - 1);
        (page as usize, mask as u16)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory(pages: u64) -> StableMemory {
        let mut memory = StableMemory::default();
        memory.grow(pages, 1 << 20).unwrap();
        memory.commit();
        memory
    }

    fn bytes(memory: &StableMemory, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0xAA; len];
        memory.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn reads_back_across_pages_and_zero_elsewhere() {
        let mut memory = memory(3);
        memory.write(65_530, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert_eq!(bytes(&memory, 65_529, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        assert_eq!(memory.resident_bytes(), 2 * WASM_PAGE_BYTES);
    }

    #[test]
    fn refuses_ranges_that_leave_the_memory_or_overflow() {
        let mut memory = memory(1);
        assert!(memory.read(65_536, &mut []).is_ok());
        assert!(memory.read(65_536, &mut [0]).is_err());
        assert!(memory.write(65_535, &[0, 0]).is_err());
        assert!(memory.check(u64::MAX, 2).is_err());
    }

    #[test]
    fn grows_up_to_the_maximum() {
        let mut memory = memory(2);
        assert_eq!(memory.grow(3, 5), Some(2));
        assert_eq!(memory.grow(1, 5), None);
        assert_eq!(memory.grow(0, 5), Some(5));
        assert_eq!(memory.grow(u64::MAX, 5), None);
    }

    #[test]
    fn rolls_back_writes_and_growth() {
        let mut memory = memory(1);
        memory.write(10, b"before").unwrap();
        memory.commit();
        memory.write(10, b"after!").unwrap();
        memory.write(11, b"again").unwrap();
        memory.grow(1, 9).unwrap();
        memory.write(65_536, b"grown").unwrap();
        memory.rollback();
        assert_eq!(memory.pages(), 1);
        assert_eq!(bytes(&memory, 10, 6), b"before");
        memory.grow(1, 9).unwrap();
        assert_eq!(bytes(&memory, 65_536, 5), [0; 5], "new pages are zero again");
    }

    #[test]
    fn keeps_whole_page_writes_for_rollback() {
        let mut memory = memory(1);
        memory.write(0, &[7; PAGE]).unwrap();
        memory.rollback();
        assert_eq!(bytes(&memory, 0, PAGE), vec![0; PAGE]);
        assert_eq!(memory.resident_bytes(), 0);
    }

    #[test]
    fn counts_each_page_once_per_message() {
        let mut memory = memory(2);
        let first = memory.touch(4095, 2, false);
        assert_eq!(first, Touch { accessed: 2, accessed_units: 1, ..Touch::default() });
        assert_eq!(memory.touch(0, 4096, false), Touch::default());
        let write = memory.touch(0, 65_537, true);
        assert_eq!(write, Touch { accessed: 15, written: 17, accessed_units: 1, written_units: 2 });
        assert_eq!(memory.touched(), Touch { accessed: 17, written: 17, accessed_units: 2, written_units: 2 });
        memory.begin_message();
        assert_eq!(memory.touched(), Touch::default());
        assert_eq!(memory.touch(0, 1, false).accessed, 1);
    }

    #[test]
    fn touches_nothing_for_an_empty_range() {
        let mut memory = memory(1);
        assert_eq!(memory.touch(5000, 0, true), Touch::default());
        assert_eq!(memory.touch(65_536, 0, true), Touch::default());
    }

    /// What a test does to a memory and to its naive model.
    #[derive(Debug, Clone)]
    enum Step {
        Grow(u64),
        Write(u64, u8, usize),
        Begin,
        Undo,
        Commit,
        Rollback,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3u64).prop_map(Step::Grow),
            (0..5 * WASM_PAGE_BYTES, any::<u8>(), 0..2 * PAGE).prop_map(|(at, byte, len)| Step::Write(at, byte, len)),
            (0..5u64, any::<u8>()).prop_map(|(page, byte)| Step::Write(page * WASM_PAGE_BYTES, byte, PAGE)),
            Just(Step::Begin),
            Just(Step::Undo),
            Just(Step::Commit),
            Just(Step::Rollback),
        ];
        proptest::collection::vec(step, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn equals_a_model_that_copies_everything(steps in steps()) {
            let mut memory = memory(1);
            memory.begin_message();
            let (mut now, mut message, mut committed) = (vec![0; PAGE], vec![0; PAGE], vec![0; PAGE]);
            for step in steps {
                match step {
                    Step::Grow(pages) if memory.grow(pages, 5).is_some() => now.resize(now.len() + pages as usize * PAGE, 0),
                    Step::Grow(_) => prop_assert_eq!(memory.bytes(), now.len() as u64),
                    Step::Write(at, byte, len) => {
                        let range = at as usize..at as usize + len;
                        let fits = range.end <= now.len();
                        prop_assert_eq!(memory.write(at, &vec![byte; len]).is_ok(), fits);
                        if fits {
                            now[range].fill(byte);
                        }
                    }
                    Step::Begin => { memory.begin_message(); message = now.clone(); }
                    Step::Undo => { memory.undo_message(); now = message.clone(); }
                    Step::Commit => { memory.commit(); committed = now.clone(); message = now.clone(); }
                    Step::Rollback => { memory.rollback(); now = committed.clone(); message = now.clone(); }
                }
                prop_assert!(bytes(&memory, 0, now.len()) == now);
                prop_assert_eq!(memory.bytes(), now.len() as u64);
            }
        }
    }

    #[test]
    fn undoes_one_message_and_then_all() {
        let mut memory = memory(1);
        memory.write(0, b"1").unwrap();
        memory.grow(1, 9).unwrap();
        memory.write(65_536, b"1").unwrap();
        memory.begin_message();
        memory.write(0, b"2").unwrap();
        memory.write(65_536, b"2").unwrap();
        memory.grow(1, 9).unwrap();
        memory.undo_message();
        assert_eq!(
            (memory.pages(), bytes(&memory, 0, 1), bytes(&memory, 65_536, 1)),
            (2, b"1".to_vec(), b"1".to_vec())
        );
        memory.write(0, b"3").unwrap();
        memory.undo_message();
        assert_eq!(bytes(&memory, 0, 1), b"1");
        memory.rollback();
        assert_eq!((memory.pages(), bytes(&memory, 0, 1)), (1, vec![0]));
    }

    #[test]
    fn rolls_back_pages_that_a_later_message_wrote() {
        let mut memory = memory(1);
        for round in 1..4u8 {
            memory.begin_message();
            memory.write(0, &[round]).unwrap();
            memory.commit();
            memory.write(0, &[0xFF]).unwrap();
            memory.rollback();
            assert_eq!(bytes(&memory, 0, 1), [round]);
        }
    }
}

//! The map of stable memory: which virtual memory holds what. Ids are never reused; a retired one stays
//! listed with the reason. `docs/stable-layout.md` has the byte diagrams.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use candid::Principal;
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{Memory, StableCell};
use model_core::source::{ByteSource, SourceError};

use crate::api::Error;
use crate::session_id::SessionIds;

/// Version of everything below, kept in [`HEADER`]. A canister refuses to start on a newer one.
pub const LAYOUT_VERSION: u32 = 2;
/// Had [`SESSION_OWNERS`] and no [`USAGE`]; becomes the present version when it is opened.
const LAYOUT_BEFORE_USAGE: u32 = 1;

/// Cell: [`Header`].
pub const HEADER: MemoryId = MemoryId::new(0);
/// Cell: the settings, as candid.
pub const CONFIG: MemoryId = MemoryId::new(1);
/// Cell: which models lie where, and the present upload, as candid.
pub const DIRECTORY: MemoryId = MemoryId::new(2);
/// Map: start to end of the ranges of the upload that have arrived.
pub const LEDGER: MemoryId = MemoryId::new(3);
/// Raw bytes of a model file.
pub const SLOT_A: MemoryId = MemoryId::new(4);
/// Raw bytes of a model file.
pub const SLOT_B: MemoryId = MemoryId::new(5);
/// Map: session id to its head (owner, counts, state).
pub const SESSION_HEADS: MemoryId = MemoryId::new(6);
/// Map: session id to its record: options, tokens, text, as model-core stores them.
pub const SESSION_RECORDS: MemoryId = MemoryId::new(7);
/// Retired with layout version 2. Map: (owner, session id) to nothing, which heads tell too.
pub const SESSION_OWNERS: MemoryId = MemoryId::new(8);
/// Map: (day, owner) to the tokens computed on that day for sessions that are deleted.
pub const USAGE: MemoryId = MemoryId::new(9);
/// All of the above.
const ALL: [MemoryId; 10] =
    [HEADER, CONFIG, DIRECTORY, LEDGER, SLOT_A, SLOT_B, SESSION_HEADS, SESSION_RECORDS, SESSION_OWNERS, USAGE];

/// 2 MiB buckets: 64 GiB can be addressed, and an unused structure costs little.
const BUCKET_PAGES: u16 = 32;
/// Bytes of a page, in which memory grows.
pub const PAGE_BYTES: u64 = 65536;
const BUCKET_BYTES: u64 = BUCKET_PAGES as u64 * PAGE_BYTES;
/// What the memory manager can handle.
const MAX_BUCKETS: u64 = 32_768;
const MAGIC: &[u8; 8] = b"icllama\0";

/// A virtual memory.
pub type Region<M> = VirtualMemory<M>;

/// All virtual memories.
pub struct Memories<M: Memory> {
    manager: MemoryManager<M>,
    stable: M,
}

impl<M: Memory + Clone> Memories<M> {
    /// Opens the memories, or lays them out in a memory that is empty.
    pub fn open(memory: M) -> Self {
        Self { manager: MemoryManager::init_with_bucket_size(memory.clone(), BUCKET_PAGES), stable: memory }
    }

    /// The memory in which all of them lie.
    pub fn stable(&self) -> M {
        self.stable.clone()
    }
}

impl<M: Memory + Clone> Memories<M> {
    /// What sees to it that there is memory before it is needed.
    pub fn headroom(&self) -> Headroom<M> {
        Headroom { stable: self.stable(), regions: ALL.map(|id| self.region(id)) }
    }
}

/// Grows stable memory before it is needed, because the structures in it trap where the platform refuses.
pub struct Headroom<M: Memory> {
    stable: M,
    regions: [Region<M>; ALL.len()],
}

impl<M: Memory> Headroom<M> {
    /// Sees to it that regions can grow by `bytes` together, whichever they are of at most three.
    ///
    /// # Errors
    /// [`Error::StableMemoryFull`] if the platform refuses.
    pub fn ensure(&self, bytes: u64) -> Result<(), Error> {
        let bucket = u64::from(BUCKET_PAGES);
        let used: u64 = self.regions.iter().map(|region| region.size().div_ceil(bucket)).sum();
        // Each region may begin another bucket for a part of it.
        let buckets = used + bytes.div_ceil(BUCKET_BYTES) + 2;
        // The first page is the memory manager's.
        let missing = (1 + buckets * bucket).saturating_sub(self.stable.size());
        if missing > 0 && (buckets > MAX_BUCKETS || self.stable.grow(missing) < 0) {
            return Err(Error::StableMemoryFull { needed_bytes: missing.saturating_mul(PAGE_BYTES) });
        }
        Ok(())
    }
}

impl<M: Memory> Memories<M> {
    /// One of the memories above.
    pub fn region(&self, id: MemoryId) -> Region<M> {
        self.manager.get(id)
    }

    /// The region of a model slot: 0 or 1.
    pub fn slot(&self, slot: u8) -> Region<M> {
        self.region(if slot == 0 { SLOT_A } else { SLOT_B })
    }
}

/// Counters that must survive everything, behind the magic and the layout version.
///
/// ```text
/// 0        8          12             16                24               32
/// | magic  | version  | reserved: 0  | next_session_id | next_upload_id |
/// | 8 B    | u32 LE   | u32          | u64 LE          | u64 LE         |
/// ```
pub struct Header<M: Memory> {
    cell: StableCell<Vec<u8>, Region<M>>,
    session_ids: SessionIds,
    /// Above all ids of sessions that were ever given.
    next_session_id: u64,
    next_upload_id: u64,
}

impl<M: Memory> Header<M> {
    /// Opens the header, or writes the first one.
    ///
    /// # Errors
    /// [`Error::Damaged`] for an unknown magic, length or layout version.
    pub fn open(region: Region<M>) -> Result<Self, Error> {
        let cell = StableCell::init(region, encode_header(1, 1));
        let (version, next_session_id, next_upload_id) = decode_header(cell.get())?;
        let session_ids = SessionIds::new(next_session_id);
        let mut header = Self { cell, session_ids, next_session_id, next_upload_id };
        if version != LAYOUT_VERSION {
            header.save();
        }
        Ok(header)
    }

    /// An id that no session ever had, for one that `owner` makes at `now_ns`.
    pub fn take_session_id(&mut self, owner: Principal, now_ns: u64) -> u64 {
        let id = self.session_ids.take(owner, now_ns);
        if self.session_ids.next() != self.next_session_id {
            self.next_session_id = self.session_ids.next();
            self.save();
        }
        id
    }

    /// An id that no upload ever had.
    pub fn take_upload_id(&mut self) -> u64 {
        let id = self.next_upload_id;
        self.next_upload_id += 1;
        self.save();
        id
    }

    fn save(&mut self) {
        self.cell.set(encode_header(self.next_session_id, self.next_upload_id));
    }
}

fn encode_header(next_session_id: u64, next_upload_id: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(LAYOUT_VERSION.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(next_session_id.to_le_bytes());
    bytes.extend(next_upload_id.to_le_bytes());
    bytes
}

/// Layout version, next session id, next upload id.
fn decode_header(bytes: &[u8]) -> Result<(u32, u64, u64), Error> {
    let damaged = |message: String| Err(Error::Damaged { message });
    let Ok(bytes) = <&[u8; 32]>::try_from(bytes) else {
        return damaged(format!("the header has {} bytes instead of 32", bytes.len()));
    };
    let (magic, rest) = bytes.split_at(8);
    if magic != MAGIC {
        return damaged("the header does not begin with the magic `icllama`".into());
    }
    let word = |at: usize| rest.iter().skip(at).take(8).rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let version = word(0);
    let known = [LAYOUT_BEFORE_USAGE, LAYOUT_VERSION].into_iter().find(|known| u64::from(*known) == version);
    let Some(version) = known else {
        return damaged(format!("layout version {version} was found, this code knows {LAYOUT_VERSION}"));
    };
    Ok((version, word(8), word(16)))
}

/// Makes `region` at least `bytes` long. `stable` is the memory in which all regions lie; it is grown first, because
/// the memory manager panics where the platform refuses, and takes what is there already.
///
/// # Errors
/// [`Error::StableMemoryFull`] if the platform refuses.
pub fn ensure_size<M: Memory>(region: &Region<M>, stable: &M, bytes: u64) -> Result<(), Error> {
    let pages = bytes.div_ceil(PAGE_BYTES);
    let missing = pages.saturating_sub(region.size());
    if missing == 0 {
        return Ok(());
    }
    let bucket = u64::from(BUCKET_PAGES);
    let more = (pages.div_ceil(bucket) - region.size().div_ceil(bucket)) * bucket;
    if stable.grow(more) < 0 || region.grow(missing) < 0 {
        return Err(Error::StableMemoryFull { needed_bytes: missing.saturating_mul(PAGE_BYTES) });
    }
    Ok(())
}

/// A model file in a region, as model-core reads it.
pub struct RegionSource<M: Memory> {
    region: Region<M>,
    total_bytes: u64,
    read: Rc<Cell<u64>>,
}

impl<M: Memory> RegionSource<M> {
    /// The first `total_bytes` of `region`.
    pub fn new(region: Region<M>, total_bytes: u64) -> Self {
        Self { region, total_bytes, read: Rc::default() }
    }

    /// Bytes read so far, for [`crate::budget::CallBudget::watching_stable_reads`].
    pub fn bytes_read(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.read)
    }
}

impl<M: Memory> ByteSource for RegionSource<M> {
    fn len(&self) -> u64 {
        self.total_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let len = buf.len() as u64;
        let available = self.total_bytes.min(self.region.size().saturating_mul(PAGE_BYTES));
        if offset.checked_add(len).is_none_or(|end| end > available) {
            return Err(SourceError::OutOfRange { offset, len, available });
        }
        self.region.read(offset, buf);
        self.read.set(self.read.get().saturating_add(len));
        Ok(())
    }
}

/// A cell that holds one candid value.
pub struct CandidCell<T, M: Memory> {
    cell: RefCell<StableCell<Vec<u8>, Region<M>>>,
    marker: std::marker::PhantomData<T>,
}

impl<T: candid::CandidType + serde::de::DeserializeOwned, M: Memory> CandidCell<T, M> {
    /// Opens the cell; it is empty until the first [`Self::set`].
    pub fn open(region: Region<M>) -> Self {
        Self { cell: RefCell::new(StableCell::init(region, Vec::new())), marker: std::marker::PhantomData }
    }

    /// The value; none if there never was one.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the bytes do not hold a `T`.
    pub fn get(&self) -> Result<Option<T>, Error> {
        let cell = self.cell.borrow();
        if cell.get().is_empty() {
            return Ok(None);
        }
        candid::decode_one(cell.get()).map(Some).map_err(|e| Error::Damaged { message: e.to_string() })
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// [`Error::Damaged`] if candid cannot express the value.
    pub fn set(&self, value: &T) -> Result<(), Error> {
        let bytes = candid::encode_one(value).map_err(|e| Error::Damaged { message: e.to_string() })?;
        self.cell.borrow_mut().set(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_stable_structures::{RestrictedMemory, VectorMemory};

    #[test]
    fn ids_survive_reopening_and_are_never_given_twice() {
        let memory = VectorMemory::default();
        let mut ids = std::collections::BTreeSet::new();
        for upload_id in 1..4 {
            let mut header = Header::open(Memories::open(memory.clone()).region(HEADER)).unwrap();
            assert!((0..9).all(|_| ids.insert(header.take_session_id(Principal::anonymous(), 7_000_000_000))));
            assert_eq!(header.take_upload_id(), upload_id);
        }
    }

    #[test]
    fn refuses_a_newer_layout_and_foreign_bytes() {
        let mut bytes = encode_header(1, 1);
        assert_eq!(decode_header(&bytes), Ok((2, 1, 1)));
        bytes[8] = 1;
        assert_eq!(decode_header(&bytes), Ok((1, 1, 1)));
        bytes[8] = 3;
        let Err(Error::Damaged { message }) = decode_header(&bytes) else { panic!("a newer layout must be refused") };
        assert_eq!(message, "layout version 3 was found, this code knows 2");
        bytes[0] = b'x';
        assert!(decode_header(&bytes).is_err());
        assert!(decode_header(b"icllama\0").is_err());
    }

    #[test]
    fn headroom_is_there_for_any_region_and_not_grown_twice() {
        let stable = RestrictedMemory::new(VectorMemory::default(), 0..230);
        let memories = Memories::open(stable.clone());
        let (headroom, a, b) = (memories.headroom(), memories.slot(0), memories.slot(1));
        headroom.ensure(3).unwrap();
        headroom.ensure(BUCKET_BYTES).unwrap();
        assert_eq!(stable.size(), 1 + 3 * 32);
        a.grow(1);
        b.grow(40);
        assert_eq!(stable.size(), 1 + 3 * 32, "they took what was there");
        headroom.ensure(2 * BUCKET_BYTES).unwrap();
        assert_eq!(stable.size(), 1 + 7 * 32);
        assert_eq!(headroom.ensure(2 * BUCKET_BYTES + 1), Err(Error::StableMemoryFull { needed_bytes: BUCKET_BYTES }));
        assert!(headroom.ensure(u64::MAX / 2).is_err());
        a.grow(4 * 32);
        assert_eq!(headroom.ensure(0), Err(Error::StableMemoryFull { needed_bytes: 2 * BUCKET_BYTES }));
    }

    #[test]
    fn a_source_ends_where_the_file_ends() {
        let memories = Memories::open(VectorMemory::default());
        let region = memories.slot(1);
        ensure_size(&region, &memories.stable(), 10).unwrap();
        region.write(0, b"0123456789abc");
        let source = RegionSource::new(region, 10);
        let mut buf = [0; 4];
        source.read_at(6, &mut buf).unwrap();
        assert_eq!((&buf, source.bytes_read().get()), (b"6789", 4));
        assert!(matches!(source.read_at(7, &mut buf), Err(SourceError::OutOfRange { available: 10, .. })));
        assert!(source.read_at(u64::MAX, &mut buf).is_err());
    }

    #[test]
    fn a_memory_that_is_full_is_an_error_and_nothing_is_wasted() {
        let stable = RestrictedMemory::new(VectorMemory::default(), 0..100);
        let memories = Memories::open(stable.clone());
        let (a, b) = (memories.slot(0), memories.slot(1));
        let bucket = u64::from(BUCKET_PAGES) * PAGE_BYTES;
        // One page for the manager and three buckets are all that fits.
        ensure_size(&a, &stable, bucket + 1).unwrap();
        let refused = ensure_size(&b, &stable, bucket + 1);
        assert_eq!(refused, Err(Error::StableMemoryFull { needed_bytes: bucket + PAGE_BYTES }));
        assert_eq!((a.size(), b.size(), stable.size()), (33, 0, 65));
        ensure_size(&a, &stable, 2 * bucket).unwrap();
        ensure_size(&b, &stable, bucket).unwrap();
        assert_eq!((a.size(), b.size(), stable.size()), (64, 32, 97));
    }
}

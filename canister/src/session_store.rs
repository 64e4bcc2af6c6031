//! Sessions in stable memory: heads and records, and who owns them. Knows nothing of models or callers.

use candid::Principal;
use ic_stable_structures::{Memory, StableBTreeMap};
use model_core::session::SessionRecord;

use crate::api::Error;
use crate::memory::{Headroom, Memories, PAGE_BYTES, Region, SESSION_HEADS, SESSION_RECORDS};
use crate::session_head::Head;
use crate::session_index::SessionIndex;

/// Stable memory that is kept free, in sizes of the largest record. Records share nodes of a tree, at most eleven in each,
/// and storing or removing one may move those of the nodes beside it.
const RESERVED_RECORDS: u64 = 32;
/// Stable memory that is kept free for everything else.
const RESERVED_BYTES: u64 = 1 << 20;

/// All sessions.
pub struct SessionStore<M: Memory> {
    heads: StableBTreeMap<u64, Vec<u8>, Region<M>>,
    records: StableBTreeMap<u64, Vec<u8>, Region<M>>,
    index: SessionIndex,
    headroom: Headroom<M>,
    /// Where the records lie.
    region: Region<M>,
    /// Bytes of it that records may take at most, [`taken_by`] each.
    taken_bytes: u64,
    /// Size of the largest record since the canister started.
    largest_bytes: u64,
}

/// What a record of `bytes` takes at most: tree nodes are made of chunks of 1,024 bytes with headers, and are half full at
/// least.
fn taken_by(bytes: usize) -> u64 {
    bytes as u64 + bytes as u64 / 32 + 2_048
}

impl<M: Memory + Clone> SessionStore<M> {
    /// Opens the sessions as they were left, and shows `visit` each of them.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn open(memories: &Memories<M>, mut visit: impl FnMut(u64, &Head)) -> Result<Self, Error> {
        let heads = StableBTreeMap::<u64, Vec<u8>, _>::init(memories.region(SESSION_HEADS));
        let records = StableBTreeMap::<u64, Vec<u8>, _>::init(memories.region(SESSION_RECORDS));
        let (mut index, mut largest_bytes, mut taken_bytes) = (SessionIndex::default(), 0, 0);
        for id in heads.keys_range(..) {
            let head = Head::from_bytes(&heads.get(&id).unwrap_or_default())?;
            index.insert(id, head.owner, head.updated_ns);
            // Earlier versions of the layout do not tell.
            let stored = || records.get(&id).map_or(0, |record| record.len());
            let bytes = if head.record_bytes > 0 { head.record_bytes as usize } else { stored() };
            taken_bytes += taken_by(bytes);
            largest_bytes = largest_bytes.max(bytes as u64);
            visit(id, &head);
        }
        let (headroom, region) = (memories.headroom(), memories.region(SESSION_RECORDS));
        Ok(Self { heads, records, index, headroom, region, taken_bytes, largest_bytes })
    }
}

impl<M: Memory> SessionStore<M> {
    /// Sessions in all.
    pub fn len(&self) -> u64 {
        self.heads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Whose sessions there are.
    pub fn index(&self) -> &SessionIndex {
        &self.index
    }

    /// The head of a session; none if there is no such session.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn head(&self, id: u64) -> Result<Option<Head>, Error> {
        self.heads.get(&id).map(|bytes| Head::from_bytes(&bytes)).transpose()
    }

    /// The record of a session, for `model_core` to restore it from.
    ///
    /// # Errors
    /// [`Error::Damaged`], also if there is none.
    pub fn record(&self, id: u64) -> Result<SessionRecord, Error> {
        let bytes = self.records.get(&id).unwrap_or_default();
        SessionRecord::from_bytes(&bytes).map_err(|error| Error::Damaged { message: format!("session {id}: {error}") })
    }

    /// Sees to it that a record of `bytes` can be stored, and that there is room afterwards for whatever makes room.
    ///
    /// # Errors
    /// [`Error::StableMemoryFull`].
    pub fn ensure_room(&self, bytes: u64) -> Result<(), Error> {
        let reserve = RESERVED_BYTES + RESERVED_RECORDS * self.largest_bytes.max(bytes);
        // Memory of records that were deleted is free, but not given back.
        let free = (self.region.size() * PAGE_BYTES).saturating_sub(self.taken_bytes);
        self.headroom.ensure((bytes + reserve).saturating_sub(free))
    }

    /// Stores a session, new or changed, with the bytes of its record. The owner never changes. Needs room, see
    /// [`Self::ensure_room`].
    pub fn put(&mut self, id: u64, head: &Head, record: Vec<u8>) {
        self.largest_bytes = self.largest_bytes.max(record.len() as u64);
        self.taken_bytes += taken_by(record.len());
        let before = self.records.insert(id, record);
        self.release(before);
        self.put_head(id, head);
        self.index.insert(id, head.owner, head.updated_ns);
    }

    /// Stores a changed head.
    pub fn put_head(&mut self, id: u64, head: &Head) {
        self.heads.insert(id, head.to_bytes());
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: u64, owner: &Principal) {
        self.heads.remove(&id);
        let before = self.records.remove(&id);
        self.release(before);
        self.index.remove(id, owner);
    }

    fn release(&mut self, record: Option<Vec<u8>>) {
        self.taken_bytes = self.taken_bytes.saturating_sub(record.map_or(0, |record| taken_by(record.len())));
    }

    /// At most `limit` ids after `after`, of one owner or of all.
    pub fn ids(&self, owner: Option<&Principal>, after: u64, limit: usize) -> Vec<u64> {
        let Some(first) = after.checked_add(1) else { return Vec::new() };
        match owner {
            None => self.heads.keys_range(first..).take(limit).collect(),
            Some(owner) => self.index.ids_of(owner, first, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_head::{Driver, Usage};
    use ic_stable_structures::{RestrictedMemory, VectorMemory};
    use model_core::fixtures::{SplitMix64, TinyLlama};
    use model_core::model::{CachePrecision, LoadOptions, Model};
    use model_core::session::{Session, SessionOptions};

    fn head(owner: Principal) -> Head {
        Head {
            owner,
            model: [0; 32],
            created_ns: 0,
            updated_ns: 0,
            driver: Driver::Owner,
            finish: None,
            prompt_tokens: 1,
            generated_tokens: 0,
            remaining_tokens: 9,
            text_bytes: 0,
            cache_positions: 10,
            kv_cache: CachePrecision::default(),
            usage: Usage::default(),
            record_bytes: 0,
            error: None,
        }
    }

    fn record() -> SessionRecord {
        let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
        Session::new(&model, vec![1, 2, 3], SessionOptions::default()).unwrap().record()
    }

    fn open<M: Memory + Clone>(memory: M) -> SessionStore<M> {
        SessionStore::open(&Memories::open(memory), |_, _| {}).unwrap()
    }

    #[test]
    fn lists_by_owner_and_after_an_id_also_after_reopening() {
        let memory = VectorMemory::default();
        let [a, b] = [Principal::from_slice(&[1]), Principal::from_slice(&[1, 0])];
        let record = record();
        let mut store = open(memory.clone());
        for (id, owner) in [(1, a), (2, b), (3, a), (300, a)] {
            store.put(id, &head(owner), record.to_bytes());
        }
        store.remove(3, &a);
        for store in [store, open(memory)] {
            assert_eq!((store.ids(Some(&a), 0, 9), store.ids(Some(&b), 0, 9)), (vec![1, 300], vec![2]));
            assert_eq!(
                (store.ids(Some(&a), 1, 9), store.ids(None, 1, 1), store.ids(None, 0, 9)),
                (vec![300], vec![2], vec![1, 2, 300])
            );
            let index = store.index();
            assert_eq!((store.len(), index.len_of(&a), index.len_of(&Principal::anonymous())), (3, 2, 0));
            assert_eq!([(&a, 1), (&b, 1), (&a, 3)].map(|(owner, id)| index.owns(owner, id)), [true, false, false]);
            assert!(store.ids(None, u64::MAX, 9).is_empty() && store.ids(Some(&b), 2, 9).is_empty());
            assert_eq!(store.record(1).as_ref(), Ok(&record));
            assert_eq!((store.head(300), store.head(3)), (Ok(Some(head(a))), Ok(None)));
            assert!(matches!(store.record(3), Err(Error::Damaged { .. })));
            assert_eq!(store.largest_bytes, record.to_bytes().len() as u64);
        }
    }

    #[test]
    fn a_full_memory_refuses_records_and_still_takes_smaller_ones_and_removals() {
        let (owner, mut random) = (Principal::anonymous(), SplitMix64::new(1));
        let mut below = |end: u64| random.next_u64() % end;
        let mut refused = 0;
        for pages in [200, 240, 330] {
            let mut store = open(RestrictedMemory::new(VectorMemory::default(), 0..pages));
            let mut sizes = std::collections::BTreeMap::new();
            for _ in 0..4_000 {
                let (id, size) = (below(500), below(60_000) >> below(3));
                if below(10) < 3 {
                    store.remove(id, &owner);
                    sizes.remove(&id);
                } else if store.ensure_room(size).is_ok() {
                    store.put(id, &head(owner), vec![id as u8; size as usize]);
                    sizes.insert(id, size);
                } else {
                    refused += 1;
                    // What was there is changed without asking, as when a session is cancelled.
                    sizes.keys().for_each(|id| store.put_head(*id, &head(owner)));
                }
            }
            assert!(sizes.iter().all(|(id, size)| store.records.get(id) == Some(vec![*id as u8; *size as usize])));
            sizes.keys().for_each(|id| store.remove(*id, &owner));
            assert!(store.is_empty() && store.records.is_empty() && store.taken_bytes == 0);
            // What was deleted makes room for as much as there was.
            let (bytes, mut again) = (sizes.values().sum::<u64>(), 0);
            for id in 0.. {
                if again >= bytes / 2 {
                    break;
                }
                store.ensure_room(10_000).unwrap();
                store.put(id, &head(owner), vec![1; 10_000]);
                again += 10_000;
            }
        }
        assert!(refused > 100, "{refused}");
    }
}

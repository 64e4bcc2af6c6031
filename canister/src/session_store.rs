//! Sessions in stable memory: heads, records and the index by owner. Knows nothing of models or callers.

use candid::Principal;
use ic_stable_structures::{Memory, StableBTreeMap};
use model_core::session::SessionRecord;

use crate::api::Error;
use crate::memory::{Memories, Region, SESSION_HEADS, SESSION_OWNERS, SESSION_RECORDS};
use crate::session_head::Head;

/// Owner (length, 29 bytes padded with zeros), then the id big endian.
type OwnerKey = [u8; 38];

/// All sessions.
pub struct SessionStore<M: Memory> {
    heads: StableBTreeMap<u64, Vec<u8>, Region<M>>,
    records: StableBTreeMap<u64, Vec<u8>, Region<M>>,
    owners: StableBTreeMap<OwnerKey, (), Region<M>>,
}

impl<M: Memory> SessionStore<M> {
    /// Opens the sessions as they were left.
    pub fn open(memories: &Memories<M>) -> Self {
        Self {
            heads: StableBTreeMap::init(memories.region(SESSION_HEADS)),
            records: StableBTreeMap::init(memories.region(SESSION_RECORDS)),
            owners: StableBTreeMap::init(memories.region(SESSION_OWNERS)),
        }
    }

    /// Sessions in all.
    pub fn len(&self) -> u64 {
        self.heads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Sessions of `owner`.
    pub fn len_of(&self, owner: &Principal) -> u64 {
        self.owners.keys_range(owner_key(owner, 0)..=owner_key(owner, u64::MAX)).count() as u64
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

    /// Stores a session, new or changed. The owner never changes.
    pub fn put(&mut self, id: u64, head: &Head, record: &SessionRecord) {
        self.records.insert(id, record.to_bytes());
        self.put_head(id, head);
        self.owners.insert(owner_key(&head.owner, id), ());
    }

    /// Stores a changed head.
    pub fn put_head(&mut self, id: u64, head: &Head) {
        self.heads.insert(id, head.to_bytes());
    }

    /// Forgets a session.
    pub fn remove(&mut self, id: u64, owner: &Principal) {
        self.heads.remove(&id);
        self.records.remove(&id);
        self.owners.remove(&owner_key(owner, id));
    }

    /// At most `limit` ids after `after`, of one owner or of all.
    pub fn ids(&self, owner: Option<&Principal>, after: u64, limit: usize) -> Vec<u64> {
        let Some(first) = after.checked_add(1) else { return Vec::new() };
        match owner {
            None => self.heads.keys_range(first..).take(limit).collect(),
            Some(owner) => {
                let keys = self.owners.keys_range(owner_key(owner, first)..=owner_key(owner, u64::MAX));
                keys.take(limit).map(|key| id_of(&key)).collect()
            }
        }
    }
}

fn owner_key(owner: &Principal, id: u64) -> OwnerKey {
    let mut key = [0; 38];
    let bytes = owner.as_slice();
    let fields = [bytes.len() as u8].into_iter().chain(bytes.iter().copied());
    key.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    key.iter_mut().skip(30).zip(id.to_be_bytes()).for_each(|(to, from)| *to = from);
    key
}

fn id_of(key: &OwnerKey) -> u64 {
    key.iter().skip(30).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_stable_structures::VectorMemory;
    use model_core::fixtures::TinyLlama;
    use model_core::model::{CachePrecision, LoadOptions, Model};
    use model_core::session::{Session, SessionOptions};

    fn head(owner: Principal) -> Head {
        Head {
            owner,
            model: [0; 32],
            created_ns: 0,
            updated_ns: 0,
            running: false,
            finish: None,
            prompt_tokens: 1,
            generated_tokens: 0,
            remaining_tokens: 9,
            text_bytes: 0,
            cache_positions: 10,
            kv_cache: CachePrecision::default(),
            error: None,
        }
    }

    fn record() -> SessionRecord {
        let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
        Session::new(&model, vec![1, 2, 3], SessionOptions::default()).unwrap().record()
    }

    #[test]
    fn lists_by_owner_and_after_an_id_also_after_reopening() {
        let memory = VectorMemory::default();
        let [a, b] = [Principal::from_slice(&[1]), Principal::from_slice(&[1, 0])];
        let record = record();
        let mut store = SessionStore::open(&Memories::open(memory.clone()));
        for (id, owner) in [(1, a), (2, b), (3, a), (300, a)] {
            store.put(id, &head(owner), &record);
        }
        store.remove(3, &a);
        let store = SessionStore::open(&Memories::open(memory));
        assert_eq!((store.ids(Some(&a), 0, 9), store.ids(Some(&b), 0, 9)), (vec![1, 300], vec![2]));
        assert_eq!(
            (store.ids(Some(&a), 1, 9), store.ids(None, 1, 1), store.ids(None, 0, 9)),
            (vec![300], vec![2], vec![1, 2, 300])
        );
        assert_eq!((store.len(), store.len_of(&a), store.len_of(&Principal::anonymous())), (3, 2, 0));
        assert!(store.ids(None, u64::MAX, 9).is_empty());
        assert_eq!(store.record(1), Ok(record));
        assert_eq!((store.head(300), store.head(3)), (Ok(Some(head(a))), Ok(None)));
        assert!(matches!(store.record(3), Err(Error::Damaged { .. })));
    }
}

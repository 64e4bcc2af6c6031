//! What clients may read without waiting for the canisters: the state tree, certificates of parts of it, the clock.
//!
//! The executor keeps it up to date; everything here answers at once, also while a long message is executed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use candid::Principal;
use ic_certification::Certificate;
use serde_bytes::ByteBuf;

use super::encoding::{cbor, leb128};
use super::keys::SubnetKeys;
use super::requests::Requests;
use super::tree::{Path, Tree};
use crate::shim::Canister;

/// Lowest and highest id that a canister can have: eight bytes of number, two that say what it is.
const CANISTER_RANGE: [[u8; 10]; 2] = [[0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [255, 255, 255, 255, 255, 255, 255, 255, 1, 1]];

/// Time that never runs backwards, not even from one run to the next.
#[derive(Debug)]
pub struct Clock {
    latest_ns: AtomicU64,
}

impl Clock {
    /// A clock that shows `start_ns` at least.
    pub fn new(start_ns: u64) -> Self {
        Self { latest_ns: AtomicU64::new(start_ns) }
    }

    /// Nanoseconds since 1970.
    pub fn now_ns(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.latest_ns.fetch_max(now, SeqCst).max(now)
    }
}

/// What is told about a canister.
struct Told {
    /// What `tree` was made of; it is made anew when this changes.
    version: u64,
    module_hash: Option<[u8; 32]>,
    controllers: Vec<Principal>,
    certified_data: Vec<u8>,
    private_metadata: Vec<Vec<u8>>,
    tree: Arc<Tree>,
}

impl Told {
    fn of(canister: &Canister) -> Self {
        let settings = canister.settings();
        let controllers: Vec<_> = settings.controllers.iter().copied().collect();
        let metadata = canister.code().map(|code| &code.info().metadata);
        let sections = metadata.into_iter().flatten();
        let private = sections.clone().filter(|(_, section)| !section.public);
        let mut children = vec![
            ("certified_data", Tree::leaf(canister.certified_data())),
            ("controllers", Tree::leaf(principals(&controllers))),
        ];
        if let Some(hash) = canister.module_hash() {
            let sections =
                sections.clone().map(|(name, section)| (name.as_str(), Tree::leaf(section.bytes.as_slice())));
            children.push(("metadata", Tree::branch(sections)));
            children.push(("module_hash", Tree::leaf(hash)));
        }
        Self {
            version: canister.version(),
            module_hash: canister.module_hash(),
            private_metadata: private.map(|(name, _)| name.as_bytes().to_vec()).collect(),
            certified_data: canister.certified_data().to_vec(),
            tree: Tree::branch(children),
            controllers,
        }
    }

    fn is_current(&self, canister: &Canister) -> bool {
        // The version alone says it, except for a canister that was deleted and created again.
        self.version == canister.version()
            && self.module_hash == canister.module_hash()
            && self.certified_data == canister.certified_data()
            && canister.settings().controllers.iter().eq(&self.controllers)
    }
}

/// A list of principals as values of state trees have it: CBOR of blobs.
fn principals(list: &[Principal]) -> Vec<u8> {
    let blobs: Vec<_> = list.iter().map(|principal| ByteBuf::from(principal.as_slice())).collect();
    cbor(&blobs).unwrap_or_default()
}

/// The state tree and those who sign it.
pub struct State {
    /// Keys of subnet and node.
    pub keys: SubnetKeys,
    /// The clock.
    pub clock: Clock,
    /// Calls of users.
    pub requests: Requests,
    canisters: Mutex<BTreeMap<Principal, Told>>,
    /// Parts that never change.
    subnet: Arc<Tree>,
    ranges: Arc<Tree>,
}

impl State {
    /// The state of a subnet without canisters.
    pub fn new(keys: SubnetKeys, start_ns: u64) -> Self {
        let ranges = CANISTER_RANGE.map(ByteBuf::from);
        let ranges = cbor(&[ranges]).unwrap_or_default();
        let subnet_id = keys.subnet_id();
        let node = Tree::branch([("public_key", Tree::leaf(keys.node_key_der()))]);
        let subnet = Tree::branch([
            ("canister_ranges", Tree::leaf(ranges.as_slice())),
            ("node", Tree::branch([(keys.node_id().as_slice(), node)])),
            ("public_key", Tree::leaf(keys.root_key_der())),
            ("type", Tree::leaf("application")),
        ]);
        let shard = Tree::branch([(CANISTER_RANGE[0], Tree::leaf(ranges))]);
        Self {
            clock: Clock::new(start_ns),
            requests: Requests::default(),
            canisters: Mutex::default(),
            subnet: Tree::branch([(subnet_id.as_slice(), subnet)]),
            ranges: Tree::branch([(subnet_id.as_slice(), shard)]),
            keys,
        }
    }

    fn canisters(&self) -> MutexGuard<'_, BTreeMap<Principal, Told>> {
        self.canisters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what changed about the canisters.
    pub fn publish<'a>(&self, canisters: impl Iterator<Item = &'a Canister>) {
        let mut told = self.canisters();
        let mut before = std::mem::take(&mut *told);
        for canister in canisters {
            let id = canister.id();
            let kept = before.remove(&id).filter(|told| told.is_current(canister));
            told.insert(id, kept.unwrap_or_else(|| Told::of(canister)));
        }
    }

    /// Ids of all canisters.
    pub fn canister_ids(&self) -> Vec<Principal> {
        self.canisters().keys().copied().collect()
    }

    /// Whether `reader` may see a metadata section of a canister.
    pub fn may_read_metadata(&self, canister: Principal, section: &[u8], reader: Principal) -> bool {
        self.canisters().get(&canister).is_none_or(|told| {
            told.controllers.contains(&reader) || !told.private_metadata.iter().any(|name| name == section)
        })
    }

    fn tree(&self) -> Arc<Tree> {
        let canisters = self.canisters();
        let canisters = Tree::branch(canisters.iter().map(|(id, told)| (id.as_slice(), Arc::clone(&told.tree))));
        Tree::branch([
            ("canister", canisters),
            ("canister_ranges", Arc::clone(&self.ranges)),
            ("request_status", self.requests.tree()),
            ("subnet", Arc::clone(&self.subnet)),
            ("time", Tree::leaf(leb128(self.clock.now_ns()))),
        ])
    }

    /// A signed certificate that shows what is under `paths`, and the time.
    pub fn certificate(&self, paths: &[Path<'_>]) -> Vec<u8> {
        let time = [b"time".to_vec()];
        let paths: Vec<Path<'_>> = paths.iter().copied().chain([time.as_slice()]).collect();
        let tree = self.tree();
        let signature = self.keys.sign_root_hash(&tree.digest()).to_vec();
        let certificate = Certificate { tree: tree.show(&paths), signature, delegation: None };
        // A certificate is made of byte strings and lists, which CBOR can always express.
        cbor(&certificate).unwrap_or_default()
    }
}

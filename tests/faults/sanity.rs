//! Whether stable memory holds together, read natively with the canister's own code.

use candid::Principal;
use canister::directory::{Directory, DirectoryCell};
use canister::ledger::Ledger;
use canister::memory::{DIRECTORY, HEADER, Header, Memories};
use canister::session_store::SessionStore;
use end_to_end::{Icllama, ShimHost};
use ic_stable_structures::{Memory, VectorMemory};

/// A copy of the canister's stable memory.
fn copied(icllama: &mut Icllama<ShimHost>) -> VectorMemory {
    let id = icllama.canister;
    let stable = icllama.host.replica().canister(id).unwrap().stable();
    let memory = VectorMemory::default();
    memory.grow(stable.pages());
    for (page, bytes) in stable.filled_pages() {
        memory.write(page << 16, bytes);
    }
    memory
}

/// Every structure opens, and they agree with each other and with what the canister says.
pub fn check(icllama: &mut Icllama<ShimHost>) {
    let memory = copied(icllama);
    let memories = Memories::open(memory);
    Header::open(memories.region(HEADER)).unwrap();
    let directory = DirectoryCell::open(memories.region(DIRECTORY)).unwrap().get().clone();
    let slots = slots(&directory);
    assert!(slots.iter().all(|slot| *slot < 2) && (slots.len() < 2 || slots[0] != slots[1]), "{directory:?}");
    let total = directory.upload.as_ref().map_or(0, |upload| upload.placed.file.bytes);
    let ledger = Ledger::open(&memories);
    let missing: u64 = ledger.missing(0, total, usize::MAX).0.iter().map(|gap| gap.bytes).sum();
    assert_eq!(ledger.received() + missing, total, "{directory:?}");
    let mut heads = Vec::new();
    let store = SessionStore::open(&memories, |id, head| heads.push((id, head.clone()))).unwrap();
    for (id, head) in heads {
        let record = store.record(id).unwrap();
        let (tokens, generated) = (record.tokens().len() as u32, record.generated_tokens() as u32);
        assert_eq!(
            (head.prompt_tokens + head.generated_tokens, head.generated_tokens),
            (tokens, generated),
            "{head:?}"
        );
        assert_eq!(record.finish_reason().map(Into::into), head.finish, "{head:?}");
        assert_ne!(head.owner, Principal::anonymous());
    }
}

/// The slots that are in use.
fn slots(directory: &Directory) -> Vec<u8> {
    let upload = directory.upload.as_ref().map(|upload| &upload.placed);
    let placed = [directory.current.as_ref(), directory.candidate.as_ref(), upload];
    placed.into_iter().flatten().map(|placed| placed.slot).collect()
}

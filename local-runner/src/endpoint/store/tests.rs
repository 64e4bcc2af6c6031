//! Replicas that go on from a folder.

use super::*;
use crate::shim::replica::InstallMode;
use crate::shim::{Config, Reject};

/// Counts in heap, in a global and in stable memory, and grows both memories.
const COUNTER: &str = r#"(module
  (import "ic0" "msg_reply" (func $msg_reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (memory (export "memory") 1)
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 100) "image")
  (func $reply
    (i32.store (i32.const 8) (global.get $calls))
    (call $stable_read (i64.const 16) (i64.const 70000) (i64.const 4))
    (i32.store (i32.const 12) (memory.size))
    (call $append (i32.const 0) (i32.const 20))
    (call $append (i32.const 100) (i32.const 5))
    (call $msg_reply))
  (func (export "canister_init") (drop (call $stable_grow (i64.const 2))))
  (func (export "canister_query read") (call $reply))
  (func (export "canister_update count")
    (drop (memory.grow (i32.const 1)))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 3)))
    (i32.store8 (i32.const 100) (i32.const 73))
    (call $stable_write (i64.const 70000) (i64.const 0) (i64.const 4))
    (call $certify (i32.const 0) (i32.const 4))
    (call $reply)))"#;

fn empty() -> Replica {
    Replica::new(Config { module_cache: None, ..Config::default() }).unwrap()
}

fn restored(folder: &Path) -> (Store, Replica) {
    let (mut store, _) = Store::open(folder).unwrap();
    let mut replica = empty();
    store.restore(&mut replica).unwrap();
    (store, replica)
}

fn read(replica: &mut Replica, canister: Principal) -> Result<Vec<u8>, Reject> {
    replica.query(canister, Principal::anonymous(), "read", b"").result
}

fn with_counter(replica: &mut Replica) -> Principal {
    let me = Principal::anonymous();
    let canister = replica.create_canister([me]);
    let wasm = wat::parse_str(COUNTER).unwrap();
    replica.install(canister, InstallMode::Install, &wasm, b"", me).result.unwrap();
    replica.update(canister, me, "count", b"").result.unwrap();
    canister
}

#[test]
fn canisters_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut replica = empty();
    let canister = with_counter(&mut replica);
    let untouched = replica.create_canister([canister]);
    replica.advance_time(5);
    let (mut store, keys) = Store::open(folder.path()).unwrap();
    store.save(&mut replica).unwrap();
    drop(store);

    let (_store, mut again) = restored(folder.path());
    assert_eq!(again.progress(), replica.progress());
    for id in [canister, untouched] {
        assert_eq!(again.canister(id).unwrap().snapshot(), replica.canister(id).unwrap().snapshot());
    }
    assert_eq!(again.canister(canister).unwrap().module_hash(), replica.canister(canister).unwrap().module_hash());
    let reply = read(&mut again, canister);
    assert_eq!(reply, read(&mut replica, canister));
    assert_eq!(reply.unwrap()[20..], *b"Image");
    for replica in [&mut replica, &mut again] {
        replica.update(canister, Principal::anonymous(), "count", b"").result.unwrap();
    }
    assert_eq!(read(&mut again, canister), read(&mut replica, canister));
    drop(_store);
    assert_eq!(Store::open(folder.path()).unwrap().1.root_key_der(), keys.root_key_der());
}

#[test]
fn only_what_changed_is_written_and_nothing_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut replica = empty();
    let (first, second) = (with_counter(&mut replica), with_counter(&mut replica));
    let (mut store, _) = Store::open(folder.path()).unwrap();
    let files = || {
        let names = fs::read_dir(folder.path().join("memory")).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    store.save(&mut replica).unwrap();
    let before = files();
    assert_eq!(before.len(), 4);
    replica.update(second, Principal::anonymous(), "count", b"").result.unwrap();
    store.save(&mut replica).unwrap();
    let after = files();
    assert_eq!(after.len(), 4);
    assert!(after.intersection(&before).all(|name| name.starts_with(&first.to_text())));
    assert_eq!(after.intersection(&before).count(), 2);
    drop(store);
    assert_eq!(read(&mut restored(folder.path()).1, second), read(&mut replica, second));
}

#[test]
fn a_save_that_broke_off_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut replica = empty();
    let canister = with_counter(&mut replica);
    let (mut store, _) = Store::open(folder.path()).unwrap();
    store.save(&mut replica).unwrap();
    let expected = read(&mut replica, canister);
    replica.update(canister, Principal::anonymous(), "count", b"").result.unwrap();
    // All files of the next save but the one that counts.
    fs::create_dir(folder.path().join("replica.part")).unwrap();
    assert!(matches!(store.save(&mut replica), Err(StoreError::Io { action: "write", .. })));
    drop(store);
    fs::remove_dir(folder.path().join("replica.part")).unwrap();
    assert_eq!(read(&mut restored(folder.path()).1, canister), expected);
}

#[test]
fn damaged_and_foreign_folders_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut replica = empty();
    with_counter(&mut replica);
    let (mut store, _) = Store::open(folder.path()).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked(_))));
    store.save(&mut replica).unwrap();
    drop(store);
    let manifest = folder.path().join("replica.json");
    let good = fs::read_to_string(&manifest).unwrap();
    let fails = || {
        let (mut store, _) = Store::open(folder.path()).unwrap();
        store.restore(&mut empty()).unwrap_err()
    };
    fs::write(&manifest, good.replacen("\"format\":1", "\"format\":9", 1)).unwrap();
    assert!(matches!(fails(), StoreError::Format { found: 9, .. }));
    fs::write(&manifest, &good[..good.len() / 2]).unwrap();
    assert!(matches!(fails(), StoreError::Damaged { .. }));
    fs::write(&manifest, &good).unwrap();
    for file in fs::read_dir(folder.path().join("memory")).unwrap().map(|entry| entry.unwrap().path()) {
        File::options().write(true).open(file).unwrap().set_len(100).unwrap();
    }
    assert!(matches!(fails(), StoreError::Canister { reason: RestoreError::Read(_), .. }));
    fs::write(folder.path().join("keys.json"), "{}").unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Damaged { .. })));
}

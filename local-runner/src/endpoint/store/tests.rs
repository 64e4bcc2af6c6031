//! Replicas that go on from a folder.

use proptest::prelude::*;

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

fn memory_files(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder.join("memory")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn only_what_changed_is_written_and_nothing_is_left_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut replica = empty();
    let (first, second) = (with_counter(&mut replica), with_counter(&mut replica));
    let (mut store, _) = Store::open(folder.path()).unwrap();
    store.save(&mut replica).unwrap();
    let before = memory_files(folder.path());
    assert_eq!(before.len(), 4);
    replica.update(second, Principal::anonymous(), "count", b"").result.unwrap();
    store.save(&mut replica).unwrap();
    let after = memory_files(folder.path());
    let new: Vec<_> = after.difference(&before).collect();
    assert_eq!((after.len(), new.len()), (6, 2));
    for file in new {
        assert!(file.starts_with(&second.to_text()), "{file}");
        assert_eq!(fs::metadata(folder.path().join("memory").join(file)).unwrap().len(), 8 + PAGE_BYTES as u64);
    }
    store.save(&mut replica).unwrap();
    assert_eq!(memory_files(folder.path()), after, "nothing changed");
    for _ in 0..9 {
        replica.update(second, Principal::anonymous(), "count", b"").result.unwrap();
        store.save(&mut replica).unwrap();
        assert!(memory_files(folder.path()).len() <= 8, "changes that outgrow the rest are put together");
    }
    drop(store);
    let (_store, mut again) = restored(folder.path());
    for canister in [first, second] {
        assert_eq!(read(&mut again, canister), read(&mut replica, canister));
    }
}

/// Writes the byte that its argument begins with to the page that the next byte names, of the heap or of stable memory, and
/// traps after it if the third says so. `dump` replies with the first byte of 8 pages of each.
const POKE: &str = r#"(module
  (import "ic0" "msg_arg_data_copy" (func $arg (param i32 i32 i32)))
  (import "ic0" "msg_reply" (func $msg_reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
  (memory (export "memory") 9)
  (data (i32.const 200000) "image")
  (func (export "canister_init") (drop (call $stable_grow (i64.const 8))))
  (func (export "canister_post_upgrade"))
  (func $address (result i32) (i32.mul (i32.load8_u (i32.const 1)) (i32.const 65536)))
  (func $finish
    (if (i32.load8_u (i32.const 2)) (then (unreachable)))
    (call $msg_reply))
  (func (export "canister_update heap")
    (call $arg (i32.const 0) (i32.const 0) (i32.const 3))
    (i32.store8 (i32.add (i32.const 65536) (call $address)) (i32.load8_u (i32.const 0)))
    (call $finish))
  (func (export "canister_update stable")
    (call $arg (i32.const 0) (i32.const 0) (i32.const 3))
    (call $stable_write (i64.extend_i32_u (call $address)) (i64.const 0) (i64.const 1))
    (call $finish))
  (func (export "canister_query dump") (local $page i32)
    (loop $next
      (call $append (i32.add (i32.const 65536) (i32.mul (local.get $page) (i32.const 65536))) (i32.const 1))
      (call $stable_read (i64.const 10) (i64.extend_i32_u (i32.mul (local.get $page) (i32.const 65536))) (i64.const 1))
      (call $append (i32.const 10) (i32.const 1))
      (local.set $page (i32.add (local.get $page) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $page) (i32.const 8))))
    (call $append (i32.const 200000) (i32.const 5))
    (call $msg_reply)))"#;

#[derive(Debug, Clone)]
enum Step {
    Poke { memory: Memory, value: u8, page: u8, trap: bool },
    Save,
    Restart,
    Install(InstallMode),
}

fn step() -> impl Strategy<Value = Step> {
    let memory = prop_oneof![Just(Memory::Heap), Just(Memory::Stable)];
    let poke = (memory, 0..3u8, 0..8u8, prop::bool::weighted(0.2));
    prop_oneof![
        6 => poke.prop_map(|(memory, value, page, trap)| Step::Poke { memory, value, page, trap }),
        3 => Just(Step::Save),
        1 => Just(Step::Restart),
        1 => prop_oneof![Just(InstallMode::UPGRADE), Just(InstallMode::Reinstall)].prop_map(Step::Install),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_row_of_changes_saves_and_restarts_keeps_both_memories(steps in prop::collection::vec(step(), 1..40)) {
        let me = Principal::anonymous();
        let wasm = wat::parse_str(POKE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (mut store, mut replica) = restored(folder.path());
        let id = replica.create_canister([me]);
        replica.install(id, InstallMode::Install, &wasm, b"", me).result.unwrap();
        for step in steps.into_iter().chain([Step::Save, Step::Restart]) {
            match step {
                Step::Poke { memory, value, page, trap } => {
                    let method = if memory == Memory::Heap { "heap" } else { "stable" };
                    let result = replica.update(id, me, method, &[value, page, trap.into()]).result;
                    prop_assert_eq!(result.is_err(), trap);
                }
                Step::Install(mode) => replica.install(id, mode, &wasm, b"", me).result.map(|_| ()).unwrap(),
                Step::Save => store.save(&mut replica).unwrap(),
                Step::Restart => {
                    store.save(&mut replica).unwrap();
                    drop(store);
                    let expected = replica.query(id, me, "dump", b"").result.unwrap();
                    (store, replica) = restored(folder.path());
                    prop_assert_eq!(replica.query(id, me, "dump", b"").result.unwrap(), expected);
                }
            }
        }
    }
}

#[test]
fn a_folder_that_is_just_being_given_back_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let ending = std::thread::spawn(move || {
        sleep(LOCK_TIME / 10);
        drop(store);
    });
    assert!(Store::open(folder.path()).is_ok());
    ending.join().unwrap();
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

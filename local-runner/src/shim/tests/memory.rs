//! Stable memory, its limits and charges, and the limit on the heap.

use super::*;

const STABLE: &str = r#"
  (func $arg (param $at i32) (result i64) (i64.load (i32.add (i32.const 100) (local.get $at))))
  (func (export "canister_update grow")
    (drop (call $take_arg (i32.const 100)))
    (call $reply_u64 (call $stable64_grow (call $arg (i32.const 0)))))
  (func (export "canister_update grow32")
    (drop (call $take_arg (i32.const 100)))
    (call $reply_u64 (i64.extend_i32_s (call $stable_grow (i32.load (i32.const 100))))))
  (func (export "canister_query size") (call $reply_u64 (call $stable64_size)))
  (func (export "canister_query size32") (call $reply_u64 (i64.extend_i32_u (call $stable_size))))
  ;; Argument: stable offset, heap address, length.
  (func $write
    (drop (call $take_arg (i32.const 100)))
    (call $stable64_write (call $arg (i32.const 0)) (call $arg (i32.const 8)) (call $arg (i32.const 16)))
    (call $reply_counter))
  (func (export "canister_update write") (call $write))
  (func (export "canister_query write_query") (call $write))
  (func $read
    (drop (call $take_arg (i32.const 100)))
    (call $stable64_read (call $arg (i32.const 8)) (call $arg (i32.const 0)) (call $arg (i32.const 16)))
    (call $reply (i32.wrap_i64 (call $arg (i32.const 8))) (i32.wrap_i64 (call $arg (i32.const 16)))))
  (func (export "canister_update read_update") (call $read))
  (func (export "canister_query read") (call $read))
  (func (export "canister_update write32")
    (drop (call $take_arg (i32.const 100)))
    (call $stable_write (i32.load (i32.const 100)) (i32.load (i32.const 108)) (i32.load (i32.const 116)))
    (call $reply_counter))
  (func (export "canister_query read32")
    (drop (call $take_arg (i32.const 100)))
    (call $stable_read (i32.load (i32.const 108)) (i32.load (i32.const 100)) (i32.load (i32.const 116)))
    (call $reply (i32.load (i32.const 108)) (i32.load (i32.const 116))))
"#;

const PAGE: u64 = 65_536;

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn grows_reads_and_writes() {
    let mut shim = Shim::new(STABLE);
    assert_eq!(number(&shim.update("grow", &words(&[2]))), 0);
    assert_eq!(number(&shim.update("grow32", &words(&[1]))), 2);
    assert_eq!(number(&shim.query("size", b"")), 3);
    assert_eq!(number(&shim.query("size32", b"")), 3);
    shim.update("write", &words(&[PAGE - 4, 100, 24])).result.unwrap();
    let expected = words(&[PAGE - 4, 100, 24]);
    assert_eq!(shim.query("read", &words(&[PAGE - 4, 2000, 24])).result, Ok(expected.clone()));
    assert_eq!(shim.query("read32", &words(&[PAGE - 4, 2000, 24])).result, Ok(expected));
    shim.update("write32", &words(&[7, 100, 8])).result.unwrap();
    assert_eq!(number(&shim.query("read", &words(&[7, 2000, 8]))), 7);
    assert_eq!(number(&shim.query("write_query", &words(&[7, 200, 8]))), 0);
    assert_eq!(number(&shim.query("read", &words(&[7, 2000, 8]))), 7, "writes of queries are dropped");
}

#[test]
fn traps_outside_stable_memory_and_outside_the_heap() {
    let mut shim = Shim::new(STABLE);
    shim.update("grow", &words(&[1]));
    let stable = "Canister trapped: stable memory out of bounds";
    let heap = "Canister trapped: heap out of bounds";
    let code = RejectCode::CanisterError;
    assert_rejected(&shim.query("read", &words(&[PAGE - 7, 0, 8])), code, 502, stable);
    assert_rejected(&shim.query("read", &words(&[u64::MAX, 0, 8])), code, 502, stable);
    assert_rejected(&shim.query("read", &words(&[0, 2 * PAGE - 7, 8])), code, 502, heap);
    assert_rejected(&shim.query("read", &words(&[0, 1 << 32, 8])), code, 502, heap);
    assert_rejected(&shim.update("write", &words(&[PAGE - 7, 0, 8])), code, 502, stable);
    assert_rejected(&shim.update("write", &words(&[0, u64::MAX, 8])), code, 502, heap);
    assert_eq!(shim.query("read", &words(&[u64::MAX, 0, 0])).result, Ok(vec![]), "nothing to copy, nothing to check");
}

#[test]
fn limits_its_size_and_keeps_the_32_bit_functions_below_4_gib() {
    let mut config = config();
    config.limits.memory.stable_bytes = 70_000 * PAGE;
    let mut shim = Shim::with(config, STABLE);
    assert_eq!(number(&shim.update("grow", &words(&[70_001]))), u64::MAX);
    assert_eq!(number(&shim.update("grow", &words(&[65_536]))), 0);
    assert_eq!(number(&shim.update("grow32", &words(&[1]))), u64::MAX);
    assert_eq!(number(&shim.query("size32", b"")), 65_536);
    assert_eq!(number(&shim.update("grow", &words(&[4_464]))), 65_536);
    let text = "32 bit stable memory api used on a memory larger than 4GB";
    assert_rejected(&shim.query("size32", b""), RejectCode::CanisterError, 502, text);
    assert_rejected(&shim.query("read32", &words(&[0, 0, 8])), RejectCode::CanisterError, 502, text);
    assert_eq!(shim.canister().stable().resident_bytes(), 0, "pages that were never written take no memory");
}

#[test]
fn charges_pages_once_per_message() {
    let mut shim = Shim::new(STABLE);
    shim.update("grow", &words(&[10]));
    let read = shim.update("read_update", &words(&[PAGE - 1, 2000, 2]));
    assert_eq!((read.messages[0].stable.accessed, read.messages[0].stable.written), (32, 0));
    assert_eq!(read.messages[0].stable.instructions(), 32 * 5_000);
    let write = shim.update("write", &words(&[0, 100, 8]));
    assert_eq!(write.messages[0].stable.instructions(), 16 * 10_000);
    assert!(write.messages[0].largest_operation >= 16 * 10_000 + 28);
    let query = shim.query("write_query", &words(&[0, 100, 8]));
    assert_eq!(query.messages[0].stable.instructions(), 16 * 5_000, "writes of queries are not charged");
    let empty = shim.update("write", &words(&[0, 100, 0]));
    assert_eq!(empty.messages[0].stable.instructions(), 0);
    // Same system calls and heap pages; 8 bytes and 16 pages of stable memory more.
    assert_eq!(write.instructions() - empty.instructions(), 8 + 16 * 10_000);
}

#[test]
fn charges_by_the_older_rules_when_asked() {
    let config = Config { pages: crate::shim::costs::PageCharges::LEGACY, ..config() };
    let mut shim = Shim::with(config, STABLE);
    shim.update("grow", &words(&[10]));
    let write = shim.update("write", &words(&[4095, 100, 8]));
    assert_eq!(write.messages[0].stable.instructions(), 2 * 1_000, "4 KiB pages, writes only");
    let read = shim.update("read_update", &words(&[4095, 2000, 8]));
    assert_eq!(read.messages[0].stable.instructions(), 0);
}

#[test]
fn limits_the_pages_a_message_may_touch() {
    let mut config = config();
    config.limits.memory.stable_access_update = 8192;
    config.limits.memory.stable_access_query = 4096;
    let mut shim = Shim::with(config, STABLE);
    shim.update("grow", &words(&[10]));
    shim.update("read_update", &words(&[0, 2000, 8192])).result.unwrap();
    let report = shim.update("read_update", &words(&[0, 2000, 8193]));
    let text = "Canister exceeded memory access limits: Exceeded the limit for the number of accessed pages in the \
                stable memory in a single message execution: limit 8 KB for regular messages and 4 KB for queries.";
    assert_rejected(&report, RejectCode::CanisterError, 524, text);
    assert_eq!(reject(&shim.update("write", &words(&[4095, 100, 4098]))).error_code, 524);
    shim.query("read", &words(&[0, 2000, 4096])).result.unwrap();
    assert_eq!(reject(&shim.query("read", &words(&[1, 2000, 4096]))).error_code, 524);
}

#[test]
fn enforces_the_wasm_memory_limit_in_updates_but_not_in_queries() {
    let mut shim = Shim::new(
        r#"
        (func $grow (call $reply_u64 (i64.extend_i32_s (memory.grow (i32.const 3)))))
        (func (export "canister_update grow") (call $grow))
        (func (export "canister_query grow_query") (call $grow))
        (func (export "canister_update too_much") (call $reply_u64 (i64.extend_i32_s (memory.grow (i32.const 999)))))"#,
    );
    shim.replica.canisters.get_mut(&shim.id).unwrap().settings.wasm_memory_limit = 4 * PAGE;
    let text = "Canister exceeded its current Wasm memory limit of 262144 bytes.";
    assert_rejected(&shim.update("grow", b""), RejectCode::CanisterError, 539, text);
    assert_eq!(shim.canister().heap_bytes(), 2 * PAGE);
    assert_eq!(number(&shim.query("grow_query", b"")), 2);
    assert_eq!(number(&shim.update("too_much", b"")), u64::MAX, "beyond the module's maximum, grow fails as usual");
    shim.replica.canisters.get_mut(&shim.id).unwrap().settings.wasm_memory_limit = 0;
    assert_eq!(number(&shim.update("grow", b"")), 2);
}

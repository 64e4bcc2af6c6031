//! Several continuations of one past, and canisters that run dry at once.

use super::*;
use crate::shim::queue::Message;

/// `ask` calls `add` of its own, which counts in heap, global and stable memory; the callback answers the heap's count.
const COUNTER: &str = r#"
  (table funcref (elem $done))
  (global $g (mut i64) (i64.const 0))
  (data (i32.const 300) "add")
  (func $done (param i32) (call $reply_counter))
  (func (export "canister_init") (drop (call $stable64_grow (i64.const 2))))
  (func (export "canister_update add")
    (global.set $g (i64.add (global.get $g) (i64.const 1)))
    (call $count (i64.const 1))
    (call $stable64_write (i64.const 70000) (i64.const 0) (i64.const 8))
    (call $reply_counter))
  (func (export "canister_update ask")
    (call $canister_self_copy (i32.const 100) (i32.const 0) (i32.const 10))
    (call $call_new (i32.const 100) (i32.const 10) (i32.const 300) (i32.const 3)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (drop (call $call_perform)))
  (func (export "canister_query all")
    (call $stable64_read (i64.const 500) (i64.const 70000) (i64.const 8))
    (call $reply_u64 (i64.add (i64.load (i32.const 0))
      (i64.add (i64.mul (i64.const 100) (global.get $g)) (i64.mul (i64.const 10000) (i64.load (i32.const 500)))))))
"#;

/// What the canister counted: heap, hundreds of the global, ten thousands of stable memory.
fn counted(replica: &mut Replica, id: Principal) -> u64 {
    number(&replica.query(id, user(), "all", b""))
}

#[test]
fn a_fork_goes_on_by_itself_also_from_the_middle_of_a_call() {
    let mut shim = Shim::new(COUNTER);
    shim.update("add", b"");
    let call = shim.replica.submit(shim.id, user(), "ask", b"").unwrap();
    shim.replica.step();
    let waiting = shim.replica.next_message();
    assert!(matches!(waiting, Some(Message::Request(request)) if request.method == "add"), "{waiting:?}");
    let mut fork = shim.replica.fork().unwrap();
    assert_eq!(number(&fork.wait(call)), 2);
    for count in 3..6 {
        assert_eq!(number(&fork.update(shim.id, user(), "add", b"")), count);
    }
    assert_eq!((counted(&mut fork, shim.id), counted(&mut shim.replica, shim.id)), (50_505, 10_101));
    // What the fork did is nothing to the other, and the other way round; both do the same when asked the same.
    let mut again = shim.replica.fork().unwrap();
    let (report, same) = (shim.replica.wait(call), again.wait(call));
    assert_eq!((number(&report), report.instructions()), (2, same.instructions()));
    assert_eq!(report.usage, same.usage);
    let failed = fork.install(shim.id, InstallMode::Reinstall, &module(COUNTER), b"", user());
    assert!(failed.result.is_ok() && counted(&mut fork, shim.id) == 0, "{failed:?}");
    assert_eq!(counted(&mut shim.replica, shim.id), 20_202);
    assert_eq!(again.next_message(), None);
}

#[test]
fn what_was_called_last_may_be_executed_first() {
    let mut shim = Shim::new(COUNTER);
    let calls = [1, 2, 3].map(|_| shim.replica.submit(shim.id, user(), "add", b"").unwrap());
    shim.replica.hurry_last();
    assert_eq!(calls.map(|call| number(&shim.replica.wait(call))), [2, 3, 1]);
}

#[test]
fn a_canister_that_runs_dry_refuses_everything_until_it_is_topped_up() {
    let mut shim = Shim::with(Config { enforce_cycles: true, ..config() }, COUNTER);
    let (id, version) = (shim.id, shim.canister().version());
    let call = shim.replica.submit(id, user(), "ask", b"").unwrap();
    shim.replica.step();
    let before = shim.replica.set_balance(id, 0).unwrap();
    assert!(before > 0 && shim.canister().version() > version);
    // The call to itself is refused, and so is the next call from outside; the callback, which is paid for, runs.
    assert_eq!(number(&shim.replica.wait(call)), 0);
    assert_rejected(&shim.update("add", b""), RejectCode::SysTransient, 207, "out of cycles");
    assert_eq!(shim.replica.set_balance(id, before), Some(0));
    assert_eq!(number(&shim.update("ask", b"")), 1);
    assert_eq!(shim.replica.set_balance(stranger(), 1), None);
}

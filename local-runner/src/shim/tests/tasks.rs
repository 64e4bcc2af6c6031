//! Heartbeats, the global timer, the low-memory hook, and the clock.

use super::*;

const TIMER: &str = r#"
  (func (export "canister_update arm")
    (drop (call $take_arg (i32.const 100)))
    (call $reply_u64 (call $global_timer_set (i64.load (i32.const 100)))))
  (func (export "canister_global_timer")
    (call $count (i64.const 1))
    (i64.store (i32.const 8) (call $global_timer_set (i64.const 0))))
  (func (export "canister_query get") (call $reply_counter))
"#;

#[test]
fn fires_the_timer_once_when_it_is_due() {
    let mut shim = Shim::new(TIMER);
    let due = shim.replica.time_ns() + 2_500_000_000;
    assert_eq!(number(&shim.update("arm", &due.to_le_bytes())), 0);
    assert_eq!(number(&shim.update("arm", &due.to_le_bytes())), due, "arming answers the deadline before");
    assert_eq!(shim.canister().timer_ns(), Some(due));
    assert!(shim.replica.run_timers().is_empty());
    assert_eq!(shim.replica.tick().len(), 0);
    assert_eq!(shim.replica.tick().len(), 0);
    let fired = shim.replica.tick();
    assert_eq!(fired.iter().map(|message| message.mode.name()).collect::<Vec<_>>(), ["global timer"]);
    assert_eq!(shim.canister().timer_ns(), None);
    shim.replica.advance_time(10_000_000_000);
    assert!(shim.replica.run_timers().is_empty());
    assert_eq!(number(&shim.query("get", b"")), 1);
}

#[test]
fn gives_up_on_answers_that_never_come() {
    let config = Config { patience_ticks: 3, messages_per_run: 1_000, ..config() };
    let mut shim = Shim::with(
        config,
        r#"
        (table funcref (elem $again))
        (func $again (param i32) (call $ask))
        (func $ask
          (call $canister_self_copy (i32.const 100) (i32.const 0) (i32.const 10))
          (call $call_new (i32.const 100) (i32.const 10) (i32.const 300) (i32.const 4)
                          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
          (drop (call $call_perform)))
        (data (i32.const 300) "noop")
        (func (export "canister_update noop") (call $reply_u64 (i64.const 0)))
        (func (export "canister_update forever") (call $ask))"#,
    );
    let report = shim.update("forever", b"");
    assert_rejected(&report, RejectCode::SysUnknown, 602, "not answered within 1000 messages");
    assert_eq!(shim.replica.queued(), 1, "the canister goes on");
}

#[test]
fn runs_heartbeats_every_tick() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_heartbeat")
          (if (call $msg_caller_size) (then (unreachable)))
          (call $count (i64.const 1)))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    for _ in 0..3 {
        let reports = shim.replica.tick();
        assert_eq!(reports.iter().map(|report| report.mode.name()).collect::<Vec<_>>(), ["heartbeat"]);
    }
    assert_eq!(number(&shim.query("get", b"")), 3);
    assert_eq!(shim.replica.time_ns(), config().start_time_ns + 3_000_000_000);
}

#[test]
fn a_trapping_timer_changes_nothing_but_is_over() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_init") (drop (call $global_timer_set (i64.const 1))))
        (func (export "canister_global_timer") (call $count (i64.const 1)) (unreachable))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    let reports = shim.replica.run_timers();
    assert!(reports[0].trap.is_some());
    assert_eq!((shim.canister().timer_ns(), number(&shim.query("get", b""))), (None, 0));
    assert_eq!(shim.logs(), ["[TRAP]: unreachable"]);
}

#[test]
fn runs_the_low_memory_hook_once_per_shortage() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update grow") (drop (memory.grow (i32.const 1))) (call $reply_counter))
        (func (export "canister_on_low_wasm_memory") (call $count (i64.const 1)))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    let canister = shim.replica.canisters.get_mut(&shim.id).unwrap();
    canister.settings.wasm_memory_limit = 6 << 16;
    canister.settings.wasm_memory_threshold = 3 << 16;
    let hooks =
        |reports: Vec<crate::shim::MessageReport>| reports.iter().map(|report| report.mode.name()).collect::<Vec<_>>();
    shim.update("grow", b"");
    assert!(shim.replica.process().is_empty(), "three pages are free");
    shim.update("grow", b"");
    assert_eq!(hooks(shim.replica.process()), ["on low Wasm memory"]);
    shim.update("grow", b"");
    assert!(shim.replica.process().is_empty());
    assert_eq!(number(&shim.query("get", b"")), 1);
}

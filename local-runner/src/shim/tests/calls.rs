//! Calls between canisters: callbacks, cleanup, commit points, failures, deadlines.

use super::*;

/// Calls another canister. Addresses: argument at 100 (the callee's id), 10 is where the numbers are kept.
///
/// `ask` calls `METHOD` of the canister named by the argument and answers what it answers.
const CALLER: &str = r#"
  (table funcref (elem $replied $rejected $cleaned $trapping))
  (data (i32.const 300) "add" "fail" "refuse" "missing" "cleanup reply")
  (func $replied (param $env i32)
    (call $count (i64.extend_i32_u (local.get $env)))
    (call $reply (i32.const 400) (call $take_arg (i32.const 400))))
  (func $rejected (param $env i32)
    (call $count (i64.extend_i32_u (local.get $env)))
    (i32.store (i32.const 400) (call $msg_reject_code))
    (call $msg_reject_msg_copy (i32.const 404) (i32.const 0) (call $msg_reject_msg_size))
    (call $reply (i32.const 400) (i32.add (i32.const 4) (call $msg_reject_msg_size))))
  (func $cleaned (param $env i32) (call $count (i64.extend_i32_u (local.get $env))))
  (func $trapping (param $env i32) (call $count (i64.const 100000)) (unreachable))
  (func $start_call (param $name i32) (param $len i32) (param $on_reply i32)
    (call $count (i64.const 1))
    (call $call_new (i32.const 100) (call $take_arg (i32.const 100)) (local.get $name) (local.get $len)
                    (local.get $on_reply) (i32.const 10) (i32.const 1) (i32.const 100)))
  (func $perform (if (call $call_perform) (then (unreachable))))
  (func (export "canister_update ask") (call $start_call (i32.const 300) (i32.const 3) (i32.const 0)) (call $perform))
  (func (export "canister_update ask_failing") (call $start_call (i32.const 303) (i32.const 4) (i32.const 0)) (call $perform))
  (func (export "canister_update ask_refusing") (call $start_call (i32.const 307) (i32.const 6) (i32.const 0)) (call $perform))
  (func (export "canister_update ask_missing") (call $start_call (i32.const 313) (i32.const 7) (i32.const 0)) (call $perform))
  (func (export "canister_update trap_after")
    (call $start_call (i32.const 300) (i32.const 3) (i32.const 3))
    (call $call_on_cleanup (i32.const 2) (i32.const 1000))
    (call $perform))
  (func (export "canister_update trap_before")
    (call $start_call (i32.const 300) (i32.const 3) (i32.const 0)) (call $perform) (unreachable))
  (func (export "canister_update no_function")
    (call $start_call (i32.const 300) (i32.const 3) (i32.const 99)) (call $perform))
  (func (export "canister_update forget") (call $start_call (i32.const 300) (i32.const 3) (i32.const 2)) (call $perform))
  (func (export "canister_update early")
    (call $start_call (i32.const 300) (i32.const 3) (i32.const 2)) (call $perform) (call $reply_counter))
  (func (export "canister_update not_built") (drop (call $call_perform)))
  (func (export "canister_update built_twice")
    (call $start_call (i32.const 313) (i32.const 7) (i32.const 0))
    (call $start_call (i32.const 300) (i32.const 3) (i32.const 0)) (call $perform))
  (func (export "canister_update add") (call $count (i64.const 1)) (call $reply_counter))
  (func (export "canister_query get") (call $reply_counter))
"#;

const CALLEE: &str = r#"
  (func (export "canister_update add") (call $count (i64.const 7)) (call $reply_counter))
  (func (export "canister_update fail") (call $count (i64.const 7)) (unreachable))
  (data (i32.const 100) "no")
  (func (export "canister_update refuse") (call $msg_reject (i32.const 100) (i32.const 2)))
  (func (export "canister_query get") (call $reply_counter))
"#;

fn pair() -> (Shim, Principal) {
    let mut shim = Shim::new(CALLER);
    let callee = add(&mut shim.replica, CALLEE);
    (shim, callee)
}

fn count_of(shim: &mut Shim, id: Principal) -> u64 {
    number(&shim.replica.query(id, user(), "get", b""))
}

fn rejected(report: &CallReport) -> (u32, String) {
    let reply = report.result.as_ref().unwrap();
    let (code, text) = reply.split_at(4);
    (u32::from_le_bytes(code.try_into().unwrap()), String::from_utf8(text.to_vec()).unwrap())
}

#[test]
fn delivers_replies_to_the_reply_callback() {
    let (mut shim, callee) = pair();
    let report = shim.update("ask", callee.as_slice());
    assert_eq!(number(&report), 7);
    let modes: Vec<_> = report.messages.iter().map(|message| (message.canister, message.mode.name())).collect();
    assert_eq!(modes, [(shim.id, "update"), (callee, "update"), (shim.id, "reply callback")]);
    let caller = shim.id;
    assert_eq!(count_of(&mut shim, caller), 1 + 10);
    assert_eq!(count_of(&mut shim, callee), 7);
    assert_eq!((report.usage.executions, report.usage.calls), (3, 1));
}

#[test]
fn delivers_rejects_to_the_reject_callback() {
    let (mut shim, callee) = pair();
    let (code, text) = rejected(&shim.update("ask_failing", callee.as_slice()));
    assert_eq!(code, 5);
    assert!(text.contains("Canister trapped: unreachable"), "{text}");
    assert_eq!(rejected(&shim.update("ask_refusing", callee.as_slice())), (4, "no".into()));
    let (code, text) = rejected(&shim.update("ask_missing", callee.as_slice()));
    assert_eq!(code, 5);
    assert!(text.contains("no update method 'missing'"), "{text}");
    let nobody = super::super::replica::canister_id(77);
    assert_eq!(rejected(&shim.update("ask", nobody.as_slice())).0, 3);
    let caller = shim.id;
    assert_eq!(count_of(&mut shim, caller), 4 * 101);
    assert_eq!(count_of(&mut shim, callee), 0);
}

#[test]
fn commits_before_the_await_and_cleans_up_after_a_trapping_callback() {
    let (mut shim, callee) = pair();
    let report = shim.update("trap_after", callee.as_slice());
    assert_rejected(&report, RejectCode::CanisterError, 502, "unreachable");
    let modes: Vec<_> = report.messages.iter().map(|message| message.mode.name()).collect();
    assert_eq!(modes, ["update", "update", "reply callback", "cleanup"]);
    let caller = shim.id;
    assert_eq!(count_of(&mut shim, caller), 1 + 1000, "the callback's change is gone, the others are not");
    assert_eq!(count_of(&mut shim, callee), 7, "what another canister did stays");
}

#[test]
fn sends_nothing_when_the_caller_traps() {
    let (mut shim, callee) = pair();
    assert_eq!(reject(&shim.update("trap_before", callee.as_slice())).error_code, 502);
    assert_eq!(shim.replica.queued(), 0);
    assert_eq!(count_of(&mut shim, callee), 0);
}

#[test]
fn traps_on_a_callback_that_the_table_does_not_have() {
    let (mut shim, callee) = pair();
    let report = shim.update("no_function", callee.as_slice());
    assert_rejected(&report, RejectCode::CanisterError, 513, "non-existent Wasm function 99 from table 0");
}

#[test]
fn rejects_calls_that_nobody_can_answer_any_more() {
    let (mut shim, callee) = pair();
    let report = shim.update("forget", callee.as_slice());
    assert_rejected(&report, RejectCode::CanisterError, 506, "did not reply");
}

#[test]
fn leaves_messages_queued_after_an_early_answer() {
    let (mut shim, callee) = pair();
    assert_eq!(number(&shim.update("early", callee.as_slice())), 1);
    assert_eq!((shim.replica.queued(), count_of(&mut shim, callee)), (1, 0));
    assert_eq!(shim.replica.process().len(), 2);
    assert_eq!((shim.replica.queued(), count_of(&mut shim, callee)), (0, 7));
    let caller = shim.id;
    assert_eq!(count_of(&mut shim, caller), 11);
}

#[test]
fn calls_itself_through_the_queue() {
    let (mut shim, _) = pair();
    let own = shim.id;
    // The call counts 1, the called method 1 and the callback 10; the reply is the count in the called method.
    assert_eq!(number(&shim.update("ask", own.as_slice())), 2);
    assert_eq!(count_of(&mut shim, own), 12);
}

#[test]
fn traps_without_a_call_under_construction_and_drops_the_older_of_two() {
    let (mut shim, callee) = pair();
    let text = "ic0.call_perform called when no call is under construction.";
    assert_rejected(&shim.update("not_built", b""), RejectCode::CanisterError, 504, text);
    assert_eq!(number(&shim.update("built_twice", callee.as_slice())), 7);
}

#[test]
fn refuses_calls_when_the_queue_to_a_canister_is_full() {
    let mut config = config();
    config.limits.messages.queue_messages = 2;
    let mut shim = Shim::with(
        config,
        r#"
        (table funcref (elem $done))
        (func $done (param i32))
        (data (i32.const 300) "add")
        (func $try (result i64)
          (call $call_new (i32.const 100) (call $take_arg (i32.const 100)) (i32.const 300) (i32.const 3)
                          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
          (i64.extend_i32_u (call $call_perform)))
        (func (export "canister_update three")
          (drop (call $try)) (drop (call $try))
          (call $reply_u64 (call $try)))"#,
    );
    let callee = add(&mut shim.replica, CALLEE);
    assert_eq!(number(&shim.update("three", callee.as_slice())), 2, "the third is not queued");
    shim.replica.process();
    assert_eq!(count_of(&mut shim, callee), 14);
    assert_eq!(number(&shim.update("three", callee.as_slice())), 2);
}

#[test]
fn gives_up_best_effort_calls_at_their_deadline() {
    let mut shim = Shim::new(
        r#"
        (table funcref (elem $replied $rejected))
        (func $replied (param i32) (unreachable))
        (func $rejected (param i32) (call $reply_u64 (i64.extend_i32_u (call $msg_reject_code))))
        (data (i32.const 300) "deadline")
        (func (export "canister_update ask")
          (call $call_new (i32.const 100) (call $take_arg (i32.const 100)) (i32.const 300) (i32.const 8)
                          (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
          (call $call_with_best_effort_response (i32.const 20))
          (drop (call $call_perform)))"#,
    );
    // The callee remembers its deadline and calls itself forever, so that nobody answers.
    let callee = add(
        &mut shim.replica,
        r#"
        (func (export "canister_update deadline") (i64.store (i32.const 0) (call $msg_deadline)) (call $reply_counter))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    let call = shim.replica.submit(shim.id, user(), "ask", callee.as_slice()).unwrap();
    assert!(shim.replica.step());
    let started = shim.replica.time_ns();
    shim.replica.advance_time(20_000_000_000);
    let report = shim.replica.wait(call);
    // The request is delivered first; its reply comes after the deadline's reject and is dropped.
    assert_eq!(number(&report), 6);
    shim.replica.process();
    assert_eq!(count_of(&mut shim, callee), started + 20_000_000_000);
}

#[test]
fn adds_instructions_of_a_call_over_its_executions() {
    let mut shim = Shim::new(
        r#"
        (table funcref (elem $replied))
        (func $replied (param i32)
          (i64.store (i32.const 400) (call $performance_counter (i32.const 0)))
          (i64.store (i32.const 408) (call $performance_counter (i32.const 1)))
          (call $reply (i32.const 400) (i32.const 16)))
        (data (i32.const 300) "add")
        (func (export "canister_update ask")
          (call $call_new (i32.const 100) (call $take_arg (i32.const 100)) (i32.const 300) (i32.const 3)
                          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
          (drop (call $call_perform)))"#,
    );
    let callee = add(&mut shim.replica, CALLEE);
    let report = shim.update("ask", callee.as_slice());
    let reply = report.result.as_ref().unwrap();
    let [this, all] = [0, 8].map(|at| u64::from_le_bytes(reply[at..at + 8].try_into().unwrap()));
    assert!(this < report.messages[2].instructions);
    // Between the two readings: one store with its page, and the second call.
    assert!(all > this + report.messages[0].instructions);
    assert!(all < report.messages[0].instructions + report.messages[2].instructions);
}

#[test]
fn a_replica_that_ends_leaves_nobody_waiting() {
    let (mut shim, callee) = pair();
    let replica = &mut shim.replica;
    assert!(replica.is_idle());
    let call = replica.submit(shim.id, user(), "ask", callee.as_slice()).unwrap();
    assert_eq!(replica.next_ingress(), Some(call));
    replica.step();
    assert_eq!((replica.next_ingress(), replica.is_idle()), (None, false), "the call to the other canister is queued");
    let stop = candid::encode_one(StopArg { canister_id: shim.id }).unwrap();
    let stop = replica.submit(Principal::management_canister(), user(), "stop_canister", &stop).unwrap();
    replica.queue.rotate_right(1);
    replica.step();
    assert!(replica.answer(stop).is_none(), "it waits for the open call");

    replica.reject_open_calls();
    let stopped = replica.answer(stop).unwrap().unwrap_err();
    assert_eq!((stopped.code, stopped.error_code), (RejectCode::SysTransient, 211));
    assert_eq!(replica.queued(), 1, "the reject of the call to the other canister");
    replica.step();
    let reply = replica.answer(call).unwrap().unwrap();
    assert_eq!(reply[0], RejectCode::SysTransient as u8);
    assert!(replica.is_idle());
}

#[derive(candid::CandidType)]
struct StopArg {
    canister_id: Principal,
}

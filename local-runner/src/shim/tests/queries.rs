//! Composite queries: calls to other canisters' queries, with everything undone at the end.

use super::*;

const COMPOSITE: &str = r#"
  (table funcref (elem $replied $rejected $cleaned $trapping))
  (data (i32.const 300) "get" "add" "chain")
  (func $replied (param $env i32)
    (call $count (i64.const 10))
    (drop (call $take_arg (i32.const 400)))
    (call $reply_u64 (i64.add (i64.mul (i64.load (i32.const 400)) (i64.const 1000)) (i64.load (i32.const 0)))))
  (func $rejected (param $env i32)
    (i32.store (i32.const 400) (call $msg_reject_code))
    (call $msg_reject_msg_copy (i32.const 404) (i32.const 0) (call $msg_reject_msg_size))
    (call $reply (i32.const 400) (i32.add (i32.const 4) (call $msg_reject_msg_size))))
  (func $cleaned (param $env i32) (call $debug_print (i32.const 300) (i32.const 3)))
  (func $trapping (param $env i32) (unreachable))
  (func $ask (param $name i32) (param $len i32) (param $on_reply i32)
    (call $count (i64.const 1))
    (call $call_new (i32.const 100) (call $take_arg (i32.const 100)) (local.get $name) (local.get $len)
                    (local.get $on_reply) (i32.const 0) (i32.const 1) (i32.const 0))
    (call $call_on_cleanup (i32.const 2) (i32.const 0))
    (drop (call $call_perform)))
  (func (export "canister_composite_query outer") (call $ask (i32.const 300) (i32.const 3) (i32.const 0)))
  (func (export "canister_composite_query update") (call $ask (i32.const 303) (i32.const 3) (i32.const 0)))
  ;; Passes the rest of the argument on to the canister that its first ten bytes name.
  (func (export "canister_composite_query chain")
    (if (i32.lt_u (call $take_arg (i32.const 100)) (i32.const 10)) (then (call $reply_counter) (return)))
    (call $call_new (i32.const 100) (i32.const 10) (i32.const 306) (i32.const 5)
                    (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
    (call $call_data_append (i32.const 110) (i32.sub (call $msg_arg_data_size) (i32.const 10)))
    (drop (call $call_perform)))
  (func (export "canister_composite_query trap") (call $ask (i32.const 300) (i32.const 3) (i32.const 3)))
  (func (export "canister_query get") (call $count (i64.const 3)) (call $reply_counter))
  (func (export "canister_update add") (call $count (i64.const 1)) (call $reply_counter))
"#;

fn pair(config: Config) -> (Shim, Principal) {
    let mut shim = Shim::with(config, COMPOSITE);
    let other = add(&mut shim.replica, COMPOSITE);
    (shim, other)
}

fn rejected(report: &CallReport) -> (u32, String) {
    let (code, text) = report.result.as_ref().unwrap().split_at(4);
    (u32::from_le_bytes(code.try_into().unwrap()), String::from_utf8(text.to_vec()).unwrap())
}

#[test]
fn sees_its_own_changes_in_callbacks_and_leaves_none() {
    let (mut shim, other) = pair(config());
    for _ in 0..2 {
        let report = shim.query("outer", other.as_slice());
        assert_eq!(number(&report), 3 * 1000 + 11);
        let modes: Vec<_> = report.messages.iter().map(|message| message.mode.name()).collect();
        assert_eq!(modes, ["composite query", "non replicated query", "composite reply callback"]);
    }
    assert_eq!(number(&shim.query("get", b"")), 3);
    assert_eq!(shim.canister().version(), 1);
}

#[test]
fn calls_queries_only_and_not_itself() {
    let (mut shim, other) = pair(config());
    let (code, text) = rejected(&shim.query("update", other.as_slice()));
    assert_eq!((code, text.contains("no query method 'add'")), (5, true), "{text}");
    let own = shim.id;
    let (code, text) = rejected(&shim.query("outer", own.as_slice()));
    assert_eq!((code, text.contains("part of it already")), (5, true), "{text}");
}

#[test]
fn limits_the_depth_of_the_call_graph() {
    let mut config = config();
    config.limits.messages.query_depth = 2;
    let (mut shim, second) = pair(config);
    let [third, fourth] = [0, 1].map(|_| add(&mut shim.replica, COMPOSITE));
    let ids = |ids: &[Principal]| ids.iter().flat_map(|id| id.as_slice().to_vec()).collect::<Vec<_>>();
    let report = shim.query("chain", &ids(&[second, third]));
    assert_eq!(report.messages.len(), 5);
    assert_eq!(number(&report), 10 * 1000 + 10);
    let report = shim.query("chain", &ids(&[second, third, fourth]));
    assert_eq!(report.messages.len(), 6, "the fourth canister is not executed");
}

#[test]
fn is_refused_in_replicated_mode() {
    let (mut shim, other) = pair(config());
    let report = shim.update("outer", other.as_slice());
    assert_rejected(&report, RejectCode::CanisterError, 527, "Composite query cannot be called in replicated mode");
}

#[test]
fn cleans_up_after_a_trapping_callback() {
    let (mut shim, other) = pair(config());
    let report = shim.query("trap", other.as_slice());
    assert_rejected(&report, RejectCode::CanisterError, 502, "unreachable");
    let last = report.messages.last().unwrap();
    assert_eq!((last.mode.name(), last.printed.as_slice()), ("composite cleanup", ["get".to_string()].as_slice()));
    assert_eq!(number(&shim.query("get", b"")), 3);
}

#[test]
fn shares_one_instruction_limit() {
    let mut config = config();
    config.limits.instructions.query = 1_000_000;
    config.limits.instructions.composite_query_call = 2_000_000;
    let (mut shim, other) = pair(config);
    let report = shim.query("outer", other.as_slice());
    assert_eq!(reject(&report).error_code, 522, "nothing is left for the callback that is told so: {report:?}");
    assert_eq!(number(&shim.query("get", b"")), 3);
}

//! Updates of one canister: answers, traps, rollback, modes, limits, counters, log, inspect_message.

use super::*;

const COUNTER: &str = r#"
  (func (export "canister_update add") (call $count (i64.const 1)) (call $reply_counter))
  (func (export "canister_query get") (call $count (i64.const 1)) (call $reply_counter))
"#;

#[test]
fn updates_change_the_canister_and_queries_do_not() {
    let mut shim = Shim::new(COUNTER);
    assert_eq!(number(&shim.update("add", b"")), 1);
    assert_eq!(number(&shim.update("add", b"")), 2);
    assert_eq!(number(&shim.query("get", b"")), 3, "a query sees its own change");
    assert_eq!(number(&shim.query("get", b"")), 3, "but leaves none");
    assert_eq!(number(&shim.update("get", b"")), 3, "a query called as update leaves none either");
    assert_eq!(number(&shim.update("add", b"")), 3);
}

#[test]
fn names_methods_and_canisters_that_do_not_exist() {
    let mut shim = Shim::new(COUNTER);
    assert_rejected(&shim.update("sub", b""), RejectCode::CanisterError, 536, "Canister has no update method 'sub'.");
    assert_rejected(&shim.query("add", b""), RejectCode::CanisterError, 536, "Canister has no query method 'add'.");
    let nobody = super::super::replica::canister_id(99);
    let report = shim.replica.update(nobody, user(), "add", b"");
    assert_rejected(&report, RejectCode::DestinationInvalid, 301, "not found");
    let empty = shim.replica.create_canister([user()]);
    let report = shim.replica.update(empty, user(), "add", b"");
    assert_rejected(&report, RejectCode::CanisterError, 537, "contains no Wasm module");
}

#[test]
fn a_trap_undoes_heap_globals_stable_memory_timer_and_certified_data() {
    let mut shim = Shim::new(
        r#"
        (global $g (mut i64) (i64.const 5))
        (func $change
          (call $count (i64.const 1))
          (global.set $g (i64.const 6))
          (drop (memory.grow (i32.const 1)))
          (drop (call $stable64_grow (i64.const 1)))
          (call $stable64_write (i64.const 0) (i64.const 0) (i64.const 8))
          (drop (call $global_timer_set (i64.const 77)))
          (call $certified_data_set (i32.const 0) (i32.const 4)))
        (func (export "canister_update keep") (call $change) (call $reply_counter))
        (func (export "canister_update fail") (call $change) (call $reply_counter) (unreachable))
        (func (export "canister_query state")
          (call $reply_u64 (i64.add (i64.mul (global.get $g) (i64.const 100)) (i64.load (i32.const 0)))))"#,
    );
    let report = shim.update("fail", b"");
    assert_rejected(&report, RejectCode::CanisterError, 502, "Canister trapped: unreachable");
    let canister = shim.canister();
    assert_eq!((canister.heap_bytes(), canister.stable().pages()), (2 << 16, 0));
    assert_eq!((canister.timer_ns(), canister.certified_data()), (None, [].as_slice()));
    assert_eq!(canister.version(), 1, "only the install counts");
    assert_eq!(number(&shim.query("state", b"")), 500);

    assert_eq!(number(&shim.update("keep", b"")), 1);
    let canister = shim.canister();
    assert_eq!((canister.heap_bytes(), canister.stable().pages()), (3 << 16, 1));
    assert_eq!((canister.timer_ns(), canister.certified_data()), (Some(77), [1, 0, 0, 0].as_slice()));
    assert_eq!(canister.version(), 2);
    assert_eq!(number(&shim.query("state", b"")), 601);
}

#[test]
fn reports_a_called_trap_with_its_text_and_logs_it() {
    let mut shim = Shim::new(
        r#"
        (data (i32.const 100) "printed" "the reason")
        (func (export "canister_update go")
          (call $debug_print (i32.const 100) (i32.const 7))
          (call $trap (i32.const 107) (i32.const 10)))"#,
    );
    let report = shim.update("go", b"");
    let text = "Canister called `ic0.trap` with message: 'the reason'";
    assert_rejected(&report, RejectCode::CanisterError, 503, text);
    assert!(reject(&report).message.starts_with(&format!("Error from Canister {}: ", shim.id)));
    assert_eq!(shim.logs(), ["printed", "[TRAP]: the reason"]);
    assert_eq!(report.messages[0].printed, ["printed"]);
}

#[test]
fn keeps_no_log_of_queries_but_reports_what_they_print() {
    let mut shim = Shim::new(
        r#"
        (data (i32.const 100) "hello")
        (func (export "canister_query go")
          (call $debug_print (i32.const 100) (i32.const 5))
          (call $debug_print (i32.const 2000000) (i32.const 5))
          (call $reply_counter))"#,
    );
    let report = shim.query("go", b"");
    assert_eq!(report.messages[0].printed, ["hello", "(debug_print message out of memory bounds)"]);
    assert!(shim.logs().is_empty());
}

#[test]
fn a_call_is_answered_once() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update twice") (call $reply_counter) (call $msg_reply))
        (func (export "canister_update append") (call $reply_counter) (call $msg_reply_data_append (i32.const 0) (i32.const 1)))
        (func (export "canister_update both") (call $reply_counter) (call $msg_reject (i32.const 0) (i32.const 0)))
        (func (export "canister_update none") (call $msg_reply_data_append (i32.const 0) (i32.const 1)))
        (data (i32.const 200) "no thanks")
        (func (export "canister_update refuse") (call $count (i64.const 1)) (call $msg_reject (i32.const 200) (i32.const 9)))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    let replied = |name| format!("ic0.{name}: the call is already replied");
    assert_rejected(&shim.update("twice", b""), RejectCode::CanisterError, 504, &replied("msg_reply"));
    assert_rejected(&shim.update("append", b""), RejectCode::CanisterError, 504, &replied("msg_reply_data_append"));
    assert_rejected(&shim.update("both", b""), RejectCode::CanisterError, 504, &replied("msg_reject"));
    assert_rejected(&shim.update("none", b""), RejectCode::CanisterError, 506, "did not reply");
    assert_rejected(&shim.update("refuse", b""), RejectCode::CanisterReject, 406, "no thanks");
    assert_eq!(number(&shim.query("get", b"")), 1, "a rejecting update keeps its changes");
}

#[test]
fn limits_the_size_of_replies() {
    let mut config = config();
    config.limits.messages.reply_bytes = 100;
    config.limits.messages.query_reply_bytes = 150;
    let body = r#"
        (func $go (call $msg_reply_data_append (i32.const 0) (i32.const 100))
                  (call $msg_reply_data_append (i32.const 0) (i32.load8_u (i32.const 9)))
                  (call $msg_reply))
        (func $with_arg (drop (call $take_arg (i32.const 9))) (call $go))
        (func (export "canister_update u") (call $with_arg))
        (func (export "canister_query q") (call $with_arg))"#;
    let mut shim = Shim::with(config, body);
    assert_eq!(shim.update("u", &[0]).result.unwrap().len(), 100);
    let text = "application payload size (101) cannot be larger than 100.";
    assert_rejected(&shim.update("u", &[1]), RejectCode::CanisterError, 504, text);
    assert_eq!(shim.query("q", &[50]).result.unwrap().len(), 150);
    assert_rejected(&shim.query("q", &[51]), RejectCode::CanisterError, 504, "(151)");
    assert_rejected(&shim.update("q", &[51]), RejectCode::CanisterError, 504, "cannot be larger than 100.");
}

#[test]
fn refuses_system_calls_in_the_wrong_mode() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_query set") (drop (call $global_timer_set (i64.const 1))))
        (func (export "canister_update name") (drop (call $msg_method_name_size)))
        (func (export "canister_query call")
          (call $call_new (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
        (func (export "canister_update size") (drop (call $data_certificate_size)))"#,
    );
    let refused = |name: &str, mode: &str| {
        format!("Canister violated contract: \"ic0_{name}\" cannot be executed in {mode} mode")
    };
    let code = RejectCode::CanisterError;
    assert_rejected(&shim.query("set", b""), code, 504, &refused("global_timer_set", "non replicated query"));
    assert_rejected(&shim.update("set", b""), code, 504, &refused("global_timer_set", "replicated query"));
    assert_rejected(&shim.update("name", b""), code, 504, &refused("msg_method_name_size", "update"));
    assert_rejected(&shim.query("call", b""), code, 504, &refused("call_new", "non replicated query"));
    assert_rejected(&shim.update("size", b""), code, 504, &refused("data_certificate_size", "update"));
}

#[test]
fn refuses_the_start_function_what_needs_a_message() {
    let mut replica = Replica::new(config()).unwrap();
    let id = replica.create_canister([user()]);
    let wasm = module("(func $s (drop (call $time))) (start $s)");
    let report = replica.install(id, InstallMode::Install, &wasm, b"", user());
    assert_rejected(&report, RejectCode::CanisterError, 504, "\"ic0_time\" cannot be executed in start mode");
    assert!(replica.canister(id).unwrap().code().is_none());
}

#[test]
fn checks_ranges_of_the_heap_and_of_what_is_copied() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update arg")
          (call $msg_arg_data_copy (i32.const 0) (i32.const 1) (i32.const 4)) (call $reply_counter))
        (func (export "canister_update heap")
          (call $msg_reply_data_append (i32.const 131070) (i32.const 3)) (call $msg_reply))
        (func (export "canister_update wrap")
          (drop (call $is_controller (i32.const -1) (i32.const -1))))
        (func (export "canister_update edge")
          (call $msg_reply_data_append (i32.const 131072) (i32.const 0)) (call $msg_reply))"#,
    );
    let text = "ic0.msg_arg_data_copy payload: src=1 + length=4 exceeds the slice size=4";
    assert_rejected(&shim.update("arg", b"1234"), RejectCode::CanisterError, 504, text);
    assert_eq!(number(&shim.update("arg", b"12345")), u64::from(u32::from_le_bytes(*b"2345")));
    let text = "ic0.msg_reply_data_append heap: src=131070 + length=3 exceeds the slice size=131072";
    assert_rejected(&shim.update("heap", b""), RejectCode::CanisterError, 504, text);
    assert_eq!(shim.update("edge", b"").result, Ok(vec![]));
    let text = "ic0.is_controller heap: src=4294967295 + length=4294967295 exceeds";
    assert_rejected(&shim.update("wrap", b""), RejectCode::CanisterError, 504, text);
}

#[test]
fn enforces_the_instruction_limit_and_undoes_the_message() {
    let mut config = config();
    config.limits.instructions.update = 1_000_000;
    let mut shim = Shim::with(
        config,
        r#"
        (func (export "canister_update spin") (call $count (i64.const 1)) (loop $l (br $l)))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    let report = shim.update("spin", b"");
    let text = "Canister exceeded the limit of 1000000 instructions for single message execution.";
    assert_rejected(&report, RejectCode::CanisterError, 522, text);
    assert_eq!(report.instructions(), 1_000_000);
    assert_eq!(number(&shim.query("get", b"")), 0);
}

#[test]
fn counts_instructions_of_operators_system_calls_and_pages() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update none"))
        (func (export "canister_update counter") (call $reply_u64 (call $performance_counter (i32.const 0))))
        (func (export "canister_update page")
          (drop (i32.load (i32.const 0)))
          (call $reply_u64 (call $performance_counter (i32.const 0))))
        (func (export "canister_update bad") (call $reply_u64 (call $performance_counter (i32.const 7))))"#,
    );
    let nothing = shim.update("none", b"");
    assert_eq!(nothing.instructions(), 1, "an empty function costs its entry");
    // Entry 1, two constants would come later: block of const 1, call 5, call 5 before the counter is read.
    let counter = shim.update("counter", b"");
    assert_eq!(number(&counter), 1 + 1 + 5 + 5 + 200);
    let page = shim.update("page", b"");
    assert_eq!(number(&page), number(&counter) + 3 + 16 * 5_000, "const, load, drop and the access of a page");
    let message = &page.messages[0];
    assert_eq!((message.heap.accessed, message.heap.written), (16, 16));
    assert_eq!(message.heap.instructions(), 2 * 16 * 5_000);
    assert_eq!(message.system_instructions, 200 + (500 + 50 * 8) + 500);
    assert_rejected(&shim.update("bad", b""), RejectCode::CanisterError, 504, "performance counter type 7");
}

#[test]
fn passes_argument_caller_time_and_identity() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update echo") (call $reply (i32.const 100) (call $take_arg (i32.const 100))))
        (func (export "canister_update caller")
          (call $msg_caller_copy (i32.const 0) (i32.const 0) (call $msg_caller_size))
          (call $reply (i32.const 0) (call $msg_caller_size)))
        (func (export "canister_update self")
          (call $canister_self_copy (i32.const 0) (i32.const 0) (call $canister_self_size))
          (call $reply (i32.const 0) (call $canister_self_size)))
        (func (export "canister_query controller")
          (call $reply_u64 (i64.extend_i32_u (call $is_controller (i32.const 100) (call $take_arg (i32.const 100))))))
        (func (export "canister_query time") (call $reply_u64 (call $time)))
        (func (export "canister_query replicated") (call $reply_u64 (i64.extend_i32_u (call $in_replicated_execution))))
        (func (export "canister_update version") (call $reply_u64 (call $canister_version)))"#,
    );
    assert_eq!(shim.update("echo", b"some bytes").result, Ok(b"some bytes".to_vec()));
    assert_eq!(shim.update("caller", b"").result, Ok(user().as_slice().to_vec()));
    let report = shim.replica.update(shim.id, Principal::anonymous(), "caller", b"");
    assert_eq!(report.result, Ok(vec![4]));
    assert_eq!(shim.update("self", b"").result, Ok(shim.id.as_slice().to_vec()));
    assert_eq!(shim.id.to_text(), "rrkah-fqaaa-aaaaa-aaaaq-cai");
    assert_eq!(number(&shim.query("controller", user().as_slice())), 1);
    assert_eq!(number(&shim.query("controller", stranger().as_slice())), 0);
    assert_eq!(reject(&shim.query("controller", &[0; 30])).error_code, 504);
    assert_eq!(number(&shim.query("time", b"")), shim.replica.time_ns());
    shim.replica.advance_time(5);
    assert_eq!(number(&shim.query("time", b"")), config().start_time_ns + 5);
    assert_eq!(number(&shim.query("replicated", b"")), 0);
    assert_eq!(number(&shim.update("replicated", b"")), 1);
    let before = number(&shim.update("version", b""));
    assert_eq!(number(&shim.update("version", b"")), before + 1);
}

#[test]
fn asks_inspect_message_about_ingress_updates_only() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_inspect_message")
          (call $count (i64.const 10))
          (drop (call $take_arg (i32.const 100)))
          (if (i32.eq (i32.load8_u (i32.const 100)) (i32.const 121)) (then (call $accept_message)))
          (if (i32.eq (i32.load8_u (i32.const 100)) (i32.const 116)) (then (unreachable))))
        (func (export "canister_update go") (call $count (i64.const 1)) (call $reply_counter))
        (func (export "canister_query get") (call $reply_counter))"#,
    );
    assert_eq!(number(&shim.update("go", b"y")), 1, "changes of inspect_message are dropped");
    let report = shim.update("go", b"n");
    assert_rejected(&report, RejectCode::CanisterReject, 406, "Canister rejected the message");
    assert_rejected(&shim.update("go", b"t"), RejectCode::CanisterError, 502, "unreachable");
    assert_eq!(number(&shim.query("get", b"n")), 1);
}

#[test]
fn refuses_ingress_messages_that_are_too_large() {
    let mut config = config();
    config.limits.messages.ingress_bytes = 100;
    let mut shim = Shim::with(config, COUNTER);
    assert_eq!(number(&shim.update("add", &[0; 97])), 1);
    assert_eq!(reject(&shim.update("add", &[0; 98])).error_code, 408);
}

#[test]
fn serves_certified_data_to_queries_only() {
    let mut shim = Shim::new(
        r#"
        (func (export "canister_update set")
          (call $certified_data_set (i32.const 100) (call $take_arg (i32.const 100)))
          (call $reply_u64 (i64.extend_i32_u (call $data_certificate_present))))
        (func (export "canister_query get")
          (if (i32.eqz (call $data_certificate_present)) (then (unreachable)))
          (call $data_certificate_copy (i32.const 0) (i32.const 0) (call $data_certificate_size))
          (call $reply (i32.const 0) (call $data_certificate_size)))"#,
    );
    assert_eq!(number(&shim.update("set", b"digest")), 0);
    assert_eq!(shim.canister().certified_data(), b"digest");
    assert_eq!(shim.query("get", b"").result, Ok(b"icllama shim, not signed: digest".to_vec()));
    assert_rejected(&shim.update("set", &[0; 33]), RejectCode::CanisterError, 504, "no larger than 32 bytes");
    assert_eq!(shim.canister().certified_data(), b"digest");
    assert_eq!(reject(&shim.update("get", b"")).error_code, 502, "a replicated query has no certificate");
}

#[test]
fn a_replica_can_move_to_another_thread() {
    let mut shim = Shim::new(COUNTER);
    shim.update("add", b"");
    let report = std::thread::spawn(move || shim.update("add", b"")).join().unwrap();
    assert_eq!(number(&report), 2);
}

#[test]
fn runs_equal_calls_with_equal_results() {
    let run = || {
        let mut shim = Shim::new(COUNTER);
        let mut reports = Vec::new();
        for _ in 0..3 {
            let mut report = shim.update("add", b"x");
            for message in &mut report.messages {
                message.wall = std::time::Duration::ZERO;
            }
            reports.push(report);
        }
        reports
    };
    assert_eq!(run(), run());
}

//! The replica as a whole, on small modules written in WebAssembly text.

use candid::Principal;

use super::{CallReport, Config, InstallMode, Reject, RejectCode, Replica};

mod api;
mod calls;
mod cycles;
mod fork;
mod management;
mod memory;
mod messages;
mod queries;
mod tasks;
mod upgrade;

/// Imports under their own names, and a few functions that most test canisters need.
const PRELUDE: &str = r#"
  (import "ic0" "msg_arg_data_size" (func $msg_arg_data_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $msg_arg_data_copy (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $msg_caller_size (result i32)))
  (import "ic0" "msg_caller_copy" (func $msg_caller_copy (param i32 i32 i32)))
  (import "ic0" "msg_reject_code" (func $msg_reject_code (result i32)))
  (import "ic0" "msg_reject_msg_size" (func $msg_reject_msg_size (result i32)))
  (import "ic0" "msg_reject_msg_copy" (func $msg_reject_msg_copy (param i32 i32 i32)))
  (import "ic0" "msg_deadline" (func $msg_deadline (result i64)))
  (import "ic0" "msg_reply_data_append" (func $msg_reply_data_append (param i32 i32)))
  (import "ic0" "msg_reply" (func $msg_reply))
  (import "ic0" "msg_reject" (func $msg_reject (param i32 i32)))
  (import "ic0" "msg_cycles_available128" (func $msg_cycles_available128 (param i32)))
  (import "ic0" "msg_cycles_refunded128" (func $msg_cycles_refunded128 (param i32)))
  (import "ic0" "msg_cycles_accept128" (func $msg_cycles_accept128 (param i64 i64 i32)))
  (import "ic0" "msg_cycles_accept" (func $msg_cycles_accept (param i64) (result i64)))
  (import "ic0" "cycles_burn128" (func $cycles_burn128 (param i64 i64 i32)))
  (import "ic0" "canister_self_size" (func $canister_self_size (result i32)))
  (import "ic0" "canister_self_copy" (func $canister_self_copy (param i32 i32 i32)))
  (import "ic0" "canister_cycle_balance" (func $canister_cycle_balance (result i64)))
  (import "ic0" "canister_cycle_balance128" (func $canister_cycle_balance128 (param i32)))
  (import "ic0" "canister_version" (func $canister_version (result i64)))
  (import "ic0" "canister_status" (func $canister_status (result i32)))
  (import "ic0" "msg_method_name_size" (func $msg_method_name_size (result i32)))
  (import "ic0" "msg_method_name_copy" (func $msg_method_name_copy (param i32 i32 i32)))
  (import "ic0" "accept_message" (func $accept_message))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_on_cleanup" (func $call_on_cleanup (param i32 i32)))
  (import "ic0" "call_data_append" (func $call_data_append (param i32 i32)))
  (import "ic0" "call_with_best_effort_response" (func $call_with_best_effort_response (param i32)))
  (import "ic0" "call_cycles_add128" (func $call_cycles_add128 (param i64 i64)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (import "ic0" "stable_size" (func $stable_size (result i32)))
  (import "ic0" "stable_grow" (func $stable_grow (param i32) (result i32)))
  (import "ic0" "stable_write" (func $stable_write (param i32 i32 i32)))
  (import "ic0" "stable_read" (func $stable_read (param i32 i32 i32)))
  (import "ic0" "stable64_size" (func $stable64_size (result i64)))
  (import "ic0" "stable64_grow" (func $stable64_grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable64_write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $stable64_read (param i64 i64 i64)))
  (import "ic0" "certified_data_set" (func $certified_data_set (param i32 i32)))
  (import "ic0" "data_certificate_present" (func $data_certificate_present (result i32)))
  (import "ic0" "data_certificate_size" (func $data_certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $data_certificate_copy (param i32 i32 i32)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "global_timer_set" (func $global_timer_set (param i64) (result i64)))
  (import "ic0" "performance_counter" (func $performance_counter (param i32) (result i64)))
  (import "ic0" "is_controller" (func $is_controller (param i32 i32) (result i32)))
  (import "ic0" "in_replicated_execution" (func $in_replicated_execution (result i32)))
  (import "ic0" "cost_call" (func $cost_call (param i64 i64 i32)))
  (import "ic0" "debug_print" (func $debug_print (param i32 i32)))
  (import "ic0" "trap" (func $trap (param i32 i32)))
  (memory (export "memory") 2 1000)
  ;; Replies with part of the heap.
  (func $reply (param $src i32) (param $len i32)
    (call $msg_reply_data_append (local.get $src) (local.get $len))
    (call $msg_reply))
  ;; Replies with eight bytes, little-endian.
  (func $reply_u64 (param $value i64)
    (i64.store (i32.const 65000) (local.get $value))
    (call $reply (i32.const 65000) (i32.const 8)))
  ;; Replies with what is at address 0 as eight bytes.
  (func $reply_counter (call $reply_u64 (i64.load (i32.const 0))))
  ;; Adds to the number at address 0.
  (func $count (param $by i64)
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (local.get $by))))
  ;; Copies the argument to an address.
  (func $take_arg (param $dst i32) (result i32)
    (call $msg_arg_data_copy (local.get $dst) (i32.const 0) (call $msg_arg_data_size))
    (call $msg_arg_data_size))
"#;

/// A module made of the prelude and `body`.
fn module(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {PRELUDE} {body})")).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

fn config() -> Config {
    Config { module_cache: None, ..Config::default() }
}

fn user() -> Principal {
    Principal::self_authenticating([1])
}

fn stranger() -> Principal {
    Principal::self_authenticating([2])
}

/// A replica with one canister.
struct Shim {
    replica: Replica,
    id: Principal,
}

impl Shim {
    fn new(body: &str) -> Self {
        Self::with(config(), body)
    }

    fn with(config: Config, body: &str) -> Self {
        let mut replica = Replica::new(config).unwrap();
        let id = add(&mut replica, body);
        Self { replica, id }
    }

    fn update(&mut self, method: &str, arg: &[u8]) -> CallReport {
        self.replica.update(self.id, user(), method, arg)
    }

    fn query(&mut self, method: &str, arg: &[u8]) -> CallReport {
        self.replica.query(self.id, user(), method, arg)
    }

    fn canister(&self) -> &super::Canister {
        self.replica.canister(self.id).unwrap()
    }

    fn logs(&self) -> Vec<String> {
        self.canister().log().map(|record| record.text().into_owned()).collect()
    }
}

/// Creates a canister and installs a module.
fn add(replica: &mut Replica, body: &str) -> Principal {
    let id = replica.create_canister([user()]);
    let report = replica.install(id, InstallMode::Install, &module(body), b"", user());
    assert_eq!(report.result, Ok(vec![]));
    id
}

fn number(report: &CallReport) -> u64 {
    let reply = report.result.as_ref().unwrap_or_else(|reject| panic!("{reject}"));
    u64::from_le_bytes(reply.as_slice().try_into().unwrap())
}

fn reject(report: &CallReport) -> &Reject {
    report.result.as_ref().expect_err("the call was answered with a reply")
}

/// Checks class, error code and part of the text of a failure.
fn assert_rejected(report: &CallReport, code: RejectCode, error_code: u32, text: &str) {
    let reject = reject(report);
    assert_eq!((reject.code, reject.error_code), (code, error_code), "{reject}");
    assert!(reject.message.contains(text), "{reject}\nshould contain {text}");
}

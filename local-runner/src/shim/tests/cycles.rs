//! Cycles that canisters send, accept, get back and burn; fees, if they are enforced.

use super::*;

/// `send` calls `take` of the canister named by the argument with 1,000 cycles; the callback answers the refund.
const SENDER: &str = r#"
  (table funcref (elem $done))
  (data (i32.const 300) "take" "refuse" "missing")
  (func $done (param i32)
    (call $msg_cycles_refunded128 (i32.const 400))
    (call $reply_u64 (i64.load (i32.const 400))))
  (func $send (param $name i32) (param $len i32) (param $cycles i64)
    (call $call_new (i32.const 100) (call $take_arg (i32.const 100)) (local.get $name) (local.get $len)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $call_cycles_add128 (i64.const 0) (local.get $cycles)))
  (func $perform (if (call $call_perform) (then (unreachable))))
  (func (export "canister_update send") (call $send (i32.const 300) (i32.const 4) (i64.const 1000)) (call $perform))
  (func (export "canister_update send_refuse") (call $send (i32.const 304) (i32.const 6) (i64.const 1000)) (call $perform))
  (func (export "canister_update send_missing") (call $send (i32.const 310) (i32.const 7) (i64.const 1000)) (call $perform))
  (func (export "canister_update send_all") (call $send (i32.const 300) (i32.const 4) (i64.const -1)) (call $perform))
  (func (export "canister_update drop") (call $send (i32.const 300) (i32.const 4) (i64.const 1000)) (call $reply_counter))
  (func (export "canister_update burn") (call $cycles_burn128 (i64.const 0) (i64.const 70) (i32.const 0)) (call $reply_counter))
  (func (export "canister_update burn_trap") (call $cycles_burn128 (i64.const 0) (i64.const 70) (i32.const 0)) (unreachable))
  (func (export "canister_query balance") (call $reply_u64 (call $canister_cycle_balance)))
  (func (export "canister_query price") (call $cost_call (i64.const 4) (i64.const 6) (i32.const 0)) (call $reply_counter))
"#;

const TAKER: &str = r#"
  (func (export "canister_update take")
    (call $msg_cycles_available128 (i32.const 16))
    (call $msg_cycles_accept128 (i64.const 0) (i64.const 300) (i32.const 32))
    (if (i64.ne (call $msg_cycles_accept (i64.const 50)) (i64.const 50)) (then (unreachable)))
    (call $msg_cycles_available128 (i32.const 48))
    (call $reply (i32.const 0) (i32.const 64)))
  (func (export "canister_update refuse")
    (drop (call $msg_cycles_accept (i64.const 50)))
    (unreachable))
  (func (export "canister_query balance") (call $reply_u64 (call $canister_cycle_balance)))
"#;

fn pair(config: Config) -> (Shim, Principal) {
    let mut shim = Shim::with(config, SENDER);
    let taker = add(&mut shim.replica, TAKER);
    (shim, taker)
}

fn balances(shim: &Shim, taker: Principal) -> (i128, i128) {
    let start = shim.replica.config().initial_cycles as i128;
    let balance = |id| shim.replica.canister(id).unwrap().balance() as i128 - start;
    (balance(shim.id), balance(taker))
}

#[test]
fn moves_what_is_accepted_and_refunds_the_rest() {
    let (mut shim, taker) = pair(config());
    assert_eq!(number(&shim.update("send", taker.as_slice())), 650);
    assert_eq!(balances(&shim, taker), (-350, 350));
}

#[test]
fn refunds_everything_when_the_call_fails() {
    let (mut shim, taker) = pair(config());
    assert_eq!(number(&shim.update("send_refuse", taker.as_slice())), 1_000);
    assert_eq!(number(&shim.update("send_missing", taker.as_slice())), 1_000);
    let nobody = super::super::replica::canister_id(77);
    assert_eq!(number(&shim.update("send", nobody.as_slice())), 1_000);
    assert_eq!(balances(&shim, taker), (0, 0));
}

#[test]
fn returns_the_cycles_of_a_call_that_is_not_made() {
    let (mut shim, taker) = pair(config());
    assert_eq!(number(&shim.update("drop", taker.as_slice())), 0);
    assert_eq!(balances(&shim, taker), (0, 0));
    let report = shim.update("send_all", taker.as_slice());
    assert_rejected(&report, RejectCode::SysTransient, 207, "out of cycles");
    assert_eq!(balances(&shim, taker), (0, 0));
}

#[test]
fn burns_cycles_unless_the_message_traps() {
    let (mut shim, taker) = pair(config());
    assert_eq!(number(&shim.update("burn", b"")), 70);
    assert_eq!(reject(&shim.update("burn_trap", b"")).error_code, 502);
    assert_eq!(balances(&shim, taker), (-70, 0));
    let balance = number(&shim.query("balance", b""));
    assert_eq!(u128::from(balance), shim.replica.config().initial_cycles - 70);
}

#[test]
fn answers_the_price_of_a_call() {
    let (mut shim, _) = pair(config());
    let reply_bytes = 2 << 20;
    assert_eq!(number(&shim.query("price", b"")), 260_000 + 1_000 * (10 + reply_bytes) + 5_000_000 + 40_000_000_000);
}

#[test]
fn takes_fees_only_when_asked() {
    let (mut shim, taker) = pair(config());
    shim.replica.advance_time(86_400_000_000_000);
    assert_eq!(balances(&shim, taker), (0, 0));

    let (mut shim, taker) = pair(Config { enforce_cycles: true, ..config() });
    let before = shim.canister().balance();
    let report = shim.update("burn", b"");
    assert_eq!(before - shim.canister().balance(), 70 + report.cycles(13));
    assert!(report.cycles(13) > 5_000_000 + 1_200_000);
    let before = balances(&shim, taker).1;
    shim.replica.advance_time(86_400_000_000_000);
    assert!(before - balances(&shim, taker).1 >= 10_000 * 86_400);
}

#[test]
fn refuses_messages_that_the_balance_does_not_cover() {
    let config = Config { enforce_cycles: true, initial_cycles: 50_000_000_000, ..config() };
    let (mut shim, taker) = pair(config);
    let report = shim.update("send", taker.as_slice());
    assert_rejected(&report, RejectCode::SysTransient, 207, "please top up the canister with at least");
}

#[test]
fn estimates_cycles_for_subnets_of_any_size() {
    let (mut shim, taker) = pair(config());
    let report = shim.update("send", taker.as_slice());
    let reply_bytes = 64;
    assert_eq!(report.usage.call_bytes, "take".len() as u64 + reply_bytes);
    let expected = 3 * 5_000_000
        + u128::from(report.instructions())
        + 260_000
        + 1_000 * u128::from(report.usage.call_bytes)
        + 1_200_000
        + 2_000 * u128::from(report.usage.ingress_bytes);
    assert_eq!(report.cycles(13), expected);
    assert!(report.cycles(34) > 2 * expected);
}

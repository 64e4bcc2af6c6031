use crate::api::*;
use crate::env::Env;
use crate::testing::*;

const MINUTE_NS: u64 = 60_000_000_000;

fn with_ttl(seconds: u64) -> Canister {
    let mut canister = Canister::serving(&model(1));
    configure(&mut canister, seconds);
    canister
}

fn configure(canister: &mut Canister, seconds: u64) {
    let update = ConfigUpdate { session_ttl_seconds: Some(seconds), ..Default::default() };
    canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
}

fn create(canister: &mut Canister) -> u64 {
    canister.create(USER, text("hello"), options(1)).unwrap()
}

fn is_there(canister: &mut Canister, session_id: u64) -> bool {
    let arg = SessionOutputArg { session_id, from: 0 };
    match canister.call(USER, |service| service.session_output(arg)) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, Error::SessionNotFound { session_id });
            false
        }
    }
}

/// The timer for expired sessions, which is due now, and what comes of it. Answers how many messages it took.
fn expire(canister: &mut Canister) -> u32 {
    let due = canister.env.take_expiry().unwrap();
    assert!(due <= canister.env.time_ns(), "{due}");
    canister.call(candid::Principal::management_canister(), |service| service.expiry_due());
    let mut messages = 0;
    while canister.tick() {
        messages += 1;
    }
    messages
}

#[test]
fn a_session_that_is_left_alone_is_no_more_and_then_deleted() {
    let mut canister = with_ttl(600);
    let [left, used] = [0, 1].map(|_| create(&mut canister));
    canister.env.advance_ns(9 * MINUTE_NS);
    assert!(is_there(&mut canister, left));
    let arg = SessionAdvanceArg { session_id: used, max_instructions: None, max_tokens: Some(1), profile: None };
    canister.call(USER, |service| service.session_advance(arg)).unwrap();
    canister.env.advance_ns(MINUTE_NS);
    assert_eq!([left, used].map(|id| is_there(&mut canister, id)), [false, true], "reading is no use");
    let listed = canister.call(USER, |service| service.session_list(SessionListArg::default())).unwrap().sessions;
    assert_eq!(listed.len(), 1);
    assert!(canister.call(USER, |service| service.session_run(SessionIdArg { session_id: left })).is_err());
    assert_eq!(expire(&mut canister), 1);
    assert_eq!(canister.service.sessions.store().len(), 1);
    canister.env.advance_ns(10 * MINUTE_NS);
    assert_eq!((expire(&mut canister), is_there(&mut canister, used)), (1, false));
    assert!(canister.service.sessions.store().is_empty() && canister.env.take_expiry().is_none());
}

#[test]
fn many_are_deleted_in_many_messages_beside_other_work_and_after_upgrades() {
    let mut canister = with_ttl(600);
    (0..50).for_each(|_| assert!(create(&mut canister) > 0));
    canister.upgrade();
    assert!(canister.env.take_expiry().is_some());
    canister.settle();
    canister.env.advance_ns(3 * MINUTE_NS);
    let running = create(&mut canister);
    canister.env.set_cost_per_look(9_000_000_000);
    canister.env.advance_ns(8 * MINUTE_NS);
    canister.call(USER, |service| service.session_run(SessionIdArg { session_id: running })).unwrap();
    let before = canister.service.sessions.store().len();
    canister.tick();
    assert_eq!(before - canister.service.sessions.store().len(), 8);
    while canister.tick() {}
    assert_eq!(canister.service.sessions.store().len(), 1);
    let arg = SessionOutputArg { session_id: running, from: 0 };
    let status = canister.call(USER, |service| service.session_output(arg)).unwrap().status;
    assert_eq!(status.generated_tokens, 24, "work goes on, and keeps a session alive");
}

#[test]
fn sessions_live_for_ever_if_the_setting_says_so_and_a_change_counts_at_once() {
    let mut canister = with_ttl(0);
    let session = create(&mut canister);
    canister.env.advance_ns(1_000_000 * MINUTE_NS);
    assert!(is_there(&mut canister, session) && canister.env.take_expiry().is_none());
    configure(&mut canister, 60 * 1_000_000 + 600);
    assert!(is_there(&mut canister, session));
    assert!(canister.env.take_expiry().is_some());
    configure(&mut canister, 600);
    assert!(!is_there(&mut canister, session));
    canister.settle();
    assert!(canister.service.sessions.store().is_empty());
}

use crate::api::*;
use crate::env::Env;
use crate::testing::*;

const DAY_NS: u64 = 86_400_000_000_000;

fn configure(canister: &mut Canister, update: ConfigUpdate) {
    canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
}

fn serving(max_tokens_per_day: u64, max_runs_per_principal: u32) -> Canister {
    let mut canister = Canister::serving(&model(1));
    let limits = (Some(max_tokens_per_day), Some(max_runs_per_principal));
    let (max_tokens_per_day, max_runs_per_principal) = limits;
    configure(&mut canister, ConfigUpdate { max_tokens_per_day, max_runs_per_principal, ..Default::default() });
    canister
}

fn status(canister: &mut Canister, caller: candid::Principal) -> QuotaStatus {
    canister.call(caller, |service| service.quota_status())
}

fn used_up<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, u64, u64, Option<u64>) {
    match result {
        Err(Error::QuotaExceeded { quota, max, used, ends_ns }) => (quota, max, used, ends_ns),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_tokens_of_a_day_are_limited_and_every_way_to_spend_more_says_so() {
    let mut canister = serving(40, 9);
    let first = canister.create(USER, text("hello"), options(1)).unwrap();
    canister.finish(USER, first);
    let prompt = canister.answer(USER, first).tokens.len() as u64 - 24;
    // All positions but the last token's, which nothing came after.
    assert_eq!(status(&mut canister, USER).tokens_today, prompt + 23);
    let second = canister.create(USER, text("hello"), options(2)).unwrap();
    let progress = canister.advance(USER, second).unwrap();
    assert_eq!(progress.tokens.len() as u64, 40 - (prompt + 23) - prompt + 1, "the call ends with the quota");
    let now = status(&mut canister, USER);
    assert_eq!((now.tokens_today, now.unlimited, now.sessions), (40, false, 2));
    let refusal = ("max_tokens_per_day".to_owned(), 40, 40, Some(DAY_NS));
    assert_eq!(now.day_ends_ns, DAY_NS);
    assert_eq!(used_up(canister.advance(USER, second)), refusal);
    assert_eq!(used_up(canister.create(USER, text("a"), options(1))), refusal);
    let id = |session_id| SessionIdArg { session_id };
    assert_eq!(used_up(canister.call(USER, |service| service.session_run(id(second)))), refusal);
    let append = SessionAppendArg { session_id: first, input: text("a"), max_tokens: None };
    assert_eq!(used_up(canister.call(USER, |service| service.session_append(append))), refusal);
    let restart = SessionRestartArg { session_id: first, input: text("a"), options: options(1) };
    assert_eq!(used_up(canister.call(USER, |service| service.session_restart(restart))), refusal);
    let messages = vec![ChatMessage::User(MessageText { content: "hi".into() })];
    assert_eq!(used_up(canister.call(USER, |service| service.chat_begin(messages))), refusal);
    // Others are not concerned, what is there can be read and deleted, and a finished session says so.
    let other = canister.create(OTHER, text("hello"), options(1)).unwrap();
    canister.finish(OTHER, other);
    assert_eq!(canister.answer(USER, first), canister.answer(OTHER, other));
    assert!(canister.advance(USER, first).unwrap().tokens.is_empty());
    canister.call(USER, |service| service.session_delete(id(first))).unwrap();
    assert_eq!(used_up(canister.advance(USER, second)), refusal, "deleting gives nothing back");
    canister.upgrade();
    canister.settle();
    assert_eq!(status(&mut canister, USER).tokens_today, 40, "nor does an upgrade");
    assert_eq!(used_up(canister.advance(USER, second)), refusal);
    // Midnight.
    canister.env.advance_ns(DAY_NS - canister.service.env.time_ns() - 1_000_000_001);
    assert_eq!(used_up(canister.advance(USER, second)), refusal);
    assert_eq!(status(&mut canister, USER).tokens_today, 0);
    canister.advance(USER, second).unwrap();
    let undisturbed = canister.create(OTHER, text("hello"), options(2)).unwrap();
    canister.finish(OTHER, undisturbed);
    assert_eq!(canister.answer(USER, second), canister.answer(OTHER, undisturbed));
}

#[test]
fn a_running_session_rests_with_the_quota_and_operators_have_none() {
    let mut canister = serving(10, 9);
    let id = |session_id| SessionIdArg { session_id };
    for (caller, unlimited) in [(USER, false), (OPERATOR, true), (CONTROLLER, true)] {
        let session = canister.create(caller, text("hello"), options(1)).unwrap();
        canister.call(caller, |service| service.session_run(id(session))).unwrap();
        canister.settle();
        let output = SessionOutputArg { session_id: session, from: 0 };
        let now = canister.call(caller, |service| service.session_output(output)).unwrap().status;
        assert_eq!((now.running, now.generated_tokens == 24), (false, unlimited));
        assert_eq!(matches!(now.error, Some(Error::QuotaExceeded { .. })), !unlimited);
        assert_eq!(status(&mut canister, caller).unlimited, unlimited);
    }
}

#[test]
fn a_prompt_longer_than_the_quota_goes_on_the_next_day() {
    let mut canister = serving(8, 1);
    let long =
        |seed| (SessionInput::Tokens((1..30).collect()), SessionOptions { prefill_batch: Some(4), ..options(seed) });
    let (input, options) = long(1);
    let session = canister.create(USER, input.clone(), options.clone()).unwrap();
    let mut days = 0;
    while canister.advance(USER, session).unwrap().status.generated_tokens < 24 {
        assert!(status(&mut canister, USER).tokens_today < 8 + 4);
        used_up(canister.advance(USER, session));
        canister.env.advance_ns(DAY_NS);
        days += 1;
    }
    assert_eq!(days, (29 + 23) / 8);
    let whole = canister.create(OPERATOR, input, options).unwrap();
    canister.finish(OPERATOR, whole);
    assert_eq!(canister.answer(USER, session), canister.answer(OPERATOR, whole));
}

#[test]
fn sessions_that_run_at_the_same_time_are_limited() {
    let mut canister = serving(1_000, 2);
    canister.env.set_cost_per_look(9_000_000_000);
    let mut create = |caller| canister.create(caller, text("hello"), options(1)).unwrap();
    let (sessions, other) = ([USER; 3].map(&mut create), create(OTHER));
    let run = |canister: &mut Canister, caller, session_id| {
        canister.call(caller, |service| service.session_run(SessionIdArg { session_id })).map(|status| status.running)
    };
    for _ in 0..2 {
        assert_eq!([0, 1].map(|index| run(&mut canister, USER, sessions[index])), [Ok(true), Ok(true)]);
    }
    assert_eq!(used_up(run(&mut canister, USER, sessions[2])), ("max_runs_per_principal".into(), 2, 2, None));
    assert_eq!(run(&mut canister, OTHER, other), Ok(true));
    canister.upgrade();
    assert!(run(&mut canister, USER, sessions[2]).is_err());
    assert_eq!(status(&mut canister, USER).runs, 2);
    canister.call(USER, |service| service.session_cancel(SessionIdArg { session_id: sessions[0] })).unwrap();
    assert_eq!(run(&mut canister, USER, sessions[2]), Ok(true));
    canister.settle();
    assert_eq!(status(&mut canister, USER).runs, 0);
}

#[test]
fn below_the_floor_nothing_is_computed_and_everything_else_goes_on() {
    let mut canister = serving(1_000, 9);
    canister.env.set_cost_per_look(9_000_000_000);
    let finished = canister.create(USER, text("hello"), options(1)).unwrap();
    canister.finish(USER, finished);
    let [open, running] = [2, 3].map(|seed| canister.create(USER, text("hello"), options(seed)).unwrap());
    let id = |session_id| SessionIdArg { session_id };
    canister.call(USER, |service| service.session_run(id(running))).unwrap();
    let floor = Config::default().cycles_floor;
    let available = u128::from(floor) - 1;
    canister.env.set_liquid_cycles(available);
    let low = Error::CyclesLow { available, floor };
    let input = || text("a");
    for caller in [USER, OPERATOR, CONTROLLER] {
        assert_eq!(canister.create(caller, input(), options(1)), Err(low.clone()));
    }
    assert_eq!(canister.advance(USER, open), Err(low.clone()));
    let refused = canister.call(USER, |service| service.session_run(id(open))).map(drop);
    assert_eq!(refused, Err(low.clone()));
    let append = SessionAppendArg { session_id: finished, input: input(), max_tokens: None };
    assert_eq!(canister.call(USER, |service| service.session_append(append)), Err(low.clone()));
    let restart = SessionRestartArg { session_id: finished, input: input(), options: options(1) };
    assert_eq!(canister.call(USER, |service| service.session_restart(restart)), Err(low.clone()));
    canister.settle();
    let output = |canister: &mut Canister, session_id| {
        let arg = SessionOutputArg { session_id, from: 0 };
        canister.call(USER, |service| service.session_output(arg)).unwrap().status
    };
    let rests = output(&mut canister, running);
    assert_eq!((rests.running, rests.error), (false, Some(low)));
    // Reading, ending, deleting, uploading and loading.
    assert_eq!(canister.answer(USER, finished).digests.len(), 24);
    canister.call(USER, |service| service.session_cancel(id(open))).unwrap();
    canister.call(USER, |service| service.session_delete(id(open))).unwrap();
    canister.upload(&model(2));
    canister.settle();
    canister.upload(&model(1));
    canister.settle();
    configure(&mut canister, ConfigUpdate { cycles_floor: Some(floor - 1), ..Default::default() });
    canister.call(USER, |service| service.session_run(id(running))).unwrap();
    canister.settle();
    assert_eq!(output(&mut canister, running).generated_tokens, 24);
}

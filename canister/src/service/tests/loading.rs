use model_core::fixtures::GgufBuilder;

use crate::api::*;
use crate::service::Service;
use crate::testing::*;

fn step(canister: &mut Canister, max_instructions: Option<u64>) -> Result<ModelLoadStepOk, Error> {
    canister.call(OPERATOR, |service| service.model_load_step(ModelLoadStepArg { max_instructions }))
}

fn serving_hash(canister: &Canister) -> Option<Vec<u8>> {
    canister.service.model_status().serving.map(|info| info.file.sha256)
}

#[test]
fn loads_by_itself_after_the_commit_and_after_an_upgrade() {
    let model = model(1);
    let mut canister = Canister::new();
    assert_eq!(canister.service.model_status().load, LoadState::Empty);
    canister.upload(&model);
    assert!(matches!(canister.service.model_status().load, LoadState::Loading { done_bytes: 0, .. }));
    canister.settle();
    let status = canister.service.model_status();
    assert_eq!((status.load, status.candidate), (LoadState::Ready, None));
    let info = status.serving.unwrap();
    assert_eq!((info.architecture.as_str(), info.has_chat_template), ("llama", true));
    canister.upgrade();
    assert_eq!(serving_hash(&canister), None);
    canister.settle();
    assert_eq!(serving_hash(&canister), Some(begin_arg(&model).sha256));
}

#[test]
fn loads_in_steps_of_any_size() {
    let mut canister = Canister::new();
    canister.env.set_cost_per_look(10);
    canister.upload(&model(1));
    let mut steps = 1;
    let mut last = step(&mut canister, Some(1)).unwrap();
    while !last.ready {
        let next = step(&mut canister, Some(1)).unwrap();
        assert!(next.done_bytes > last.done_bytes || next.total_bytes > 0, "a step without progress");
        (last, steps) = (next, steps + 1);
    }
    assert!(steps > 10, "only {steps} steps");
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(step(&mut canister, None).unwrap().ready, "a step more does no harm");
}

#[test]
fn upgrades_at_every_step_of_loading_lose_nothing() {
    let model = model(1);
    let mut canister = Canister::new();
    canister.upload(&model);
    for steps in [0, 1, 2, 5, 20] {
        canister.upgrade();
        for _ in 0..steps {
            step(&mut canister, Some(1)).unwrap();
        }
    }
    canister.upgrade();
    canister.settle();
    assert_eq!(serving_hash(&canister), Some(begin_arg(&model).sha256));
}

#[test]
fn the_old_model_answers_until_the_new_one_is_packed() {
    let (old, new) = (model(1), model(2));
    let mut canister = Canister::serving(&old);
    let upload_id = canister.begin(&new);
    for range in [0..1_000, 1_000..new.len()] {
        canister.send(upload_id, &new, range).unwrap();
        let session = canister.create(USER, text("hello"), options(1)).unwrap();
        canister.finish(USER, session);
    }
    canister.env.set_cost_per_look(10);
    canister.commit(upload_id).unwrap();
    // The header, then the tokenizer: nothing of the old model is touched.
    for _ in 0..2 {
        step(&mut canister, Some(1)).unwrap();
        assert_eq!(serving_hash(&canister), Some(begin_arg(&old).sha256));
    }
    step(&mut canister, Some(1)).unwrap();
    assert_eq!(serving_hash(&canister), None);
    let refused = canister.create(USER, text("hello"), options(1));
    assert!(matches!(refused, Err(Error::ModelLoading { .. })), "{refused:?}");
    let both_slots_taken = canister.call(OPERATOR, |service| service.upload_begin(begin_arg(&model(3))));
    assert!(matches!(both_slots_taken, Err(Error::ModelLoading { .. })), "{both_slots_taken:?}");
    canister.settle();
    assert_eq!(serving_hash(&canister), Some(begin_arg(&new).sha256));
    canister.upgrade();
    canister.settle();
    assert_eq!(serving_hash(&canister), Some(begin_arg(&new).sha256));
}

#[test]
fn sessions_of_a_replaced_model_can_be_read_but_not_continued() {
    let mut canister = Canister::serving(&model(1));
    let session = canister.create(USER, text("hello"), SessionOptions { max_tokens: Some(60), ..options(1) }).unwrap();
    let arg = SessionAdvanceArg { session_id: session, max_instructions: None, max_tokens: Some(9), profile: None };
    canister.call(USER, |service| service.session_advance(arg)).unwrap();
    let before = canister.answer(USER, session);
    canister.upload(&model(2));
    canister.settle();
    assert_eq!(canister.answer(USER, session), before);
    assert_eq!(canister.advance(USER, session), Err(Error::ModelChanged));
    let cancelled =
        canister.call(USER, |service| service.session_cancel(SessionIdArg { session_id: session })).unwrap();
    assert_eq!(cancelled.state, SessionState::Finished(FinishReason::Cancelled));
    let arg = SessionAppendArg { session_id: session, input: text("more"), max_tokens: None };
    assert_eq!(canister.call(USER, |service| service.session_append(arg)), Err(Error::ModelChanged));
}

#[test]
fn a_file_that_is_no_model_leaves_the_old_one_answering() {
    let old = model(1);
    let hash = begin_arg(&old).sha256;
    let mut canister = Canister::serving(&old);
    let session = canister.create(USER, text("hello"), options(1)).unwrap();
    for bad in [b"no model at all".to_vec(), GgufBuilder::new().build()] {
        canister.upload(&bad);
        canister.settle();
        let status = canister.service.model_status();
        assert_eq!((status.load, status.candidate), (LoadState::Ready, None));
        assert_eq!(status.stored.unwrap().sha256, hash);
        let rejected = status.rejected.unwrap();
        assert_eq!(rejected.model.bytes, bad.len() as u64);
        assert!(!rejected.message.is_empty());
    }
    canister.finish(USER, session);
}

#[test]
fn a_file_that_fails_while_it_is_packed_brings_the_old_one_back() {
    let (old, mut broken) = (model(1), model(2));
    let source = model_core::gguf::File::read(&broken).unwrap();
    let norm = source.tensor("output_norm.weight").unwrap();
    let at = norm.offset as usize;
    broken[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut canister = Canister::serving(&old);
    let session = canister.create(USER, text("hello"), options(1)).unwrap();
    canister.upload(&broken);
    canister.settle();
    let status = canister.service.model_status();
    assert_eq!(status.load, LoadState::Ready);
    assert!(status.rejected.unwrap().message.contains("output_norm.weight"));
    assert_eq!(serving_hash(&canister), Some(begin_arg(&old).sha256));
    canister.finish(USER, session);
}

#[test]
fn a_first_file_that_is_no_model_is_reported_and_replaced() {
    let mut canister = Canister::new();
    canister.upload(b"no model");
    let refused = step(&mut canister, None);
    assert!(matches!(refused, Err(Error::ModelRejected { .. })), "{refused:?}");
    canister.settle();
    assert_eq!(canister.service.model_status().load, LoadState::Empty);
    assert_eq!(canister.create(USER, text("hello"), options(1)), Err(Error::ModelMissing));
    canister.upload(&model(1));
    canister.settle();
    assert_eq!(canister.service.model_status().load, LoadState::Ready);
}

#[test]
fn a_lost_timer_is_set_again_and_work_that_always_traps_is_given_up() {
    let (old, new) = (model(1), model(2));
    let mut canister = Canister::serving(&old);
    canister.env.set_cost_per_look(9_000_000_000);
    canister.upload(&new);
    while serving_hash(&canister).is_some() {
        canister.tick();
    }
    canister.lose_timer();
    canister.lose_timer();
    assert!(canister.service.model_status().candidate.is_some());
    canister.tick();
    // What was lost before a success does not count.
    canister.lose_timer();
    canister.lose_timer();
    canister.lose_timer();
    let status = canister.service.model_status();
    assert_eq!(status.candidate, None);
    assert!(status.rejected.unwrap().message.contains("memory limit"));
    canister.settle();
    assert_eq!(serving_hash(&canister), Some(begin_arg(&old).sha256));
}

#[test]
fn a_current_model_that_always_traps_waits_for_a_step_by_hand() {
    let mut canister = Canister::serving(&model(1));
    canister.upgrade();
    (0..3).for_each(|_| canister.lose_timer());
    assert!(matches!(canister.service.model_status().load, LoadState::Failed { .. }));
    assert!(!canister.tick(), "nothing goes on by itself");
    assert!(matches!(canister.create(USER, text("hello"), options(1)), Err(Error::ModelRejected { .. })));
    assert!(step(&mut canister, None).unwrap().ready);
    canister.create(USER, text("hello"), options(1)).unwrap();
}

#[test]
fn a_call_sets_the_timers_again_if_the_platform_ran_none() {
    let model = model(1);
    let mut canister = Canister::new();
    canister.upload(&model);
    assert_eq!((canister.env.take_timers(), canister.env.take_watches()), (1, 1));
    canister.env.advance_ns(100_000_000_000);
    canister.call(USER, |service| service.version());
    assert_eq!((canister.env.take_timers(), canister.env.take_watches()), (0, 0), "they may still come");
    canister.env.advance_ns(20_000_000_000);
    canister.call(USER, |service| service.version());
    assert_eq!((canister.env.take_timers(), canister.env.take_watches()), (1, 1));
    canister.call(CONTROLLER, Service::background);
    canister.settle();
    assert_eq!(serving_hash(&canister), Some(begin_arg(&model).sha256));
}

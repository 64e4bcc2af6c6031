//! Messages of the real canister that are killed in the middle, at many places: everything is as it was
//! before, and the same call repeated gives what it would have given at once. Only the shim can set limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::fmt::Debug;
use std::time::Duration;

use canister::api::*;
use end_to_end::{CallKind, Host, Icllama, Outcome, ShimHost, ask, audited, chat, chunks, full, is_finished, tiny};
use local_runner::shim::limits::Limits;
use model_core::fixtures::TinyLlama;

/// Error code of a message that used more instructions than it may.
const OUT_OF_INSTRUCTIONS: u32 = 522;

fn install() -> Icllama<ShimHost> {
    Icllama::install(Box::new(ShimHost::new()), ConfigUpdate::default())
}

/// Everything that can be seen of the canister from outside.
#[derive(Debug, PartialEq)]
struct Everything {
    stable: u64,
    model: ModelStatus,
    upload: Result<UploadStatus, Error>,
    config: Config,
    sessions: Vec<SessionSummary>,
    outputs: Vec<(SessionOutputOk, SessionTokensOk, SessionDigestsOk, Result<SessionLogitsOk, Error>)>,
}

fn everything(icllama: &mut Icllama<ShimHost>) -> Everything {
    let sessions = icllama.session_list(SessionListArg::default()).unwrap().sessions;
    let ids: Vec<u64> = sessions.iter().map(|session| session.status.session_id).collect();
    let outputs = ids.into_iter().map(|session_id| {
        let page = SessionPageArg { session_id, from: None, limit: None };
        (
            icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap(),
            icllama.session_tokens(page).unwrap(),
            icllama.session_digests(page).unwrap(),
            icllama.session_logits(SessionIdArg { session_id }),
        )
    });
    Everything {
        outputs: outputs.collect(),
        sessions,
        stable: icllama.host.stable_digest(icllama.canister),
        model: icllama.model_status(),
        upload: icllama.upload_status(UploadStatusArg::default()),
        config: icllama.config_get().unwrap(),
    }
}

/// Makes the same call under limits that grow from next to nothing until it passes. Every call that is
/// killed must leave everything as it was. Answers how many were, and the answer of the one that was not.
fn killed_at_many_places<T: Debug>(
    icllama: &mut Icllama<ShimHost>,
    mut limit: impl FnMut(&mut Limits, u64),
    mut call: impl FnMut(&mut Icllama<ShimHost>) -> Outcome<T>,
) -> (u32, T) {
    let before = everything(icllama);
    let mut instructions = 1_000;
    for killed in 0..200 {
        icllama.host.set_limits(|limits| limit(limits, instructions));
        let outcome = call(icllama);
        icllama.host.set_limits(|limits| *limits = Limits::default());
        match outcome {
            Outcome::Ok(answer) => return (killed, answer),
            Outcome::Refused(error) => panic!("refused after {killed} kills: {error:?}"),
            Outcome::Rejected(reject) => assert_eq!(reject.error_code, OUT_OF_INSTRUCTIONS, "{reject:?}"),
        }
        assert_eq!(everything(icllama), before, "killed after {instructions} instructions");
        instructions += instructions / 4;
    }
    panic!("the call does not pass with {instructions} instructions");
}

fn update_limit(limits: &mut Limits, instructions: u64) {
    limits.instructions.update = instructions;
}

/// Calls an update method under growing limits.
fn update<T>(icllama: &mut Icllama<ShimHost>, method: &str, arg: impl candid::CandidType + Clone) -> (u32, T)
where
    T: Debug + candid::CandidType + serde::de::DeserializeOwned,
{
    killed_at_many_places(icllama, update_limit, |icllama| icllama.call(CallKind::Update, method, (arg.clone(),)))
}

#[test]
fn an_upload_loses_nothing_and_gains_nothing() {
    let file = TinyLlama { vocab: 2_000, ..tiny(1) }.build();
    let mut icllama = install();
    let upload_id = icllama.announce("model", &file).upload_id;
    let parts = chunks(&file, file.len() / 2);
    icllama.send(upload_id, &parts[1..]);
    let chunk = UploadChunkArg { upload_id, offset: 0, bytes: parts[0].bytes.to_vec() };
    let (killed, answer) = update::<UploadChunkOk>(&mut icllama, "upload_chunk", chunk);
    assert!(killed > 10, "{killed}");
    assert_eq!(answer.received_bytes, file.len() as u64);

    let commit = UploadCommitArg { upload_id, max_instructions: None };
    let (killed, answer) = update::<UploadCommitOk>(&mut icllama, "upload_commit", commit);
    assert!(killed > 10 && answer.done, "{killed} {answer:?}");
    icllama.wait_until_ready();
}

#[test]
fn loading_can_be_killed_anywhere() {
    let file = tiny(2).build();
    let question = ask("hello world", 6);
    let mut quiet = install();
    quiet.serve("model", &file);
    let expected = quiet.generate(&question, &mut full);

    let mut icllama = install();
    icllama.store("model", &file);
    let step = ModelLoadStepArg { max_instructions: None };
    let (killed, answer) = update::<ModelLoadStepOk>(&mut icllama, "model_load_step", step);
    assert!(killed > 20 && answer.ready, "{killed} {answer:?}");
    assert_eq!(icllama.generate(&question, &mut full), expected);
}

#[test]
fn a_generation_can_be_killed_anywhere() {
    let file = tiny(3).build();
    let options = SessionOptions { temperature: Some(1.0), seed: Some(7), repeat_penalty: Some(1.2), ..audited(8) };
    let question = SessionCreateArg { input: chat("Be kind.", "hello the world"), options };
    let turn = |session_id| SessionAppendArg {
        session_id,
        input: SessionInput::Messages(vec![ChatMessage::User(MessageText { content: "more".into() })]),
        max_tokens: Some(4),
    };
    let mut quiet = install();
    quiet.serve("model", &file);
    let session_id = quiet.session_create(question.clone()).unwrap().session_id;
    quiet.finish(session_id, &mut full);
    quiet.session_append(turn(session_id)).unwrap();
    quiet.finish(session_id, &mut full);
    let (expected, logits) = (quiet.generation(session_id), quiet.logits(session_id));

    let mut icllama = install();
    icllama.serve("model", &file);
    let (killed, created) = update::<SessionCreateOk>(&mut icllama, "session_create", question);
    assert!(killed > 10, "{killed}");
    let session_id = created.session_id;
    for max_tokens in [None, Some(3)] {
        let advance = SessionAdvanceArg { session_id, max_instructions: Some(2_000_000), max_tokens, profile: None };
        let (killed, _) = update::<SessionProgress>(&mut icllama, "session_advance", advance);
        assert!(killed > 10, "{killed}");
    }
    let advance = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
    let (killed, progress) = update::<SessionProgress>(&mut icllama, "session_advance", advance);
    assert!(killed > 10 && is_finished(&progress.status), "{killed} {progress:?}");
    let (killed, _) = update::<SessionAppendOk>(&mut icllama, "session_append", turn(session_id));
    assert!(killed > 10, "{killed}");
    let (killed, _) = update::<SessionProgress>(&mut icllama, "session_advance", advance);
    assert!(killed > 10, "{killed}");
    assert_eq!(icllama.generation(session_id), expected);
    assert_eq!(icllama.logits(session_id), logits);
}

#[test]
fn an_upgrade_that_fails_leaves_the_old_canister_running() {
    let file = tiny(4).build();
    let question = ask("hello world", 10);
    let mut icllama = install();
    icllama.serve("model", &file);
    let expected = icllama.generate(&question, &mut full);
    let session_id = icllama.session_create(question).unwrap().session_id;
    let advance = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(4), profile: None };
    icllama.session_advance(advance).unwrap();
    let upload_id = icllama.announce("next", &tiny(5).build()).upload_id;
    icllama.send(upload_id, &chunks(&tiny(5).build(), 10_000)[1..3]);

    let install_limit = |limits: &mut Limits, instructions| limits.instructions.install = instructions;
    let (killed, ()) = killed_at_many_places(&mut icllama, install_limit, |icllama| match icllama.try_upgrade() {
        Ok(()) => Outcome::Ok(()),
        Err(reject) => Outcome::Rejected(reject),
    });
    assert!(killed > 10, "{killed}");
    assert!(matches!(icllama.model_status().load, LoadState::Loading { .. }));
    icllama.load(None);
    icllama.finish(session_id, &mut full);
    assert_eq!(icllama.generation(session_id), expected);
}

#[test]
fn a_killed_timer_is_set_again_by_the_next_call() {
    let file = tiny(6).build();
    let question = ask("hello world", 12);
    let mut icllama = install();
    icllama.serve("model", &file);
    let expected = icllama.generate(&question, &mut full);
    let session_id = icllama.session_create(question).unwrap().session_id;
    icllama.session_run(SessionIdArg { session_id }).unwrap();
    let before = icllama.generation(session_id);
    for limit in [3_000_000, 1_000_000, 100_000] {
        icllama.host.set_limits(|limits| limits.instructions.update = limit);
        icllama.host.advance(Duration::from_secs(1));
        icllama.host.set_limits(|limits| *limits = Limits::default());
        assert_eq!(icllama.generation(session_id), before, "limit {limit}");
        // The client asks again, after a while in which the canister has no chance to notice.
        icllama.host.advance_without_timers(Duration::from_secs(130));
        icllama.session_run(SessionIdArg { session_id }).unwrap();
    }
    icllama.wait_until("the session is finished", |icllama| {
        is_finished(&icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap().status)
    });
    assert_eq!(icllama.generation(session_id), expected);
}

#[test]
fn a_killed_timer_is_noticed_without_any_call() {
    let file = tiny(8).build();
    let question = ask("hello world", 12);
    let mut icllama = install();
    icllama.serve("model", &file);
    let expected = icllama.generate(&question, &mut full);
    let session_id = icllama.session_create(question).unwrap().session_id;
    icllama.session_run(SessionIdArg { session_id }).unwrap();
    let before = icllama.generation(session_id);
    // Enough for ic-cdk-timers to call the canister, not enough to generate.
    icllama.host.set_limits(|limits| limits.instructions.update = 3_000_000);
    icllama.host.advance(Duration::from_secs(1));
    icllama.host.set_limits(|limits| *limits = Limits::default());
    assert_eq!(icllama.generation(session_id), before);
    icllama.wait_until("the session is finished", |icllama| {
        is_finished(&icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap().status)
    });
    assert_eq!(icllama.generation(session_id), expected);
}

#[test]
fn a_model_too_large_for_the_heap_is_given_up_for_the_old_one() {
    let large = TinyLlama { dim: 512, hidden: 1536, layers: 8, heads: 8, kv_heads: 8, head_dim: 64, ..tiny(9) }.build();
    let question = ask("hello world", 10);
    let mut host = ShimHost::new();
    host.set_limits(|limits| limits.memory.wasm_memory_limit = 16 << 20);
    let mut icllama = Icllama::install(Box::new(host), ConfigUpdate::default());
    icllama.serve("small", &tiny(9).build());
    let expected = icllama.generate(&question, &mut full);
    icllama.store("large", &large);
    icllama.wait_until("the large model is rejected", |icllama| icllama.model_status().rejected.is_some());
    icllama.wait_until_ready();
    let status = icllama.model_status();
    assert_eq!(
        (status.rejected.unwrap().model.name.as_str(), status.serving.unwrap().file.name.as_str()),
        ("large", "small")
    );
    assert!(status.heap_bytes <= 16 << 20, "{}", status.heap_bytes);
    assert_eq!(icllama.generate(&question, &mut full), expected);
}

#[test]
fn stable_memory_that_cannot_grow_is_an_answer() {
    let mut icllama = install();
    let before = everything(&mut icllama);
    icllama.host.set_limits(|limits| limits.memory.stable_bytes = 256 << 20);
    let total_bytes = 1 << 30;
    let announced = UploadBeginArg { name: "large".into(), total_bytes, sha256: vec![0; 32] };
    let refused = icllama.upload_begin(announced.clone());
    assert!(matches!(refused, Err(Error::StableMemoryFull { .. })), "{refused:?}");
    assert_eq!(everything(&mut icllama), before);
    icllama.serve("small", &tiny(7).build());
    icllama.host.set_limits(|limits| *limits = Limits::default());
    icllama.upload_begin(announced).unwrap();
}

//! Upgrades of the real canister at every stage of its life: nothing that was acknowledged is lost, the
//! model comes back by itself, and answers have the bits of an undisturbed run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use std::time::Duration;

use canister::api::*;
use end_to_end::{Generation, Icllama, ask, audited, chat, chunks, full, is_finished, principal, tiny};

const SIZE: usize = 8_000;

/// Settings under which everything takes many messages.
fn small_steps() -> ConfigUpdate {
    ConfigUpdate { max_instructions: Some(1), ..ConfigUpdate::default() }
}

/// What an undisturbed canister answers.
fn undisturbed(file: &[u8], question: &SessionCreateArg) -> Generation {
    let mut icllama = Icllama::install(Box::new(end_to_end::ShimHost::new()), ConfigUpdate::default());
    icllama.serve("model", file);
    icllama.generate(question, &mut full)
}

#[test]
fn settings_and_roles_survive() {
    let update = ConfigUpdate {
        generate_access: Some(GenerateAccess::AllowList),
        operators: Some(vec![principal(2)]),
        users: Some(vec![principal(3)]),
        max_instructions: Some(7_000_000_000),
        cache_heap_bytes: Some(5 << 20),
        activation_bits: Some(ActivationBits::Bits8),
        kv_cache_bits: Some(KvCacheBits::Bits8),
        max_heap_bytes: Some(1 << 30),
        residency: Some(Residency::Wide),
        max_sessions: Some(11),
        max_sessions_per_principal: Some(3),
        max_tokens_per_day: Some(5_555),
        max_runs_per_principal: Some(4),
        session_ttl_seconds: Some(0),
        cycles_floor: Some(7),
        max_input_bytes: Some(999),
        max_session_tokens: Some(77),
        chat_template: Some("chatml".into()),
    };
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let config = icllama.config_set(update.clone()).unwrap();
        let before = icllama.version();
        icllama.upgrade();
        assert_eq!(icllama.config_get().unwrap(), config);
        assert_eq!(icllama.version(), before);
        assert_eq!((config.max_sessions, config.users), (11, vec![principal(3)]));
    }
}

#[test]
fn an_empty_canister_stays_empty_and_usable() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.upgrade();
        let status = icllama.model_status();
        assert_eq!((status.load, status.stored, status.upload), (LoadState::Empty, None, None));
        icllama.serve("after", &file);
    }
}

#[test]
fn an_upload_goes_on_where_it_was() {
    let file = tiny(2).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let upload_id = icllama.announce("model", &file).upload_id;
        icllama.upgrade();
        // An upgrade after each chunk, in no particular order.
        let mut parts = chunks(&file, SIZE);
        let half = parts.len() / 2;
        parts.rotate_left(half);
        let mut received = 0;
        for chunk in parts {
            let begun = icllama.announce("model", &file);
            assert_eq!((begun.upload_id, begun.received_bytes), (upload_id, received));
            icllama.send(upload_id, &[chunk]);
            received += chunk.bytes.len() as u64;
            let before = icllama.upload_status(UploadStatusArg::default()).unwrap();
            icllama.upgrade();
            assert_eq!(icllama.upload_status(UploadStatusArg::default()).unwrap(), before);
        }
        icllama.verify(upload_id, None).unwrap();
        icllama.wait_until_ready();
        assert_eq!(icllama.model_status().serving.unwrap().file.name, "model");
    }
}

#[test]
fn verification_goes_on_by_itself() {
    let mut file = tiny(3).build();
    file.resize(12_000_000, 0); // bytes after the last tensor are allowed; dozens of steps of hashing
    for mut icllama in Icllama::everywhere(small_steps()) {
        let upload_id = icllama.announce("model", &file).upload_id;
        icllama.send(upload_id, &chunks(&file, MAX_CHUNK_BYTES as usize));
        let step = icllama.upload_commit(UploadCommitArg { upload_id, max_instructions: None }).unwrap();
        assert!(!step.done && step.hashed_bytes > 0, "{step:?}");
        icllama.upgrade();
        let upload = icllama.model_status().upload.unwrap();
        assert!(matches!(upload.state, UploadState::Verifying { .. }), "{upload:?}");
        icllama.wait_until("a part is hashed again", |icllama| {
            matches!(
                icllama.model_status().upload.unwrap().state,
                UploadState::Verifying { hashed_bytes } if hashed_bytes > 0
            )
        });
        icllama.upgrade();
        icllama.wait_until_ready();
        assert_eq!(icllama.model_status().serving.unwrap().file.name, "model");
    }
}

#[test]
fn loading_begins_again_by_itself() {
    let file = tiny(4).build();
    let question = ask("hello world", 5);
    let expected = undisturbed(&file, &question);
    for mut icllama in Icllama::everywhere(small_steps()) {
        icllama.store("model", &file);
        icllama.upgrade();
        for _ in 0..3 {
            icllama.wait_until("a part is loaded", |icllama| {
                matches!(icllama.model_status().load, LoadState::Loading { done_bytes, .. } if done_bytes > 0)
            });
            let refused = icllama.session_create(question.clone());
            assert!(matches!(refused, Err(Error::ModelLoading { .. })), "{refused:?}");
            icllama.upgrade();
        }
        icllama.wait_until_ready();
        assert_eq!(icllama.generate(&question, &mut full), expected);
        // Loaded before, and loaded again.
        icllama.upgrade();
        assert!(matches!(icllama.model_status().load, LoadState::Loading { .. }));
        icllama.wait_until_ready();
        assert_eq!(icllama.generate(&question, &mut full), expected);
    }
}

#[test]
fn an_upload_of_a_second_model_survives_beside_the_first() {
    let (old, new) = (tiny(5).build(), tiny(6).build());
    let question = ask("the", 4);
    let (from_old, from_new) = (undisturbed(&old, &question), undisturbed(&new, &question));
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("old", &old);
        let upload_id = icllama.announce("new", &new).upload_id;
        let parts = chunks(&new, SIZE);
        icllama.send(upload_id, &parts[..3]);
        icllama.upgrade();
        icllama.wait_until_ready();
        assert_eq!(icllama.generate(&question, &mut full), from_old);
        icllama.send(upload_id, &parts[3..]);
        icllama.verify(upload_id, None).unwrap();
        icllama.upgrade();
        icllama.wait_until_ready();
        assert_eq!(icllama.generate(&question, &mut full), from_new);
    }
}

/// Random sampling with penalties and a chat: everything a session keeps is in play.
fn demanding() -> SessionCreateArg {
    let options = SessionOptions {
        temperature: Some(1.1),
        top_k: Some(30),
        repeat_penalty: Some(1.3),
        frequency_penalty: Some(0.2),
        presence_penalty: Some(0.1),
        seed: Some(42),
        prefill_batch: Some(4),
        ..audited(14)
    };
    SessionCreateArg { input: chat("You are a test.", "hello world, in the end"), options }
}

#[test]
fn sessions_go_on_with_the_same_bits_after_an_upgrade_at_every_call() {
    let file = tiny(7).build();
    let question = demanding();
    let expected = undisturbed(&file, &question);
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(question.clone()).unwrap().session_id;
        let mut upgrades = 0;
        loop {
            let before = icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap();
            let listed = icllama.session_list(SessionListArg::default()).unwrap();
            icllama.upgrade();
            upgrades += 1;
            let after = icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap();
            assert_eq!(after.text, before.text);
            assert_eq!(after.status.generated_tokens, before.status.generated_tokens);
            assert_eq!(after.status.cached_tokens, 0);
            let listed_again = icllama.session_list(SessionListArg::default()).unwrap();
            assert_eq!(listed.sessions[0].created_ns, listed_again.sessions[0].created_ns);
            if is_finished(&after.status) {
                break;
            }
            icllama.load(None);
            // Two tokens at a time: the history is computed again, and the answer goes on.
            let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(2), profile: None };
            assert_eq!(icllama.session_advance(arg).unwrap().tokens.len(), 2);
        }
        assert_eq!(upgrades, 14 / 2 + 1);
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn an_upgrade_between_steps_of_the_prompt_costs_only_time() {
    let file = tiny(8).build();
    let question = demanding();
    let expected = undisturbed(&file, &question);
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(question.clone()).unwrap().session_id;
        let step = |icllama: &mut Icllama, max_instructions| {
            icllama
                .session_advance(SessionAdvanceArg { session_id, max_instructions, max_tokens: None, profile: None })
                .unwrap()
                .status
        };
        for steps in 1..6 {
            for _ in 0..steps {
                assert_eq!(step(&mut icllama, Some(1)).generated_tokens, 0);
            }
            icllama.upgrade();
            icllama.load(None);
        }
        icllama.finish(session_id, &mut full);
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn a_running_session_runs_on_by_itself() {
    let file = tiny(9).build();
    let question = demanding();
    let expected = undisturbed(&file, &question);
    for mut icllama in Icllama::everywhere(small_steps()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(question.clone()).unwrap().session_id;
        assert!(icllama.session_run(SessionIdArg { session_id }).unwrap().running);
        for tokens in [1, 5, 9] {
            icllama.wait_until("some tokens are there", |icllama| {
                let output = icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap();
                output.status.generated_tokens >= tokens
            });
            icllama.upgrade();
            let status = icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap().status;
            assert!(status.running && !is_finished(&status), "{status:?}");
        }
        icllama.wait_until("the session is finished", |icllama| {
            is_finished(&icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap().status)
        });
        let status = icllama.session_output(SessionOutputArg { session_id, from: 0 }).unwrap().status;
        assert!(!status.running && status.error.is_none(), "{status:?}");
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn a_finished_chat_can_be_continued_after_an_upgrade() {
    let file = tiny(10).build();
    let more = |session_id| SessionAppendArg {
        session_id,
        input: SessionInput::Messages(vec![ChatMessage::User(MessageText { content: "and then?".into() })]),
        max_tokens: Some(6),
    };
    let mut quiet = Icllama::install(Box::new(end_to_end::ShimHost::new()), ConfigUpdate::default());
    quiet.serve("model", &file);
    let session_id = quiet.session_create(demanding()).unwrap().session_id;
    quiet.finish(session_id, &mut full);
    let appended = quiet.session_append(more(session_id)).unwrap().appended_tokens;
    assert!(appended > 0);
    quiet.finish(session_id, &mut full);
    let expected = quiet.generation(session_id);
    assert_eq!(expected.digests.len(), 14 + 6);

    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(demanding()).unwrap().session_id;
        icllama.finish(session_id, &mut full);
        icllama.upgrade();
        icllama.load(None);
        assert_eq!(icllama.session_append(more(session_id)).unwrap().appended_tokens, appended);
        icllama.upgrade();
        icllama.load(None);
        icllama.finish(session_id, &mut full);
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn stopping_and_starting_changes_nothing() {
    let file = tiny(11).build();
    let question = ask("hello the world", 9);
    let expected = undisturbed(&file, &question);
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        let session_id = icllama.session_create(question.clone()).unwrap().session_id;
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(4), profile: None };
        icllama.session_advance(arg).unwrap();
        icllama.host.stop(icllama.canister, icllama.sender);
        icllama.host.advance(Duration::from_secs(3600));
        icllama.host.start(icllama.canister, icllama.sender);
        icllama.finish(session_id, &mut full);
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn a_reinstallation_forgets_everything() {
    let file = tiny(12).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("model", &file);
        icllama.session_create(ask("hello", 1)).unwrap();
        icllama.reinstall();
        let status = icllama.model_status();
        assert_eq!((status.serving, status.stored, status.load), (None, None, LoadState::Empty));
        assert_eq!(icllama.session_list(SessionListArg::default()).unwrap().sessions, []);
        icllama.serve("again", &file);
    }
}

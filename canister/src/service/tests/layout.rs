//! Stable memory as earlier versions left it.

use std::io::Read;

use candid::Principal;
use flate2::read::GzDecoder;
use ic_stable_structures::Memory;
use model_core::fixtures::TinyLlama;

use super::super::Service;
use crate::api::*;
use crate::env::Env;
use crate::memory::LAYOUT_VERSION;
use crate::testing::*;

/// A canister of layout version 1: a model of one layer, settings, a finished session and a running one of `USER`, one of
/// `OTHER` in the middle, and an upload that has begun.
const LAYOUT_1: &[u8] = include_bytes!("../../testing/layout-1.bin.gz");

fn opened(dump: &[u8]) -> Canister {
    let mut bytes = Vec::new();
    GzDecoder::new(dump).read_to_end(&mut bytes).unwrap();
    let mut canister = Canister::new();
    canister.memory = Default::default();
    canister.memory.grow(bytes.len() as u64 / 65536);
    canister.memory.write(0, &bytes);
    canister.service = Service::open(canister.memory.clone(), canister.env.clone(), None).unwrap();
    canister
}

#[test]
fn a_canister_of_layout_1_goes_on() {
    let mut canister = opened(LAYOUT_1);
    canister.settle();
    assert_eq!(canister.service.version().layout_version, LAYOUT_VERSION);
    let config = canister.call(OPERATOR, |service| service.config_get()).unwrap();
    assert_eq!((config.max_sessions, config.max_tokens_per_day), (77, Config::default().max_tokens_per_day));
    let list = |canister: &mut Canister, caller| {
        let list = canister.call(caller, |service| service.session_list(SessionListArg::default())).unwrap().sessions;
        list.iter().map(|summary| summary.status.session_id).collect::<Vec<_>>()
    };
    assert_eq!((list(&mut canister, USER), list(&mut canister, OTHER)), (vec![1, 3], vec![2]));
    canister.advance(OTHER, 2).unwrap();
    // The same sessions made now.
    for (caller, id, words, seed) in [(USER, 1, "hello", 1), (OTHER, 2, "hello world", 2), (USER, 3, "a b", 3)] {
        let again = canister.create(OPERATOR, text(words), options(seed)).unwrap();
        canister.finish(OPERATOR, again);
        assert_eq!(canister.answer(caller, id), canister.answer(OPERATOR, again));
        assert!(again > 3);
    }
    let upload = canister.service.upload_status(UploadStatusArg::default()).unwrap();
    assert_eq!(upload.received_bytes, 600);
    canister.upgrade();
    canister.settle();
    assert_eq!(canister.answer(USER, 1).digests.len(), 24);
}

/// Where the dump of a layout lies.
fn dump_path(version: u32) -> String {
    format!("{}/src/testing/layout-{version}.bin.gz", env!("CARGO_MANIFEST_DIR"))
}

/// The file of a small model.
fn small_model() -> Vec<u8> {
    TinyLlama { layers: 1, ..TinyLlama::default() }.build()
}

/// Settings none of which is the default.
fn unusual_settings() -> ConfigUpdate {
    ConfigUpdate {
        generate_access: Some(GenerateAccess::Authenticated),
        operators: Some(vec![OPERATOR]),
        users: Some(vec![OTHER]),
        max_instructions: Some(7_000_000_000),
        cache_heap_bytes: Some(5 << 20),
        kv_cache_bits: Some(KvCacheBits::Bits8),
        max_heap_bytes: Some(1 << 30),
        residency: Some(Residency::Compact),
        activation_bits: Some(ActivationBits::Bits8),
        max_sessions: Some(77),
        max_sessions_per_principal: Some(33),
        max_tokens_per_day: Some(5_555),
        max_runs_per_principal: Some(4),
        session_ttl_seconds: Some(0),
        cycles_floor: Some(7),
        max_input_bytes: Some(999),
        max_session_tokens: Some(600),
        chat_template: Some("chatml".into()),
    }
}

/// A session that keeps everything a session can keep.
fn demanding() -> SessionOptions {
    SessionOptions {
        stop: Some(vec!["stop here".into()]),
        grammar: Some(Grammar::Gbnf("root ::= [a-z ]*".into())),
        logprobs: Some(2),
        kv_cache_bits: Some(16),
        enable_thinking: Some(false),
        ..options(4)
    }
}

/// A canister in which every structure of stable memory holds something: settings, a model, a rejected one, an upload with
/// gaps, and sessions in every state: finished, begun, in the middle, running, given up, to end with a call; and one that was
/// deleted after it computed.
fn furnished() -> Canister {
    let mut canister = Canister::new();
    canister.call(CONTROLLER, |service| service.config_set(&unusual_settings())).unwrap();
    canister.upload(&small_model());
    canister.settle();
    canister.upload(b"no model at all");
    canister.settle();
    let create =
        |canister: &mut Canister, caller, words: &str, options| canister.create(caller, text(words), options).unwrap();
    let part = |canister: &mut Canister, caller, session_id| {
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(9), profile: None };
        canister.call(caller, |service| service.session_advance(arg)).unwrap();
    };
    let finished = create(&mut canister, USER, "hello", options(1));
    canister.finish(USER, finished);
    let given_up = create(&mut canister, USER, "world", options(5));
    canister.call(USER, |service| service.session_run(SessionIdArg { session_id: given_up })).unwrap();
    (0..3).for_each(|_| canister.lose_timer());
    let middle = create(&mut canister, OTHER, "hello world", demanding());
    part(&mut canister, OTHER, middle);
    create(&mut canister, OPERATOR, "begun", options(6));
    let deleted = create(&mut canister, OTHER, "in the end", options(7));
    canister.finish(OTHER, deleted);
    canister.call(OTHER, |service| service.session_delete(SessionIdArg { session_id: deleted })).unwrap();
    let begun = canister.begin(&small_model()[..5_000]);
    for range in [0..600, 1_000..1_500] {
        canister.send(begun, &small_model()[..5_000], range).unwrap();
    }
    let messages = vec![ChatMessage::User(MessageText { content: "hi".into() })];
    canister.call(OTHER, |service| service.chat_begin(messages)).unwrap();
    let running = create(&mut canister, USER, "a b", options(3));
    part(&mut canister, USER, running);
    canister.call(USER, |service| service.session_run(SessionIdArg { session_id: running })).unwrap();
    canister
}

/// All that can be seen of a canister from outside, but how many tokens the heap has.
fn everything(canister: &mut Canister) -> String {
    let status = canister.service.model_status();
    let settings = canister.call(CONTROLLER, |service| service.config_get());
    let upload = canister.service.upload_status(UploadStatusArg::default());
    let all = SessionListArg { all: Some(true), ..SessionListArg::default() };
    let mut sessions = canister.call(CONTROLLER, |service| service.session_list(all)).unwrap().sessions;
    let mut lines = vec![format!("{settings:#?} {upload:#?} {:#?} {:#?}", status.stored, status.rejected)];
    for SessionSummary { owner, created_ns, updated_ns, status } in &mut sessions {
        let page = SessionPageArg { session_id: status.session_id, from: None, limit: None };
        let output = SessionOutputArg { session_id: status.session_id, from: 0 };
        status.cached_tokens = 0;
        status.state = if let SessionState::Finished(_) = status.state { status.state } else { SessionState::Prefill };
        let text = canister.call(*owner, |service| service.session_output(output)).unwrap().text;
        let [tokens, digests, logprobs] = canister.call(*owner, |service| {
            [
                format!("{:?}", service.session_tokens(page)),
                format!("{:?}", service.session_digests(page)),
                format!("{:?}", service.session_logprobs(page)),
            ]
        });
        lines.push(format!("{owner} {created_ns} {updated_ns} {status:#?} {text:?} {tokens} {digests} {logprobs}"));
    }
    for owner in [USER, OTHER, OPERATOR] {
        canister.env.set_caller(owner);
        lines.push(format!("{:?}", canister.service.quota_status()));
    }
    lines.join("\n")
}

/// Writes the dump of the present layout: `cargo test -p canister --lib dump -- --ignored`.
#[test]
#[ignore = "writes a file that is kept"]
fn write_the_dump_of_the_present_layout() {
    let canister = furnished();
    let mut bytes = vec![0; canister.memory.size() as usize * 65536];
    canister.memory.read(0, &mut bytes);
    let file = std::fs::File::create(dump_path(LAYOUT_VERSION)).unwrap();
    let mut writer = flate2::GzBuilder::new().write(file, flate2::Compression::best());
    std::io::Write::write_all(&mut writer, &bytes).unwrap();
    writer.finish().unwrap();
}

#[test]
fn every_layout_has_a_dump_of_its_own_version() {
    for version in 1..=LAYOUT_VERSION {
        let how = "write it with the code of that version: `cargo test -p canister --lib dump -- --ignored`";
        let file =
            std::fs::File::open(dump_path(version)).unwrap_or_else(|error| panic!("layout {version}: {error}; {how}"));
        let mut bytes = Vec::new();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        // The cell of the header begins with the first bucket, behind the page of the memory manager.
        let header = &bytes[65536..][..8 + 32];
        assert_eq!((&bytes[..3], &header[..3], &header[8..16]), (&b"MGR"[..], &b"SCL"[..], &b"icllama\0"[..]));
        assert_eq!(header[16..20], version.to_le_bytes(), "layout {version}; {how}");
    }
    let beyond = dump_path(LAYOUT_VERSION + 1);
    assert!(!std::path::Path::new(&beyond).exists(), "{beyond} is of a version that this code does not know");
}

fn finish_from_anywhere(canister: &mut Canister, owner: Principal, session_id: u64) {
    while !matches!(canister.advance(owner, session_id).unwrap().status.state, SessionState::Finished(_)) {}
}

#[test]
fn a_canister_of_layout_2_has_every_datum() {
    let (mut opened, mut made) = (opened(&std::fs::read(dump_path(2)).unwrap()), furnished());
    // What is to end with a call has ended: an upgrade does that to the one that was made now.
    made.upgrade();
    opened.env.advance_ns(made.env.time_ns() - opened.env.time_ns());
    assert_eq!(everything(&mut opened), everything(&mut made));
    for canister in [&mut opened, &mut made] {
        canister.settle();
        assert_eq!(canister.service.model_status().load, LoadState::Ready);
        let all = SessionListArg { all: Some(true), ..SessionListArg::default() };
        for summary in canister.call(CONTROLLER, |service| service.session_list(all)).unwrap().sessions {
            finish_from_anywhere(canister, summary.owner, summary.status.session_id);
        }
        let upload_id = canister.service.upload_status(UploadStatusArg::default()).unwrap().upload_id;
        canister.send(upload_id, &small_model()[..5_000], 600..1_000).unwrap();
        canister.send(upload_id, &small_model()[..5_000], 1_500..5_000).unwrap();
        assert!(canister.commit(upload_id).unwrap().done);
        canister.settle();
    }
    assert_eq!(everything(&mut opened), everything(&mut made));
}

use model_core::fixtures::SplitMix64;

use crate::api::*;
use crate::testing::*;

const CHUNK: usize = 5_000;

fn status(canister: &mut Canister) -> Result<UploadStatus, Error> {
    canister.call(USER, |service| service.upload_status(UploadStatusArg::default()))
}

/// All chunks of a file, overlapping their neighbours, in an order that depends on the seed, some twice.
fn shuffled_chunks(len: usize, seed: u64) -> Vec<std::ops::Range<usize>> {
    let mut random = SplitMix64::new(seed);
    let mut chunks: Vec<_> = (0..len).step_by(CHUNK).map(|at| at.saturating_sub(100)..(at + CHUNK).min(len)).collect();
    chunks.extend_from_within(..chunks.len() / 3);
    for last in (1..chunks.len()).rev() {
        chunks.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
    chunks
}

#[test]
fn chunks_may_come_in_any_order_overlapping_and_twice_across_upgrades() {
    let model = model(1);
    for seed in 0..5 {
        let mut canister = Canister::new();
        let upload_id = canister.begin(&model);
        for (index, range) in shuffled_chunks(model.len(), seed).into_iter().enumerate() {
            canister.send(upload_id, &model, range).unwrap();
            if index % 7 == 3 {
                canister.upgrade();
            }
        }
        assert_eq!(status(&mut canister).unwrap().missing, []);
        assert!(canister.commit(upload_id).unwrap().done);
        canister.settle();
        let file = canister.service.model_status().serving.unwrap().file;
        assert_eq!(file.sha256, begin_arg(&model).sha256);
    }
}

#[test]
fn missing_ranges_are_listed_in_pages_and_refuse_the_commit() {
    let model = model(1);
    let mut canister = Canister::new();
    let upload_id = canister.begin(&model);
    canister.send(upload_id, &model, 10..20).unwrap();
    let ok = canister.send(upload_id, &model, 30..40).unwrap();
    assert_eq!((ok.received_bytes, ok.total_bytes), (20, model.len() as u64));
    let page = |from, limit| UploadStatusArg { from, limit: Some(limit) };
    let first = canister.service.upload_status(page(None, 2)).unwrap();
    let range = |offset, bytes| ByteRange { offset, bytes };
    assert_eq!((first.missing, first.missing_next), (vec![range(0, 10), range(20, 10)], Some(40)));
    let second = canister.service.upload_status(page(Some(40), 2)).unwrap();
    assert_eq!((second.missing, second.missing_next), (vec![range(40, model.len() as u64 - 40)], None));
    let missing_bytes = model.len() as u64 - 20;
    assert_eq!(canister.commit(upload_id), Err(Error::UploadIncomplete { missing_bytes, first_missing: range(0, 10) }));
    assert_eq!(status(&mut canister).unwrap().state, UploadState::Receiving);
}

#[test]
fn beginning_again_resumes_and_another_file_is_refused() {
    let (model, other) = (model(1), model(2));
    let mut canister = Canister::new();
    let upload_id = canister.begin(&model);
    canister.send(upload_id, &model, 0..100).unwrap();
    canister.upgrade();
    let again = canister.call(OPERATOR, |service| service.upload_begin(begin_arg(&model))).unwrap();
    assert_eq!((again.upload_id, again.received_bytes), (upload_id, 100));
    let refused = canister.call(OPERATOR, |service| service.upload_begin(begin_arg(&other)));
    assert!(matches!(refused, Err(Error::UploadInProgress { upload_id: id, .. }) if id == upload_id));
    canister.call(OPERATOR, |service| service.upload_abort(UploadIdArg { upload_id })).unwrap();
    assert!(status(&mut canister).is_err());
    let next = canister.call(OPERATOR, |service| service.upload_begin(begin_arg(&other))).unwrap();
    assert_eq!((next.upload_id, next.received_bytes), (upload_id + 1, 0));
    assert_eq!(canister.send(upload_id, &model, 0..100), Err(Error::UploadNotFound { upload_id }));
}

#[test]
fn memory_of_aborted_and_replaced_models_is_reused() {
    let mut canister = Canister::serving(&model(1));
    canister.upload(&model(2));
    canister.settle();
    let bytes = canister.service.model_status().stable_bytes;
    for seed in 3..9 {
        let aborted = canister.begin(&model(20));
        canister.send(aborted, &model(20), 0..CHUNK).unwrap();
        canister.call(OPERATOR, |service| service.upload_abort(UploadIdArg { upload_id: aborted })).unwrap();
        canister.upload(&model(seed));
        canister.settle();
    }
    assert_eq!(canister.service.model_status().stable_bytes, bytes);
}

#[test]
fn a_wrong_hash_leaves_the_upload_open_for_repair() {
    let model = model(1);
    let mut damaged = model.clone();
    damaged[CHUNK] ^= 1;
    let mut canister = Canister::new();
    let upload_id = canister.begin(&model);
    canister.send(upload_id, &damaged, 0..model.len()).unwrap();
    let expected = begin_arg(&model).sha256;
    let Err(Error::HashMismatch { expected: announced, actual }) = canister.commit(upload_id) else {
        panic!("a damaged file was accepted")
    };
    assert_eq!((announced, actual), (expected, begin_arg(&damaged).sha256));
    canister.upgrade();
    assert_eq!(status(&mut canister).unwrap().state, UploadState::HashMismatch);
    assert!(canister.commit(upload_id).is_err(), "the damage is still there");
    canister.send(upload_id, &model, CHUNK..CHUNK + 1).unwrap();
    assert_eq!(status(&mut canister).unwrap().state, UploadState::Receiving);
    assert!(canister.commit(upload_id).unwrap().done);
}

#[test]
fn verification_takes_as_many_calls_as_it_needs_also_by_itself_and_across_upgrades() {
    let model = TinyModel::large();
    for driven_by_calls in [true, false] {
        let mut canister = Canister::new();
        canister.env.set_cost_per_look(1_000);
        let upload_id = canister.begin(&model);
        for range in shuffled_chunks_of(model.len(), 1 << 20) {
            canister.send(upload_id, &model, range).unwrap();
        }
        let tiny = UploadCommitArg { upload_id, max_instructions: Some(1) };
        let first = canister.call(OPERATOR, |service| service.upload_commit(tiny)).unwrap();
        assert!(!first.done && first.hashed_bytes > 0 && first.hashed_bytes < model.len() as u64, "{first:?}");
        canister.upgrade();
        assert_eq!(status(&mut canister).unwrap().state, UploadState::Verifying { hashed_bytes: 0 });
        let mut calls = 0;
        while driven_by_calls && !canister.call(OPERATOR, |service| service.upload_commit(tiny)).unwrap().done {
            calls += 1;
        }
        canister.settle();
        assert_eq!(calls > 0, driven_by_calls);
        assert_eq!(status(&mut canister), Err(Error::UploadNotFound { upload_id }));
        assert!(canister.commit(upload_id).unwrap().done, "a repeated commit is answered");
    }
}

#[test]
fn a_chunk_during_verification_is_hashed_too() {
    let model = TinyModel::large();
    let mut damaged = model.clone();
    damaged[0] ^= 1;
    let mut canister = Canister::new();
    let upload_id = canister.begin(&model);
    for range in shuffled_chunks_of(model.len(), 1 << 20) {
        canister.send(upload_id, &model, range).unwrap();
    }
    canister.env.set_cost_per_look(1);
    let tiny = UploadCommitArg { upload_id, max_instructions: Some(0) };
    assert!(!canister.call(OPERATOR, |service| service.upload_commit(tiny)).unwrap().done);
    canister.send(upload_id, &damaged, 0..1).unwrap();
    assert!(matches!(canister.commit(upload_id), Err(Error::HashMismatch { .. })));
}

#[test]
fn arguments_out_of_range_are_refused_by_name() {
    let model = model(1);
    let mut canister = Canister::new();
    let mut refused = |change: fn(&mut UploadBeginArg), name: &str| {
        let mut arg = begin_arg(&model);
        change(&mut arg);
        let result = canister.call(OPERATOR, |service| service.upload_begin(arg));
        assert!(
            matches!(&result, Err(Error::InvalidArgument { field, .. }) if field == name)
                || matches!(&result, Err(Error::LimitExceeded { limit, .. }) if limit == name),
            "{result:?}"
        );
    };
    refused(|arg| arg.name = "x".repeat(201), "name");
    refused(|arg| arg.sha256.truncate(31), "sha256");
    refused(|arg| arg.total_bytes = 0, "total_bytes");
    refused(|arg| arg.total_bytes = u64::MAX, "model_bytes");
    let upload_id = canister.begin(&model);
    let mut send = |offset, bytes: &[u8]| {
        canister.call(OPERATOR, |service| service.upload_chunk(UploadChunk { upload_id, offset, bytes })).unwrap_err()
    };
    let leaves = |error: Error| matches!(error, Error::InvalidArgument { field, .. } if field == "offset");
    assert!(leaves(send(model.len() as u64, b"x")));
    assert!(leaves(send(u64::MAX, b"xx")));
    assert!(matches!(send(0, &vec![0; 2_000_001]), Error::LimitExceeded { needed: 2_000_001, .. }));
    canister.send(upload_id, &model, 5..5).unwrap();
    assert_eq!(status(&mut canister).unwrap().received_bytes, 0);
}

#[test]
fn running_sessions_and_a_verification_take_turns() {
    let model = TinyModel::large();
    let mut canister = Canister::serving(&crate::testing::model(1));
    let session_id = canister.create(USER, text("hello"), options(1)).unwrap();
    canister.env.set_cost_per_look(18_000_000_000);
    let upload_id = canister.begin(&model);
    canister.send(upload_id, &model, 0..model.len()).unwrap();
    assert!(!canister.commit(upload_id).unwrap().done);
    canister.call(USER, |service| service.session_run(SessionIdArg { session_id })).unwrap();
    let mut both = 0;
    while let Ok(UploadStatus { state: UploadState::Verifying { hashed_bytes }, .. }) = status(&mut canister) {
        canister.tick();
        let arg = SessionOutputArg { session_id, from: 0 };
        let session = canister.call(USER, |service| service.session_output(arg)).unwrap().status;
        both += u32::from(hashed_bytes > 0 && session.cached_tokens > 0 && session.running);
    }
    assert!(both > 1, "one waited for the other");
}

#[test]
fn after_an_upgrade_the_model_is_loaded_before_another_is_verified() {
    let model = TinyModel::large();
    let mut canister = Canister::serving(&crate::testing::model(1));
    let upload_id = canister.begin(&model);
    canister.send(upload_id, &model, 0..model.len()).unwrap();
    canister.env.set_cost_per_look(1);
    let tiny = UploadCommitArg { upload_id, max_instructions: Some(0) };
    assert!(!canister.call(OPERATOR, |service| service.upload_commit(tiny)).unwrap().done);
    canister.upgrade();
    assert!(canister.tick());
    assert!(canister.service.model_status().serving.is_some());
    assert_eq!(status(&mut canister).unwrap().state, UploadState::Verifying { hashed_bytes: 0 });
}

#[test]
fn a_verification_that_always_traps_waits_for_another_commit() {
    let model = TinyModel::large();
    let mut canister = Canister::new();
    canister.env.set_cost_per_look(1);
    let upload_id = canister.begin(&model);
    canister.send(upload_id, &model, 0..model.len()).unwrap();
    let tiny = UploadCommitArg { upload_id, max_instructions: Some(0) };
    assert!(!canister.call(OPERATOR, |service| service.upload_commit(tiny)).unwrap().done);
    (0..3).for_each(|_| canister.lose_timer());
    assert_eq!(status(&mut canister).unwrap().state, UploadState::Receiving);
    assert!(canister.commit(upload_id).unwrap().done);
}

/// A file that takes several steps to hash.
struct TinyModel;

impl TinyModel {
    fn large() -> Vec<u8> {
        let mut random = SplitMix64::new(7);
        (0..200_000).flat_map(|_| random.next_u64().to_le_bytes()).collect()
    }
}

fn shuffled_chunks_of(len: usize, chunk: usize) -> Vec<std::ops::Range<usize>> {
    (0..len).step_by(chunk).map(|at| at..(at + chunk).min(len)).rev().collect()
}

//! Uploading in the real canister: whatever happens to chunks, either the announced file is stored or the
//! canister says what is wrong, and the model that answers goes on answering.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is a failed test")]

use canister::api::*;
use end_to_end::{CallKind, Chunk, Icllama, Outcome, ask, chunks, full, principal, shuffle, tiny};
use model_core::fixtures::SplitMix64;
use sha2::{Digest, Sha256};

/// Bytes of a chunk in these tests; the models are small.
const SIZE: usize = 3_000;

/// Gaps of a bitmap of arrived bytes.
fn gaps(arrived: &[bool]) -> Vec<ByteRange> {
    let mut gaps: Vec<ByteRange> = Vec::new();
    for (at, _) in arrived.iter().enumerate().filter(|(_, arrived)| !**arrived) {
        match gaps.last_mut() {
            Some(gap) if gap.offset + gap.bytes == at as u64 => gap.bytes += 1,
            _ => gaps.push(ByteRange { offset: at as u64, bytes: 1 }),
        }
    }
    gaps
}

fn slice(file: &[u8], offset: u64, bytes: u64) -> Chunk<'_> {
    let offset = offset as usize;
    Chunk { offset, bytes: &file[offset..offset + bytes as usize] }
}

fn status(icllama: &mut Icllama) -> UploadStatus {
    icllama.upload_status(UploadStatusArg::default()).unwrap()
}

#[test]
fn lost_chunks_are_listed_and_sent_again() {
    let file = tiny(1).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let upload_id = icllama.announce("lossy", &file).upload_id;
        let mut random = SplitMix64::new(1);
        let mut arrived = vec![false; file.len()];
        for chunk in chunks(&file, SIZE).into_iter().filter(|_| random.next_u64() >> 62 > 0) {
            icllama.send(upload_id, &[chunk]);
            arrived[chunk.offset..chunk.offset + chunk.bytes.len()].fill(true);
        }
        let missing = gaps(&arrived);
        assert!(missing.len() > 3, "{missing:?}");
        let found = status(&mut icllama);
        assert_eq!((found.missing, found.missing_next, found.state), (missing.clone(), None, UploadState::Receiving));

        let missing_bytes = arrived.iter().filter(|arrived| !**arrived).count() as u64;
        let refusal = icllama.upload_commit(UploadCommitArg { upload_id, max_instructions: None });
        assert_eq!(refusal, Err(Error::UploadIncomplete { missing_bytes, first_missing: missing[0] }));

        // A page of gaps, and the rest from where it ends.
        let page = icllama.upload_status(UploadStatusArg { from: None, limit: Some(2) }).unwrap();
        assert_eq!(page.missing, missing[..2]);
        let rest = icllama.upload_status(UploadStatusArg { from: page.missing_next, limit: None }).unwrap();
        assert_eq!(rest.missing, missing[2..]);

        for gap in missing {
            icllama.send(upload_id, &[slice(&file, gap.offset, gap.bytes)]);
        }
        assert_eq!(status(&mut icllama).missing, []);
        icllama.verify(upload_id, None).unwrap();
        icllama.wait_until_ready();
        assert_eq!(icllama.model_status().serving.unwrap().file.sha256, Sha256::digest(&file).to_vec());
    }
}

#[test]
fn chunks_may_be_reordered_repeated_and_overlap() {
    let file = tiny(2).build();
    for (seed, mut icllama) in (0..3)
        .flat_map(|seed| Icllama::everywhere(ConfigUpdate::default()).into_iter().map(move |icllama| (seed, icllama)))
    {
        let mut random = SplitMix64::new(seed);
        let upload_id = icllama.announce("shuffled", &file).upload_id;
        let mut order = chunks(&file, SIZE);
        // Everything twice, and as much again at random places, of random lengths.
        order.extend_from_within(..);
        for _ in 0..order.len() {
            let offset = random.next_u64() % file.len() as u64;
            let bytes = random.next_u64() % (2 * SIZE as u64).min(file.len() as u64 - offset + 1);
            order.push(slice(&file, offset, bytes));
        }
        shuffle(&mut order, &mut random);
        let mut arrived = vec![false; file.len()];
        for Chunk { offset, bytes } in order {
            let arg = UploadChunkArg { upload_id, offset: offset as u64, bytes: bytes.to_vec() };
            let answer = icllama.upload_chunk(arg).unwrap();
            arrived[offset..offset + bytes.len()].fill(true);
            let received = arrived.iter().filter(|arrived| **arrived).count() as u64;
            assert_eq!((answer.received_bytes, answer.total_bytes), (received, file.len() as u64));
        }
        icllama.verify(upload_id, None).unwrap();
        icllama.wait_until_ready();
    }
}

#[test]
fn a_corrupted_chunk_is_found_by_the_hash_and_can_be_sent_again() {
    let (old, new) = (tiny(3).build(), tiny(4).build());
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("old", &old);
        let before = icllama.generate(&ask("hello world", 8), &mut full);
        let upload_id = icllama.announce("new", &new).upload_id;
        icllama.send(upload_id, &chunks(&new, SIZE));
        let mut damaged = new.clone();
        damaged[2 * SIZE + 7] ^= 1;
        icllama.send(upload_id, &[slice(&damaged, 2 * SIZE as u64, SIZE as u64)]);

        let (expected, actual) = (Sha256::digest(&new).to_vec(), Sha256::digest(&damaged).to_vec());
        assert_eq!(icllama.verify(upload_id, None), Err(Error::HashMismatch { expected, actual }));
        assert_eq!(status(&mut icllama).state, UploadState::HashMismatch);
        icllama.host.advance(std::time::Duration::from_secs(1));
        assert_eq!(icllama.model_status().serving.unwrap().file.name, "old");
        assert_eq!(icllama.generate(&ask("hello world", 8), &mut full), before);

        icllama.send(upload_id, &[slice(&new, 2 * SIZE as u64, SIZE as u64)]);
        icllama.verify(upload_id, None).unwrap();
        icllama.load(None);
        assert_eq!(icllama.model_status().serving.unwrap().file.name, "new");
        assert_ne!(icllama.generate(&ask("hello world", 8), &mut full).digests, before.digests);
    }
}

#[test]
fn the_old_model_answers_until_the_new_one_is_verified() {
    let (old, new) = (tiny(5).build(), tiny(6).build());
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("old", &old);
        let question = ask("the world in a", 6);
        let before = icllama.generate(&question, &mut full);
        let session_id = icllama.session_create(question.clone()).unwrap().session_id;
        let upload_id = icllama.announce("new", &new).upload_id;
        for chunk in chunks(&new, 2 * SIZE) {
            icllama.send(upload_id, &[chunk]);
            assert_eq!(icllama.generate(&question, &mut full), before);
        }
        assert_eq!(icllama.model_status().stored.unwrap().name, "old");
        icllama.verify(upload_id, Some(1)).unwrap();
        icllama.wait_until("the new model serves", |icllama| {
            icllama.model_status().serving.is_some_and(|serving| serving.file.name == "new")
        });
        let status = icllama.model_status();
        assert_eq!((status.stored.unwrap().name.as_str(), status.candidate, status.upload), ("new", None, None));

        // A session of the old model is refused rather than continued with other weights.
        let advance = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
        assert_eq!(icllama.session_advance(advance), Err(Error::ModelChanged));
        assert_ne!(icllama.generate(&question, &mut full).digests, before.digests);
    }
}

#[test]
fn sessions_go_on_when_the_same_file_is_uploaded_again() {
    let file = tiny(14).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("first", &file);
        let question = ask("hello world", 9);
        let expected = icllama.generate(&question, &mut full);
        let session_id = icllama.session_create(question).unwrap().session_id;
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(4), profile: None };
        icllama.session_advance(arg).unwrap();
        icllama.serve("second", &file);
        icllama.finish(session_id, &mut full);
        assert_eq!(icllama.generation(session_id), expected);
    }
}

#[test]
fn a_verified_file_that_is_no_model_leaves_the_old_one() {
    let (old, mut new) = (tiny(7).build(), tiny(8).build());
    new[..4].copy_from_slice(b"GGML");
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        icllama.serve("old", &old);
        let before = icllama.generate(&ask("hello", 5), &mut full);
        icllama.store("not a model", &new);
        icllama.wait_until("the file is rejected", |icllama| icllama.model_status().rejected.is_some());
        icllama.wait_until_ready();
        let status = icllama.model_status();
        assert_eq!(status.rejected.unwrap().model.name, "not a model");
        assert_eq!((status.stored.unwrap().name.as_str(), status.candidate), ("old", None));
        assert_eq!(icllama.generate(&ask("hello", 5), &mut full), before);
        icllama.serve("good", &tiny(8).build());
    }
}

#[test]
fn chunks_that_do_not_fit_are_refused_and_change_nothing() {
    let file = vec![7; 2_500_000];
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let begun = icllama.announce("fitting", &file);
        assert_eq!((begun.received_bytes, begun.max_chunk_bytes), (0, MAX_CHUNK_BYTES));
        let upload_id = begun.upload_id;
        let mut send = |upload_id, offset, bytes: usize| {
            icllama.upload_chunk(UploadChunkArg { upload_id, offset, bytes: vec![7; bytes] })
        };
        let too_large = send(upload_id, 0, MAX_CHUNK_BYTES as usize + 1);
        let (max, needed) = (MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 1);
        assert_eq!(too_large, Err(Error::LimitExceeded { limit: "max_chunk_bytes".into(), max, needed }));
        for (offset, bytes) in [(2_499_999, 2), (2_500_001, 0), (u64::MAX, 1), (u64::MAX, 0)] {
            let refused = send(upload_id, offset, bytes);
            assert!(matches!(&refused, Err(Error::InvalidArgument { field, .. }) if field == "offset"), "{refused:?}");
        }
        assert_eq!(send(upload_id + 1, 0, 1), Err(Error::UploadNotFound { upload_id: upload_id + 1 }));
        assert_eq!(status(&mut icllama).received_bytes, 0);
        icllama.send(upload_id, &chunks(&file, MAX_CHUNK_BYTES as usize));
        assert_eq!(status(&mut icllama).received_bytes, 2_500_000);
    }
}

#[test]
fn announcements_out_of_range_are_refused_by_name() {
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let good = UploadBeginArg { name: "n".into(), total_bytes: 10, sha256: vec![0; 32] };
        let bad = [
            ("name", UploadBeginArg { name: "n".repeat(201), ..good.clone() }),
            ("total_bytes", UploadBeginArg { total_bytes: 0, ..good.clone() }),
            ("sha256", UploadBeginArg { sha256: vec![0; 31], ..good.clone() }),
        ];
        for (name, arg) in bad {
            let refused = icllama.upload_begin(arg);
            assert!(matches!(&refused, Err(Error::InvalidArgument { field, .. }) if field == name), "{refused:?}");
        }
        let huge = icllama.upload_begin(UploadBeginArg { total_bytes: u64::MAX, ..good.clone() });
        assert!(matches!(&huge, Err(Error::LimitExceeded { limit, .. }) if limit == "model_bytes"), "{huge:?}");
        assert_eq!(icllama.model_status().upload, None);
        icllama.upload_begin(good).unwrap();
    }
}

#[test]
fn one_upload_at_a_time_resumed_by_the_same_file_and_ended_by_abort() {
    let (file, other) = (tiny(9).build(), tiny(10).build());
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let upload_id = icllama.announce("first", &file).upload_id;
        icllama.send(upload_id, &chunks(&file, SIZE)[..2]);
        let resumed = icllama.announce("first", &file);
        assert_eq!((resumed.upload_id, resumed.received_bytes), (upload_id, 2 * SIZE as u64));

        let sha256 = Sha256::digest(&other).to_vec();
        let total_bytes = other.len() as u64;
        let refused = icllama.upload_begin(UploadBeginArg { name: "second".into(), total_bytes, sha256 });
        assert!(matches!(&refused, Err(Error::UploadInProgress { name, .. }) if name == "first"), "{refused:?}");

        icllama.upload_abort(UploadIdArg { upload_id }).unwrap();
        assert_eq!(icllama.upload_abort(UploadIdArg { upload_id }), Err(Error::UploadNotFound { upload_id }));
        let late = icllama.upload_chunk(UploadChunkArg { upload_id, offset: 0, bytes: vec![1] });
        assert_eq!(late, Err(Error::UploadNotFound { upload_id }));
        let second = icllama.announce("second", &other);
        assert!(second.upload_id > upload_id && second.received_bytes == 0, "{second:?}");
        icllama.serve("second", &other);
    }
}

#[test]
fn a_wrong_size_never_passes() {
    let file = tiny(11).build();
    let sha256 = Sha256::digest(&file).to_vec();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        // One byte short: the bytes that fit have another hash.
        let total_bytes = file.len() as u64 - 1;
        let arg = UploadBeginArg { name: "short".into(), total_bytes, sha256: sha256.clone() };
        let upload_id = icllama.upload_begin(arg).unwrap().upload_id;
        icllama.send(upload_id, &chunks(&file[..file.len() - 1], SIZE));
        let refused = icllama.verify(upload_id, None);
        assert!(matches!(refused, Err(Error::HashMismatch { .. })), "{refused:?}");
        icllama.upload_abort(UploadIdArg { upload_id }).unwrap();

        // One byte long: there is always a byte missing.
        let total_bytes = file.len() as u64 + 1;
        let arg = UploadBeginArg { name: "long".into(), total_bytes, sha256: sha256.clone() };
        let upload_id = icllama.upload_begin(arg).unwrap().upload_id;
        icllama.send(upload_id, &chunks(&file, SIZE));
        let first_missing = ByteRange { offset: file.len() as u64, bytes: 1 };
        assert_eq!(icllama.verify(upload_id, None), Err(Error::UploadIncomplete { missing_bytes: 1, first_missing }));
    }
}

#[test]
fn a_byte_changed_while_the_hash_is_computed_is_still_found() {
    let file = tiny(12).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate { max_instructions: Some(1), ..ConfigUpdate::default() }) {
        let mut large = file.clone();
        large.resize(12_000_000, 0); // dozens of steps of hashing
        let upload_id = icllama.announce("changing", &large).upload_id;
        icllama.send(upload_id, &chunks(&large, MAX_CHUNK_BYTES as usize));
        let first = icllama.upload_commit(UploadCommitArg { upload_id, max_instructions: Some(1) }).unwrap();
        assert!(!first.done && first.hashed_bytes > 0, "{first:?}");
        let arg = UploadChunkArg { upload_id, offset: 0, bytes: vec![!large[0]] };
        icllama.upload_chunk(arg).unwrap();
        icllama.wait_until("the hash is found wrong", |icllama| status(icllama).state == UploadState::HashMismatch);
    }
}

#[test]
fn others_cannot_touch_an_upload() {
    let file = tiny(13).build();
    for mut icllama in Icllama::everywhere(ConfigUpdate::default()) {
        let upload_id = icllama.announce("mine", &file).upload_id;
        icllama.send(upload_id, &chunks(&file, SIZE));
        for stranger in [principal(99), candid::Principal::anonymous()] {
            icllama.as_sender(stranger, |icllama| {
                let arg = UploadChunkArg { upload_id, offset: 0, bytes: vec![0; 9] };
                let outcome = icllama.call::<UploadChunkOk>(CallKind::Update, "upload_chunk", (arg,));
                assert!(!matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
                let arg = UploadIdArg { upload_id };
                let outcome = icllama.call::<()>(CallKind::Update, "upload_abort", (arg,));
                assert!(!matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
            });
        }
        icllama.verify(upload_id, None).unwrap();
        icllama.wait_until_ready();
    }
}

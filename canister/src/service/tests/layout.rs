//! Stable memory as earlier versions left it.

use std::io::Read;

use flate2::read::GzDecoder;
use ic_stable_structures::Memory;

use super::super::Service;
use crate::api::*;
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

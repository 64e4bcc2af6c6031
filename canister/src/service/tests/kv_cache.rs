use model_core::model::CachePrecision;

use crate::api::*;
use crate::testing::*;

fn with_bits(bits: Option<u8>) -> SessionOptions {
    SessionOptions { kv_cache_bits: bits, ..options(7) }
}

fn configure(canister: &mut Canister, update: ConfigUpdate) {
    canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
}

fn bits_of(canister: &mut Canister, session_id: u64) -> u8 {
    let arg = SessionOutputArg { session_id, from: 0 };
    canister.call(USER, |service| service.session_output(arg)).unwrap().status.kv_cache_bits
}

/// What the settings give a session that does not choose: as `model_status` says it, and as a session gets it.
fn default_bits(canister: &mut Canister) -> [u8; 2] {
    let session = canister.create(USER, text("hello"), with_bits(None)).unwrap();
    [canister.service.model_status().serving.unwrap().kv_cache_bits, bits_of(canister, session)]
}

#[test]
fn a_session_keeps_the_bits_it_was_made_with_and_they_decide_the_answer() {
    let mut canister = Canister::serving(&model(1));
    let mut answers = Vec::new();
    for bits in [16, 8] {
        let session = canister.create(USER, text("hello"), with_bits(Some(bits))).unwrap();
        canister.finish(USER, session);
        answers.push(canister.answer(USER, session));
    }
    assert_ne!(answers[0].digests, answers[1].digests);
    let session = canister.create(USER, text("hello"), with_bits(Some(8))).unwrap();
    let arg = SessionAdvanceArg { session_id: session, max_instructions: None, max_tokens: Some(9), profile: None };
    canister.call(USER, |service| service.session_advance(arg)).unwrap();
    configure(&mut canister, ConfigUpdate { kv_cache_bits: Some(KvCacheBits::Bits16), ..Default::default() });
    canister.upgrade();
    canister.settle();
    canister.advance(USER, session).unwrap();
    assert_eq!(bits_of(&mut canister, session), 8);
    assert_eq!(canister.answer(USER, session), answers[1]);
}

#[test]
fn settings_decide_for_sessions_that_do_not_choose() {
    let mut canister = Canister::serving(&model(1));
    assert_eq!(default_bits(&mut canister), [16, 16], "there is room");
    for (setting, bits) in [(KvCacheBits::Bits8, 8), (KvCacheBits::Bits16, 16), (KvCacheBits::Auto, 16)] {
        configure(&mut canister, ConfigUpdate { kv_cache_bits: Some(setting), ..Default::default() });
        assert_eq!(default_bits(&mut canister), [bits; 2]);
    }
    configure(&mut canister, ConfigUpdate { kv_cache_bits: Some(KvCacheBits::Bits8), ..Default::default() });
    let session = canister.create(USER, text("hello"), with_bits(Some(16))).unwrap();
    assert_eq!(bits_of(&mut canister, session), 16, "what a session asks for comes first");
}

#[test]
fn eight_bits_are_taken_where_the_longest_session_would_not_fit_with_sixteen() {
    let mut canister = Canister::serving(&model(1));
    let serving = canister.service.models.serving().unwrap();
    let longest = serving.model.config.context_length;
    let [wide, shorter] = [longest, 64].map(|tokens| serving.model.cache_bytes(tokens, CachePrecision::Bits16));
    canister.service.config.cache_heap_bytes = wide;
    assert_eq!(default_bits(&mut canister), [16; 2]);
    canister.service.config.cache_heap_bytes = wide - 1;
    assert_eq!(default_bits(&mut canister), [8; 2], "however short the prompt is");
    canister.service.config.max_session_tokens = 64;
    assert_eq!(default_bits(&mut canister), [16; 2], "settings bound the longest session too");
    canister.service.config.cache_heap_bytes = shorter - 1;
    assert_eq!(default_bits(&mut canister), [8; 2]);
}

#[test]
fn limits_and_reservations_count_the_bits() {
    let mut canister = Canister::serving(&model(1));
    let model = &canister.service.models.serving().unwrap().model;
    let narrow = model.cache_bytes(34, CachePrecision::Bits8);
    canister.service.config.cache_heap_bytes = narrow;
    let mut create = |bits| canister.create(USER, SessionInput::Tokens(vec![1; 10]), with_bits(Some(bits)));
    let refused = create(16);
    assert!(matches!(&refused, Err(Error::LimitExceeded { limit, .. }) if limit == "cache_heap_bytes"), "{refused:?}");
    let sessions = [create(8).unwrap(), create(8).unwrap()];
    let advance = |canister: &mut Canister, session_id| {
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(1), profile: None };
        canister.call(USER, |service| service.session_advance(arg))
    };
    advance(&mut canister, sessions[0]).unwrap();
    let busy = Error::HeapBusy { cache_heap_bytes: narrow, reserved_bytes: narrow, needed_bytes: narrow };
    assert_eq!(advance(&mut canister, sessions[1]), Err(busy));
    canister.service.config.cache_heap_bytes = 2 * narrow;
    advance(&mut canister, sessions[1]).unwrap();
}

#[test]
fn other_bits_are_refused_by_name() {
    let mut canister = Canister::serving(&model(1));
    for bits in [0, 4, 32, 255] {
        let refused = canister.create(USER, text("hello"), with_bits(Some(bits)));
        assert!(
            matches!(&refused, Err(Error::InvalidArgument { field, .. }) if field == "kv_cache_bits"),
            "{refused:?}"
        );
    }
}

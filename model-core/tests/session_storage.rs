//! What front ends that store sessions rely on: sizes known in advance, and cancelling without the model.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model_core::budget::{CountDown, Unlimited};
use model_core::fixtures::TinyLlama;
use model_core::model::{CachePrecision, LoadOptions, Model};
use model_core::session::{FinishReason, Session, SessionOptions, SessionRecord};

fn session(model: &Model) -> Session {
    session_with(model, CachePrecision::Bits16)
}

fn session_with(model: &Model, kv_cache: CachePrecision) -> Session {
    let options = SessionOptions { stop: vec!["never".into()], kv_cache, ..SessionOptions::default() };
    Session::new(model, vec![7; 40], options).unwrap()
}

#[test]
fn the_size_of_a_cache_is_known_in_advance() {
    let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
    for precision in [CachePrecision::Bits16, CachePrecision::Bits8] {
        let mut session = session_with(&model, precision);
        while session.generated_tokens() < 30 {
            session.step(&model, &mut Unlimited).unwrap();
            assert_eq!(session.cache_bytes() as u64, model.cache_bytes(session.cached_tokens(), precision));
        }
        assert_eq!(model.cache_bytes(0, precision), 0);
    }
    let (wide, narrow) = (model.cache_bytes(1, CachePrecision::Bits16), model.cache_bytes(1, CachePrecision::Bits8));
    assert!(narrow * 100 < wide * 60, "{narrow} of {wide}");
}

#[test]
fn a_stored_session_keeps_the_precision_of_its_cache_and_its_bits() {
    let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
    let mut logits = Vec::new();
    for precision in [CachePrecision::Bits16, CachePrecision::Bits8] {
        let (mut whole, mut stored) = (session_with(&model, precision), session_with(&model, precision));
        while whole.generated_tokens() < 20 {
            whole.step(&model, &mut Unlimited).unwrap();
        }
        let mut restored = false;
        while stored.generated_tokens() < 20 {
            stored.step(&model, &mut CountDown::new(5)).unwrap();
            if stored.generated_tokens() == 10 && !restored {
                restored = true;
                let record = SessionRecord::from_bytes(&stored.record().to_bytes()).unwrap();
                assert_eq!(record.options().kv_cache, precision);
                stored = Session::restore(&model, record).unwrap();
            }
        }
        assert_eq!((whole.logits(), whole.tokens()), (stored.logits(), stored.tokens()));
        let mut last = Vec::new();
        model.logits_with(precision, &whole.tokens()[..59], |_, logits| last = logits.to_vec()).unwrap();
        assert_eq!(whole.logits(), last);
        logits.push(last);
    }
    assert_ne!(logits[0], logits[1], "the precision decides the bits");
}

#[test]
fn cancelling_a_record_is_cancelling_its_session() {
    let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
    let mut session = session(&model);
    for _ in 0..20 {
        session.step(&model, &mut CountDown::new(3)).unwrap();
    }
    let mut record = session.record();
    assert_eq!(record.cancel(), session.cancel());
    assert_eq!(record, session.record());
    assert_eq!((record.finish_reason(), record.cancel()), (Some(FinishReason::Cancelled), String::new()));
}

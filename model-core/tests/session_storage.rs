//! What front ends that store sessions rely on: sizes known in advance, and cancelling without the model.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model_core::budget::{CountDown, Unlimited};
use model_core::fixtures::TinyLlama;
use model_core::model::{LoadOptions, Model};
use model_core::session::{FinishReason, Session, SessionOptions};

fn session(model: &Model) -> Session {
    let options = SessionOptions { stop: vec!["never".into()], ..SessionOptions::default() };
    Session::new(model, vec![7; 40], options).unwrap()
}

#[test]
fn the_size_of_a_cache_is_known_in_advance() {
    let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
    let mut session = session(&model);
    while session.generated_tokens() < 30 {
        session.step(&model, &mut Unlimited).unwrap();
        assert_eq!(session.cache_bytes() as u64, model.cache_bytes(session.cached_tokens()));
    }
    assert_eq!(model.cache_bytes(0), 0);
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

//! What front ends that store sessions rely on: sizes known in advance, and cancelling without the model.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model_core::budget::{CountDown, Unlimited};
use model_core::chat::Variables;
use model_core::fixtures::TinyLlama;
use model_core::model::{CachePrecision, LoadOptions, Model};
use model_core::prompt::InputOptions;
use model_core::session::{FinishReason, RecordError, Session, SessionOptions, SessionRecord};

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

#[test]
fn a_stored_session_remembers_how_its_input_is_read() {
    let model = Model::load(&TinyLlama::default().build(), &LoadOptions::default()).unwrap();
    let named = Variables::parse_named(r#"{"enable_thinking": false, "a": {"z": 1, "b": null}}"#).unwrap();
    let tools = Variables::parse_tools(r#"[{"name": "f"}]"#).unwrap();
    for input in [
        InputOptions { parse_special: true, ..InputOptions::default() },
        InputOptions { named: named.clone(), ..InputOptions::default() },
        InputOptions { parse_special: true, tools, named },
    ] {
        let options = SessionOptions { input: input.clone(), logprobs: Some(2), ..SessionOptions::default() };
        let mut session = Session::new(&model, vec![1, 2], options).unwrap();
        session.step(&model, &mut Unlimited).unwrap();
        let bytes = session.record().to_bytes();
        let record = SessionRecord::from_bytes(&bytes).unwrap();
        assert_eq!(record, session.record());
        assert_eq!(record.options().input.variables(Some(1)), input.variables(Some(1)));
        if !input.named.is_empty() {
            let mut damaged = bytes;
            *damaged.last_mut().unwrap() = b'[';
            let refused = SessionRecord::from_bytes(&damaged);
            assert_eq!(refused, Err(RecordError::Impossible { field: "the template variables" }));
        }
    }
}

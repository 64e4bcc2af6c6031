//! Sessions that follow a grammar: what comes out is of its form however it is run, and the same bits.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::common::{Outcome, audited, finish, load, tiny, tokens};
use model_core::Error as CoreError;
use model_core::budget::{CountDown, Unlimited};
use model_core::fixtures::{TinyLlama, Vocabulary};
use model_core::grammar::{self, JSON};
use model_core::model::Model;
use model_core::sample::Sampling;
use model_core::session::{Error, FinishReason, Session, SessionOptions, SessionRecord, Step};
use proptest::prelude::*;

fn following(grammar: &str, max_tokens: u32, sampling: Sampling) -> SessionOptions {
    SessionOptions { grammar: Some(grammar.to_owned()), ignore_eos: false, ..audited(max_tokens, sampling) }
}

fn session(model: &Model, options: SessionOptions) -> Session {
    Session::new(model, tokens(12, model.config.vocab), options).unwrap()
}

/// Chance that lets everything come out.
fn hot(seed: u64) -> Sampling {
    Sampling { temperature: 3.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..Sampling::default() }
}

/// A grammar with choices, repetition and nesting that ends soon.
const LISTS: &str = r#"
    root ::= "[" (item ("," item){0,3})? "]"
    item ::= [0-9]{1,2} | "\"" [a-zé]{0,4} "\"" | ("true" | "false")
"#;

fn is_list(text: &str) -> bool {
    let value: Result<Vec<serde_json::Value>, _> = serde_json::from_str(&text.replace('0', "1"));
    value.is_ok_and(|items| items.len() <= 4)
}

fn models() -> [Model; 2] {
    let spm = TinyLlama { vocabulary: Vocabulary::SentencePiece, vocab: 420, ..tiny() };
    [load(&tiny().build()), load(&spm.build())]
}

#[test]
fn answers_have_the_form_of_the_grammar() {
    for model in models() {
        let mut texts = std::collections::BTreeSet::new();
        for sampling in (0..30).map(hot).chain([Sampling::greedy(), Sampling { seed: 1, ..Sampling::default() }]) {
            let mut session = session(&model, following(LISTS, 200, sampling));
            finish(&mut session, &model);
            assert!(is_list(session.text()), "{:?}", session.text());
            assert_eq!(session.finish_reason(), Some(FinishReason::EndOfGeneration));
            texts.insert(session.text().to_owned());
        }
        assert!(texts.len() > 10, "{texts:?}");
    }
}

#[test]
fn json_mode_gives_json() {
    let mut finished = 0;
    for model in models() {
        for seed in 0..12 {
            let mut session = session(&model, following(JSON, 100, hot(seed)));
            finish(&mut session, &model);
            match session.finish_reason() {
                Some(FinishReason::EndOfGeneration) => {
                    serde_json::from_str::<serde_json::Value>(session.text()).unwrap();
                    finished += 1;
                }
                reason => assert_eq!(reason, Some(FinishReason::Length), "{:?}", session.text()),
            }
        }
    }
    assert!(finished > 0);
}

#[test]
fn an_answer_may_end_only_where_the_grammar_may() {
    let model = load(&tiny().build());
    let ends = model.tokenizer.end_of_generation();
    let mut ended_early = 0;
    for seed in 0..20 {
        let mut session = session(&model, following("root ::= [a-z]{3} [a-z ]*", 40, hot(seed)));
        finish(&mut session, &model);
        let answer = session.generated();
        if ends.contains(answer.last().unwrap()) {
            ended_early += 1;
            assert_eq!(session.finish_reason(), Some(FinishReason::EndOfGeneration));
        }
        assert!(session.text().len() >= 3, "{:?}", session.text());
        assert!(answer[..answer.len() - 1].iter().all(|id| !ends.contains(id)));
    }
    assert!(ended_early > 0);
    // Nothing can follow the third letter, so no token is asked for after it.
    let mut session = session(&model, following("root ::= [a-z]{3}", 40, hot(3)));
    finish(&mut session, &model);
    assert_eq!(session.text().len(), 3);
    assert!(!ends.contains(session.generated().last().unwrap()));
    assert_eq!(session.finish_reason(), Some(FinishReason::EndOfGeneration));
}

#[test]
fn without_the_end_of_generation_the_grammar_still_ends_the_answer() {
    let model = load(&tiny().build());
    for seed in 0..10 {
        let mut session = session(&model, SessionOptions { ignore_eos: true, ..following(LISTS, 200, hot(seed)) });
        finish(&mut session, &model);
        assert!(is_list(session.text()), "{:?}", session.text());
    }
}

#[test]
fn every_answer_of_a_conversation_follows_it_from_the_beginning() {
    let model = load(&tiny().build());
    let mut session = session(&model, following(LISTS, 200, hot(7)));
    finish(&mut session, &model);
    let first = session.text().to_owned();
    session.append(&model, tokens(5, 300), 200).unwrap();
    let mut session = Session::restore(&model, session.record()).unwrap();
    finish(&mut session, &model);
    assert!(is_list(&first) && is_list(session.text()), "{first:?}, {:?}", session.text());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn interruptions_and_restarts_give_the_same_answer(
        disturbances in proptest::collection::vec((1u64..12, any::<bool>()), 1..30), seed in 0u64..50,
    ) {
        let model = load(&tiny().build());
        let options = SessionOptions { logprobs: Some(3), ..following(LISTS, 60, hot(seed)) };
        let mut whole = session(&model, options.clone());
        finish(&mut whole, &model);
        let mut session = session(&model, options);
        for (units, restarts) in disturbances {
            if restarts {
                let record = SessionRecord::from_bytes(&session.record().to_bytes()).unwrap();
                prop_assert_eq!(&record, &session.record());
                session = Session::restore(&model, record).unwrap();
            }
            session.step(&model, &mut CountDown::new(units)).unwrap();
        }
        finish(&mut session, &model);
        prop_assert_eq!(Outcome::of(&session).tokens, Outcome::of(&whole).tokens);
        prop_assert_eq!(session.digests(), whole.digests());
        prop_assert!(session.logprobs().eq(whole.logprobs()));
        prop_assert_eq!(session.logprobs().len(), session.generated_tokens());
    }
}

#[test]
fn wrong_grammars_are_refused_when_the_session_is_made() {
    let model = load(&tiny().build());
    let options = following("root ::= root \"a\"", 5, Sampling::greedy());
    let error = Session::new(&model, vec![0], options).unwrap_err();
    let expected = Error::Grammar(grammar::Error::LeftRecursion { name: "root".to_owned() });
    assert!(matches!(&error, CoreError::Session(error) if *error == expected), "{error}");
}

#[test]
fn where_no_token_can_follow_the_step_says_so_and_the_session_is_over() {
    let spm = TinyLlama { vocabulary: Vocabulary::SentencePiece, vocab: 420, ..tiny() };
    let model = load(&spm.build());
    // A rule that never comes to an end, behind a dead end.
    let options = following("root ::= \"ab\" (\"c\" | \"d\" never)\nnever ::= \"e\" never", 50, Sampling::greedy());
    let mut session = session(&model, SessionOptions { ignore_eos: true, ..options });
    finish(&mut session, &model);
    assert!(session.text() == "abc" || session.text().starts_with("abde"), "{:?}", session.text());
    let empty = following("root ::= \"\"", 5, Sampling::greedy());
    let mut stuck = self::session(&model, SessionOptions { ignore_eos: true, ..empty });
    let error = stuck.step(&model, &mut Unlimited).unwrap_err();
    assert!(matches!(error, CoreError::Session(Error::Grammar(grammar::Error::Stuck))), "{error}");
    let over = Step::Finished(FinishReason::GrammarFailed);
    assert_eq!(stuck.step(&model, &mut Unlimited).unwrap(), over);
    let record = SessionRecord::from_bytes(&stuck.record().to_bytes()).unwrap();
    assert_eq!(record.finish_reason(), Some(FinishReason::GrammarFailed));
    assert!(stuck.cancel().is_empty() && stuck.step(&model, &mut Unlimited).unwrap() == over);
}

#[test]
fn a_stop_string_ends_an_answer_inside_its_grammar() {
    let model = load(&tiny().build());
    let options = SessionOptions { stop: vec!["zz".into()], ..following("root ::= \"a\" \"z\"{5}", 50, hot(1)) };
    let mut session = session(&model, options);
    while !matches!(session.step(&model, &mut Unlimited).unwrap(), Step::Finished(FinishReason::StopString)) {}
    assert_eq!(session.text(), "a");
}

//! Sessions on small models: the same bits however they are run, and the rules of beginning, ending and going on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::common::{Outcome, audited, finish, load, load_with, run_units, tiny, tokens};
use model_core::Error as CoreError;
use model_core::budget::Unlimited;
use model_core::fixtures::TinyLlama;
use model_core::gguf::{Array, File, GgmlType, Value};
use model_core::kernels::Kernel;
use model_core::model::{self, CachePrecision, LoadOptions, Model};
use model_core::reference::Reference;
use model_core::sample::{Sampling, log_probability};
use model_core::session::{Error, FinishReason, Session, SessionOptions, SessionRecord, Step};
use proptest::prelude::*;

fn session(model: &Model, prompt: usize, options: SessionOptions) -> Session {
    Session::new(model, tokens(prompt, model.config.vocab), options).unwrap()
}

fn undisturbed(model: &Model, prompt: usize, options: &SessionOptions) -> Outcome {
    let mut session = session(model, prompt, options.clone());
    finish(&mut session, model);
    Outcome::of(&session)
}

/// Largest difference of two logit vectors, relative to the largest magnitude.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn logits_agree_with_the_plain_evaluation_for_every_shape_and_format() {
    let variants = [
        tiny(),
        TinyLlama { tied: false, ..TinyLlama::default() },
        TinyLlama { heads: 8, kv_heads: 4, head_dim: 20, rope_theta: 500.0, ..TinyLlama::default() },
        TinyLlama {
            heads: 8,
            kv_heads: 1,
            head_dim: 8,
            rope_freqs: Some(vec![1.0, 2.0, 5.0, 8.0]),
            ..TinyLlama::default()
        },
        TinyLlama { ty: GgmlType::F32, ..TinyLlama::default() },
        TinyLlama { ty: GgmlType::BF16, ..TinyLlama::default() },
        TinyLlama { ty: GgmlType::Q4_0, ..TinyLlama::default() },
        TinyLlama { ty: GgmlType::Q5_0, ..TinyLlama::default() },
        TinyLlama { ty: GgmlType::Q5_1, tied: false, ..TinyLlama::default() },
    ];
    for variant in variants {
        let file = variant.build();
        let (model, reference) = (load(&file), Reference::load(&file).unwrap());
        let tokens = tokens(70, variant.vocab);
        let mut expected = Vec::new();
        reference.logits_of(&tokens, |_, logits| expected.push(logits.to_vec())).unwrap();
        let mut seen = 0;
        model
            .logits_for(&tokens, |position, logits| {
                let distance = distance(logits, &expected[position]);
                assert!(distance < 1e-3, "{variant:?}: position {position} differs by {distance}");
                seen += 1;
            })
            .unwrap();
        assert_eq!(seen, tokens.len());
    }
}

#[test]
fn a_session_samples_from_the_logits_of_the_evaluation_bit_for_bit() {
    let model = load(&tiny().build());
    let outcome = undisturbed(&model, 37, &audited(20, Sampling::greedy()));
    let mut digests = Vec::new();
    model.logits_for(&outcome.tokens, |_, logits| digests.push(model_core::session::digest(logits))).unwrap();
    assert_eq!(outcome.digests, digests[36..56]);
}

#[test]
fn batches_kernels_and_threads_do_not_change_a_bit() {
    let file = tiny().build();
    let options = audited(12, Sampling { seed: 3, ..Sampling::default() });
    let expected = undisturbed(&load_with(&file, Kernel::SCALAR), 50, &options);
    assert_eq!(expected.digests.len(), 12);
    for kernel in Kernel::available() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = load_with(&file, kernel);
                for prefill_batch in [1, 2, 7, 16, 50, 64] {
                    let options = SessionOptions { prefill_batch, ..options.clone() };
                    assert_eq!(
                        undisturbed(&model, 50, &options),
                        expected,
                        "{} {threads} {prefill_batch}",
                        kernel.name()
                    );
                }
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_interruptions_give_the_same_bits(
        disturbances in proptest::collection::vec((1u64..12, 0u8..8), 1..60),
        prefill_batch in 1usize..20,
        greedy: bool,
    ) {
        let model = load(&tiny().build());
        let sampling = if greedy { Sampling::greedy() } else { Sampling { seed: 9, repeat_penalty: 1.3, ..Sampling::default() } };
        let options = SessionOptions { prefill_batch, ..audited(9, sampling) };
        let expected = undisturbed(&model, 23, &options);
        let mut session = session(&model, 23, options);
        for (units, disturbance) in disturbances {
            run_units(&mut session, &model, units);
            match disturbance {
                0 => session.drop_cache(),
                1 => {
                    let bytes = session.record().to_bytes();
                    session = Session::restore(&model, SessionRecord::from_bytes(&bytes).unwrap()).unwrap();
                }
                _ => {}
            }
        }
        finish(&mut session, &model);
        // A cache dropped after the last token leaves no logits.
        let logits = if session.logits().is_empty() { Vec::new() } else { expected.logits.clone() };
        prop_assert_eq!(Outcome::of(&session), Outcome { logits, ..expected });
    }
}

#[test]
fn every_call_makes_progress_and_suspends_at_every_layer() {
    let model = load(&tiny().build());
    let mut session = session(&model, 10, SessionOptions { prefill_batch: 4, ..audited(1, Sampling::greedy()) });
    let mut steps = Vec::new();
    while run_units(&mut session, &model, 1) {
        steps.push(session.cached_tokens());
        assert!(steps.len() < 100);
    }
    // Three batches of three layers, then the head.
    assert_eq!(steps, [0, 0, 4, 4, 4, 8, 8, 8, 10, 10]);
}

#[test]
fn steps_tell_what_happened() {
    let model = load(&tiny().build());
    let options = SessionOptions { prefill_batch: 4, logprobs: Some(3), ..audited(2, Sampling::greedy()) };
    let mut session = session(&model, 10, options);
    assert_eq!(session.step(&model, &mut Unlimited).unwrap(), Step::Prefill { done: 4, total: 10 });
    assert_eq!(session.step(&model, &mut Unlimited).unwrap(), Step::Prefill { done: 8, total: 10 });
    let Step::Token { id, logprob: Some(logprob), .. } = session.step(&model, &mut Unlimited).unwrap() else {
        panic!()
    };
    assert_eq!(session.generated(), [id]);
    assert_eq!(logprob, log_probability(session.logits(), id));
    let [own, likeliest, ..] = session.logprobs().next().unwrap() else { panic!() };
    // Greedy: the token is the likeliest itself.
    assert_eq!((own.id, own.logprob, *likeliest), (id, logprob, *own));
    assert_eq!((session.prompt_tokens(), session.generated_tokens(), session.remaining_tokens()), (10, 1, 1));
    assert_eq!(session.finish_reason(), None);
    assert!(matches!(session.step(&model, &mut Unlimited).unwrap(), Step::Token { .. }));
    assert_eq!(session.finish_reason(), Some(FinishReason::Length));
    for _ in 0..2 {
        assert_eq!(session.step(&model, &mut Unlimited).unwrap(), Step::Finished(FinishReason::Length));
    }
}

#[test]
fn no_tokens_asked_for_gives_the_logits_of_the_prompt() {
    let model = load(&tiny().build());
    let mut session = session(&model, 10, audited(0, Sampling::greedy()));
    assert_eq!(session.step(&model, &mut Unlimited).unwrap(), Step::Finished(FinishReason::Length));
    let first = undisturbed(&model, 10, &audited(1, Sampling::greedy()));
    assert_eq!(Outcome::of(&session).logits, first.logits);
    assert_eq!((session.generated(), session.digests()), (&[][..], &[][..]));
}

#[test]
fn the_context_fills_up() {
    let model = load(&TinyLlama { context: 16, ..TinyLlama::default() }.build());
    let mut full = session(&model, 10, audited(100, Sampling::greedy()));
    finish(&mut full, &model);
    assert_eq!((full.finish_reason(), full.tokens().len()), (Some(FinishReason::ContextFull), 16));
    let restored = Session::restore(&model, full.record()).unwrap();
    assert_eq!(restored.finish_reason(), Some(FinishReason::ContextFull));
    assert!(matches!(
        full.append(&model, vec![1], 1),
        Err(CoreError::Session(Error::ContextTooShort { positions: 18, context_length: 16 }))
    ));
    assert!(Session::new(&model, tokens(15, 320), SessionOptions::default()).is_ok());
    assert!(matches!(
        Session::new(&model, tokens(16, 320), SessionOptions::default()),
        Err(CoreError::Session(Error::ContextTooShort { positions: 17, .. }))
    ));
}

#[test]
fn appending_equals_one_session_over_the_same_tokens() {
    let model = load(&tiny().build());
    let mut chat = session(&model, 12, audited(5, Sampling::greedy()));
    finish(&mut chat, &model);
    let first_answer = chat.text().to_owned();
    let cached = chat.cached_tokens();
    let turn = tokens(9, 77);
    chat.append(&model, turn.clone(), 6).unwrap();
    assert_eq!((chat.cached_tokens(), chat.text(), chat.remaining_tokens()), (cached, "", 6));
    let restored = Session::restore(&model, SessionRecord::from_bytes(&chat.record().to_bytes()).unwrap()).unwrap();
    for mut chat in [chat, restored] {
        finish(&mut chat, &model);
        assert_eq!((chat.prompt_tokens(), chat.generated_tokens(), chat.generated().len()), (21, 11, 6));
        assert_eq!(chat.full_text(), first_answer.clone() + chat.text());
        let history = chat.tokens()[..26].to_vec();
        assert_eq!(history[17..], turn);
        let mut single = Session::new(&model, history, audited(6, Sampling::greedy())).unwrap();
        finish(&mut single, &model);
        assert_eq!(single.generated(), chat.generated());
        assert_eq!(single.digests(), &chat.digests()[5..]);
    }
}

#[test]
fn a_restarted_session_is_a_new_one_that_computes_only_what_differs() {
    let model = load(&tiny().build());
    let (first, more) = (tokens(40, 320), vec![7, 8, 9]);
    let options = audited(6, Sampling { seed: 5, repeat_penalty: 1.2, ..Sampling::default() });
    let stopped_after = |units: u64| {
        let small_batches = SessionOptions { prefill_batch: 11, ..audited(8, Sampling::greedy()) };
        let mut session = Session::new(&model, first.clone(), small_batches).unwrap();
        run_units(&mut session, &model, units);
        session
    };
    let mut kept = Vec::new();
    for units in [0, 1, 7, 1000] {
        let before = stopped_after(units).tokens().to_vec();
        // It goes on, changes in the middle (of a segment of the cache), stays, is cut, has nothing in common.
        let prompts = [
            [&before[..], &more].concat(),
            [&first[..20], &more].concat(),
            first.clone(),
            first[..7].to_vec(),
            more.clone(),
        ];
        for prompt in prompts {
            let mut session = stopped_after(units);
            while units == 1000 && !matches!(session.step(&model, &mut Unlimited).unwrap(), Step::Finished(_)) {}
            let same = session.tokens().iter().zip(&prompt).take_while(|(one, other)| one == other).count();
            let expected = same.min(session.cached_tokens()).min(prompt.len() - 1);
            session.restart(&model, prompt.clone(), options.clone()).unwrap();
            assert_eq!(session.cached_tokens(), expected, "{units} units, then {} tokens", prompt.len());
            kept.push(expected);
            finish(&mut session, &model);
            let mut fresh = Session::new(&model, prompt, options.clone()).unwrap();
            finish(&mut fresh, &model);
            assert_eq!(Outcome::of(&session), Outcome::of(&fresh));
        }
    }
    assert_eq!(kept[15..], [40, 20, 39, 6, 0], "a finished prompt is kept as far as it goes");
}

#[test]
fn a_restart_with_another_cache_keeps_nothing() {
    let model = load(&tiny().build());
    let wide = audited(6, Sampling::greedy());
    let narrow = SessionOptions { kv_cache: CachePrecision::Bits8, ..wide.clone() };
    for (before, after) in [(&wide, &narrow), (&narrow, &wide)] {
        let mut session = session(&model, 40, before.clone());
        finish(&mut session, &model);
        session.restart(&model, tokens(40, 320), after.clone()).unwrap();
        assert_eq!(session.cached_tokens(), 0);
        finish(&mut session, &model);
        assert_eq!(Outcome::of(&session), undisturbed(&model, 40, after));
    }
}

#[test]
fn a_refused_restart_changes_nothing() {
    let model = load(&tiny().build());
    let options = audited(6, Sampling::greedy());
    let expected = undisturbed(&model, 20, &options);
    let mut session = session(&model, 20, options.clone());
    run_units(&mut session, &model, 5);
    let refused = session.restart(&model, vec![], options.clone());
    assert!(matches!(refused, Err(CoreError::Session(Error::EmptyPrompt))));
    let other = load(&TinyLlama { layers: 2, ..tiny() }.build());
    let refused = session.restart(&other, tokens(20, 320), options);
    assert!(matches!(refused, Err(CoreError::Session(Error::OtherModel))));
    finish(&mut session, &model);
    assert_eq!(Outcome::of(&session), expected);
}

#[test]
fn a_running_session_cannot_be_appended_to_but_cancelled() {
    let model = load(&tiny().build());
    let mut session = session(&model, 12, audited(50, Sampling::greedy()));
    for _ in 0..10 {
        run_units(&mut session, &model, 5);
    }
    assert!(matches!(session.append(&model, vec![1], 1), Err(CoreError::Session(Error::StillGenerating))));
    session.cancel();
    assert_eq!(session.step(&model, &mut Unlimited).unwrap(), Step::Finished(FinishReason::Cancelled));
    assert!(matches!(session.append(&model, vec![], 1), Err(CoreError::Session(Error::EmptyPrompt))));
    assert!(matches!(
        session.append(&model, vec![320], 1),
        Err(CoreError::Session(Error::UnknownToken { id: 320, vocab: 320, .. }))
    ));
    session.append(&model, vec![1], 3).unwrap();
    finish(&mut session, &model);
    let mut single =
        Session::new(&model, session.tokens()[..session.tokens().len() - 3].to_vec(), audited(3, Sampling::greedy()))
            .unwrap();
    finish(&mut single, &model);
    assert_eq!(single.generated(), session.generated());
}

#[test]
fn text_ends_before_a_stop_string_that_spans_tokens() {
    let model = load(&tiny().build());
    let options = audited(40, Sampling { seed: 5, top_k: 0, temperature: 2.0, ..Sampling::default() });
    let mut free = session(&model, 8, options.clone());
    let pieces = finish(&mut free, &model);
    let text = free.text().to_owned();
    assert_eq!(pieces.concat(), text);
    // A stop string across the end of one token and the beginning of the next.
    let (at, _) = text.char_indices().nth(text.chars().count() / 2).unwrap();
    let stop: String = text[at..].chars().take(3).collect();
    let end = text.find(&stop).unwrap();
    let options = SessionOptions { stop: vec!["never found".to_owned(), stop.clone()], ..options };
    let mut stopped = session(&model, 8, options);
    let pieces = finish(&mut stopped, &model);
    assert_eq!(stopped.finish_reason(), Some(FinishReason::StopString));
    assert_eq!(stopped.text(), &text[..end], "stop {stop:?}");
    assert_eq!(pieces.concat(), stopped.text());
    assert!(free.generated().starts_with(stopped.generated()));
}

#[test]
fn an_end_token_ends_unless_ignored() {
    let model = load(&TinyLlama::default().build());
    let end = model.tokenizer.end_of_generation().to_vec();
    assert!(!end.is_empty());
    // Hot enough that an end token comes sooner or later.
    let hot = Sampling { temperature: 100.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() };
    let run = |seed, ignore_eos| {
        let options = SessionOptions { ignore_eos, ..audited(60, Sampling { seed, ..hot }) };
        let mut session = session(&model, 4, options);
        finish(&mut session, &model);
        session
    };
    let seed = (0..200).find(|&seed| run(seed, false).finish_reason() == Some(FinishReason::EndOfGeneration)).unwrap();
    let ended = run(seed, false);
    let (last, rest) = ended.generated().split_last().unwrap();
    assert!(end.contains(last) && !rest.iter().any(|id| end.contains(id)));
    assert_eq!(ended.digests().len(), ended.generated().len());
    let ignored = run(seed, true);
    assert_eq!((ignored.finish_reason(), ignored.generated().len()), (Some(FinishReason::Length), 60));
    assert!(ignored.generated().starts_with(ended.generated()));
}

#[test]
fn hostile_options_and_prompts_are_errors() {
    let model = load(&TinyLlama::default().build());
    let new = |prompt: Vec<u32>, options| Session::new(&model, prompt, options).map(drop);
    let nan = SessionOptions {
        sampling: Sampling { temperature: f32::NAN, ..Sampling::default() },
        ..SessionOptions::default()
    };
    assert!(matches!(new(vec![1], nan), Err(CoreError::Session(Error::Sampling(_)))));
    let wide = SessionOptions { prefill_batch: usize::MAX, ..SessionOptions::default() };
    assert!(matches!(new(vec![1], wide), Err(CoreError::Session(Error::PrefillBatch { .. }))));
    assert!(matches!(new(vec![], SessionOptions::default()), Err(CoreError::Session(Error::EmptyPrompt))));
    let found = new(vec![1, u32::MAX], SessionOptions::default());
    assert!(matches!(found, Err(CoreError::Session(Error::UnknownToken { index: 1, id: u32::MAX, .. }))));
}

#[test]
fn a_model_of_another_shape_is_refused() {
    let (model, other) =
        (load(&TinyLlama::default().build()), load(&TinyLlama { layers: 3, ..TinyLlama::default() }.build()));
    let mut session = session(&model, 4, SessionOptions::default());
    assert!(matches!(session.step(&other, &mut Unlimited), Err(CoreError::Session(Error::OtherModel))));
    assert!(matches!(session.append(&other, vec![1], 1), Err(CoreError::Session(Error::OtherModel))));
    let small = load(&TinyLlama { context: 8, ..TinyLlama::default() }.build());
    let record = Session::new(&model, tokens(9, 320), SessionOptions::default()).unwrap().record();
    assert!(matches!(Session::restore(&small, record), Err(CoreError::Session(Error::ContextTooShort { .. }))));
}

#[test]
fn hostile_record_bytes_are_errors_never_panics() {
    let model = load(&TinyLlama::default().build());
    let (stop, grammar) = (vec!["stop".into(), "é".into()], Some("root ::= .*".to_owned()));
    let options = SessionOptions { stop, grammar, logprobs: Some(1), ..audited(9, Sampling::default()) };
    let mut session = session(&model, 6, options);
    for _ in 0..8 {
        run_units(&mut session, &model, 3);
    }
    let bytes = session.record().to_bytes();
    assert_eq!(SessionRecord::from_bytes(&bytes).unwrap(), session.record());
    for len in 0..bytes.len() {
        assert!(SessionRecord::from_bytes(&bytes[..len]).is_err(), "cut to {len}");
    }
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            // What is still a record must be usable or be refused by the model.
            if let Ok(record) = SessionRecord::from_bytes(&bytes)
                && let Ok(mut session) = Session::restore(&model, record)
            {
                let step = session.step(&model, &mut Unlimited);
                assert!(matches!(step, Ok(_) | Err(CoreError::Session(Error::Grammar(_)))), "{step:?}");
            }
        }
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(SessionRecord::from_bytes(&longer).is_err());
}

#[test]
fn a_damaged_model_gives_the_same_error_however_often_it_is_asked() {
    let file = TinyLlama { ty: GgmlType::F32, ..TinyLlama::default() }.build();
    let at = File::read(&file).unwrap().tensor("blk.1.ffn_down.weight").unwrap().offset as usize;
    let mut damaged = file;
    damaged[at..at + 256].as_chunks_mut::<4>().0.fill(3e38f32.to_le_bytes());
    let model = load(&damaged);
    let mut session = session(&model, 5, SessionOptions::default());
    for _ in 0..3 {
        let error = session.step(&model, &mut Unlimited).unwrap_err();
        assert!(matches!(error, CoreError::Model(model::Error::NonFinite { layer: 1, .. })), "{error}");
        assert_eq!((session.cached_tokens(), session.generated_tokens()), (0, 0));
    }
}

#[test]
fn rows_of_the_embedding_without_a_token_have_no_text() {
    let file = TinyLlama::default().build();
    let header = File::read(&file).unwrap();
    let first = |key: &str, count| {
        Value::Array(Array::String(header.metadata().strings(key).unwrap().iter().take(count).collect()))
    };
    let types = header.metadata().i32s("tokenizer.ggml.token_type").unwrap()[..310].to_vec();
    let special = ["bos", "eos", "eot", "eom", "unknown"];
    let mut overrides = special.map(|name| (format!("tokenizer.ggml.{name}_token_id"), Value::U32(0))).to_vec();
    overrides.extend([
        ("tokenizer.ggml.tokens".to_owned(), first("tokenizer.ggml.tokens", 310)),
        ("tokenizer.ggml.merges".to_owned(), first("tokenizer.ggml.merges", 50)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Array(Array::I32(types))),
    ]);
    let model = Model::load(&file, &LoadOptions { overrides, ..LoadOptions::default() }).unwrap();
    assert_eq!((model.tokenizer.vocab_size(), model.config.vocab), (310, 320));
    let hot = Sampling { temperature: 100.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() };
    let mut session = Session::new(&model, vec![0, 1], audited(100, hot)).unwrap();
    let pieces = finish(&mut session, &model);
    // The last piece may show what was held back.
    let pieces = session.generated().iter().zip(&pieces[..99]);
    let silent: Vec<_> = pieces.filter(|&(&id, _)| id >= 310).collect();
    assert!(!silent.is_empty() && silent.iter().all(|(_, piece)| piece.is_empty()), "{silent:?}");
}

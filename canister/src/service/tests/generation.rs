use model_core::fixtures::TinyLlama;
use proptest::prelude::*;

use crate::api::*;
use crate::testing::*;

/// What the session of `options(seed)` answers when nothing disturbs it.
fn undisturbed(canister: &mut Canister, seed: u64) -> (u64, Answer) {
    let session = canister.create(USER, text("hello"), options(seed)).unwrap();
    canister.finish(USER, session);
    (session, canister.answer(USER, session))
}

fn run(canister: &mut Canister, caller: candid::Principal, session_id: u64) -> SessionStatus {
    canister.call(caller, |service| service.session_run(SessionIdArg { session_id })).unwrap()
}

fn output(canister: &mut Canister, session_id: u64, from: u64) -> SessionOutputOk {
    canister.call(USER, |service| service.session_output(SessionOutputArg { session_id, from })).unwrap()
}

#[test]
fn one_call_answers_and_tells_all_about_it() {
    let mut canister = Canister::serving(&model(1));
    let session = canister.create(USER, text("hello"), options(1)).unwrap();
    let progress = canister.advance(USER, session).unwrap();
    assert_eq!((progress.tokens.len(), progress.text_from), (24, 0));
    let status = progress.status;
    assert_eq!(status.state, SessionState::Finished(FinishReason::Length));
    assert_eq!((status.generated_tokens, status.remaining_tokens, status.running), (24, 0, false));
    assert_eq!(status.cached_tokens, status.prompt_tokens + 23);
    assert_eq!(status.text_bytes, progress.text.len() as u64);
    let answer = canister.answer(USER, session);
    assert_eq!((answer.text, &answer.tokens[status.prompt_tokens as usize..]), (progress.text, &progress.tokens[..]));
    assert_eq!(answer.digests.len(), 24);
    let again = canister.advance(USER, session).unwrap();
    assert_eq!((again.tokens.len(), again.text.as_str(), again.text_from), (0, "", status.text_bytes));
    let logits = canister.call(USER, |service| service.session_logits(SessionIdArg { session_id: session })).unwrap();
    let logits: Vec<f32> = logits.logits.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(model_core::session::digest(&logits), *answer.digests.last().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_budgets_and_upgrades_give_the_same_answer(
        budgets in proptest::collection::vec((1u64..60, any::<bool>(), proptest::option::of(1u32..4)), 1..8),
    ) {
        let mut canister = Canister::serving(&model(1));
        let (_, expected) = undisturbed(&mut canister, 7);
        canister.env.set_cost_per_look(1);
        let session = canister.create(USER, text("hello"), options(7)).unwrap();
        let mut text = String::new();
        let rounds = budgets.len();
        for (round, (max_instructions, upgrade, max_tokens)) in budgets.into_iter().cycle().enumerate() {
            // Not for ever: a session that loses its cache before every call never gets through its prompt.
            if upgrade && round < rounds {
                canister.upgrade();
                canister.settle();
            }
            let max_instructions = Some(max_instructions);
            let arg = SessionAdvanceArg { session_id: session, max_instructions, max_tokens, profile: None };
            let progress = canister.call(USER, |service| service.session_advance(arg)).unwrap();
            prop_assert!(max_tokens.is_none_or(|max| progress.tokens.len() <= max as usize));
            text.push_str(&progress.text);
            if matches!(progress.status.state, SessionState::Finished(_)) {
                break;
            }
        }
        let answer = canister.answer(USER, session);
        prop_assert_eq!(&answer, &expected);
        prop_assert_eq!(answer.text, text);
    }
}

#[test]
fn the_smallest_budget_still_makes_progress() {
    let mut canister = Canister::serving(&model(1));
    let (_, expected) = undisturbed(&mut canister, 3);
    canister.env.set_cost_per_look(1);
    let session = canister.create(USER, text("hello"), options(3)).unwrap();
    let arg = SessionAdvanceArg { session_id: session, max_instructions: Some(0), max_tokens: None, profile: None };
    let mut calls = 0;
    loop {
        calls += 1;
        let progress = canister.call(USER, |service| service.session_advance(arg)).unwrap();
        if matches!(progress.status.state, SessionState::Finished(_)) {
            break;
        }
    }
    // Two layers and a head per token.
    assert!(calls > 24 * 2, "{calls} calls");
    assert_eq!(canister.answer(USER, session), expected);
}

#[test]
fn running_sessions_share_the_canister_and_survive_upgrades() {
    let mut canister = Canister::serving(&model(1));
    let expected: Vec<_> = (0..4).map(|seed| undisturbed(&mut canister, seed).1).collect();
    canister.env.set_cost_per_look(9_000_000_000);
    let sessions: Vec<_> = (0..4).map(|seed| canister.create(USER, text("hello"), options(seed)).unwrap()).collect();
    for session in &sessions {
        assert!(run(&mut canister, USER, *session).running);
    }
    let mut ticks = 0;
    let mut shared = false;
    loop {
        let generated: Vec<_> =
            sessions.iter().map(|id| output(&mut canister, *id, 0).status.generated_tokens).collect();
        shared |= generated.iter().all(|tokens| (1..24).contains(tokens));
        if !canister.tick() {
            break;
        }
        ticks += 1;
        if ticks % 50 == 20 {
            canister.upgrade();
        }
    }
    assert!(shared, "one session ran after the other");
    for (session, expected) in sessions.into_iter().zip(expected) {
        let status = output(&mut canister, session, 0).status;
        assert!(!status.running && status.error.is_none());
        assert_eq!(canister.answer(USER, session), expected);
    }
}

#[test]
fn output_is_read_from_any_character() {
    let mut canister = Canister::serving(&model(1));
    let (session, answer) = undisturbed(&mut canister, 1);
    for (index, _) in answer.text.char_indices() {
        let output = output(&mut canister, session, index as u64);
        assert_eq!((output.text.as_str(), output.next), (&answer.text[index..], answer.text.len() as u64));
    }
    for from in [answer.text.len() as u64 + 1, u64::MAX] {
        let refused =
            canister.call(USER, |service| service.session_output(SessionOutputArg { session_id: session, from }));
        assert!(matches!(refused, Err(Error::InvalidArgument { field, .. }) if field == "from"));
    }
}

#[test]
fn evicted_caches_are_computed_again_with_the_same_bits() {
    let mut canister = Canister::serving(&model(1));
    let expected: Vec<_> = (0..3).map(|seed| undisturbed(&mut canister, seed).1).collect();
    let sessions: Vec<_> = (0..3).map(|seed| canister.create(USER, text("hello"), options(seed)).unwrap()).collect();
    canister.service.config.cache_heap_bytes = 1;
    for _ in 0..24 {
        for session in &sessions {
            let arg =
                SessionAdvanceArg { session_id: *session, max_instructions: None, max_tokens: Some(1), profile: None };
            canister.env.advance_ns(60_000_000_000);
            canister.call(USER, |service| service.session_advance(arg)).unwrap();
            let cached = sessions.iter().filter(|id| output(&mut canister, **id, 0).status.cached_tokens > 0).count();
            assert_eq!(cached, 1, "only the one in use is kept");
        }
    }
    for (session, expected) in sessions.into_iter().zip(expected) {
        assert_eq!(canister.answer(USER, session), expected);
    }
}

#[test]
fn the_heap_keeps_few_sessions_that_wait_to_be_begun() {
    let mut canister = Canister::serving(&model(1));
    let update = ConfigUpdate { max_sessions_per_principal: Some(1_000), ..Default::default() };
    canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
    let (_, expected) = undisturbed(&mut canister, 1);
    let sessions: Vec<_> = (0..200).map(|_| canister.create(USER, text("hello"), options(1)).unwrap()).collect();
    assert!(canister.service.sessions.live_count() <= 64);
    for session in [sessions[0], sessions[199]] {
        canister.finish(USER, session);
        assert_eq!(canister.answer(USER, session), expected);
    }
}

#[test]
fn running_sessions_that_do_not_fit_the_heap_together_go_one_after_the_other() {
    let mut canister = Canister::serving(&model(1));
    canister.env.set_cost_per_look(9_000_000_000);
    let sessions: Vec<_> = (0..3).map(|seed| canister.create(USER, text("hello"), options(seed)).unwrap()).collect();
    canister.service.config.cache_heap_bytes = 1;
    for session in &sessions {
        run(&mut canister, USER, *session);
    }
    while canister.tick() {
        let begun = sessions.iter().map(|id| output(&mut canister, *id, 0).status.generated_tokens);
        assert!(begun.filter(|tokens| (1..24).contains(tokens)).count() <= 1, "two caches are built in turns");
    }
    assert!(sessions.iter().all(|id| output(&mut canister, *id, 0).status.generated_tokens == 24));
}

#[test]
fn many_sessions_of_one_principal_do_not_hold_up_another() {
    let mut canister = Canister::serving(&model(1));
    canister.env.set_cost_per_look(9_000_000_000);
    let start = |canister: &mut Canister, caller| {
        let session = canister.create(caller, text("hello"), options(1)).unwrap();
        run(canister, caller, session);
        session
    };
    let alone = start(&mut canister, OPERATOR);
    let mut ticks_alone = 0;
    while canister.tick() {
        ticks_alone += 1;
    }
    let update = ConfigUpdate { max_runs_per_principal: Some(100), ..Default::default() };
    canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
    for _ in 0..100 {
        start(&mut canister, USER);
    }
    let one = start(&mut canister, OTHER);
    let generated = |canister: &Canister, id| canister.service.stored(id).unwrap().generated_tokens;
    let mut ticks = 0;
    while generated(&canister, one) < 24 {
        assert!(canister.tick());
        ticks += 1;
    }
    assert!((2 * ticks_alone - 1..=2 * ticks_alone + 1).contains(&ticks), "{ticks} instead of {ticks_alone}");
    assert_eq!(canister.answer(OTHER, one), canister.answer(OPERATOR, alone));
}

#[test]
fn a_conversation_goes_on_turn_by_turn() {
    let user = |content: &str| ChatMessage::User(MessageText { content: content.into() });
    let mut canister = Canister::serving(&model(1));
    let session = canister.create(USER, SessionInput::Messages(vec![user("one")]), options(1)).unwrap();
    let append = |canister: &mut Canister, max_tokens| {
        let arg =
            SessionAppendArg { session_id: session, input: SessionInput::Messages(vec![user("two")]), max_tokens };
        canister.call(USER, |service| service.session_append(arg))
    };
    assert_eq!(append(&mut canister, None), Err(Error::SessionNotFinished { session_id: session }));
    let first = canister.finish(USER, session);
    let appended = append(&mut canister, Some(5)).unwrap();
    assert!(appended.appended_tokens > 0 && appended.status.remaining_tokens == 5);
    assert_eq!(appended.status.state, SessionState::Prefill);
    canister.upgrade();
    canister.settle();
    let progress = canister.advance(USER, session).unwrap();
    assert_eq!((progress.tokens.len(), progress.text_from), (5, first.len() as u64));
    assert_eq!(append(&mut canister, None).unwrap().status.remaining_tokens, 24, "as at creation");
}

#[test]
fn a_restarted_conversation_is_a_new_one_and_keeps_what_was_computed() {
    let say = |role: fn(MessageText) -> ChatMessage, content: &str| role(MessageText { content: content.into() });
    let user = |content| say(ChatMessage::User, content);
    let mut canister = Canister::serving(&TinyLlama { context: 512, ..TinyLlama::default() }.build());
    let first = SessionInput::Messages(vec![user("one")]);
    let session = canister.create(USER, first, options(1)).unwrap();
    let restart = |canister: &mut Canister, input, options| {
        let arg = SessionRestartArg { session_id: session, input, options };
        canister.call(USER, |service| service.session_restart(arg))
    };
    let refused = restart(&mut canister, text("a"), options(1));
    assert_eq!(refused, Err(Error::SessionNotFinished { session_id: session }));
    let answer = canister.finish(USER, session);
    // An answer is told back in other words than were generated.
    let messages = vec![user("one"), say(ChatMessage::Assistant, answer.trim()), user("two")];
    for (upgraded, named) in [(false, None), (true, Some("{\"x\": 1}".to_owned()))] {
        if upgraded {
            canister.upgrade();
            canister.settle();
        }
        let input = SessionInput::Messages(messages.clone());
        let options = SessionOptions { chat_template_kwargs: named, ..options(7) };
        let restarted = restart(&mut canister, input.clone(), options.clone()).unwrap();
        assert_eq!(restarted.kept_tokens > 5, !upgraded, "{restarted:?}");
        assert_eq!((restarted.status.generated_tokens, restarted.status.text_bytes), (0, 0));
        assert_eq!(restarted.status.cached_tokens, restarted.kept_tokens);
        canister.finish(USER, session);
        let fresh = canister.create(USER, input, options).unwrap();
        canister.finish(USER, fresh);
        assert_eq!(canister.answer(USER, session), canister.answer(USER, fresh));
    }
    let too_long = restart(&mut canister, SessionInput::Tokens(vec![1; 600]), options(1));
    assert!(matches!(too_long, Err(Error::LimitExceeded { .. })), "{too_long:?}");
    let kept = canister.answer(USER, session);
    assert_eq!(kept.digests.len(), 24, "a refused restart changes nothing");
}

/// The prompt of a session, decoded.
fn prompt(canister: &mut Canister, input: SessionInput, options: SessionOptions) -> Result<String, Error> {
    let session = canister.create(USER, input, options)?;
    let tokens = canister.answer(USER, session).tokens;
    let model = &canister.service.models.serving().unwrap().model;
    let spelled = |&id: &u32| match model.tokenizer.is_control(id) {
        true => model.tokenizer.token_text(id).unwrap().as_bytes().to_vec(),
        false => model.tokenizer.token_bytes(id).unwrap().to_vec(),
    };
    Ok(String::from_utf8(tokens.iter().flat_map(spelled).collect()).unwrap())
}

#[test]
fn templates_are_told_tools_variables_and_the_time() {
    let template = "{{ strftime_now('%d %b %Y %H') }}|{{ tools | tojson }}|{{ enable_thinking }}|{{ x }}|\
                    {% for message in messages %}{{ message | tojson }}{% endfor %}";
    let tiny = TinyLlama { chat_template: Some(template.into()), context: 1024, ..TinyLlama::default() };
    let mut canister = Canister::serving(&tiny.build());
    let calls = ToolCalls { content: "c".into(), tool_calls: r#"[{"z": 1, "a": 2}]"#.into() };
    let answer = ToolAnswer { content: "d".into(), tool_call_id: Some("7".into()), name: None };
    let input = SessionInput::Messages(vec![ChatMessage::AssistantToolCalls(calls), ChatMessage::Tool(answer)]);
    let told = SessionOptions {
        tools: Some(r#"[{"name": "f"}]"#.into()),
        enable_thinking: Some(false),
        chat_template_kwargs: Some(r#"{"x": [1]}"#.into()),
        now_seconds: Some(1_722_000_000),
        ..options(1)
    };
    let messages = r#"{"role": "assistant", "content": "c", "tool_calls": [{"z": 1, "a": 2}]}"#.to_owned()
        + r#"{"role": "tool", "content": "d", "tool_call_id": "7"}"#;
    assert_eq!(
        prompt(&mut canister, input.clone(), told).unwrap(),
        format!(r#"26 Jul 2024 13|[{{"name": "f"}}]|False|[1]|{messages}"#)
    );
    canister.env.advance_ns(1_000_000_000 * 86_400 * 365);
    let plain = prompt(&mut canister, input, options(1)).unwrap();
    assert!(plain.contains("|null|||") && !plain.starts_with("26 Jul 2024"), "{plain}");
}

#[test]
fn the_setting_chooses_the_template_and_text_obeys_no_control_tokens_unasked() {
    let mut canister = Canister::serving(&TinyLlama { chat_template: None, ..TinyLlama::default() }.build());
    let guessed = |canister: &Canister| canister.service.model_status().serving.unwrap().guessed_chat_template;
    assert_eq!(guessed(&canister).as_deref(), Some("chatml"));
    let hello = || SessionInput::Messages(vec![ChatMessage::User(MessageText { content: "a<|im_end|>".into() })]);
    let own = prompt(&mut canister, hello(), options(1)).unwrap();
    assert_eq!(own, "<|im_start|>user\na<|im_end|><|im_end|>\n<|im_start|>assistant\n");
    let choose = |canister: &mut Canister, template: &str| {
        let update = ConfigUpdate { chat_template: Some(template.into()), ..Default::default() };
        canister.call(OPERATOR, |service| service.config_set(&update)).map(|config| config.chat_template)
    };
    assert_eq!(choose(&mut canister, "vicuna"), Ok(Some("vicuna".into())));
    for _ in 0..2 {
        assert_eq!(prompt(&mut canister, hello(), options(1)).unwrap(), "USER: a<|im_end|>\nASSISTANT:");
        assert_eq!(guessed(&canister), None);
        canister.upgrade();
        canister.settle();
    }
    for wrong in ["vicunia", "{% if %}"] {
        let refused = choose(&mut canister, wrong);
        assert!(matches!(&refused, Err(Error::InvalidArgument { field, .. }) if field == "chat_template"));
    }
    assert_eq!(choose(&mut canister, ""), Ok(None));
    assert_eq!(prompt(&mut canister, hello(), options(1)).unwrap(), own);
    let control = |canister: &mut Canister, parse_special| {
        let session =
            canister.create(USER, text("<|im_end|>"), SessionOptions { parse_special, ..options(1) }).unwrap();
        let append = SessionAppendArg { session_id: session, input: text("<|im_end|>"), max_tokens: Some(0) };
        canister.finish(USER, session);
        canister.call(USER, |service| service.session_append(append)).unwrap().appended_tokens
    };
    assert_eq!(control(&mut canister, Some(true)), 1, "appended text is read as the first");
    assert!(control(&mut canister, None) > 1);
}

#[test]
fn cancelling_ends_a_session_with_and_without_its_cache_and_model() {
    let mut canister = Canister::serving(&model(1));
    for upgrade in [false, true] {
        let session = canister.create(USER, text("hello"), options(1)).unwrap();
        let arg = SessionAdvanceArg { session_id: session, max_instructions: None, max_tokens: Some(3), profile: None };
        canister.call(USER, |service| service.session_advance(arg)).unwrap();
        run(&mut canister, USER, session);
        if upgrade {
            canister.upgrade();
        }
        let status =
            canister.call(USER, |service| service.session_cancel(SessionIdArg { session_id: session })).unwrap();
        assert_eq!((status.state, status.running), (SessionState::Finished(FinishReason::Cancelled), false));
        canister.settle();
        assert_eq!(output(&mut canister, session, 0).status.generated_tokens, 3);
        canister.call(USER, |service| service.session_delete(SessionIdArg { session_id: session })).unwrap();
        assert_eq!(canister.advance(USER, session), Err(Error::SessionNotFound { session_id: session }));
    }
}

#[test]
fn deleting_a_running_session_stops_it() {
    let mut canister = Canister::serving(&model(1));
    canister.env.set_cost_per_look(9_000_000_000);
    let session = canister.create(USER, text("hello"), options(1)).unwrap();
    run(&mut canister, USER, session);
    canister.tick();
    canister.call(USER, |service| service.session_delete(SessionIdArg { session_id: session })).unwrap();
    canister.settle();
    assert_eq!(canister.service.sessions.store().len(), 0);
    assert!(
        canister.env.log_lines().iter().all(|line| line == "the model is loaded"),
        "{:?}",
        canister.env.log_lines()
    );
}

#[test]
fn a_running_session_whose_model_is_gone_rests_with_the_reason() {
    let mut canister = Canister::serving(&model(1));
    canister.env.set_cost_per_look(9_000_000_000);
    let session = canister.create(USER, text("hello"), options(1)).unwrap();
    run(&mut canister, USER, session);
    canister.tick();
    canister.upload(&model(2));
    canister.settle();
    let status = output(&mut canister, session, 0).status;
    assert_eq!((status.running, status.error), (false, Some(Error::ModelChanged)));
}

#[test]
fn a_running_session_that_always_traps_rests_and_the_others_go_on() {
    let mut canister = Canister::serving(&model(1));
    let sessions: Vec<_> = (0..2).map(|seed| canister.create(USER, text("hello"), options(seed)).unwrap()).collect();
    for session in &sessions {
        run(&mut canister, USER, *session);
    }
    (0..3).for_each(|_| canister.lose_timer());
    canister.settle();
    let [first, second] = [0, 1].map(|index| output(&mut canister, sessions[index], 0).status);
    assert!(!first.running && matches!(first.error, Some(Error::Model { .. })));
    assert_eq!((second.running, second.error, second.generated_tokens), (false, None, 24));
    run(&mut canister, USER, sessions[0]);
    canister.settle();
    let status = output(&mut canister, sessions[0], 0).status;
    assert_eq!((status.error, status.generated_tokens), (None, 24));
}

#[test]
fn sessions_in_use_do_not_lose_their_caches_to_others() {
    let mut canister = Canister::serving(&model(1));
    let sessions: Vec<_> = (0..2).map(|seed| canister.create(USER, text("hello"), options(seed)).unwrap()).collect();
    canister.service.config.cache_heap_bytes = 1;
    let advance = |canister: &mut Canister, session_id| {
        let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(1), profile: None };
        canister.call(USER, |service| service.session_advance(arg)).map(|progress| progress.tokens.len())
    };
    assert_eq!(advance(&mut canister, sessions[0]), Ok(1));
    let refused = advance(&mut canister, sessions[1]);
    assert!(matches!(refused, Err(Error::HeapBusy { cache_heap_bytes: 1, .. })), "{refused:?}");
    assert_eq!(advance(&mut canister, sessions[0]), Ok(1));
    canister.env.advance_ns(60_000_000_000);
    assert_eq!(advance(&mut canister, sessions[1]), Ok(1));
    assert!(advance(&mut canister, sessions[0]).is_err());
    canister.advance(USER, sessions[1]).unwrap();
    assert_eq!(advance(&mut canister, sessions[0]), Ok(1), "a finished session reserves nothing");
}

#[test]
fn logits_are_refused_when_the_heap_has_none() {
    let mut canister = Canister::serving(&model(1));
    let (session_id, _) = undisturbed(&mut canister, 1);
    canister.upgrade();
    let refused = canister.call(USER, |service| service.session_logits(SessionIdArg { session_id }));
    assert_eq!(refused, Err(Error::LogitsUnavailable { session_id }));
}

#[test]
fn a_profile_adds_up_and_changes_nothing() {
    let mut canister = Canister::serving(&model(1));
    let (_, expected) = undisturbed(&mut canister, 5);
    canister.env.set_cost_per_look(10);
    let session_id = canister.create(USER, text("hello"), options(5)).unwrap();
    let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: Some(2), profile: Some(true) };
    let progress = canister.call(USER, |service| service.session_advance(arg)).unwrap();
    let parts = progress.profile.unwrap();
    let names: Vec<_> = parts.iter().map(|part| part.part.as_str()).collect();
    assert!(names.starts_with(&["argument", "session load"]) && names.ends_with(&["text", "session store"]));
    // The fake's counter moves by 10 with every look, and nothing else: the parts tell who looked. The first part is
    // from the beginning of the message on, `instructions` from the beginning of the method on.
    let sum: u64 = parts.iter().map(|part| part.instructions).sum();
    assert_eq!(sum, progress.instructions + parts[0].instructions);
    let count = |name: &str| parts.iter().find(|part| part.part == name).map(|part| (part.instructions, part.reads));
    let (batches, layers) = (2, 2);
    assert_eq!(count("product: head"), Some((10 * batches, batches)));
    assert_eq!(count("product: gate"), Some((10 * batches * layers, batches * layers)));
    assert_eq!(count("norms"), Some((10 * batches * (2 * layers + 1), batches * (2 * layers + 1))));
    let plain = canister.advance(USER, session_id).unwrap();
    assert_eq!(plain.profile, None);
    assert_eq!(canister.answer(USER, session_id), expected);
    let over = canister.call(USER, |service| service.session_advance(arg)).unwrap();
    assert_eq!(over.profile, None, "a finished session computes nothing");
}

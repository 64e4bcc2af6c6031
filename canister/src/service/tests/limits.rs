use model_core::fixtures::TinyLlama;

use crate::api::*;
use crate::testing::*;

fn configure(canister: &mut Canister, update: ConfigUpdate) {
    canister.call(OPERATOR, |service| service.config_set(&update)).unwrap();
}

fn exceeded(result: Result<u64, Error>, name: &str) -> (u64, u64) {
    match result {
        Err(Error::LimitExceeded { limit, max, needed }) if limit == name => (max, needed),
        other => panic!("expected {name} to be exceeded, got {other:?}"),
    }
}

#[test]
fn sessions_are_limited_in_all_and_per_principal() {
    let mut canister = Canister::serving(&model(1));
    let (max_sessions, max_sessions_per_principal) = (Some(3), Some(2));
    configure(&mut canister, ConfigUpdate { max_sessions, max_sessions_per_principal, ..Default::default() });
    let mut create = |caller| canister.create(caller, text("a"), options(1));
    let first = create(USER).unwrap();
    create(USER).unwrap();
    assert_eq!(exceeded(create(USER), "max_sessions_per_principal"), (2, 3));
    create(OTHER).unwrap();
    assert_eq!(exceeded(create(OTHER), "max_sessions"), (3, 4));
    canister.call(USER, |service| service.session_delete(SessionIdArg { session_id: first })).unwrap();
    assert_ne!(canister.create(USER, text("a"), options(1)).unwrap(), first, "ids are never reused");
}

#[test]
fn inputs_are_limited_in_bytes_and_tokens() {
    let mut canister = Canister::serving(&model(1));
    let (max_input_bytes, max_session_tokens) = (Some(40), Some(60));
    configure(&mut canister, ConfigUpdate { max_input_bytes, max_session_tokens, ..Default::default() });
    let mut create =
        |input, max_tokens| canister.create(USER, input, SessionOptions { max_tokens: Some(max_tokens), ..options(1) });
    create(text(&"a".repeat(40)), 1).unwrap();
    assert_eq!(exceeded(create(text(&"a".repeat(41)), 1), "max_input_bytes"), (40, 41));
    let message = || ChatMessage::User(MessageText { content: "abcde".into() });
    assert_eq!(exceeded(create(SessionInput::Messages(vec![message(), message()]), 1), "max_input_bytes"), (40, 42));
    create(SessionInput::Tokens(vec![1; 10]), 50).unwrap();
    assert_eq!(exceeded(create(SessionInput::Tokens(vec![1; 10]), 51), "max_session_tokens"), (60, 61));
    assert_eq!(exceeded(create(SessionInput::Tokens(vec![1; 61]), 0), "max_session_tokens"), (60, 61));
    create(SessionInput::Tokens(vec![1; 10]), u32::MAX).unwrap_err();
}

#[test]
fn appending_counts_what_is_there() {
    let mut canister = Canister::serving(&model(1));
    configure(&mut canister, ConfigUpdate { max_session_tokens: Some(60), ..Default::default() });
    let session_id = canister.create(USER, SessionInput::Tokens(vec![1; 10]), options(1)).unwrap();
    canister.finish(USER, session_id);
    let mut append = |count, max_tokens| {
        let arg =
            SessionAppendArg { session_id, input: SessionInput::Tokens(vec![1; count]), max_tokens: Some(max_tokens) };
        canister.call(USER, |service| service.session_append(arg)).map(|ok| ok.status.remaining_tokens.into())
    };
    assert_eq!(exceeded(append(10, 17), "max_session_tokens"), (60, 61));
    assert_eq!(append(10, 16), Ok(16));
}

#[test]
fn prompts_beyond_the_context_or_the_cache_are_refused() {
    let model = TinyLlama { context: 64, ..TinyLlama::default() }.build();
    let mut canister = Canister::serving(&model);
    let mut create = |count| canister.create(USER, SessionInput::Tokens(vec![1; count]), options(1));
    assert_eq!(exceeded(create(64), "context_length"), (64, 65));
    let session = create(60).unwrap();
    let progress = canister.advance(USER, session).unwrap();
    assert_eq!(progress.status.state, SessionState::Finished(FinishReason::ContextFull));
    canister.service.config.cache_heap_bytes = 100;
    let refused = canister.create(USER, SessionInput::Tokens(vec![1; 2]), options(1));
    assert_eq!(exceeded(refused, "cache_heap_bytes").0, 100);
}

#[test]
fn options_and_inputs_without_meaning_are_refused_by_name() {
    let mut canister = Canister::serving(&model(1));
    let mut refused = |input, options: SessionOptions, name: &str| {
        let result = canister.create(USER, input, options);
        assert!(matches!(&result, Err(Error::InvalidArgument { field, .. }) if field == name), "{result:?}");
    };
    let default = || options(1);
    refused(SessionInput::Tokens(vec![]), default(), "input");
    refused(SessionInput::Tokens(vec![u32::MAX]), default(), "input");
    refused(text("a"), SessionOptions { temperature: Some(f32::NAN), ..default() }, "temperature");
    refused(text("a"), SessionOptions { top_p: Some(2.0), ..default() }, "top_p");
    refused(text("a"), SessionOptions { stop: Some(vec![String::new()]), ..default() }, "stop");
    refused(text("a"), SessionOptions { prefill_batch: Some(0), ..default() }, "prefill_batch");
    refused(text("a"), SessionOptions { tools: Some("{}".into()), ..default() }, "tools");
    refused(text("a"), SessionOptions { chat_template_kwargs: Some("[]".into()), ..default() }, "chat_template_kwargs");
    let calls = ToolCalls { content: String::new(), tool_calls: "f()".into() };
    refused(SessionInput::Messages(vec![ChatMessage::AssistantToolCalls(calls)]), default(), "tool_calls");
}

#[test]
fn messages_need_a_template() {
    let mut canister = Canister::serving(&TinyLlama::without_chat().build());
    let input = SessionInput::Messages(vec![ChatMessage::User(MessageText { content: "hello".into() })]);
    assert_eq!(canister.create(USER, input, options(1)), Err(Error::NoChatTemplate));
}

#[test]
fn nothing_is_kept_of_a_refused_session() {
    let mut canister = Canister::serving(&model(1));
    canister.create(USER, SessionInput::Tokens(vec![u32::MAX]), options(1)).unwrap_err();
    assert_eq!(canister.service.sessions.store().len(), 0);
}

use candid::Principal;

use crate::api::*;
use crate::service::llm::{MAX_ANSWER_TOKENS, messages_v0, messages_v1};
use crate::testing::*;

fn user_says(content: &str) -> LlmMessage {
    LlmMessage::User { content: content.into() }
}

fn request(messages: Vec<LlmMessage>) -> LlmRequest {
    LlmRequest { model: "llama3.1:8b".into(), messages, tools: None }
}

fn said(content: Option<&str>, tool_calls: Vec<LlmToolCall>) -> LlmMessage {
    LlmMessage::Assistant(LlmAssistantMessage { content: content.map(Into::into), tool_calls })
}

fn refused_field(messages: Result<Vec<ChatMessage>, Error>) -> String {
    match messages {
        Err(Error::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// A model with a chat template.
fn chatting() -> Canister {
    Canister::serving(&model(1))
}

#[test]
fn conversations_of_both_versions_become_messages() {
    let text = |content: &str| MessageText { content: content.into() };
    let expected = vec![
        ChatMessage::System(text("be brief")),
        ChatMessage::User(text("hi")),
        ChatMessage::Assistant(text("hello")),
        ChatMessage::Assistant(text("")),
    ];
    let v1 = vec![LlmMessage::System { content: "be brief".into() }, user_says("hi")];
    let v1 = [v1, vec![said(Some("hello"), vec![]), said(None, vec![])]].concat();
    assert_eq!(messages_v1(request(v1.clone())).unwrap(), expected);
    assert_eq!(messages_v1(LlmRequest { tools: Some(vec![]), ..request(v1) }).unwrap(), expected);
    let v0 = [(LlmRole::System, "be brief"), (LlmRole::User, "hi"), (LlmRole::Assistant, "hello")];
    let v0 = v0.map(|(role, content)| LlmMessageV0 { role, content: content.into() });
    assert_eq!(messages_v0(v0.to_vec()), expected[..3]);
}

#[test]
fn tools_and_what_comes_of_them_are_refused_by_name() {
    let tool = LlmTool::Function(LlmFunction { name: "f".into(), description: None, parameters: None });
    let tools = LlmRequest { tools: Some(vec![tool]), ..request(vec![user_says("hi")]) };
    assert_eq!(refused_field(messages_v1(tools)), "tools");
    let function = LlmFunctionCall { name: "f".into(), arguments: vec![] };
    let called = said(None, vec![LlmToolCall { id: "1".into(), function }]);
    assert_eq!(refused_field(messages_v1(request(vec![user_says("hi"), called]))), "tool_calls");
    let gave = LlmMessage::Tool { content: "1".into(), tool_call_id: "1".into() };
    assert_eq!(refused_field(messages_v1(request(vec![gave]))), "messages");
}

#[test]
fn an_answer_takes_as_many_steps_as_it_needs_and_leaves_nothing() {
    let mut canister = chatting();
    canister.env.set_cost_per_look(3_000_000_000);
    let messages = messages_v1(request(vec![user_says("hi")])).unwrap();
    let id = canister.call(USER, |service| service.chat_begin(messages.clone())).unwrap();
    let mut steps = 1;
    while !canister.call(OWN_ID, |service| service.chat_step(id)).unwrap() {
        steps += 1;
    }
    assert!(steps > 3, "{steps}");
    let text = canister.call(OWN_ID, |service| service.chat_text(id)).unwrap();
    // The same as a session with the same options gives.
    let options = SessionOptions { max_tokens: Some(MAX_ANSWER_TOKENS), ..SessionOptions::default() };
    let session = canister.create(OTHER, SessionInput::Messages(messages), options).unwrap();
    canister.env.set_cost_per_look(0);
    assert_eq!(canister.finish(OTHER, session), text);
    assert!(canister.call(OWN_ID, |service| service.chat_step(id)).unwrap(), "over is over");
    canister.call(OWN_ID, |service| service.chat_end(id));
    let gone = Err(Error::SessionNotFound { session_id: id });
    assert_eq!(canister.call(OWN_ID, |service| service.chat_step(id)), gone);
}

#[test]
fn only_users_are_answered() {
    let mut canister = chatting();
    let messages = messages_v1(request(vec![user_says("hi")])).unwrap();
    let refused = canister.call(Principal::anonymous(), |service| service.chat_begin(messages));
    assert_eq!(refused, Err(Error::NotAuthorized { role: Role::User }));
}

#[test]
fn calls_of_one_application_do_not_hold_up_another() {
    let mut canister = chatting();
    canister.env.set_cost_per_look(9_000_000_000);
    let messages = || messages_v1(request(vec![user_says("hi")])).unwrap();
    let many: Vec<_> =
        (0..20).map(|_| canister.call(USER, |service| service.chat_begin(messages())).unwrap()).collect();
    let one = canister.call(OTHER, |service| service.chat_begin(messages())).unwrap();
    // The steps of all calls come in turns, as those of a canister's messages to itself.
    let mut steps = 0;
    let over = |canister: &mut Canister, id, steps: &mut u32| {
        *steps += 1;
        canister.call(OWN_ID, |service| service.chat_step(id)).unwrap()
    };
    'steps: loop {
        for id in many.iter().chain([&one]) {
            if over(&mut canister, *id, &mut steps) && *id == one {
                break 'steps;
            }
        }
    }
    let alone = chatting_alone();
    assert!(steps <= 2 * alone + 21, "{steps} steps instead of {alone}");
    let progress: Vec<_> = many.iter().map(|id| canister.service.stored(*id).unwrap().generated_tokens).collect();
    assert!(progress.iter().max().unwrap() - progress.iter().min().unwrap() <= 1, "{progress:?}");
}

/// Steps of an answer that nobody else wants one beside.
fn chatting_alone() -> u32 {
    let mut canister = chatting();
    canister.env.set_cost_per_look(9_000_000_000);
    let messages = messages_v1(request(vec![user_says("hi")])).unwrap();
    let id = canister.call(USER, |service| service.chat_begin(messages)).unwrap();
    (1..).find(|_| canister.call(OWN_ID, |service| service.chat_step(id)).unwrap()).unwrap()
}

#[test]
fn answers_end_with_the_calls_that_an_upgrade_ended_and_a_trap_ends_one() {
    let mut canister = chatting();
    canister.env.set_cost_per_look(9_000_000_000);
    let messages = || messages_v1(request(vec![user_says("hi")])).unwrap();
    let ids = [USER, OTHER].map(|caller| canister.call(caller, |service| service.chat_begin(messages())).unwrap());
    assert_eq!(canister.env.take_timers(), 0, "calls take their steps themselves");
    canister.call(OWN_ID, |service| service.chat_step_lost("heap")).unwrap();
    let lost = canister.call(OWN_ID, |service| service.chat_step(ids[0])).unwrap_err();
    assert!(matches!(&lost, Error::Model { message, .. } if message.contains("heap")), "{lost}");
    assert_eq!(canister.call(OWN_ID, |service| service.chat_step(ids[1])), Ok(false));
    canister.upgrade();
    assert_eq!(canister.service.sessions.store().len(), 0);
}

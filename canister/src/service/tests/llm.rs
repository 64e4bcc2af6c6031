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

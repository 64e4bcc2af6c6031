//! An application that knows only the crate `ic-llm`.

use candid::Principal;
use ic_cdk::update;
use ic_llm::{ChatBuilder, ChatMessage, ParameterType};

const MODEL: &str = "llama3.1:8b";

/// Asks whatever `ic-llm` takes for the LLM canister.
#[update]
async fn ask(question: String) -> String {
    ic_llm::prompt(MODEL, question).await
}

/// A conversation with the given canister.
#[update]
async fn converse(canister: Principal, question: String) -> Option<String> {
    let response = conversation(canister, question).send().await;
    assert!(response.message.tool_calls.is_empty(), "no tools were offered");
    response.message.content
}

/// The same, with a tool on offer.
#[update]
async fn converse_with_tool(canister: Principal, question: String) -> Option<String> {
    let place = ic_llm::parameter("place", ParameterType::String).with_description("where").is_required();
    let tool = ic_llm::tool("weather").with_description("Tells the weather").with_parameter(place).build();
    conversation(canister, question).with_tools(vec![tool]).send().await.message.content
}

fn conversation(canister: Principal, question: String) -> ChatBuilder {
    let messages = vec![ChatMessage::System { content: "Be brief.".into() }, ChatMessage::User { content: question }];
    ic_llm::chat(MODEL).with_canister(canister).with_messages(messages)
}

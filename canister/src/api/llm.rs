//! Types of `v0_chat` and `v1_chat`, the interface of DFINITY's LLM canister as the crate `ic-llm` (versions 0.1 to 2.0)
//! calls it. Names and shapes are theirs.

use candid::CandidType;
use serde::{Deserialize, Serialize};

/// What `v0_chat` is asked.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmRequestV0 {
    /// Any name: the model that is loaded answers.
    pub model: String,
    /// The conversation.
    pub messages: Vec<LlmMessageV0>,
}

/// A message of `v0_chat`.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmMessageV0 {
    /// Who speaks.
    pub role: LlmRole,
    /// What they say.
    pub content: String,
}

/// Who speaks.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LlmRole {
    /// Instructions for the whole conversation.
    #[serde(rename = "system")]
    System,
    /// The user.
    #[serde(rename = "user")]
    User,
    /// The model, earlier.
    #[serde(rename = "assistant")]
    Assistant,
}

/// What `v1_chat` is asked.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmRequest {
    /// Any name: the model that is loaded answers.
    pub model: String,
    /// The conversation.
    pub messages: Vec<LlmMessage>,
    /// Functions that the model may ask for; refused unless empty.
    pub tools: Option<Vec<LlmTool>>,
}

/// A message of `v1_chat`.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum LlmMessage {
    /// What the user says.
    #[serde(rename = "user")]
    User {
        /// Plain text.
        content: String,
    },
    /// Instructions for the whole conversation.
    #[serde(rename = "system")]
    System {
        /// Plain text.
        content: String,
    },
    /// What the model said earlier.
    #[serde(rename = "assistant")]
    Assistant(LlmAssistantMessage),
    /// What a function gave; refused.
    #[serde(rename = "tool")]
    Tool {
        /// Plain text.
        content: String,
        /// The call that it answers.
        tool_call_id: String,
    },
}

/// What the model says.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct LlmAssistantMessage {
    /// The answer.
    pub content: Option<String>,
    /// Functions that it asks for: none in answers, refused in conversations unless empty.
    pub tool_calls: Vec<LlmToolCall>,
}

/// A function that the model asked for.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmToolCall {
    /// Names the call.
    pub id: String,
    /// The function.
    pub function: LlmFunctionCall,
}

/// A function with values.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmFunctionCall {
    /// Name of the function.
    pub name: String,
    /// Its values.
    pub arguments: Vec<LlmArgument>,
}

/// A value for a function.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmArgument {
    /// Name of the parameter.
    pub name: String,
    /// Its value, as text.
    pub value: String,
}

/// Something that the model may ask for.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum LlmTool {
    /// A function.
    #[serde(rename = "function")]
    Function(LlmFunction),
}

/// A function that the model may ask for.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmFunction {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: Option<String>,
    /// What it takes.
    pub parameters: Option<LlmParameters>,
}

/// Parameters of a function, like a JSON schema.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmParameters {
    /// `object`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameters.
    pub properties: Option<Vec<LlmProperty>>,
    /// Names of those that must be given.
    pub required: Option<Vec<String>>,
}

/// A parameter.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmProperty {
    /// `string`, `number`, `boolean`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What it means.
    pub description: Option<String>,
    /// The values that it can have.
    #[serde(rename = "enum")]
    pub values: Option<Vec<String>>,
}

/// What `v1_chat` answers.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct LlmResponse {
    /// The answer.
    pub message: LlmAssistantMessage,
}

impl LlmResponse {
    /// An answer in words.
    pub fn of(text: String) -> Self {
        Self { message: LlmAssistantMessage { content: Some(text), tool_calls: Vec::new() } }
    }
}

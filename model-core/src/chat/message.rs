//! What is said in a conversation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant` or `tool`, or what else the template knows.
    pub role: String,
    /// What they say.
    pub content: String,
    /// What else templates know of a message, by name: `tool_calls` of the assistant, `name` and `tool_call_id` of a
    /// tool's answer, `reasoning_content`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ChatMessage {
    /// A message of words alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), more: Map::new() }
    }

    /// Lets `change` see and change every text that the message has.
    pub(super) fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        change(&mut self.role);
        change(&mut self.content);
        each_text_of(&mut self.more, change);
    }
}

/// Lets `change` see and change every text in a value, names of fields included.
pub(super) fn each_text(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(fields) => each_text_of(fields, change),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn each_text_of(fields: &mut Map<String, Value>, change: &mut impl FnMut(&mut String)) {
    for (mut name, mut value) in std::mem::take(fields) {
        change(&mut name);
        each_text(&mut value, change);
        fields.insert(name, value);
    }
}

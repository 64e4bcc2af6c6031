//! `POST /v1/chat/completions`: messages, tools and what else the model's template is told.

use model_core::chat::ChatMessage;
use model_core::prompt::InputOptions;
use serde_json::{Map, Value as Json};

use super::error::ApiError;
use super::fields::Fields;
use super::request::{self, Asked, Defaults};
use crate::backend::Input;

/// Takes a request apart.
///
/// # Errors
/// Names the field that is missing, wrong or not supported.
pub fn read(body: &[u8], defaults: &Defaults) -> Result<Asked, ApiError> {
    let mut fields = Fields::parse(body)?;
    let items = fields.list("messages")?.ok_or_else(|| ApiError::field("messages", "messages is missing"))?;
    if items.is_empty() {
        return Err(ApiError::field("messages", "messages is empty"));
    }
    let messages = items.into_iter().enumerate().map(|(index, item)| message(index, item)).collect::<Result<_, _>>()?;
    let mut options = request::options(&mut fields, defaults)?;
    template_input(&mut fields, &mut options.input)?;
    options.logprobs = logprobs(&mut fields)?;
    Asked::new(&mut fields, vec![Input::Messages(messages)], options)
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    match request::alternatives(fields, "top_logprobs")? {
        Some(_) if !wanted => Err(ApiError::field("top_logprobs", "top_logprobs needs \"logprobs\": true")),
        alternatives => Ok(wanted.then(|| alternatives.unwrap_or(0))),
    }
}

/// What the template is told besides the messages.
fn template_input(fields: &mut Fields, input: &mut InputOptions) -> Result<(), ApiError> {
    if let Some(named) = fields.object("chat_template_kwargs")? {
        input.named.extend(named.rest());
    }
    let tools = fields.list("tools")?;
    match fields.value("tool_choice") {
        None => {}
        Some(Json::String(choice)) if choice == "auto" => {}
        Some(Json::String(choice)) if choice == "none" => {
            input.tools.clear();
            return Ok(());
        }
        Some(_) => return Err(ApiError::unsupported("tool_choice", "other than auto and none: the model decides")),
    }
    if let Some(tools) = tools {
        input.tools = tools;
    }
    Ok(())
}

fn message(index: usize, item: Json) -> Result<ChatMessage, ApiError> {
    let wrong = |part: &str, what: &str| {
        let name = format!("messages[{index}]{part}");
        ApiError::field(&name, format!("{name} {what}"))
    };
    let Json::Object(mut more) = item else { return Err(wrong("", "must be an object")) };
    let role = match more.remove("role") {
        // The name that newer models have for it, which templates do not know.
        Some(Json::String(role)) if role == "developer" => "system".to_owned(),
        Some(Json::String(role)) => role,
        _ => return Err(wrong(".role", "must be a string")),
    };
    more.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty()));
    let content = match more.remove("content") {
        Some(Json::String(text)) => text,
        Some(Json::Array(parts)) => text_of(parts).map_err(|what| wrong(".content", &what))?,
        None if more.contains_key("tool_calls") || role == "assistant" => String::new(),
        _ => return Err(wrong(".content", "must be a string or a list of parts")),
    };
    if let Some(calls) = more.get_mut("tool_calls") {
        read_arguments(calls);
    }
    Ok(ChatMessage { role, content, more })
}

/// The text of content in parts.
fn text_of(parts: Vec<Json>) -> Result<String, String> {
    let text = |part: &Json| match part.get("type").and_then(Json::as_str) {
        Some("text") => match part.get("text") {
            Some(Json::String(text)) => Ok(text.clone()),
            _ => Err("has a part of the type text without text".to_owned()),
        },
        Some(kind) => Err(format!("has a part of the type {kind}, which is not supported here; only text is")),
        None => Err("has a part without a type".to_owned()),
    };
    Ok(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The arguments of earlier calls are JSON in a string; templates are written for the object.
fn read_arguments(calls: &mut Json) {
    let functions = calls.as_array_mut().into_iter().flatten().filter_map(|call| call.get_mut("function"));
    for arguments in functions.filter_map(|function| function.get_mut("arguments")) {
        if let Some(object) = arguments.as_str().and_then(|text| serde_json::from_str::<Map<_, _>>(text).ok()) {
            *arguments = Json::Object(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use model_core::session::SessionOptions;
    use serde_json::json;

    use super::*;

    fn read(request: &Json) -> Result<Asked, ApiError> {
        let defaults = Defaults { options: SessionOptions::default(), seed: None };
        super::read(request.to_string().as_bytes(), &defaults)
    }

    fn messages(messages: Json) -> Result<Vec<ChatMessage>, ApiError> {
        match read(&json!({ "messages": messages }))?.asks.remove(0).input {
            Input::Messages(messages) => Ok(messages),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_of_all_kinds_become_what_templates_know() {
        let call = json!({ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\": 1}" } });
        let told = messages(json!([
            { "role": "developer", "content": "be brief", "name": null },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "assistant", "content": null, "tool_calls": [call] },
            { "role": "tool", "content": "7", "tool_call_id": "c1" },
            { "role": "assistant", "content": "seven", "tool_calls": [] },
        ]))
        .unwrap();
        assert_eq!(told[0], ChatMessage::new("system", "be brief"));
        assert_eq!(told[1], ChatMessage::new("user", "a\nb"));
        assert_eq!(told[2].more["tool_calls"][0]["function"]["arguments"], json!({ "a": 1 }));
        assert_eq!((told[2].content.as_str(), &told[3].more["tool_call_id"]), ("", &json!("c1")));
        assert_eq!(told[4], ChatMessage::new("assistant", "seven"));
    }

    #[test]
    fn messages_that_cannot_be_taken_are_refused_by_their_place() {
        for (messages_of, place) in [
            (json!([{ "role": "user" }]), "messages[0].content"),
            (json!([{ "role": "user", "content": "a" }, { "content": "b" }]), "messages[1].role"),
            (json!([{ "role": "user", "content": [{ "type": "image_url" }] }]), "messages[0].content"),
            (json!(["a"]), "messages[0]"),
            (json!([]), "messages"),
        ] {
            let error = messages(messages_of).unwrap_err();
            assert!(matches!(&error, ApiError::Field { name, .. } if name == place), "{error}");
        }
        assert!(read(&json!({})).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn templates_are_told_tools_and_variables() {
        let tool = json!({ "type": "function", "function": { "name": "f" } });
        let request = |more: Json| {
            let mut request = json!({ "messages": [{ "role": "user", "content": "a" }], "tools": [tool] });
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(&request)
        };
        let input = |asked: Asked| asked.asks[0].options.input.clone();
        let asked = input(request(json!({ "chat_template_kwargs": { "enable_thinking": false } })).unwrap());
        assert_eq!((&asked.tools[..], &asked.named["enable_thinking"]), (&[tool.clone()][..], &json!(false)));
        assert!(input(request(json!({ "tool_choice": "none" })).unwrap()).tools.is_empty());
        assert!(request(json!({ "tool_choice": "required" })).is_err());
    }

    #[test]
    fn log_probabilities_are_asked_for_in_two_fields() {
        let asked = |more: &str| {
            let request = format!(r#"{{"messages": [{{"role": "user", "content": "a"}}]{more}}}"#);
            let defaults = Defaults { options: SessionOptions::default(), seed: None };
            super::read(request.as_bytes(), &defaults).map(|asked| asked.asks[0].options.logprobs)
        };
        assert_eq!(asked(""), Ok(None));
        assert_eq!(asked(r#", "logprobs": true"#), Ok(Some(0)));
        assert_eq!(asked(r#", "logprobs": true, "top_logprobs": 20"#), Ok(Some(20)));
        assert!(
            asked(r#", "top_logprobs": 2"#).is_err() && asked(r#", "logprobs": true, "top_logprobs": 21"#).is_err()
        );
    }
}

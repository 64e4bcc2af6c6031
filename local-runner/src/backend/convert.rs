//! What the command says in its own types, in those of the canister's interface, and back.

use anyhow::{Context, Result, bail};
use canister::api;
use model_core::chat::ChatMessage;
use model_core::pack::Precision;
use model_core::session::{FinishReason, SessionOptions};
use serde::Serialize;

use super::{ChatSupport, Input};
use crate::clock::now_seconds;
use crate::options::ResidencyChoice;

/// By what the canister's model renders conversations.
pub fn chat_support(model: &api::ModelInfo) -> ChatSupport {
    match &model.guessed_chat_template {
        Some(name) => ChatSupport::Guessed(name.clone()),
        None if model.has_chat_template => ChatSupport::Template,
        None => ChatSupport::None,
    }
}

/// Bits of activations as a setting.
pub fn activation_bits(precision: Precision) -> api::ActivationBits {
    if precision == Precision::Activations8 { api::ActivationBits::Bits8 } else { api::ActivationBits::Bits16 }
}

/// A residency as a setting.
pub fn residency(choice: ResidencyChoice) -> api::Residency {
    match choice {
        ResidencyChoice::Auto => api::Residency::Auto,
        ResidencyChoice::Wide => api::Residency::Wide,
        ResidencyChoice::Compact => api::Residency::Compact,
    }
}

/// What a session is to continue.
///
/// # Errors
/// If a message has a role that is not sent.
pub fn session_input(input: &Input) -> Result<api::SessionInput> {
    Ok(match input {
        Input::Text(text) => api::SessionInput::Text(text.clone()),
        Input::Messages(messages) => {
            api::SessionInput::Messages(messages.iter().map(chat_message).collect::<Result<_>>()?)
        }
        Input::Tokens(tokens) => api::SessionInput::Tokens(tokens.clone()),
    })
}

fn chat_message(message: &ChatMessage) -> Result<api::ChatMessage> {
    let content = message.content.clone();
    let named = |name: &str| message.more.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    let calls = message.more.get("tool_calls");
    Ok(match (message.role.as_str(), calls) {
        ("system", _) => api::ChatMessage::System(api::MessageText { content }),
        ("user", _) => api::ChatMessage::User(api::MessageText { content }),
        ("assistant", Some(calls)) => {
            api::ChatMessage::AssistantToolCalls(api::ToolCalls { content, tool_calls: calls.to_string() })
        }
        ("assistant", None) => api::ChatMessage::Assistant(api::MessageText { content }),
        ("tool", _) => {
            let (tool_call_id, name) = (named("tool_call_id"), named("name"));
            api::ChatMessage::Tool(api::ToolAnswer { content, tool_call_id, name })
        }
        (role, _) => bail!("the command sends no messages of the role {role:?} to the canister"),
    })
}

/// How a session generates.
///
/// # Errors
/// If a number is too large.
pub fn session_options(options: &SessionOptions) -> Result<api::SessionOptions> {
    let (sampling, input) = (&options.sampling, &options.input);
    Ok(api::SessionOptions {
        max_tokens: Some(options.max_tokens),
        temperature: Some(sampling.temperature),
        top_k: Some(sampling.top_k),
        top_p: Some(sampling.top_p),
        min_p: Some(sampling.min_p),
        repeat_penalty: Some(sampling.repeat_penalty),
        repeat_last_n: Some(sampling.repeat_last_n),
        frequency_penalty: Some(sampling.frequency_penalty),
        presence_penalty: Some(sampling.presence_penalty),
        seed: Some(sampling.seed),
        stop: Some(options.stop.clone()),
        ignore_eos: Some(options.ignore_eos),
        audit: Some(options.audit),
        kv_cache_bits: Some(options.kv_cache.bits()),
        grammar: options.grammar.clone().map(api::Grammar::Gbnf),
        logprobs: options.logprobs,
        prefill_batch: Some(u32::try_from(options.prefill_batch).context("the batch is too large")?),
        parse_special: Some(input.parse_special),
        tools: json(&input.tools, input.tools.is_empty())?,
        enable_thinking: None,
        chat_template_kwargs: json(&input.named, input.named.is_empty())?,
        now_seconds: Some(now_seconds()),
    })
}

fn json(value: &impl Serialize, is_empty: bool) -> Result<Option<String>> {
    Ok(if is_empty { None } else { Some(serde_json::to_string(value)?) })
}

/// Why a generation ended.
pub fn finish_reason(reason: api::FinishReason) -> FinishReason {
    match reason {
        api::FinishReason::EndOfGeneration => FinishReason::EndOfGeneration,
        api::FinishReason::StopString => FinishReason::StopString,
        api::FinishReason::Length => FinishReason::Length,
        api::FinishReason::ContextFull => FinishReason::ContextFull,
        api::FinishReason::Cancelled => FinishReason::Cancelled,
        api::FinishReason::GrammarFailed => FinishReason::GrammarFailed,
    }
}

//! Between the candid types and those of `model_core`.

use model_core::chat::{ChatMessage as CoreMessage, Error as ChatError, Variables};
use model_core::grammar::JSON;
use model_core::prompt::{Error as PromptError, InputOptions};
use model_core::sample::{Sampling, TokenLogprob as CoreLogprob};
use model_core::session::{Error as SessionError, FinishReason as CoreReason, SessionOptions as CoreOptions};

use serde_json::Value as Json;

use super::{ChatMessage, Error, FinishReason, Grammar, SessionOptions, TokenLogprob, TokenLogprobs};

impl From<model_core::Error> for Error {
    fn from(error: model_core::Error) -> Self {
        use model_core::Error as Core;
        let stage = match &error {
            Core::Session(error) => return session_error(error),
            Core::Gguf(_) => "gguf",
            Core::Config(_) => "config",
            Core::Tokenizer(_) => "tokenizer",
            Core::Chat(_) => "chat template",
            Core::Pack(_) => "pack",
            Core::Model(_) => "model",
            Core::CacheOutOfMemory(_) => "cache",
        };
        Error::Model { stage: stage.into(), message: error.to_string() }
    }
}

impl From<PromptError> for Error {
    fn from(error: PromptError) -> Self {
        let stage = match &error {
            PromptError::Tokenizer(_) => "tokenizer",
            PromptError::Chat(_) | PromptError::NoTurns => "chat template",
        };
        Error::Model { stage: stage.into(), message: error.to_string() }
    }
}

fn session_error(error: &SessionError) -> Error {
    let field = match error {
        SessionError::ContextTooShort { positions, context_length } => {
            let (max, needed) = (*context_length as u64, *positions as u64);
            return Error::LimitExceeded { limit: "context_length".into(), max, needed };
        }
        SessionError::OtherModel => return Error::ModelChanged,
        SessionError::Record(error) => return Error::Damaged { message: error.to_string() },
        SessionError::EmptyPrompt | SessionError::UnknownToken { .. } | SessionError::StillGenerating => "input",
        SessionError::Sampling(error) => error.option,
        SessionError::PrefillBatch { .. } => "prefill_batch",
        SessionError::TooManyLogprobs { .. } => "logprobs",
        SessionError::Grammar(_) => "grammar",
        SessionError::TooManyStopStrings { .. } | SessionError::StopStringLength { .. } => "stop",
    };
    Error::InvalidArgument { field: field.into(), reason: error.to_string() }
}

impl From<CoreReason> for FinishReason {
    fn from(reason: CoreReason) -> Self {
        match reason {
            CoreReason::EndOfGeneration => Self::EndOfGeneration,
            CoreReason::StopString => Self::StopString,
            CoreReason::Length => Self::Length,
            CoreReason::ContextFull => Self::ContextFull,
            CoreReason::Cancelled => Self::Cancelled,
            CoreReason::GrammarFailed => Self::GrammarFailed,
        }
    }
}

impl TryFrom<SessionOptions> for CoreOptions {
    type Error = Error;

    fn try_from(options: SessionOptions) -> Result<Self, Error> {
        let default = CoreOptions::default();
        let sampling = default.sampling;
        let input = options.input()?;
        Ok(Self {
            input,
            max_tokens: options.max_tokens.unwrap_or(default.max_tokens),
            sampling: Sampling {
                temperature: options.temperature.unwrap_or(sampling.temperature),
                top_k: options.top_k.unwrap_or(sampling.top_k),
                top_p: options.top_p.unwrap_or(sampling.top_p),
                min_p: options.min_p.unwrap_or(sampling.min_p),
                repeat_penalty: options.repeat_penalty.unwrap_or(sampling.repeat_penalty),
                repeat_last_n: options.repeat_last_n.unwrap_or(sampling.repeat_last_n),
                frequency_penalty: options.frequency_penalty.unwrap_or(sampling.frequency_penalty),
                presence_penalty: options.presence_penalty.unwrap_or(sampling.presence_penalty),
                seed: options.seed.unwrap_or(sampling.seed),
            },
            stop: options.stop.unwrap_or_default(),
            ignore_eos: options.ignore_eos.unwrap_or(default.ignore_eos),
            audit: options.audit.unwrap_or(default.audit),
            // Depends on settings and model too; see `Config::kv_cache_of`.
            kv_cache: default.kv_cache,
            grammar: options.grammar.map(Grammar::into_text),
            logprobs: options.logprobs,
            prefill_batch: options.prefill_batch.map_or(default.prefill_batch, |batch| batch as usize),
        })
    }
}

impl SessionOptions {
    /// How input becomes tokens.
    fn input(&self) -> Result<InputOptions, Error> {
        let named = self.chat_template_kwargs.as_deref().map(Variables::parse_named).transpose();
        let mut named = named.map_err(|error| invalid("chat_template_kwargs", &error))?.unwrap_or_default();
        if let Some(thinking) = self.enable_thinking {
            named.insert("enable_thinking".into(), thinking.into());
        }
        Ok(InputOptions {
            parse_special: self.parse_special.unwrap_or(false),
            tools: json_array("tools", self.tools.as_deref())?,
            named,
        })
    }
}

fn json_array(field: &str, json: Option<&str>) -> Result<Vec<Json>, Error> {
    let items = json.map(Variables::parse_tools).transpose().map_err(|error| invalid(field, &error))?;
    Ok(items.unwrap_or_default())
}

fn invalid(field: &str, error: &ChatError) -> Error {
    Error::InvalidArgument { field: field.into(), reason: error.to_string() }
}

impl Grammar {
    /// The grammar in its notation.
    fn into_text(self) -> String {
        match self {
            Self::Gbnf(text) => text,
            Self::Json => JSON.to_owned(),
        }
    }
}

impl From<&[CoreLogprob]> for TokenLogprobs {
    /// The first is that of the token itself.
    fn from(logprobs: &[CoreLogprob]) -> Self {
        let mut all = logprobs.iter().map(|core| TokenLogprob { token: core.id, logprob: core.logprob });
        let chosen = all.next().unwrap_or(TokenLogprob { token: 0, logprob: 0.0 });
        Self { chosen, likeliest: all.collect() }
    }
}

impl TryFrom<ChatMessage> for CoreMessage {
    type Error = Error;

    fn try_from(message: ChatMessage) -> Result<Self, Error> {
        Ok(match message {
            ChatMessage::System(text) => Self::new("system", text.content),
            ChatMessage::User(text) => Self::new("user", text.content),
            ChatMessage::Assistant(text) => Self::new("assistant", text.content),
            ChatMessage::AssistantToolCalls(calls) => {
                let mut message = Self::new("assistant", calls.content);
                let calls = json_array("tool_calls", Some(&calls.tool_calls))?;
                message.more.insert("tool_calls".into(), calls.into());
                message
            }
            ChatMessage::Tool(answer) => {
                let mut message = Self::new("tool", answer.content);
                let more = [("tool_call_id", answer.tool_call_id), ("name", answer.name)];
                let told = more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
                message.more.extend(told);
                message
            }
        })
    }
}

//! The same generation without any canister: model-core on this machine, by kernel and number of threads.

use canister::api::{FinishReason, Grammar, SessionCreateArg, SessionInput, SessionOptions};
use model_core::TokenId;
use model_core::budget::Unlimited;
use model_core::grammar::JSON;
use model_core::kernels::Kernel;
use model_core::model::{CachePrecision, LoadOptions, Model};
use model_core::pack::Precision;
use model_core::prompt::{self, InputOptions};
use model_core::sample::Sampling;
use model_core::session::{self, Session, Step};
use serde_json::Map;

use crate::Generation;

/// A model on this machine.
pub struct Native {
    /// The model.
    pub model: Model,
    threads: rayon::ThreadPool,
}

impl Native {
    /// Loads `file` for one kernel and a number of threads.
    pub fn load(file: &[u8], kernel: Kernel, threads: usize) -> Self {
        Self::load_with(file, kernel, threads, Precision::default())
    }

    /// The same with other activations.
    pub fn load_with(file: &[u8], kernel: Kernel, threads: usize, precision: Precision) -> Self {
        let file = file.to_vec();
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = LoadOptions { kernel: Some(kernel), precision, ..LoadOptions::default() };
        let model = threads.install(|| Model::load(&file, &options)).unwrap();
        assert_eq!(model.kernel(), kernel);
        Self { model, threads }
    }

    /// The tokens that a session begins with.
    pub fn prompt(&self, arg: &SessionCreateArg) -> Vec<TokenId> {
        let Model { tokenizer, chat, .. } = &self.model;
        let options = options(&arg.options).input;
        match &arg.input {
            SessionInput::Tokens(tokens) => tokens.clone(),
            SessionInput::Text(text) => prompt::text(tokenizer, text, options.parse_special).unwrap(),
            SessionInput::Messages(messages) => {
                let messages: Vec<_> = messages.iter().cloned().map(|message| message.try_into().unwrap()).collect();
                let variables = options.variables(arg.options.now_seconds);
                prompt::conversation(tokenizer, chat.as_ref().unwrap(), &messages, &variables).unwrap()
            }
        }
    }

    /// One session from prompt to end, and the logits of its last position.
    pub fn generate(&self, arg: &SessionCreateArg) -> (Generation, Vec<f32>) {
        let prompt = self.prompt(arg);
        let mut session = Session::new(&self.model, prompt, options(&arg.options)).unwrap();
        let finish = self.threads.install(|| {
            loop {
                if let Step::Finished(reason) = session.step(&self.model, &mut Unlimited).unwrap() {
                    return reason;
                }
            }
        });
        let generation = Generation {
            prompt_tokens: session.prompt_tokens() as u32,
            tokens: session.tokens().to_vec(),
            digests: session.digests().to_vec(),
            logprobs: session.logprobs().map(Into::into).collect(),
            text: session.full_text().to_owned(),
            finish: Some(reason(finish)),
        };
        (generation, session.logits().to_vec())
    }
}

fn input(api: &SessionOptions) -> InputOptions {
    let mut named =
        api.chat_template_kwargs.as_deref().map_or_else(Map::new, |json| serde_json::from_str(json).unwrap());
    named.extend(api.enable_thinking.map(|thinking| ("enable_thinking".to_owned(), thinking.into())));
    InputOptions {
        parse_special: api.parse_special.unwrap_or(false),
        tools: api.tools.as_deref().map_or_else(Vec::new, |json| serde_json::from_str(json).unwrap()),
        named,
    }
}

/// The options as the candid documentation promises them.
fn options(api: &SessionOptions) -> session::SessionOptions {
    session::SessionOptions {
        max_tokens: api.max_tokens.unwrap_or(128),
        sampling: Sampling {
            temperature: api.temperature.unwrap_or(0.8),
            top_k: api.top_k.unwrap_or(40),
            top_p: api.top_p.unwrap_or(0.95),
            min_p: api.min_p.unwrap_or(0.05),
            repeat_penalty: api.repeat_penalty.unwrap_or(1.0),
            repeat_last_n: api.repeat_last_n.unwrap_or(64),
            frequency_penalty: api.frequency_penalty.unwrap_or(0.0),
            presence_penalty: api.presence_penalty.unwrap_or(0.0),
            seed: api.seed.unwrap_or(0),
        },
        kv_cache: CachePrecision::from_bits(api.kv_cache_bits.unwrap_or(16)).unwrap(),
        input: input(api),
        stop: api.stop.clone().unwrap_or_default(),
        ignore_eos: api.ignore_eos.unwrap_or(false),
        audit: api.audit.unwrap_or(false),
        grammar: api.grammar.as_ref().map(|grammar| match grammar {
            Grammar::Gbnf(text) => text.clone(),
            Grammar::Json => JSON.to_owned(),
        }),
        logprobs: api.logprobs,
        ..session::SessionOptions::default()
    }
}

fn reason(reason: session::FinishReason) -> FinishReason {
    match reason {
        session::FinishReason::EndOfGeneration => FinishReason::EndOfGeneration,
        session::FinishReason::StopString => FinishReason::StopString,
        session::FinishReason::Length => FinishReason::Length,
        session::FinishReason::ContextFull => FinishReason::ContextFull,
        session::FinishReason::Cancelled => FinishReason::Cancelled,
        session::FinishReason::GrammarFailed => FinishReason::GrammarFailed,
    }
}

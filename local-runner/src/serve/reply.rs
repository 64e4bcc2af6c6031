//! What clients are answered: one JSON object, or server-sent events with one for each bit of text. The form is that of
//! OpenAI's API, with `timings` as llama.cpp's server has them, and what is this program's own under `icllama`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use model_core::sample::TokenLogprob;
use model_core::session::FinishReason;
use rand_core::{OsRng, RngCore};
use serde_json::{Value as Json, json};

use super::catalog::Catalog;
use super::logprobs::Logprobs;
use super::request::{Asked, Form};
use super::slots::News;
use crate::backend::{Cost, Generation, Timings};

/// Which of the two forms an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// Words the answers to one request.
#[derive(Debug)]
pub struct Reply {
    kind: Kind,
    id: String,
    created: u64,
    catalog: Arc<Catalog>,
    form: Form,
    seed: u64,
    per_prompt: usize,
    wants_logprobs: bool,
    /// In front of the texts.
    echoes: Vec<String>,
    /// The answer that is being told.
    index: usize,
    /// Characters of its text that were told, and log probabilities.
    offset: usize,
    told_logprobs: usize,
    totals: Totals,
    /// Whole answers, of a reply that is not streamed.
    choices: Vec<Json>,
}

/// Sums over the answers to a request.
#[derive(Debug, Default)]
struct Totals {
    prompt_tokens: usize,
    cached_tokens: usize,
    tokens: usize,
    timings: Timings,
    cost: Option<Cost>,
}

impl Reply {
    /// The reply to a request that begins now.
    pub fn new(kind: Kind, asked: &Asked, catalog: Arc<Catalog>) -> Self {
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            kind,
            id: format!("{prefix}-{:016x}{:016x}", OsRng.next_u64(), OsRng.next_u64()),
            created,
            catalog,
            form: asked.form,
            seed: asked.seed,
            per_prompt: asked.per_prompt,
            wants_logprobs: asked.asks.iter().any(|ask| ask.options.logprobs.is_some()),
            echoes: asked.echoes.clone(),
            index: 0,
            offset: 0,
            told_logprobs: 0,
            totals: Totals::default(),
            choices: Vec::new(),
        }
    }

    /// Whether all answers have come.
    pub fn is_complete(&self) -> bool {
        self.index >= self.echoes.len()
    }

    /// Takes a finished answer into a reply that is not streamed.
    pub fn collect(&mut self, generation: &Generation) {
        let text = format!("{}{}", self.echo(), generation.text);
        self.offset = self.echo().chars().count();
        let logprobs = self.logprobs(&generation.logprobs);
        let finish = finish_name(generation.finish_reason);
        let choice = match self.kind {
            Kind::Chat => {
                let message = json!({ "role": "assistant", "content": text, "refusal": null });
                json!({ "index": self.index, "message": message, "logprobs": logprobs, "finish_reason": finish })
            }
            Kind::Completion => {
                json!({ "text": text, "index": self.index, "logprobs": logprobs, "finish_reason": finish })
            }
        };
        self.choices.push(choice);
        self.end(generation);
    }

    /// The whole reply.
    pub fn whole(mut self) -> Json {
        let object = if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        let choices = std::mem::take(&mut self.choices);
        let mut whole = self.object(object, choices);
        whole["usage"] = self.totals.usage();
        self.add_figures(&mut whole);
        whole
    }

    /// The events for what happened, after which others follow unless the reply is complete.
    pub fn events(&mut self, news: News) -> String {
        let mut events = String::new();
        let mut push = |event: &Json| events.push_str(&format!("data: {event}\n\n"));
        match news {
            News::Began => {
                if let Some(first) = self.first() {
                    push(&first);
                }
            }
            News::Piece { text, logprobs } => {
                if !text.is_empty() || !logprobs.is_empty() {
                    push(&self.piece(&text, &logprobs));
                }
            }
            News::Ended(generation) => {
                if let Some(rest) = generation.logprobs.get(self.told_logprobs..).filter(|rest| !rest.is_empty()) {
                    push(&self.piece("", rest));
                }
                push(&self.last(&generation));
                if self.is_complete() && self.form.include_usage {
                    let mut usage = self.object(self.chunk_object(), Vec::new());
                    usage["usage"] = self.totals.usage();
                    push(&usage);
                }
                if self.is_complete() {
                    events.push_str("data: [DONE]\n\n");
                }
            }
            News::Failed(error) => push(&error.json()),
        }
        events
    }

    /// What a streamed answer begins with: who speaks, or the prompt.
    fn first(&mut self) -> Option<Json> {
        match self.kind {
            Kind::Chat => Some(self.chunk(json!({ "role": "assistant", "content": "" }), Json::Null, None)),
            Kind::Completion => {
                let echo = self.echo().to_owned();
                self.offset = echo.chars().count();
                (!echo.is_empty()).then(|| self.chunk(json!(echo), Json::Null, None))
            }
        }
    }

    fn piece(&mut self, text: &str, logprobs: &[Vec<TokenLogprob>]) -> Json {
        self.told_logprobs += logprobs.len();
        let logprobs = if logprobs.is_empty() { Json::Null } else { self.logprobs(logprobs) };
        let content = match self.kind {
            Kind::Chat => json!({ "content": text }),
            Kind::Completion => json!(text),
        };
        self.chunk(content, logprobs, None)
    }

    fn last(&mut self, generation: &Generation) -> Json {
        let content = match self.kind {
            Kind::Chat => json!({}),
            Kind::Completion => json!(""),
        };
        let mut last = self.chunk(content, Json::Null, Some(finish_name(generation.finish_reason)));
        self.end(generation);
        if self.is_complete() {
            self.add_figures(&mut last);
        }
        last
    }

    /// A bit of the present answer.
    fn chunk(&self, content: Json, logprobs: Json, finish: Option<&str>) -> Json {
        let name = if self.kind == Kind::Chat { "delta" } else { "text" };
        let choice = json!({ "index": self.index, name: content, "logprobs": logprobs, "finish_reason": finish });
        let mut chunk = self.object(self.chunk_object(), vec![choice]);
        if self.form.include_usage {
            chunk["usage"] = Json::Null;
        }
        chunk
    }

    fn chunk_object(&self) -> &'static str {
        if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn object(&self, object: &str, choices: Vec<Json>) -> Json {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.catalog.id,
            "system_fingerprint": concat!("icllama-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn logprobs(&mut self, tokens: &[Vec<TokenLogprob>]) -> Json {
        let tokenizer = self.catalog.tokenizer().filter(|_| self.wants_logprobs);
        match (tokenizer.map(|tokenizer| Logprobs { tokenizer, tokens }), self.kind) {
            (None, _) => Json::Null,
            (Some(logprobs), Kind::Chat) => logprobs.of_chat(),
            (Some(logprobs), Kind::Completion) => logprobs.of_completion(&mut self.offset),
        }
    }

    fn echo(&self) -> &str {
        self.echoes.get(self.index).map_or("", String::as_str)
    }

    /// Goes on to the next answer. A prompt counts once, however many answers it has.
    fn end(&mut self, generation: &Generation) {
        let is_first = self.index.is_multiple_of(self.per_prompt);
        self.totals.add(generation, is_first);
        (self.offset, self.told_logprobs) = (0, 0);
        self.index += 1;
    }

    fn add_figures(&self, reply: &mut Json) {
        reply["timings"] = self.totals.timings();
        let mut own = json!({ "seed": self.seed });
        if let Some(cost) = self.totals.cost {
            own["calls"] = json!(cost.calls);
            own["instructions"] = json!(cost.instructions);
            own["cycles"] = json!(u64::try_from(cost.cycles).unwrap_or(u64::MAX));
        }
        reply["icllama"] = own;
    }
}

impl Totals {
    fn add(&mut self, generation: &Generation, counts_prompt: bool) {
        let (prompt, timings) = (generation.prompt.len(), generation.timings);
        if counts_prompt {
            self.prompt_tokens += prompt;
            self.cached_tokens += prompt.saturating_sub(timings.prefill_tokens);
        }
        self.tokens += generation.tokens.len();
        self.timings.prefill_ms += timings.prefill_ms;
        self.timings.prefill_tokens += timings.prefill_tokens;
        self.timings.decode_ms += timings.decode_ms;
        self.timings.decode_tokens += timings.decode_tokens;
        if let Some(cost) = generation.cost {
            let total = self.cost.get_or_insert_default();
            total.calls += cost.calls;
            total.instructions += cost.instructions;
            total.cycles += cost.cycles;
        }
    }

    fn usage(&self) -> Json {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
            "prompt_tokens_details": { "cached_tokens": self.cached_tokens },
        })
    }

    fn timings(&self) -> Json {
        let timings = self.timings;
        json!({
            "cache_n": self.cached_tokens,
            "prompt_n": timings.prefill_tokens,
            "prompt_ms": timings.prefill_ms,
            "prompt_per_second": timings.prefill_rate(),
            "predicted_n": self.tokens,
            "predicted_ms": timings.decode_ms,
            "predicted_per_second": timings.decode_rate(),
        })
    }
}

fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length | FinishReason::ContextFull => "length",
        FinishReason::EndOfGeneration
        | FinishReason::StopString
        | FinishReason::Cancelled
        | FinishReason::GrammarFailed => "stop",
    }
}

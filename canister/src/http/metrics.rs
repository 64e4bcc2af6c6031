//! Figures for monitoring: `/metrics` in Prometheus's text format, `/health` as JSON. Nothing that users wrote or own
//! is among them.

use std::fmt::Write;

use serde::Serialize;

use super::response;
use crate::api::{GenerateAccess, HttpResponse, LoadState, ModelStatus};

/// Counted since the last installation or upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Update calls that were answered.
    pub calls: u64,
    /// Update calls that were refused.
    pub refusals: u64,
    /// Messages of work that goes on by itself.
    pub background: u64,
    /// Instructions of all these.
    pub instructions: u64,
    /// Tokens of prompts that were accepted.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Nanoseconds since 1970 when counting began.
    pub started_ns: u64,
}

/// All that is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Since the last installation or upgrade.
    pub counters: Counters,
    /// Models and memory.
    pub model: ModelStatus,
    /// Stored sessions.
    pub sessions: u64,
    /// Sessions that the canister advances by itself.
    pub running: u64,
    /// Heap bytes of keys and values.
    pub cache_bytes: u64,
    /// Balance.
    pub cycles: u128,
    /// Who may generate.
    pub access: GenerateAccess,
}

/// What `/health` says.
#[derive(Serialize)]
struct Health<'a> {
    /// `ready`, `loading`, `empty` or `failed`.
    status: &'static str,
    /// Name of the model that answers.
    model: Option<&'a str>,
    /// Bytes loaded and to load.
    #[serde(skip_serializing_if = "Option::is_none")]
    loading: Option<[u64; 2]>,
    /// Who may generate: `Controllers`, `AllowList`, `Authenticated` or `Anyone`.
    access: GenerateAccess,
    version: &'static str,
}

/// `/health`: 200 if a model answers, else 503 with what it waits for.
pub fn health(facts: &Facts) -> HttpResponse {
    let serving = facts.model.serving.as_ref();
    let (status, loading) = match &facts.model.load {
        _ if serving.is_some() => ("ready", None),
        LoadState::Loading { done_bytes, total_bytes, .. } => ("loading", Some([*done_bytes, *total_bytes])),
        LoadState::Failed { .. } => ("failed", None),
        LoadState::Empty | LoadState::Ready => ("empty", None),
    };
    let model = serving.map(|model| model.file.name.as_str());
    let health = Health { status, model, loading, access: facts.access, version: env!("CARGO_PKG_VERSION") };
    let body = serde_json::to_vec(&health).unwrap_or_default();
    response(if serving.is_some() { 200 } else { 503 }, "application/json", body)
}

/// `/metrics`.
pub fn text(facts: &Facts) -> HttpResponse {
    let mut page = Page::default();
    page.info("icllama_info", "What runs here.", &[("version", env!("CARGO_PKG_VERSION"))]);
    if let Some(model) = &facts.model.serving {
        let hash: String = model.file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let labels = [("name", &model.file.name), ("architecture", &model.architecture), ("sha256", &hash)];
        page.info("icllama_model_info", "The model that answers.", &labels.map(|(name, value)| (name, value.as_str())));
        page.gauge("icllama_model_packed_bytes", "Heap bytes of its packed weights.", model.packed_bytes);
        page.gauge("icllama_model_weights_per_token", "Weights multiplied per token.", model.weights_per_token);
    }
    page.gauge("icllama_ready", "1 if a model answers.", u8::from(facts.model.serving.is_some()));
    page.gauge("icllama_sessions", "Stored sessions.", facts.sessions);
    page.gauge("icllama_sessions_running", "Sessions that the canister advances by itself.", facts.running);
    page.gauge("icllama_cache_bytes", "Heap bytes of keys and values of sessions.", facts.cache_bytes);
    page.gauge("icllama_heap_bytes", "Size of the heap.", facts.model.heap_bytes);
    page.gauge("icllama_stable_bytes", "Size of stable memory.", facts.model.stable_bytes);
    page.gauge("icllama_cycles", "Balance.", facts.cycles);
    counters(&mut page, &facts.counters);
    response(200, "text/plain; version=0.0.4", page.text)
}

fn counters(page: &mut Page, counters: &Counters) {
    let started = counters.started_ns / 1_000_000_000;
    page.gauge("icllama_started_seconds", "When the counters began: the last installation or upgrade.", started);
    page.counter("icllama_calls_total", "Update calls that were answered.", counters.calls);
    page.counter("icllama_refusals_total", "Update calls that were refused with an error.", counters.refusals);
    page.counter("icllama_background_total", "Messages of work that goes on by itself.", counters.background);
    page.counter("icllama_instructions_total", "Instructions of all these.", counters.instructions);
    page.counter("icllama_prompt_tokens_total", "Tokens of accepted prompts.", counters.prompt_tokens);
    page.counter("icllama_generated_tokens_total", "Generated tokens.", counters.generated_tokens);
}

/// Prometheus's text format, version 0.0.4.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.metric(name, "gauge", help, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, "counter", help, "", value);
    }

    /// A constant that carries labels.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        let escape = |value: &str| value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        self.metric(name, "gauge", help, &format!("{{{}}}", labels.join(",")), 1);
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}");
    }
}

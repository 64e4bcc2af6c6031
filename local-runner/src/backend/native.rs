//! The model in this process: weights, threads, vector instructions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use model_core::TokenId;
use model_core::budget::Unlimited;
use model_core::chat::{ChatMessage, ChatTemplate};
use model_core::model::{LoadOptions, Model};
use model_core::profile::{Counter, Spent};
use model_core::prompt::{self, InputOptions};
use model_core::session::{Session, SessionOptions, Step};
use model_core::source::ByteSource;
use serde_json::json;
use tokio::sync::Mutex;

use super::{Backend, ChatSupport, Event, Generation, Input, Sink, Timings, activations_note, millis};
use crate::clock::{nanoseconds, now_seconds};
use crate::large_pages;
use crate::options::{ModelArgs, NativeArgs};
use crate::trace::Trace;

/// A loaded model and at most one session.
pub struct NativeBackend {
    loaded: Arc<Loaded>,
    /// In place of the model's own template.
    chosen: Option<ChatTemplate>,
    session: Option<Session>,
    load: Duration,
    trace: Option<Trace>,
}

/// What several backends can share.
#[derive(Debug)]
pub struct Loaded {
    pool: rayon::ThreadPool,
    model: Model,
    /// Held for the time of a step: sessions take turns, in the order in which they ask. Side by side they would only
    /// divide the threads and the memory's speed.
    turn: Mutex<()>,
}

impl Loaded {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn step(&self, session: &mut Session, tracer: Option<&mut Tracer>) -> Result<Step, model_core::Error> {
        let _turn = self.turn.blocking_lock();
        self.pool.install(|| match tracer {
            Some(tracer) => tracer.step(session, &self.model),
            None => session.step(&self.model, &mut Unlimited),
        })
    }
}

impl NativeBackend {
    /// Loads the model as the options say.
    ///
    /// # Errors
    /// If the file cannot be opened or is no model this version supports.
    pub fn load(model: &ModelArgs, native: &NativeArgs) -> Result<Self> {
        let options = model.load_options(native.kernel())?;
        let start = Instant::now();
        let source = model.open()?;
        let mut backend = Self::from_source(&source, options, native.thread_count())
            .with_context(|| format!("cannot load {}", model.file.model))?;
        backend.load = start.elapsed();
        Ok(backend)
    }

    /// Loads a model from bytes.
    ///
    /// # Errors
    /// If the bytes are no model this version supports.
    pub fn from_source(source: &(dyn ByteSource + Sync), options: LoadOptions, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
        let start = Instant::now();
        let options = LoadOptions { advise: Some(large_pages::ask), ..options };
        let model = pool.install(|| Model::load(source, &options))?;
        let loaded = Arc::new(Loaded { pool, model, turn: Mutex::new(()) });
        Ok(Self { loaded, chosen: None, session: None, load: start.elapsed(), trace: None })
    }

    /// Another conversation with the same model and chat template; the weights are shared.
    pub fn another(&self) -> Self {
        let (loaded, chosen) = (Arc::clone(&self.loaded), self.chosen.clone());
        Self { loaded, chosen, session: None, load: self.load, trace: None }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.loaded.model
    }

    /// What is shared.
    pub fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded)
    }

    /// Whether the chat template shows tools to the model; if not, it would never hear of them.
    pub fn shows_tools(&self) -> bool {
        let function =
            json!({ "name": "probe", "description": "", "parameters": { "type": "object", "properties": {} } });
        let tools = vec![json!({ "type": "function", "function": function })];
        let messages = [ChatMessage::new("user", "Hello")];
        let prompt = |tools| self.conversation(&messages, &InputOptions { tools, ..InputOptions::default() });
        match (prompt(tools), prompt(Vec::new())) {
            (Ok(with), Ok(without)) => with != without,
            // A template that refuses this is not known to hide them.
            _ => true,
        }
    }

    /// What computes: kernel, threads and residency of the weights.
    pub fn describe(&self) -> String {
        let threads = self.loaded.pool.current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        let model = self.model();
        let activations = activations_note(model.precision().activation_bits());
        format!("{}, {threads} thread{plural}, {}{activations}", model.kernel().name(), model.residency().name())
    }

    /// Runs `work` on the backend's threads.
    pub fn install<T: Send>(&self, work: impl FnOnce(&Model) -> T + Send) -> T {
        self.loaded.pool.install(|| work(self.model()))
    }

    /// Works up to the next token; how far `counter` came, and on what.
    ///
    /// # Errors
    /// Without a session that goes on, or if the model fails.
    pub fn profile_token(&mut self, counter: Counter) -> Result<(u64, Vec<Spent>)> {
        let session = self.session.as_mut().context("no session has been started")?;
        let Loaded { pool, model, .. } = self.loaded.as_ref();
        pool.install(|| {
            session.set_profile(Some(counter));
            while !matches!(session.step(model, &mut Unlimited)?, Step::Token { .. } | Step::Finished(_)) {}
            let (started, ended) = session.profile().range().unwrap_or_default();
            let spent = session.profile().spent();
            session.set_profile(None);
            Ok((ended - started, spent))
        })
    }

    fn generate_traced(&mut self, sink: Sink<'_>, mut tracer: Option<&mut Tracer>) -> Result<Generation> {
        let session = self.session.as_mut().context("no session has been started")?;
        let history = session.tokens().len();
        let mut clock = Clock::new(history - session.cached_tokens(), millis(self.load));
        loop {
            match self.loaded.step(session, tracer.as_deref_mut())? {
                Step::Prefill { done, total } => sink(Event::Prefill { done, total })?,
                Step::Token { id, piece, .. } => {
                    clock.token();
                    let logprobs = session.logprobs().last().unwrap_or_default();
                    sink(Event::Token { id, text: &piece, logprobs })?;
                }
                Step::Finished(finish_reason) => {
                    return Ok(Generation {
                        prompt: session.tokens()[..history].to_vec(),
                        tokens: session.generated().to_vec(),
                        text: session.text().to_owned(),
                        finish_reason,
                        digests: session.digests().to_vec(),
                        logprobs: session.logprobs().map(<[_]>::to_vec).collect(),
                        timings: clock.timings,
                        cost: None,
                    });
                }
                // An unlimited budget never ends; should it, the next step goes on.
                Step::Suspended => {}
            }
        }
    }

    fn session(&self) -> Result<&Session> {
        self.session.as_ref().context("no session has been started")
    }

    fn first_tokens(&self, input: &Input, options: &InputOptions) -> Result<Vec<TokenId>> {
        let tokenizer = &self.model().tokenizer;
        Ok(match input {
            Input::Text(text) => prompt::text(tokenizer, text, options.parse_special)?,
            Input::Messages(messages) => self.conversation(messages, options)?,
            Input::Tokens(tokens) => tokens.clone(),
        })
    }

    fn conversation(&self, messages: &[ChatMessage], options: &InputOptions) -> Result<Vec<TokenId>> {
        let template = self.template().context("the model has no chat template")?;
        let variables = options.variables(Some(now_seconds()));
        Ok(prompt::conversation(&self.model().tokenizer, template, messages, &variables)?)
    }

    fn template(&self) -> Option<&ChatTemplate> {
        self.chosen.as_ref().or(self.model().chat.as_ref())
    }
}

impl Backend for NativeBackend {
    fn name(&self) -> &'static str {
        "native"
    }

    fn chat_support(&self) -> ChatSupport {
        match self.template().map(ChatTemplate::guessed) {
            None => ChatSupport::None,
            Some(None) => ChatSupport::Template,
            Some(Some(name)) => ChatSupport::Guessed(name.to_owned()),
        }
    }

    fn choose_chat_template(&mut self, template: &str) -> Result<()> {
        self.chosen = Some(ChatTemplate::chosen(template, &self.model().tokenizer)?);
        Ok(())
    }

    fn start(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
        let prompt = self.first_tokens(input, &options.input)?;
        self.session = Some(Session::new(self.model(), prompt, options.clone())?);
        Ok(())
    }

    fn restart(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
        let prompt = self.first_tokens(input, &options.input)?;
        let model = &self.loaded.model;
        match &mut self.session {
            Some(session) => session.restart(model, prompt, options.clone())?,
            None => self.session = Some(Session::new(model, prompt, options.clone())?),
        }
        Ok(())
    }

    fn cancel(&mut self) -> Result<()> {
        self.session.as_mut().context("no session has been started")?.cancel();
        Ok(())
    }

    fn generate(&mut self, sink: Sink<'_>) -> Result<Generation> {
        let mut tracer = self.trace.take().map(Tracer::new);
        let generation = self.generate_traced(sink, tracer.as_mut());
        self.trace = tracer.map(Tracer::finish);
        generation
    }

    fn record_trace(&mut self) {
        self.trace = Some(Trace::default());
    }

    fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        Ok(self.session()?.logits().to_vec())
    }
}

/// Sees every step of an answer, and what lies between them.
struct Tracer {
    trace: Trace,
    started: u64,
    /// Where the last step ended.
    last: u64,
}

impl Tracer {
    fn new(trace: Trace) -> Self {
        let now = nanoseconds();
        Self { trace, started: now, last: now }
    }

    fn step(&mut self, session: &mut Session, model: &Model) -> Result<Step, model_core::Error> {
        let before = session.cached_tokens();
        session.set_trace(nanoseconds);
        let step = session.step(model, &mut Unlimited);
        let (range, stretches) = (session.profile().range(), session.profile().stretches());
        session.set_profile(None);
        let (Some(range), false) = (range, stretches.is_empty()) else { return step };
        let computed = session.cached_tokens().saturating_sub(before);
        let name = match &step {
            Ok(Step::Token { .. }) if computed == 1 => format!("token {}", session.generated().len()),
            Ok(Step::Token { .. }) => format!("{computed} tokens of the prompt, token {}", session.generated().len()),
            Ok(_) => format!("{computed} tokens of the prompt"),
            Err(error) => format!("failed: {error}"),
        };
        self.between(range.0);
        self.trace.step(&name, range, &stretches);
        self.last = range.1;
        step
    }

    /// What the command did between two steps: it showed the token.
    fn between(&mut self, until: u64) {
        self.trace.span("between steps", (self.last, until));
    }

    fn finish(mut self) -> Trace {
        let now = nanoseconds();
        self.between(now);
        self.trace.span("answer", (self.started, now));
        self.trace
    }
}

/// Times the prompt up to the first token, and the tokens after it.
struct Clock {
    last: Instant,
    has_token: bool,
    timings: Timings,
}

impl Clock {
    fn new(prefill_tokens: usize, load_ms: f64) -> Self {
        Self {
            last: Instant::now(),
            has_token: false,
            timings: Timings { load_ms, prefill_tokens, ..Timings::default() },
        }
    }

    fn token(&mut self) {
        let elapsed = millis(self.last.elapsed());
        if self.has_token {
            self.timings.decode_ms += elapsed;
            self.timings.decode_tokens += 1;
        } else {
            self.timings.prefill_ms = elapsed;
            self.has_token = true;
        }
        self.last = Instant::now();
    }
}

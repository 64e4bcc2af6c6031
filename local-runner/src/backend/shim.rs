//! The model in its real canister, run and metered by the shim.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use canister::api;
use local_runner::shim::costs::PageCharges;
use model_core::TokenId;
use model_core::chat::ChatMessage;
use model_core::session::{FinishReason, SessionOptions};
use model_core::source::ByteSource;
use serde::Serialize;

use super::args::ShimArgs;
use super::client::Client;
use super::cost::{CallCost, Cost, Phase, add_to_phase};
use super::{Backend, ChatSupport, Event, Generation, Input, Sink, Timings, millis};
use crate::clock::now_seconds;
use crate::options::{ModelArgs, ResidencyChoice, read_bytes};
use crate::output::{Output, byte_size, note};
use crate::split_file::merged_name;

/// How the calls of a generation are cut.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Instructions after which the calls stop computing, in turn; empty for the canister's own ceiling.
    pub max_instructions: Vec<u64>,
    /// Tokens after which a call stops generating.
    pub tokens_per_call: Option<u32>,
    /// Upgrade the canister once this many tokens of an answer are generated.
    pub upgrade_at: Option<usize>,
}

/// The canister with its model and at most one session.
pub struct ShimBackend {
    client: Client,
    plan: Plan,
    phases: Vec<Phase>,
    chat: ChatSupport,
    /// Of the model file, as the canister computed it.
    sha256: String,
    /// How the weights are kept, and how many bytes they take.
    packed: String,
    load_ms: f64,
    session: Option<Conversation>,
}

/// What is known of the session.
struct Conversation {
    id: u64,
    status: api::SessionStatus,
    /// Instructions per call go round in the plan.
    calls: usize,
}

impl ShimBackend {
    /// Installs the canister, uploads the model and has it loaded.
    ///
    /// # Errors
    /// If the wasm or the model is absent, or a call fails.
    pub fn install(model: &ModelArgs, shim: &ShimArgs, output: Output) -> Result<Self> {
        let wasm_path = shim.wasm_path()?;
        let source = model.open()?;
        let name = merged_name(&model.file.model.file_name());
        let plan = Plan {
            max_instructions: shim.max_instructions.into_iter().collect(),
            tokens_per_call: shim.tokens_per_call,
            upgrade_at: None,
        };
        let config = api::ConfigUpdate { residency: Some(residency(model.residency)), ..api::ConfigUpdate::default() };
        let backend = Self::with_model(&wasm_path, config, &name, &source, plan)?;
        if !output.is_json() || output.is_verbose() {
            note(&backend.installation(&wasm_path));
        }
        Ok(backend)
    }

    fn with_model(
        wasm_path: &Path,
        config: api::ConfigUpdate,
        name: &str,
        source: &dyn ByteSource,
        plan: Plan,
    ) -> Result<Self> {
        let start = Instant::now();
        let (client, cost) = Client::install(read_bytes(wasm_path)?, config)
            .with_context(|| format!("cannot install {}", wasm_path.display()))?;
        let mut backend = Self {
            client,
            plan,
            phases: Vec::new(),
            chat: ChatSupport::None,
            sha256: String::new(),
            packed: String::new(),
            load_ms: 0.0,
            session: None,
        };
        add_to_phase(&mut backend.phases, "install", &cost);
        backend.client.upload(name, source, &mut |phase, cost| add_to_phase(&mut backend.phases, phase, cost))?;
        backend.load()?;
        backend.load_ms = millis(start.elapsed());
        Ok(backend)
    }

    fn load(&mut self) -> Result<()> {
        let phases = &mut self.phases;
        let model = self.client.load(&mut |phase, cost| add_to_phase(phases, phase, cost))?;
        self.chat = match model.guessed_chat_template {
            Some(name) => ChatSupport::Guessed(name),
            None if model.has_chat_template => ChatSupport::Template,
            None => ChatSupport::None,
        };
        self.packed = format!("{}, {} packed", model.residency, byte_size(model.packed_bytes));
        self.sha256 = model.file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(())
    }

    fn installation(&self, wasm_path: &Path) -> String {
        let calls: u64 = self.phases.iter().map(|phase| phase.cost.calls).sum();
        format!(
            "{} installed; model uploaded, verified by the canister (sha256 {}) and loaded ({}) in {calls} calls, {:.1} s",
            wasm_path.display(),
            self.sha256,
            self.packed,
            self.load_ms / 1e3
        )
    }

    /// How calls are cut.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How often the canister was upgraded.
    pub fn upgrades(&self) -> u64 {
        self.phases.iter().find(|phase| phase.name == "upgrade").map_or(0, |phase| phase.cost.calls)
    }

    /// Cuts the calls of later generations in another way.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Has the canister keep the weights in another way, and load them again.
    ///
    /// # Errors
    /// If a call fails.
    pub fn set_residency(&mut self, choice: ResidencyChoice) -> Result<()> {
        let update = api::ConfigUpdate { residency: Some(residency(choice)), ..api::ConfigUpdate::default() };
        let (_, cost): (api::Config, _) = self.client.update("config_set", &update)?;
        add_to_phase(&mut self.phases, "settings", &cost);
        self.upgrade()
    }

    /// Weights multiplied per token, as the canister reports it.
    ///
    /// # Errors
    /// If the call fails.
    pub fn model_info(&mut self) -> Result<api::ModelInfo> {
        self.client.model_info()
    }

    /// Changes what pages cost from now on.
    pub fn change_page_charges(&mut self, charges: PageCharges) {
        self.client.change_page_charges(charges);
    }

    /// One call that advances the session, outside of all phases.
    ///
    /// # Errors
    /// Without a session, or if the call fails.
    pub fn call(
        &mut self,
        max_instructions: Option<u64>,
        max_tokens: Option<u32>,
        profile: bool,
    ) -> Result<(api::SessionProgress, CallCost)> {
        let session_id = self.conversation()?.id;
        let arg = api::SessionAdvanceArg { session_id, max_instructions, max_tokens, profile: Some(profile) };
        self.client.update("session_advance", &arg)
    }

    fn conversation(&mut self) -> Result<&mut Conversation> {
        self.session.as_mut().context("no session has been started")
    }
}

impl Backend for ShimBackend {
    fn name(&self) -> &'static str {
        "shim"
    }

    fn chat_support(&self) -> ChatSupport {
        self.chat.clone()
    }

    fn choose_chat_template(&mut self, template: &str) -> Result<()> {
        let update = api::ConfigUpdate { chat_template: Some(template.to_owned()), ..api::ConfigUpdate::default() };
        let (_, cost): (api::Config, _) = self.client.update("config_set", &update)?;
        add_to_phase(&mut self.phases, "settings", &cost);
        self.chat = ChatSupport::Template;
        Ok(())
    }

    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn start(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
        self.end()?;
        let arg = api::SessionCreateArg { input: session_input(input)?, options: session_options(options)? };
        let (created, cost): (api::SessionCreateOk, _) = self.client.update("session_create", &arg)?;
        add_to_phase(&mut self.phases, "prompt", &cost);
        let status = self.client.session_status(created.session_id)?;
        self.session = Some(Conversation { id: created.session_id, status, calls: 0 });
        Ok(())
    }

    /// The session begins anew with the whole input; the canister keeps what it has computed of it.
    fn restart(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
        let Some(session_id) = self.session.as_ref().map(|session| session.id) else {
            return self.start(input, options);
        };
        let (input, options) = (session_input(input)?, session_options(options)?);
        let arg = api::SessionRestartArg { session_id, input, options };
        let (restarted, cost): (api::SessionRestartOk, _) = self.client.update("session_restart", &arg)?;
        add_to_phase(&mut self.phases, "prompt", &cost);
        self.conversation()?.status = restarted.status;
        Ok(())
    }

    fn cancel(&mut self) -> Result<()> {
        let arg = api::SessionIdArg { session_id: self.conversation()?.id };
        let (status, _): (api::SessionStatus, _) = self.client.update("session_cancel", &arg)?;
        self.conversation()?.status = status;
        Ok(())
    }

    fn is_streaming(&self) -> bool {
        false
    }

    fn generate(&mut self, sink: Sink<'_>) -> Result<Generation> {
        let before = self.conversation()?.status.clone();
        let history = (before.prompt_tokens + before.generated_tokens) as usize;
        let mut answer = Answer::new(history, self.load_ms);
        loop {
            let call = self.advance(&mut answer)?;
            sink(call.event(answer.cost.calls))?;
            if let api::SessionState::Finished(reason) = call.state {
                return self.finish(answer, finish_reason(reason));
            }
            if self.plan.upgrade_at.is_some_and(|at| answer.tokens.len() >= at && !answer.upgraded) {
                answer.upgraded = true;
                self.upgrade()?;
            }
        }
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let id = self.conversation()?.id;
        self.client.session_logits(id)
    }
}

/// An answer on its way.
struct Answer {
    history: usize,
    tokens: Vec<TokenId>,
    text: String,
    cost: Cost,
    timings: Timings,
    upgraded: bool,
}

impl Answer {
    fn new(history: usize, load_ms: f64) -> Self {
        Self {
            history,
            tokens: Vec::new(),
            text: String::new(),
            cost: Cost::default(),
            timings: Timings { load_ms, ..Timings::default() },
            upgraded: false,
        }
    }
}

/// What one call did.
struct Call {
    cost: CallCost,
    tokens: Vec<TokenId>,
    text: String,
    state: api::SessionState,
}

impl Call {
    fn event(&self, index: u64) -> Event<'_> {
        Event::Call { index, cost: &self.cost, tokens: &self.tokens, text: &self.text }
    }
}

impl ShimBackend {
    /// One call. The first ones end with the first token, so that the prompt's cost is known by itself.
    fn advance(&mut self, answer: &mut Answer) -> Result<Call> {
        let is_prompt = answer.tokens.is_empty();
        let max_tokens = if is_prompt { Some(1) } else { self.plan.tokens_per_call };
        let budgets = &self.plan.max_instructions;
        let session = self.session.as_mut().context("no session has been started")?;
        let max_instructions = budgets.get(session.calls % budgets.len().max(1)).copied();
        let arg = api::SessionAdvanceArg { session_id: session.id, max_instructions, max_tokens, profile: None };
        let (progress, mut cost): (api::SessionProgress, _) = self.client.update("session_advance", &arg)?;
        let computed = |status: &api::SessionStatus| (status.cached_tokens as usize).min(answer.history);
        cost.prompt_tokens = computed(&progress.status).saturating_sub(computed(&session.status));
        cost.generated_tokens = progress.tokens.len();
        session.calls += 1;
        session.status = progress.status;
        add_to_phase(&mut self.phases, if is_prompt { "prompt" } else { "generate" }, &cost);
        answer.cost.add(&cost);
        answer.tokens.extend(&progress.tokens);
        answer.text.push_str(&progress.text);
        let timings = &mut answer.timings;
        if is_prompt {
            timings.prefill_ms += cost.wall_ms;
            timings.prefill_tokens += cost.prompt_tokens;
        } else {
            timings.decode_ms += cost.wall_ms;
            timings.decode_tokens += cost.generated_tokens;
        }
        Ok(Call { cost, tokens: progress.tokens, text: progress.text, state: session.status.state })
    }

    fn finish(&mut self, answer: Answer, finish_reason: FinishReason) -> Result<Generation> {
        let id = self.conversation()?.id;
        let mut prompt = self.client.session_tokens(id)?;
        prompt.truncate(answer.history);
        Ok(Generation {
            prompt,
            tokens: answer.tokens,
            text: answer.text,
            finish_reason,
            digests: self.client.session_digests(id)?,
            logprobs: self.client.session_logprobs(id)?,
            timings: answer.timings,
            cost: Some(answer.cost),
        })
    }

    fn upgrade(&mut self) -> Result<()> {
        let cost = self.client.upgrade()?;
        add_to_phase(&mut self.phases, "upgrade", &cost);
        self.load()
    }

    /// Deletes the session, if there is one.
    fn end(&mut self) -> Result<()> {
        if let Some(session) = self.session.take() {
            let arg = api::SessionIdArg { session_id: session.id };
            let ((), _) = self.client.update("session_delete", &arg)?;
        }
        Ok(())
    }
}

fn residency(choice: ResidencyChoice) -> api::Residency {
    match choice {
        ResidencyChoice::Auto => api::Residency::Auto,
        ResidencyChoice::Wide => api::Residency::Wide,
        ResidencyChoice::Compact => api::Residency::Compact,
    }
}

fn session_input(input: &Input) -> Result<api::SessionInput> {
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

fn session_options(options: &SessionOptions) -> Result<api::SessionOptions> {
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

fn finish_reason(reason: api::FinishReason) -> FinishReason {
    match reason {
        api::FinishReason::EndOfGeneration => FinishReason::EndOfGeneration,
        api::FinishReason::StopString => FinishReason::StopString,
        api::FinishReason::Length => FinishReason::Length,
        api::FinishReason::ContextFull => FinishReason::ContextFull,
        api::FinishReason::Cancelled => FinishReason::Cancelled,
        api::FinishReason::GrammarFailed => FinishReason::GrammarFailed,
    }
}

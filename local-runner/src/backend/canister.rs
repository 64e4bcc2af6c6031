//! A conversation with a model in a canister, wherever the canister is: sessions, their calls and what these cost.

use anyhow::{Context, Result, bail};
use canister::api;
use model_core::TokenId;
use model_core::session::{FinishReason, SessionOptions};

use super::client::{Client, Transport};
use super::convert::{chat_support, finish_reason, session_input, session_options};
use super::cost::{CallCost, Cost, Phase, add_to_phase};
use super::{Backend, ChatSupport, Event, Generation, Input, Sink, Timings};

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

/// A canister with a model, and at most one session of it.
pub struct CanisterBackend<T> {
    pub(super) client: Client<T>,
    pub(super) plan: Plan,
    pub(super) phases: Vec<Phase>,
    pub(super) chat: ChatSupport,
    /// How long it took until the model answered, in milliseconds.
    pub(super) load_ms: f64,
    session: Option<Conversation>,
}

/// What is known of the session.
struct Conversation {
    id: u64,
    /// Tokens of its prompts and answers.
    tokens: usize,
    /// Tokens that are computed.
    computed: usize,
    /// Tokens that it generated.
    generated: usize,
    /// Whether digests, and log probabilities, are kept of them.
    keeps: [bool; 2],
    /// Instructions per call go round in the plan.
    calls: usize,
}

impl Conversation {
    /// A session whose prompt has so many tokens.
    fn new(id: u64, prompt_tokens: u32, options: &SessionOptions) -> Self {
        let (tokens, keeps) = (prompt_tokens as usize, [options.audit, options.logprobs.is_some()]);
        Self { id, tokens, computed: 0, generated: 0, keeps, calls: 0 }
    }

    /// What a call says of the session.
    fn note(&mut self, status: &api::SessionStatus) {
        self.tokens = (status.prompt_tokens + status.generated_tokens) as usize;
        self.generated = status.generated_tokens as usize;
        self.computed = status.cached_tokens as usize;
    }
}

impl<T: Transport> CanisterBackend<T> {
    /// A canister of which nothing is known yet.
    pub(super) fn new(client: Client<T>, plan: Plan) -> Self {
        Self { client, plan, phases: Vec::new(), chat: ChatSupport::None, load_ms: 0.0, session: None }
    }

    /// How calls are cut.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Cuts the calls of later generations in another way.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// What the canister says of its model.
    ///
    /// # Errors
    /// If the call fails, or no model answers.
    pub fn model_info(&mut self) -> Result<api::ModelInfo> {
        self.client.model_info()
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
        self.client.advance(&arg)
    }

    /// Changes settings of the canister.
    ///
    /// # Errors
    /// If the call fails.
    pub(super) fn configure(&mut self, update: &api::ConfigUpdate) -> Result<()> {
        let (_, cost): (api::Config, _) = self.client.update("config_set", update)?;
        add_to_phase(&mut self.phases, "settings", &cost);
        Ok(())
    }

    fn conversation(&mut self) -> Result<&mut Conversation> {
        self.session.as_mut().context("no session has been started")
    }

    /// One call. The first ones end with the first token, so that the prompt's cost is known by itself.
    fn advance(&mut self, answer: &mut Answer) -> Result<Call> {
        let is_prompt = answer.tokens.is_empty();
        let max_tokens = if is_prompt { Some(1) } else { self.plan.tokens_per_call };
        let budgets = &self.plan.max_instructions;
        let session = self.session.as_mut().context("no session has been started")?;
        let max_instructions = budgets.get(session.calls % budgets.len().max(1)).copied();
        let arg = api::SessionAdvanceArg { session_id: session.id, max_instructions, max_tokens, profile: None };
        let (progress, mut cost) = self.client.advance(&arg)?;
        let before = session.computed.min(answer.history);
        session.note(&progress.status);
        cost.prompt_tokens = session.computed.min(answer.history).saturating_sub(before);
        cost.generated_tokens = progress.tokens.len();
        session.calls += 1;
        add_to_phase(&mut self.phases, if is_prompt { "prompt" } else { "generate" }, &cost);
        answer.add(&cost, is_prompt);
        answer.tokens.extend(&progress.tokens);
        answer.text.push_str(&progress.text);
        Ok(Call { cost, tokens: progress.tokens, text: progress.text, state: progress.status.state })
    }

    fn finish(&mut self, answer: Answer, finish_reason: FinishReason) -> Result<Generation> {
        let Conversation { id, tokens, generated, keeps: [digests, logprobs], .. } = *self.conversation()?;
        let mut prompt = self.client.session_tokens(id, tokens)?;
        prompt.truncate(answer.history);
        Ok(Generation {
            prompt,
            tokens: answer.tokens,
            text: answer.text,
            finish_reason,
            digests: if digests { self.client.session_digests(id, generated)? } else { Vec::new() },
            logprobs: if logprobs { self.client.session_logprobs(id, generated)? } else { Vec::new() },
            timings: answer.timings,
            cost: Some(answer.cost),
        })
    }

    /// Deletes the session, if there is one.
    fn end(&mut self) -> Result<()> {
        if let Some(session) = self.session.take() {
            let arg = api::SessionIdArg { session_id: session.id };
            let ((), _) = self.client.update("session_delete", &arg)?;
        }
        Ok(())
    }

    /// Upgrades the canister to the same module and has it load its model again.
    ///
    /// # Errors
    /// If it cannot be upgraded from here, or a call fails.
    pub(super) fn upgrade(&mut self) -> Result<()> {
        let cost = self.client.transport().upgrade()?;
        add_to_phase(&mut self.phases, "upgrade", &cost);
        self.load()
    }

    /// Has the canister load its model.
    ///
    /// # Errors
    /// If a call fails, or the model cannot be loaded.
    pub(super) fn load(&mut self) -> Result<()> {
        let phases = &mut self.phases;
        let model = self.client.load(&mut |phase, cost| add_to_phase(phases, phase, cost))?;
        self.chat = chat_support(&model);
        Ok(())
    }
}

impl<T: Transport> Backend for CanisterBackend<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn chat_support(&self) -> ChatSupport {
        self.chat.clone()
    }

    fn choose_chat_template(&mut self, template: &str) -> Result<()> {
        if T::IS_ELSEWHERE {
            bail!(
                "--chat-template would change the canister for everybody; that is `icllama config set chat_template=…`, or \
                 render the conversation elsewhere and send it with --raw --parse-special"
            );
        }
        self.configure(&api::ConfigUpdate {
            chat_template: Some(template.to_owned()),
            ..api::ConfigUpdate::default()
        })?;
        self.chat = ChatSupport::Template;
        Ok(())
    }

    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn start(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
        self.end()?;
        let (input, given) = (session_input(input)?, session_options(options)?);
        let arg = api::SessionCreateArg { input, options: given };
        let (created, cost): (api::SessionCreateOk, _) = self.client.update("session_create", &arg)?;
        add_to_phase(&mut self.phases, "prompt", &cost);
        self.session = Some(Conversation::new(created.session_id, created.prompt_tokens, options));
        Ok(())
    }

    /// The session begins anew with the whole input; the canister keeps what it has computed of it.
    fn restart(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
        let Some(session_id) = self.session.as_ref().map(|session| session.id) else {
            return self.start(input, options);
        };
        let (input, given) = (session_input(input)?, session_options(options)?);
        let arg = api::SessionRestartArg { session_id, input, options: given };
        let (restarted, cost): (api::SessionRestartOk, _) = self.client.update("session_restart", &arg)?;
        add_to_phase(&mut self.phases, "prompt", &cost);
        let mut session = Conversation::new(session_id, restarted.status.prompt_tokens, options);
        session.note(&restarted.status);
        session.calls = self.conversation()?.calls;
        self.session = Some(session);
        Ok(())
    }

    fn cancel(&mut self) -> Result<()> {
        let arg = api::SessionIdArg { session_id: self.conversation()?.id };
        let (status, _): (api::SessionStatus, _) = self.client.update("session_cancel", &arg)?;
        self.conversation()?.note(&status);
        Ok(())
    }

    fn is_streaming(&self) -> bool {
        T::IS_STREAMING
    }

    fn generate(&mut self, sink: Sink<'_>) -> Result<Generation> {
        let history = self.conversation()?.tokens;
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

    fn is_elsewhere(&self) -> bool {
        T::IS_ELSEWHERE
    }

    fn close(&mut self) -> Result<()> {
        self.end()
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

    fn add(&mut self, cost: &CallCost, is_prompt: bool) {
        self.cost.add(cost);
        let timings = &mut self.timings;
        if is_prompt {
            timings.prefill_ms += cost.wall_ms;
            timings.prefill_tokens += cost.prompt_tokens;
        } else {
            timings.decode_ms += cost.wall_ms;
            timings.decode_tokens += cost.generated_tokens;
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

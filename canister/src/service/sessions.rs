//! The `session_*` methods: access, limits and budgets around [`crate::generate::Sessions`].

use ic_stable_structures::Memory;
use model_core::model::{CachePrecision, Model};
use model_core::prompt::{self, InputOptions};
use model_core::session::{Session, SessionOptions as CoreOptions, SessionRecord};

use super::Service;
use crate::api::{
    ChatMessage, Error, ProfilePart, Role, SessionAdvanceArg, SessionAppendArg, SessionAppendOk, SessionCreateArg,
    SessionCreateOk, SessionIdArg, SessionInput, SessionOptions, SessionProgress, SessionRestartArg, SessionRestartOk,
    SessionStatus,
};
use crate::budget::CallBudget;
use crate::env::Env;
use crate::generate::{Advanced, Limits, NewSession, Work};
use crate::load::Serving;
use crate::session_head::{Driver, Head};
use crate::upload::check_limit;

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Makes a session. Nothing is computed yet.
    ///
    /// # Errors
    /// The caller may not generate, no model is ready, a limit would be passed, a quota, stable memory or cycles are used up,
    /// or the input does not suit the model.
    pub fn session_create(&mut self, arg: SessionCreateArg) -> Result<SessionCreateOk, Error> {
        self.create(arg, Driver::Owner)
    }

    pub(super) fn create(&mut self, arg: SessionCreateArg, driver: Driver) -> Result<SessionCreateOk, Error> {
        self.require(Role::User)?;
        let owner = self.env.caller();
        self.check_cycles()?;
        self.check_session_counts()?;
        self.tokens_left(&owner)?;
        let serving = self.models.ready(self.directory.get())?;
        let (tokens, options) = self.beginning(serving, arg.input, arg.options)?;
        let prompt_tokens = tokens.len() as u32;
        let session = Session::new(&serving.model, tokens, options)?;
        let now_ns = self.env.time_ns();
        let id = self.header.take_session_id(owner, now_ns);
        self.sessions.create(NewSession { id, owner, driver, serving }, session, now_ns)?;
        self.counters.prompt_tokens += u64::from(prompt_tokens);
        Ok(SessionCreateOk { session_id: id, prompt_tokens })
    }

    /// Computes as much as one call allows.
    ///
    /// # Errors
    /// The caller may not generate or has no such session, no model is ready, a quota, stable memory or cycles are used
    /// up, or the model fails.
    pub fn session_advance(&mut self, arg: SessionAdvanceArg) -> Result<SessionProgress, Error> {
        self.require(Role::User)?;
        let start = self.env.instructions();
        let head = self.owned(arg.session_id)?;
        let Advanced { head, text, text_from, tokens, work } = if head.finish.is_some() {
            Advanced { text: String::new(), text_from: head.text_bytes, tokens: Vec::new(), work: None, head }
        } else {
            self.check_heap(arg.session_id, &head)?;
            self.advance(head, arg)?
        };
        let status = self.status_of(arg.session_id, &head);
        let now = self.env.instructions();
        let profile = work.map(|work| profile_parts(start, &work, now));
        Ok(SessionProgress { status, text, text_from, tokens, instructions: now.saturating_sub(start), profile })
    }

    /// Lets the session run by itself; poll `session_output`.
    ///
    /// # Errors
    /// The caller may not generate, has no such session, or has used up a quota, or cycles are.
    pub fn session_run(&mut self, arg: SessionIdArg) -> Result<SessionStatus, Error> {
        self.require(Role::User)?;
        let head = self.owned(arg.session_id)?;
        if head.finish.is_none() {
            self.check_cycles()?;
            self.check_runs(&head)?;
            self.tokens_left(&head.owner)?;
        }
        let head = self.sessions.run(arg.session_id, head);
        Ok(self.status_of(arg.session_id, &head))
    }

    /// Goes on with a finished session: the next turn of a chat, more text, more tokens.
    ///
    /// # Errors
    /// As `session_create`; [`Error::SessionNotFinished`] while the session generates.
    pub fn session_append(&mut self, arg: SessionAppendArg) -> Result<SessionAppendOk, Error> {
        self.require(Role::User)?;
        let id = arg.session_id;
        let head = self.owned(id)?;
        if head.finish.is_none() {
            return Err(Error::SessionNotFinished { session_id: id });
        }
        self.check_cycles()?;
        self.tokens_left(&head.owner)?;
        self.check_input(&arg.input, None)?;
        let serving = self.models.ready(self.directory.get())?;
        if head.model != serving.identity() {
            return Err(Error::ModelChanged);
        }
        let record = self.sessions.store().record(id)?;
        let tokens = self.more_tokens(serving, &record, arg.input)?;
        let max_tokens = arg.max_tokens.unwrap_or(record.options().max_tokens);
        let appended_tokens = tokens.len() as u32;
        self.check_positions(&serving.model, head.kv_cache, record.tokens().len() + tokens.len(), max_tokens)?;
        let head = self.sessions.append(id, head, serving, tokens, max_tokens, self.env.time_ns())?;
        self.counters.prompt_tokens += u64::from(appended_tokens);
        Ok(SessionAppendOk { status: self.status_of(id, &head), appended_tokens })
    }

    /// Begins a finished session anew: what `session_create` would make of the argument, with what was computed of the tokens
    /// that the old and the new one begin with. So a conversation whose earlier messages its template shows otherwise than
    /// they were generated goes on as if it were new, at the cost of what changed.
    ///
    /// # Errors
    /// As `session_create`; [`Error::SessionNotFinished`] while the session generates.
    pub fn session_restart(&mut self, arg: SessionRestartArg) -> Result<SessionRestartOk, Error> {
        self.require(Role::User)?;
        let id = arg.session_id;
        let head = self.owned(id)?;
        if head.finish.is_none() {
            return Err(Error::SessionNotFinished { session_id: id });
        }
        self.check_cycles()?;
        self.tokens_left(&head.owner)?;
        let serving = self.models.ready(self.directory.get())?;
        if head.model != serving.identity() {
            return Err(Error::ModelChanged);
        }
        let (tokens, options) = self.beginning(serving, arg.input, arg.options)?;
        let (head, kept_tokens) = self.sessions.restart(id, head, serving, tokens, options, self.env.time_ns())?;
        Ok(SessionRestartOk { status: self.status_of(id, &head), kept_tokens })
    }

    /// Ends the session's generation. Controllers may end any.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn session_cancel(&mut self, arg: SessionIdArg) -> Result<SessionStatus, Error> {
        let head = self.owned_or_controlled(arg.session_id)?;
        let head = self.sessions.cancel(arg.session_id, head, self.env.time_ns())?;
        Ok(self.status_of(arg.session_id, &head))
    }

    /// Forgets the session and all its text. Controllers may delete any.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn session_delete(&mut self, arg: SessionIdArg) -> Result<(), Error> {
        let head = self.owned_or_controlled(arg.session_id)?;
        self.sessions.delete(arg.session_id, &head, self.env.time_ns());
        Ok(())
    }

    /// Gives the session whose turn it is its turn.
    pub(super) fn run_in_background(&mut self) {
        let Some(serving) = self.models.serving() else { return };
        match self.sessions.next_turn(&serving.model, self.config.cache_heap_bytes) {
            Ok(Some((id, head))) => self.run_turn(id, head),
            Ok(None) => {}
            Err(error) => self.env.log(&format!("running sessions: {error}")),
        }
    }

    /// Takes the session whose turn it is out of the queue.
    pub(super) fn stop_session_in_turn(&mut self, reason: String) -> Result<(), Error> {
        let Some(serving) = self.models.serving() else { return Ok(()) };
        if let Some((id, head)) = self.sessions.next_turn(&serving.model, self.config.cache_heap_bytes)? {
            self.sessions.rest(id, head, Some(Error::Model { stage: "run".into(), message: reason }));
        }
        Ok(())
    }

    fn run_turn(&mut self, id: u64, head: Head) {
        let arg = SessionAdvanceArg { session_id: id, max_instructions: None, max_tokens: None, profile: None };
        match self.advance(head.clone(), arg) {
            Ok(Advanced { head, .. }) if head.finish.is_some() => drop(self.sessions.rest(id, head, None)),
            Ok(_) => {}
            Err(error) => {
                let head = self.sessions.store().head(id).ok().flatten().unwrap_or(head);
                self.sessions.rest(id, head, Some(error));
            }
        }
    }

    pub(super) fn advance(&mut self, head: Head, arg: SessionAdvanceArg) -> Result<Advanced, Error> {
        let SessionAdvanceArg { session_id: id, max_instructions, max_tokens, profile } = arg;
        let profile = profile.unwrap_or(false).then(|| self.env.counter());
        self.check_cycles()?;
        let max_computed = self.tokens_left(&head.owner)?;
        let serving = self.models.ready(self.directory.get())?;
        let mut budget = CallBudget::new(&self.env, self.config.max_instructions, max_instructions);
        let cache_bytes = self.config.cache_heap_bytes;
        let limits = Limits { max_tokens, max_computed, profile, cache_bytes, now_ns: self.env.time_ns() };
        let advanced = self.sessions.advance(id, head, serving, &mut budget, limits)?;
        self.counters.generated_tokens += advanced.tokens.len() as u64;
        if advanced.head.finish.is_some() && advanced.head.driver != Driver::Owner {
            let head = self.sessions.rest(id, advanced.head, None);
            return Ok(Advanced { head, ..advanced });
        }
        Ok(advanced)
    }

    /// The caller's session. Another's is not told apart from none, not even by what the question costs: only the
    /// caller's own are looked through.
    pub(super) fn owned(&self, session_id: u64) -> Result<Head, Error> {
        let missing = Error::SessionNotFound { session_id };
        if !self.sessions.store().index().owns(&self.env.caller(), session_id) {
            return Err(missing);
        }
        self.stored(session_id).and_then(|head| if self.is_expired(head.updated_ns) { Err(missing) } else { Ok(head) })
    }

    fn owned_or_controlled(&self, session_id: u64) -> Result<Head, Error> {
        if self.env.is_controller(&self.env.caller()) { self.stored(session_id) } else { self.owned(session_id) }
    }

    /// Anybody's session, also if it is to be deleted.
    pub(super) fn stored(&self, session_id: u64) -> Result<Head, Error> {
        self.sessions.store().head(session_id)?.ok_or(Error::SessionNotFound { session_id })
    }

    pub(super) fn status_of(&self, session_id: u64, head: &Head) -> SessionStatus {
        head.status(session_id, self.sessions.cached_tokens(session_id))
    }

    fn check_session_counts(&self) -> Result<(), Error> {
        let store = self.sessions.store();
        check_limit("max_sessions", self.config.max_sessions.into(), store.len() + 1)?;
        let max = self.config.max_sessions_per_principal.into();
        check_limit("max_sessions_per_principal", max, store.index().len_of(&self.env.caller()) + 1)
    }

    /// What a session begins with: its first tokens and its options, within the limits.
    fn beginning(
        &self,
        serving: &Serving,
        input: SessionInput,
        options: SessionOptions,
    ) -> Result<(Vec<u32>, CoreOptions), Error> {
        self.check_input(&input, Some(&options))?;
        let now = options.now_seconds.unwrap_or_else(|| self.now_seconds());
        let kv_cache = self.config.kv_cache_of(&serving.model, options.kv_cache_bits)?;
        let options = CoreOptions { kv_cache, ..CoreOptions::try_from(options)? };
        let tokens = first_tokens(serving, input, &options.input, now)?;
        self.check_positions(&serving.model, kv_cache, tokens.len(), options.max_tokens)?;
        Ok((tokens, options))
    }

    /// Tokens that go on with a session.
    fn more_tokens(&self, serving: &Serving, record: &SessionRecord, input: SessionInput) -> Result<Vec<u32>, Error> {
        let (tokenizer, options) = (&serving.model.tokenizer, &record.options().input);
        Ok(match input {
            SessionInput::Tokens(tokens) => tokens,
            SessionInput::Text(text) => prompt::more_text(tokenizer, &text, options.parse_special)?,
            SessionInput::Messages(messages) => {
                let variables = options.variables(Some(self.now_seconds()));
                let (last, messages) = (record.tokens().last().copied(), core_messages(messages)?);
                prompt::next_turn(tokenizer, serving.chat()?, last, &messages, &variables)?
            }
        })
    }

    fn now_seconds(&self) -> i64 {
        (self.env.time_ns() / 1_000_000_000) as i64
    }

    fn check_input(&self, input: &SessionInput, options: Option<&SessionOptions>) -> Result<(), Error> {
        let told = options.map(|options| [&options.tools, &options.chat_template_kwargs]);
        let told: usize = told.into_iter().flatten().flatten().map(String::len).sum();
        let text = match input {
            SessionInput::Text(text) => text.len(),
            SessionInput::Messages(messages) => messages.iter().map(message_bytes).sum(),
            SessionInput::Tokens(tokens) => {
                check_limit("max_session_tokens", self.config.max_session_tokens.into(), tokens.len() as u64)?;
                0
            }
        };
        check_limit("max_input_bytes", self.config.max_input_bytes.into(), (told + text) as u64)
    }

    /// Checks that the session's cache fits the heap beside those that are being advanced.
    pub(super) fn check_heap(&self, id: u64, head: &Head) -> Result<(), Error> {
        let serving = self.models.ready(self.directory.get())?;
        let bytes = head.cache_bytes(&serving.model);
        self.sessions.check_heap(id, bytes, self.config.cache_heap_bytes, self.env.time_ns())
    }

    /// Checks that a session of `given` tokens that generates `max_tokens` more is within the limits.
    fn check_positions(
        &self,
        model: &Model,
        kv_cache: CachePrecision,
        given: usize,
        max_tokens: u32,
    ) -> Result<(), Error> {
        let positions = given as u64 + u64::from(max_tokens);
        check_limit("max_session_tokens", self.config.max_session_tokens.into(), positions)?;
        let cached = positions.min(model.config.context_length as u64);
        check_limit("cache_heap_bytes", self.config.cache_heap_bytes, model.cache_bytes(cached as usize, kv_cache))
    }
}

/// A call in its parts, of which the first began with the message. What comes after `now`, the answer, is in none.
fn profile_parts(start: u64, work: &Work, now: u64) -> Vec<ProfilePart> {
    let part = |part: &str, instructions, reads| ProfilePart { part: part.to_owned(), instructions, reads };
    let stages = work.spent.iter().map(|spent| part(spent.stage.name(), spent.count, spent.reads));
    let before = [part("argument", start, 1), part("session load", work.started.saturating_sub(start), 1)];
    before.into_iter().chain(stages).chain([part("session store", now.saturating_sub(work.ended), 1)]).collect()
}

/// What a message counts for: its text, and what the template adds at least.
fn message_bytes(message: &ChatMessage) -> usize {
    let text = match message {
        ChatMessage::System(text) | ChatMessage::User(text) | ChatMessage::Assistant(text) => text.content.len(),
        ChatMessage::AssistantToolCalls(calls) => calls.content.len() + calls.tool_calls.len(),
        ChatMessage::Tool(answer) => {
            let more: usize = [&answer.tool_call_id, &answer.name].into_iter().flatten().map(String::len).sum();
            answer.content.len() + more
        }
    };
    text + 16
}

fn first_tokens(serving: &Serving, input: SessionInput, options: &InputOptions, now: i64) -> Result<Vec<u32>, Error> {
    let tokenizer = &serving.model.tokenizer;
    Ok(match input {
        SessionInput::Tokens(tokens) => tokens,
        SessionInput::Text(text) => prompt::text(tokenizer, &text, options.parse_special)?,
        SessionInput::Messages(messages) => {
            let (messages, variables) = (core_messages(messages)?, options.variables(Some(now)));
            prompt::conversation(tokenizer, serving.chat()?, &messages, &variables)?
        }
    })
}

fn core_messages(messages: Vec<ChatMessage>) -> Result<Vec<model_core::chat::ChatMessage>, Error> {
    messages.into_iter().map(TryInto::try_into).collect()
}

//! A user of the soak: keeps some sessions going at random, knows the native answers, and notes everything that differs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candid::{CandidType, Principal};
use canister::api::*;
use end_to_end::{CallKind, Generation, Host, Icllama, Native, Outcome, is_finished};
use model_core::fixtures::SplitMix64;
use serde::de::DeserializeOwned;

use super::tally::Tally;

/// Sessions that a user keeps, which is also the quota.
pub const SESSIONS: u32 = 2;
/// Calls that the rest of a session may take.
const PATIENCE: usize = 2_000;

/// What is asked, and what the native run answered.
pub struct Question {
    /// Argument of `session_create`.
    pub arg: SessionCreateArg,
    /// The native answer.
    pub answer: Generation,
    /// The text of as many of its tokens as the index says: a character that is cut is shown as such.
    pub texts: Vec<String>,
}

impl Question {
    /// Asks natively.
    pub fn new(arg: SessionCreateArg, native: &Native) -> Self {
        let answer = native.generate(&arg).0;
        let cut = |max_tokens: usize| {
            let options = SessionOptions { max_tokens: Some(max_tokens as u32), ..arg.options.clone() };
            native.generate(&SessionCreateArg { options, ..arg.clone() }).0.text
        };
        let texts = [String::new()].into_iter().chain((1..=answer.digests.len()).map(cut)).collect();
        Self { arg, answer, texts }
    }

    /// Whether a generation that was cancelled is the beginning of the answer.
    fn begins_with(&self, part: &Generation) -> bool {
        self.answer.tokens.starts_with(&part.tokens)
            && self.answer.digests.starts_with(&part.digests)
            && self.answer.logprobs.starts_with(&part.logprobs)
            && part.digests.len() == part.tokens.len() - part.prompt_tokens as usize
            && self.texts.get(part.digests.len()) == Some(&part.text)
    }
}

/// A session as its owner knows it.
#[derive(Clone, Copy)]
struct Held {
    id: u64,
    question: usize,
    /// Tokens that it has at least.
    generated: u32,
}

/// A user.
pub struct User {
    principal: Principal,
    questions: Arc<Vec<Question>>,
    random: SplitMix64,
    held: Vec<Held>,
    /// The session that was deleted last.
    deleted: Option<u64>,
    /// What happened so far.
    pub tally: Tally,
}

impl User {
    /// A user without sessions; other seeds do other things.
    pub fn new(principal: Principal, questions: Arc<Vec<Question>>, seed: u64) -> Self {
        let random = SplitMix64::new(seed);
        Self { principal, questions, random, held: Vec::new(), deleted: None, tally: Tally::default() }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    /// Makes one call or a few, chosen at random.
    pub fn act<H: Host>(&mut self, icllama: &mut Icllama<H>) {
        if self.held.len() < SESSIONS as usize {
            return self.create(icllama);
        }
        let index = self.below(self.held.len() as u64) as usize;
        match self.below(40) {
            0..22 => self.advance(icllama, index),
            22..27 => self.run(icllama, index),
            27..34 => self.read(icllama, index),
            34 => self.cancel(icllama, index),
            35 => self.delete(icllama, index),
            36 => self.one_too_many(icllama),
            37 => self.look_for_deleted(icllama),
            _ => self.list(icllama),
        }
    }

    /// Brings all sessions to their end and deletes them.
    pub fn end<H: Host>(&mut self, icllama: &mut Icllama<H>) {
        for _ in 0..PATIENCE {
            let Some(last) = self.held.len().checked_sub(1) else { return };
            let refused = self.tally.refused.values().sum::<u64>();
            self.advance(icllama, last);
            if self.tally.refused.values().sum::<u64>() > refused {
                icllama.host.advance(Duration::from_secs(1));
            }
        }
        self.tally.unexpected(format!("{} sessions did not end", self.held.len()));
    }

    /// One call; a reject by the platform is never expected.
    fn ask<T: CandidType + DeserializeOwned, H: Host>(
        &mut self,
        icllama: &mut Icllama<H>,
        (kind, method): (CallKind, &str),
        arg: impl CandidType,
    ) -> Option<Result<T, Error>> {
        let begun = Instant::now();
        let outcome = icllama.as_sender(self.principal, |icllama| icllama.call::<T>(kind, method, (arg,)));
        self.tally.called(begun.elapsed());
        match outcome {
            Outcome::Ok(answer) => Some(Ok(answer)),
            Outcome::Refused(error) => Some(Err(error)),
            Outcome::Rejected(reject) => {
                self.tally.unexpected(format!("{method}: {reject:?}"));
                None
            }
        }
    }

    /// One call about a session that is there: it may only be refused because the model is loading or caches are full.
    fn about<T: CandidType + DeserializeOwned, H: Host>(
        &mut self,
        icllama: &mut Icllama<H>,
        method: (CallKind, &str),
        index: usize,
        arg: impl CandidType,
    ) -> Option<T> {
        match self.ask(icllama, method, arg)? {
            Ok(answer) => return Some(answer),
            Err(error @ (Error::ModelLoading { .. } | Error::HeapBusy { .. })) => self.tally.refused(&error),
            Err(Error::SessionNotFound { session_id }) => {
                self.tally.lost += 1;
                self.tally.unexpected(format!("{}: session {session_id} was lost", method.1));
                self.held.remove(index);
            }
            Err(error) => self.tally.unexpected(format!("{}: {error:?}", method.1)),
        }
        None
    }

    fn create<H: Host>(&mut self, icllama: &mut Icllama<H>) {
        let question = self.below(self.questions.len() as u64) as usize;
        let arg = self.questions[question].arg.clone();
        match self.ask::<SessionCreateOk, _>(icllama, (CallKind::Update, "session_create"), arg) {
            Some(Ok(created)) => {
                self.tally.created += 1;
                self.held.push(Held { id: created.session_id, question, generated: 0 });
            }
            Some(Err(error @ Error::ModelLoading { .. })) => self.tally.refused(&error),
            Some(Err(error)) => self.tally.unexpected(format!("session_create: {error:?}")),
            None => {}
        }
    }

    fn advance<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) {
        let held = self.held[index];
        let (max_tokens, budget) = (self.below(12) as u32 + 1, 1 << (16 + self.below(16)));
        let arg = SessionAdvanceArg {
            session_id: held.id,
            max_instructions: Some(budget),
            max_tokens: Some(max_tokens),
            profile: None,
        };
        let method = (CallKind::Update, "session_advance");
        let Some(progress) = self.about::<SessionProgress, _>(icllama, method, index, arg) else { return };
        let answer = &self.questions[held.question].answer;
        let end = (answer.prompt_tokens + progress.status.generated_tokens) as usize;
        let native = answer.tokens.get(end - progress.tokens.len()..end);
        let text = answer.text.get(progress.text_from as usize..);
        if native != Some(&progress.tokens) || !text.is_some_and(|text| text.starts_with(&progress.text)) {
            self.tally.unexpected(format!("question {}: {progress:?} is not what came natively", held.question));
        }
        self.met(icllama, index, &progress.status);
    }

    fn run<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) {
        let arg = SessionIdArg { session_id: self.held[index].id };
        let status = self.about::<SessionStatus, _>(icllama, (CallKind::Update, "session_run"), index, arg);
        if let Some(status) = status {
            self.met(icllama, index, &status);
        }
    }

    fn read<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) {
        let held = self.held[index];
        let arg = SessionOutputArg { session_id: held.id, from: 0 };
        let output = self.about::<SessionOutputOk, _>(icllama, (CallKind::Query, "session_output"), index, arg);
        let Some(output) = output else { return };
        if !self.questions[held.question].answer.text.starts_with(&output.text) {
            self.tally.unexpected(format!("question {}: {output:?} is not what came natively", held.question));
        }
        self.met(icllama, index, &output.status);
    }

    fn cancel<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) {
        let arg = SessionIdArg { session_id: self.held[index].id };
        let status = self.about::<SessionStatus, _>(icllama, (CallKind::Update, "session_cancel"), index, arg);
        if let Some(status) = status {
            self.met(icllama, index, &status);
        }
    }

    /// Notes how far a session is; one that is over is compared as a whole and deleted.
    fn met<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize, status: &SessionStatus) {
        let held = &mut self.held[index];
        if status.generated_tokens < held.generated {
            let what = format!("session {} had {} tokens, now {}", held.id, held.generated, status.generated_tokens);
            self.tally.unexpected(what);
        }
        self.held[index].generated = status.generated_tokens;
        if let Some(error) = &status.error {
            self.tally.unexpected(format!("session_run stopped: {error:?}"));
        }
        if is_finished(status) {
            self.compare(icllama, index);
        }
    }

    fn compare<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) {
        let held = self.held[index];
        let Some(generation) = self.generation(icllama, index) else { return };
        let question = &self.questions[held.question];
        let tokens = generation.digests.len() as u64;
        match generation.finish {
            Some(FinishReason::Cancelled) if question.begins_with(&generation) => self.tally.cancelled += 1,
            _ if generation == question.answer => self.tally.finished += 1,
            _ => self.tally.unexpected(format!("question {}: {generation:?} differs", held.question)),
        }
        self.tally.tokens += tokens;
        self.remove(icllama, index);
    }

    fn generation<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) -> Option<Generation> {
        let session_id = self.held[index].id;
        let page = SessionPageArg { session_id, from: None, limit: Some(10_000) };
        let query = |method| (CallKind::Query, method);
        let output: SessionOutputOk =
            self.about(icllama, query("session_output"), index, SessionOutputArg { session_id, from: 0 })?;
        let tokens: SessionTokensOk = self.about(icllama, query("session_tokens"), index, page)?;
        let digests: SessionDigestsOk = self.about(icllama, query("session_digests"), index, page)?;
        let logprobs: SessionLogprobsOk = self.about(icllama, query("session_logprobs"), index, page)?;
        let finish = match output.status.state {
            SessionState::Finished(reason) => Some(reason),
            _ => None,
        };
        Some(Generation {
            prompt_tokens: output.status.prompt_tokens,
            tokens: tokens.tokens,
            digests: digests.digests,
            logprobs: logprobs.logprobs,
            text: output.text,
            finish,
        })
    }

    fn delete<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) {
        if self.remove(icllama, index) {
            self.tally.abandoned += 1;
        }
    }

    fn remove<H: Host>(&mut self, icllama: &mut Icllama<H>, index: usize) -> bool {
        let session_id = self.held[index].id;
        let arg = SessionIdArg { session_id };
        let deleted = self.about::<(), _>(icllama, (CallKind::Update, "session_delete"), index, arg).is_some();
        if deleted {
            self.deleted = Some(session_id);
            self.held.remove(index);
        }
        deleted
    }

    fn one_too_many<H: Host>(&mut self, icllama: &mut Icllama<H>) {
        let arg = self.questions[0].arg.clone();
        match self.ask::<SessionCreateOk, _>(icllama, (CallKind::Update, "session_create"), arg) {
            Some(Err(error @ (Error::LimitExceeded { .. } | Error::ModelLoading { .. }))) => self.tally.refused(&error),
            Some(other) => self.tally.unexpected(format!("a session beyond the quota: {other:?}")),
            None => {}
        }
    }

    fn look_for_deleted<H: Host>(&mut self, icllama: &mut Icllama<H>) {
        let Some(session_id) = self.deleted else { return };
        let arg = SessionOutputArg { session_id, from: 0 };
        match self.ask::<SessionOutputOk, _>(icllama, (CallKind::Query, "session_output"), arg) {
            Some(Err(error @ Error::SessionNotFound { .. })) => self.tally.refused(&error),
            Some(other) => self.tally.unexpected(format!("a deleted session: {other:?}")),
            None => {}
        }
    }

    fn list<H: Host>(&mut self, icllama: &mut Icllama<H>) {
        let arg = SessionListArg::default();
        let Some(Ok(list)) = self.ask::<SessionListOk, _>(icllama, (CallKind::Query, "session_list"), arg) else {
            return self.tally.unexpected("sessions cannot be listed".to_owned());
        };
        let mut listed: Vec<_> = list.sessions.iter().map(|session| session.status.session_id).collect();
        let mut held: Vec<_> = self.held.iter().map(|held| held.id).collect();
        listed.sort_unstable();
        held.sort_unstable();
        if listed != held {
            self.tally.unexpected(format!("{listed:?} are listed, {held:?} should be"));
        }
    }
}

//! The canister's promises as plainly as they can be written: sessions are those of the native engine, and everything is looked
//! up by going through all of it.

use std::collections::BTreeMap;

use candid::Principal;
use canister::api::*;
use end_to_end::Native;
use model_core::budget::Unlimited;
use model_core::session::{Session, SessionOptions as CoreOptions, Step};

use super::action::question;
use super::files;
use super::uploads::Upload;

const DAY_NS: u64 = 86_400_000_000_000;

/// A session.
pub struct Kept {
    pub id: u64,
    pub owner: Principal,
    pub file: usize,
    pub session: Session,
    pub created_ns: u64,
    pub updated_ns: u64,
    pub running: bool,
    pub error: Option<Error>,
}

/// Everything.
pub struct Model {
    pub config: Config,
    pub now_ns: u64,
    pub upload: Option<Upload>,
    pub next_upload: u64,
    pub last_committed: Option<u64>,
    pub current: Option<usize>,
    pub candidate: Option<usize>,
    pub rejected: Option<usize>,
    pub serving: Option<usize>,
    pub sessions: Vec<Kept>,
    /// Sessions that run, in the order in which they began to.
    pub runs: Vec<u64>,
    /// Tokens by owner and day.
    pub used: BTreeMap<(Principal, u64), u64>,
}

pub type Reply<T> = Result<T, Error>;

fn native(file: usize) -> &'static Native {
    files()[file].native.as_ref().unwrap()
}

fn limit(limit: &str, max: u64, needed: u64) -> Reply<()> {
    if needed <= max { Ok(()) } else { Err(Error::LimitExceeded { limit: limit.into(), max, needed }) }
}

impl Kept {
    pub fn finish(&self) -> Option<FinishReason> {
        self.session.finish_reason().map(Into::into)
    }

    pub fn status(&self) -> SessionStatus {
        let (tokens, cached) = (self.session.tokens().len(), self.session.cached_tokens());
        SessionStatus {
            session_id: self.id,
            state: match self.finish() {
                Some(reason) => SessionState::Finished(reason),
                None if cached + 1 >= tokens => SessionState::Generating,
                None => SessionState::Prefill,
            },
            running: self.running,
            prompt_tokens: (tokens - self.session.generated_tokens()) as u32,
            cached_tokens: cached as u32,
            generated_tokens: self.session.generated_tokens() as u32,
            remaining_tokens: self.session.remaining_tokens(),
            text_bytes: self.session.full_text().len() as u64,
            kv_cache_bits: 16,
            error: self.error.clone(),
        }
    }
}

impl Model {
    /// Freshly installed with these settings.
    pub fn new(config: Config, now_ns: u64) -> Self {
        Self {
            config,
            now_ns,
            upload: None,
            next_upload: 1,
            last_committed: None,
            current: None,
            candidate: None,
            rejected: None,
            serving: None,
            sessions: Vec::new(),
            runs: Vec::new(),
            used: BTreeMap::new(),
        }
    }

    pub fn is_controller(&self, who: Principal) -> bool {
        who == end_to_end::controller()
    }

    pub fn operates(&self, who: Principal) -> bool {
        self.is_controller(who) || self.config.operators.contains(&who)
    }

    /// Whether they may generate.
    pub fn uses(&self, who: Principal) -> bool {
        self.operates(who)
            || match self.config.generate_access {
                GenerateAccess::Controllers => false,
                GenerateAccess::AllowList => self.config.users.contains(&who),
                GenerateAccess::Authenticated | GenerateAccess::Anyone => true,
            }
    }

    fn day(&self) -> u64 {
        self.now_ns / DAY_NS
    }

    pub fn used(&self, who: Principal) -> u64 {
        self.used.get(&(who, self.day())).copied().unwrap_or(0)
    }

    pub fn day_ends_ns(&self) -> u64 {
        (self.day() + 1) * DAY_NS
    }

    /// Tokens that may still be computed for them today.
    fn left(&self, who: Principal) -> Reply<u64> {
        let (max, used) = (self.config.max_tokens_per_day, self.used(who));
        if self.operates(who) {
            Ok(u64::MAX)
        } else if used >= max {
            let (quota, ends_ns) = ("max_tokens_per_day".into(), Some(self.day_ends_ns()));
            Err(Error::QuotaExceeded { quota, max, used, ends_ns })
        } else {
            Ok(max - used)
        }
    }

    pub fn is_expired(&self, kept: &Kept) -> bool {
        let ttl_ns = self.config.session_ttl_seconds * 1_000_000_000;
        ttl_ns > 0 && kept.updated_ns + ttl_ns <= self.now_ns
    }

    /// The session if it is theirs.
    pub fn owned(&self, who: Principal, id: u64) -> Reply<usize> {
        let found = self.sessions.iter().position(|kept| kept.id == id && kept.owner == who && !self.is_expired(kept));
        found.ok_or(Error::SessionNotFound { session_id: id })
    }

    fn owned_or_controlled(&self, who: Principal, id: u64) -> Reply<usize> {
        if !self.is_controller(who) {
            return self.owned(who, id);
        }
        self.sessions.iter().position(|kept| kept.id == id).ok_or(Error::SessionNotFound { session_id: id })
    }

    /// A session with an id that only the canister knows: 0 for now. Answers the tokens of its prompt.
    pub fn create(&mut self, who: Principal, asked: usize) -> Reply<u32> {
        limit("max_sessions", self.config.max_sessions.into(), self.sessions.len() as u64 + 1)?;
        let own = self.sessions.iter().filter(|kept| kept.owner == who).count() as u64;
        limit("max_sessions_per_principal", self.config.max_sessions_per_principal.into(), own + 1)?;
        self.left(who)?;
        let file = self.serving.ok_or_else(|| self.not_ready())?;
        let question = question(asked);
        let prompt = native(file).prompt(&question);
        let prompt_tokens = prompt.len() as u32;
        let session = Session::new(&native(file).model, prompt, CoreOptions::try_from(question.options)?)?;
        let (created_ns, updated_ns) = (self.now_ns, self.now_ns);
        self.sessions.push(Kept {
            id: 0,
            owner: who,
            file,
            session,
            created_ns,
            updated_ns,
            running: false,
            error: None,
        });
        Ok(prompt_tokens)
    }

    fn not_ready(&self) -> Error {
        if self.target().is_some() { self.loading() } else { Error::ModelMissing }
    }

    pub fn advance(&mut self, who: Principal, id: u64, max_tokens: Option<u32>) -> Reply<SessionProgress> {
        let at = self.owned(who, id)?;
        if self.sessions[at].finish().is_none() && self.serving.is_none() {
            return Err(self.not_ready());
        }
        self.compute(at, max_tokens)
    }

    /// Computes until enough is generated, or the quota of the day is used up.
    fn compute(&mut self, at: usize, max_tokens: Option<u32>) -> Reply<SessionProgress> {
        let (text_from, tokens_from) =
            (self.sessions[at].session.full_text().len(), self.sessions[at].session.tokens().len());
        if self.sessions[at].finish().is_none() {
            let owner = self.sessions[at].owner;
            let left = self.left(owner)?;
            let serving = self.serving.ok_or_else(|| self.not_ready())?;
            if self.sessions[at].file != serving {
                return Err(Error::ModelChanged);
            }
            let computed = step(&mut self.sessions[at].session, native(serving), left, max_tokens);
            *self.used.entry((owner, self.day())).or_default() += computed;
            let kept = &mut self.sessions[at];
            kept.updated_ns = self.now_ns;
            if kept.finish().is_some() && kept.running {
                self.rest(at, None);
            }
        }
        let kept = &self.sessions[at];
        Ok(SessionProgress {
            status: kept.status(),
            text: kept.session.full_text()[text_from..].to_owned(),
            text_from: text_from as u64,
            tokens: kept.session.tokens()[tokens_from..].to_vec(),
            instructions: 0,
            profile: None,
        })
    }

    pub fn run(&mut self, who: Principal, id: u64) -> Reply<SessionStatus> {
        let at = self.owned(who, id)?;
        if self.sessions[at].finish().is_none() {
            let (max, used) = (self.config.max_runs_per_principal, self.runs_of(who));
            if !self.sessions[at].running && used >= max as usize && !self.operates(who) {
                let quota = "max_runs_per_principal".into();
                return Err(Error::QuotaExceeded { quota, max: max.into(), used: used as u64, ends_ns: None });
            }
            self.left(who)?;
            let kept = &mut self.sessions[at];
            kept.error = None;
            if !kept.running {
                kept.running = true;
                self.runs.push(id);
            }
        }
        Ok(self.sessions[at].status())
    }

    pub fn runs_of(&self, who: Principal) -> usize {
        self.sessions.iter().filter(|kept| kept.owner == who && kept.running).count()
    }

    fn rest(&mut self, at: usize, error: Option<Error>) {
        let kept = &mut self.sessions[at];
        (kept.running, kept.error) = (false, error);
        self.runs.retain(|run| *run != kept.id);
    }

    pub fn append(&mut self, who: Principal, id: u64, tokens: &[u32], max_tokens: u32) -> Reply<SessionAppendOk> {
        let at = self.owned(who, id)?;
        if self.sessions[at].finish().is_none() {
            return Err(Error::SessionNotFinished { session_id: id });
        }
        self.left(who)?;
        let serving = self.serving.ok_or_else(|| self.not_ready())?;
        let (now_ns, kept) = (self.now_ns, &mut self.sessions[at]);
        if kept.file != serving {
            return Err(Error::ModelChanged);
        }
        kept.session.append(&native(serving).model, tokens.to_vec(), max_tokens)?;
        kept.updated_ns = now_ns;
        Ok(SessionAppendOk { status: kept.status(), appended_tokens: tokens.len() as u32 })
    }

    pub fn cancel(&mut self, who: Principal, id: u64) -> Reply<SessionStatus> {
        let at = self.owned_or_controlled(who, id)?;
        let error = self.sessions[at].error.take();
        self.rest(at, error);
        let (now_ns, kept) = (self.now_ns, &mut self.sessions[at]);
        kept.session.cancel();
        kept.updated_ns = now_ns;
        Ok(kept.status())
    }

    pub fn delete(&mut self, who: Principal, id: u64) -> Reply<()> {
        let at = self.owned_or_controlled(who, id)?;
        self.sessions.remove(at);
        self.runs.retain(|run| *run != id);
        Ok(())
    }

    pub fn upgrade(&mut self) {
        self.serving = None;
        self.sessions.iter_mut().for_each(|kept| kept.session.drop_cache());
        self.runs.sort();
    }

    /// Time passes, and everything that goes on by itself comes to its end.
    pub fn pass(&mut self, seconds: u64) {
        self.now_ns += seconds * 1_000_000_000;
        while self.target().is_some() {
            self.load().ok();
        }
        let expired: Vec<u64> = self.sessions.iter().filter(|kept| self.is_expired(kept)).map(|kept| kept.id).collect();
        self.sessions.retain(|kept| !expired.contains(&kept.id));
        self.runs.retain(|run| !expired.contains(run));
        for id in self.runs.clone() {
            if self.serving.is_none() {
                break;
            }
            let at = self.sessions.iter().position(|kept| kept.id == id).unwrap();
            while self.sessions[at].running {
                if let Err(error) = self.compute(at, None) {
                    self.rest(at, Some(error));
                }
            }
        }
    }
}

/// Steps a session until enough is computed; how many tokens that were.
fn step(session: &mut Session, native: &Native, left: u64, max_tokens: Option<u32>) -> u64 {
    let (before, mut made) = (session.cached_tokens(), 0);
    loop {
        match session.step(&native.model, &mut Unlimited).unwrap() {
            Step::Finished(_) => break,
            Step::Token { .. } => made += 1,
            _ => {}
        }
        let computed = session.cached_tokens().saturating_sub(before) as u64;
        if computed >= left || max_tokens.is_some_and(|max| made >= max) {
            break;
        }
    }
    session.cached_tokens().saturating_sub(before) as u64
}

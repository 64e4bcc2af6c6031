//! Sessions at work: the heap's sessions with their caches, what is saved of them after every call, which
//! are dropped when the heap has no room, which run by themselves. Knows nothing of callers and roles.

use std::collections::BTreeMap;

use candid::Principal;
use ic_stable_structures::Memory;
use model_core::budget::Budget;
use model_core::model::{CachePrecision, Model};
use model_core::profile::{Counter, Spent};
use model_core::session::{Session, SessionOptions, SessionRecord, Step};

use crate::api::Error;
use crate::load::Serving;
use crate::memory::Memories;
use crate::queue::{Cache, Queue};
use crate::session_head::{Driver, Head, Usage};
use crate::session_store::SessionStore;
use crate::usage::{TokenUsage, day_of};

/// A session that was advanced this recently is taken to be advanced again.
const IN_USE_NS: u64 = 60_000_000_000;
/// Sessions in the heap from which on those of which nothing is computed are dropped: every call looks through all.
const MANY_LIVE: usize = 64;

/// A session in the heap. It is the same as its record, plus the cache.
struct Live {
    session: Session,
    /// Tick of the last use.
    used: u64,
    /// Bytes its cache can come to take; 0 if the session has not been computed with, or is finished.
    reserved_bytes: u64,
    /// Time of the last use.
    used_ns: u64,
}

/// What an advance did.
#[derive(Debug, Clone, PartialEq)]
pub struct Advanced {
    /// The head after it.
    pub head: Head,
    /// The new text.
    pub text: String,
    /// Where it begins in all text.
    pub text_from: u64,
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Where the instructions went, if that was asked for.
    pub work: Option<Work>,
}

/// The model's part of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The counter when it began.
    pub started: u64,
    /// The counter when it ended.
    pub ended: u64,
    /// What the stages took.
    pub spent: Vec<Spent>,
}

/// All sessions, stored and live.
pub struct Sessions<M: Memory> {
    store: SessionStore<M>,
    usage: TokenUsage<M>,
    queue: Queue,
    live: BTreeMap<u64, Live>,
    tick: u64,
}

impl<M: Memory + Clone> Sessions<M> {
    /// Opens the sessions as they were left; those that ran go on running, and those that were to end with a call do so,
    /// because calls do not survive an upgrade.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn open(memories: &Memories<M>, now_ns: u64) -> Result<Self, Error> {
        let today = day_of(now_ns);
        let (mut usage, mut queue) = (TokenUsage::open(memories, today), Queue::default());
        let mut left_over = Vec::new();
        let store = SessionStore::open(memories, |id, head| {
            if head.usage.day == today {
                usage.add(head.owner, today, head.usage.tokens.into());
            }
            match head.driver {
                Driver::Owner => {}
                Driver::Canister => queue.push(id, head),
                Driver::Call => left_over.push((id, head.clone())),
            }
        })?;
        let mut sessions = Self { store, usage, queue, live: BTreeMap::new(), tick: 0 };
        left_over.iter().for_each(|(id, head)| sessions.delete(*id, head, now_ns));
        Ok(sessions)
    }
}

impl<M: Memory> Sessions<M> {
    /// What is stored.
    pub fn store(&self) -> &SessionStore<M> {
        &self.store
    }

    /// Who waits for a turn.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Tokens computed for `owner` on the day of `now_ns`.
    pub fn tokens_of(&self, owner: &Principal, now_ns: u64) -> u64 {
        self.usage.used(owner, day_of(now_ns))
    }

    /// Sessions in the heap.
    #[cfg(test)]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Heap bytes of all keys and values.
    pub fn cache_bytes(&self) -> u64 {
        self.live.values().map(|live| live.session.cache_bytes() as u64).sum()
    }

    /// Tokens of a session that the heap has computed.
    pub fn cached_tokens(&self, id: u64) -> u32 {
        self.live.get(&id).map_or(0, |live| live.session.cached_tokens() as u32)
    }

    /// The logits behind the last token, if the heap has them.
    pub fn logits(&self, id: u64) -> Option<&[f32]> {
        self.live.get(&id).map(|live| live.session.logits()).filter(|logits| !logits.is_empty())
    }

    /// Drops all caches: the model they belong to is gone.
    pub fn forget_live(&mut self) {
        self.live.clear();
    }

    /// Stores a new session. One that answers a call waits for its turns from now on.
    ///
    /// # Errors
    /// [`Error::StableMemoryFull`].
    pub fn create(&mut self, new: NewSession<'_>, session: Session, now_ns: u64) -> Result<(), Error> {
        let NewSession { id, owner, driver, serving } = new;
        let head = Head {
            owner,
            model: serving.identity(),
            created_ns: now_ns,
            updated_ns: now_ns,
            driver,
            finish: None,
            prompt_tokens: 0,
            generated_tokens: 0,
            remaining_tokens: 0,
            text_bytes: 0,
            cache_positions: 0,
            kv_cache: CachePrecision::default(),
            usage: Usage::default(),
            record_bytes: 0,
            error: None,
        };
        self.insert_live(id, session);
        let head = self.save(id, head, now_ns)?;
        if driver == Driver::Call {
            self.queue.push(id, &head);
        }
        Ok(())
    }

    /// Computes until the budget is exhausted, `max_tokens` are generated or the session is finished, and
    /// saves. A session that failed is saved too, with what it had achieved.
    ///
    /// # Errors
    /// [`Error::ModelChanged`], [`Error::StableMemoryFull`], or what the model says.
    pub fn advance(
        &mut self,
        id: u64,
        head: Head,
        serving: &Serving,
        budget: &mut dyn Budget,
        limits: Limits,
    ) -> Result<Advanced, Error> {
        self.store.ensure_room(head.record_bytes.into())?;
        let session = self.wake(id, &head, serving)?;
        let (text_from, tokens_from) = (session.full_text().len(), session.tokens().len());
        let cached = session.cached_tokens();
        session.set_profile(limits.profile);
        let worked = work(session, &serving.model, budget, limits);
        let computed = session.cached_tokens().saturating_sub(cached) as u32;
        let profile = session.profile();
        let spent = profile.range().map(|(started, ended)| Work { started, ended, spent: profile.spent() });
        session.set_profile(None);
        let text = session.full_text().get(text_from..).unwrap_or_default().to_owned();
        let tokens = session.tokens().get(tokens_from..).unwrap_or_default().to_vec();
        let today = day_of(limits.now_ns);
        self.usage.add(head.owner, today, computed.into());
        let before = if head.usage.day == today { head.usage.tokens } else { 0 };
        let usage = Usage { day: today, tokens: before.saturating_add(computed) };
        let head = self.save(id, Head { usage, ..head }, limits.now_ns)?;
        self.reserve(id, &head, &serving.model, limits.now_ns);
        self.evict(id, limits.cache_bytes);
        worked.map(|()| Advanced { head, text, text_from: text_from as u64, tokens, work: spent })
    }

    /// Checks that a cache of `bytes` fits the heap beside those of sessions that are in use. Otherwise sessions
    /// whose prompts take several calls would drop each other's caches for ever, and none would get through.
    ///
    /// # Errors
    /// [`Error::HeapBusy`].
    pub fn check_heap(&self, id: u64, bytes: u64, cache_bytes: u64, now_ns: u64) -> Result<(), Error> {
        let in_use = |live: &&Live| now_ns < live.used_ns.saturating_add(IN_USE_NS);
        let others = self.live.iter().filter(|(other, _)| **other != id).map(|(_, live)| live).filter(in_use);
        let reserved: u64 = others.map(|live| live.reserved_bytes).sum();
        if reserved == 0 || reserved.saturating_add(bytes) <= cache_bytes {
            return Ok(());
        }
        Err(Error::HeapBusy { cache_heap_bytes: cache_bytes, reserved_bytes: reserved, needed_bytes: bytes })
    }

    /// Goes on with a finished session after `tokens`.
    ///
    /// # Errors
    /// [`Error::ModelChanged`], [`Error::StableMemoryFull`], or tokens that do not fit.
    pub fn append(
        &mut self,
        id: u64,
        head: Head,
        serving: &Serving,
        tokens: Vec<u32>,
        max_tokens: u32,
        now_ns: u64,
    ) -> Result<Head, Error> {
        let session = self.wake(id, &head, serving)?;
        session.append(&serving.model, tokens, max_tokens)?;
        self.save(id, head, now_ns)
    }

    /// Makes a finished session what [`Session::new`] makes of `prompt` and `options`, keeping what both begin with. Also
    /// returns of how many tokens keys and values were kept.
    ///
    /// # Errors
    /// [`Error::ModelChanged`], [`Error::StableMemoryFull`], or input that does not fit.
    pub fn restart(
        &mut self,
        id: u64,
        head: Head,
        serving: &Serving,
        prompt: Vec<u32>,
        options: SessionOptions,
        now_ns: u64,
    ) -> Result<(Head, u32), Error> {
        let session = self.wake(id, &head, serving)?;
        session.restart(&serving.model, prompt, options)?;
        let kept = session.cached_tokens() as u32;
        Ok((self.save(id, head, now_ns)?, kept))
    }

    /// Ends generation. Needs no model, and no room: what is stored grows by next to nothing.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn cancel(&mut self, id: u64, mut head: Head, now_ns: u64) -> Result<Head, Error> {
        self.queue.remove(id, &head.owner);
        head.driver = Driver::Owner;
        let record = match self.live.get_mut(&id) {
            Some(live) => {
                live.session.cancel();
                live.session.record()
            }
            None => {
                let mut record = self.store.record(id)?;
                record.cancel();
                record
            }
        };
        Ok(self.put(id, head, &record, record.to_bytes(), now_ns))
    }

    /// Forgets a session.
    pub fn delete(&mut self, id: u64, head: &Head, now_ns: u64) {
        self.queue.remove(id, &head.owner);
        self.live.remove(&id);
        self.store.remove(id, &head.owner);
        self.usage.keep(&head.owner, head.usage, day_of(now_ns));
    }

    /// Lets a session run by itself from now on.
    pub fn run(&mut self, id: u64, mut head: Head) -> Head {
        if head.finish.is_some() || head.driver == Driver::Call {
            return head;
        }
        (head.driver, head.error) = (Driver::Canister, None);
        self.store.put_head(id, &head);
        self.queue.push(id, &head);
        head
    }

    /// Lets a session wait for turns no longer, because it is finished or for `error`.
    pub fn rest(&mut self, id: u64, mut head: Head, error: Option<Error>) -> Head {
        self.queue.remove(id, &head.owner);
        if head.driver == Driver::Canister {
            head.driver = Driver::Owner;
        }
        head.error = error;
        self.store.put_head(id, &head);
        head
    }

    /// The session whose turn it is, see [`Queue::next`].
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn next_turn(&mut self, model: &Model, cache_bytes: u64) -> Result<Option<(u64, Head)>, Error> {
        let bytes = |cache: Cache| model.cache_bytes(cache.positions as usize, cache.precision);
        let Some(id) = self.queue.next(bytes, cache_bytes) else { return Ok(None) };
        match self.store.head(id)? {
            Some(head) => Ok(Some((id, head))),
            None => Err(Error::Damaged { message: format!("session {id} runs but is not stored") }),
        }
    }

    fn insert_live(&mut self, id: u64, session: Session) -> &mut Session {
        self.tick += 1;
        if self.live.len() >= MANY_LIVE {
            let idle = self.live.iter().filter(|(_, live)| live.session.cached_tokens() == 0);
            if let Some(oldest) = idle.min_by_key(|(_, live)| live.used).map(|(id, _)| *id) {
                self.live.remove(&oldest);
            }
        }
        let live = Live { session, used: self.tick, reserved_bytes: 0, used_ns: 0 };
        // Not `insert`, which would return what was there before.
        let entry = self.live.entry(id).insert_entry(live);
        &mut entry.into_mut().session
    }

    /// The session in the heap; restored from its record if it is not there.
    fn wake(&mut self, id: u64, head: &Head, serving: &Serving) -> Result<&mut Session, Error> {
        if head.model != serving.identity() {
            return Err(Error::ModelChanged);
        }
        let session = match self.live.remove(&id) {
            Some(live) => live.session,
            None => Session::restore(&serving.model, self.store.record(id)?)?,
        };
        Ok(self.insert_live(id, session))
    }

    fn reserve(&mut self, id: u64, head: &Head, model: &Model, now_ns: u64) {
        let finished = head.finish.is_some();
        if let Some(live) = self.live.get_mut(&id) {
            live.reserved_bytes = if finished { 0 } else { head.cache_bytes(model) };
            live.used_ns = now_ns;
        }
    }

    /// Stores the session in the heap. If that is refused the heap forgets it, so that what is stored stays true.
    fn save(&mut self, id: u64, head: Head, now_ns: u64) -> Result<Head, Error> {
        let Some(record) = self.live.get(&id).map(|live| live.session.record()) else { return Ok(head) };
        let bytes = record.to_bytes();
        if let Err(error) = self.store.ensure_room(bytes.len() as u64) {
            self.live.remove(&id);
            return Err(error);
        }
        Ok(self.put(id, head, &record, bytes, now_ns))
    }

    fn put(&mut self, id: u64, head: Head, record: &SessionRecord, bytes: Vec<u8>, now_ns: u64) -> Head {
        let (tokens, generated) = (record.tokens().len(), record.generated_tokens());
        let remaining_tokens = record.remaining_tokens();
        let head = Head {
            updated_ns: now_ns,
            finish: record.finish_reason().map(Into::into),
            prompt_tokens: (tokens - generated) as u32,
            generated_tokens: generated as u32,
            remaining_tokens,
            text_bytes: record.full_text().len() as u64,
            cache_positions: tokens as u64 + u64::from(remaining_tokens),
            kv_cache: record.options().kv_cache,
            record_bytes: bytes.len() as u32,
            ..head
        };
        self.store.put(id, &head, bytes);
        head
    }

    /// Drops the least recently used caches until all together fit into `max_bytes`; never that of `keep`.
    fn evict(&mut self, keep: u64, max_bytes: u64) {
        let bytes = |live: &Live| live.session.cache_bytes() as u64;
        let mut total = self.cache_bytes();
        while total > max_bytes {
            let others = self.live.iter().filter(|(id, _)| **id != keep);
            let Some(oldest) = others.min_by_key(|(_, live)| live.used).map(|(id, _)| *id) else { return };
            total -= self.live.remove(&oldest).as_ref().map_or(0, bytes);
        }
    }
}

/// What a session begins with, besides its tokens.
pub struct NewSession<'a> {
    /// Its id.
    pub id: u64,
    /// Who makes it.
    pub owner: Principal,
    /// Who advances it.
    pub driver: Driver,
    /// The model.
    pub serving: &'a Serving,
}

/// What bounds one advance, besides the budget.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// New tokens.
    pub max_tokens: Option<u32>,
    /// Tokens computed; a batch of a prompt may pass it.
    pub max_computed: u64,
    /// Tells where the instructions go.
    pub profile: Option<Counter>,
    /// Heap for all caches.
    pub cache_bytes: u64,
    /// The time to be noted.
    pub now_ns: u64,
}

fn work(session: &mut Session, model: &Model, budget: &mut dyn Budget, limits: Limits) -> Result<(), Error> {
    let (mut made, cached) = (0, session.cached_tokens());
    loop {
        match session.step(model, budget)? {
            Step::Finished(_) | Step::Suspended => return Ok(()),
            Step::Token { .. } => made += 1,
            Step::Prefill { .. } => {}
        }
        let computed = session.cached_tokens().saturating_sub(cached) as u64;
        let enough = computed >= limits.max_computed || limits.max_tokens.is_some_and(|max| made >= max.max(1));
        if enough || budget.exhausted() {
            return Ok(());
        }
    }
}

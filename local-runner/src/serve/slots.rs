//! Who is answered when: requests wait in one line, first come first served, and workers take them, each with a
//! conversation of its own. Natively the workers take turns token by token, so that a long answer keeps nobody from a short
//! one.
//!
//! A worker keeps what it computed last. A request goes to the free worker whose conversation it goes on with, so that only
//! what is new is computed; otherwise to the one that was idle longest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Result, bail};
use canister::api;
use model_core::sample::TokenLogprob;
use model_core::session::SessionOptions;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::error::ApiError;
use crate::backend::{Backend, Event, Generation, Input};
use crate::output::note;

/// A backend that a worker can own.
pub type Worker = Box<dyn Backend + Send>;

/// An answer that is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What to continue.
    pub input: Input,
    /// How.
    pub options: SessionOptions,
}

/// What becomes of the asks of a request, which are answered one after the other.
#[derive(Debug)]
pub enum News {
    /// The next answer begins: its prompt is in order.
    Began,
    /// Some of its text, and with `logprobs` the log probabilities of the tokens that brought it, where they are known
    /// by then.
    Piece {
        /// Whole characters; may be empty.
        text: String,
        /// As [`Generation::logprobs`].
        logprobs: Vec<Vec<TokenLogprob>>,
    },
    /// It is over.
    Ended(Box<Generation>),
    /// It failed, and no other follows.
    Failed(ApiError),
}

/// Nobody waits for the answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody waits for the answer any more")]
struct Gone;

/// The line and the workers.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    changed: Condvar,
    /// Most requests that wait.
    limit: usize,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    slots: Vec<Slot>,
    /// Counts assignments.
    time: u64,
}

#[derive(Debug)]
struct Job {
    asks: Vec<Ask>,
    to: UnboundedSender<News>,
}

/// A worker as the line sees it.
#[derive(Debug, Default)]
struct Slot {
    kept: Kept,
    /// When it got its last job.
    used: u64,
    is_busy: bool,
    /// Given to it and not yet taken.
    job: Option<Job>,
}

/// What a worker's conversation consists of.
#[derive(Debug, Default)]
struct Kept {
    text: String,
    /// Bytes of it that were asked; the rest was answered, and may be asked for again.
    asked: usize,
}

impl Kept {
    fn new(ask: &Ask) -> Self {
        let text = spelling(ask);
        Self { asked: text.len(), text }
    }
}

impl Slots {
    /// Starts a worker for each backend; at most `limit` requests wait for one.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(backends: Vec<Worker>, limit: usize) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let slots = backends.iter().map(|_| Slot::default()).collect();
        let state = Mutex::new(State { slots, ..State::default() });
        let slots = Arc::new(Self { state, changed: Condvar::new(), limit, stopped: AtomicBool::new(false) });
        let spawn = |(number, backend): (usize, Worker)| {
            let slots = Arc::clone(&slots);
            let thread = std::thread::Builder::new().name(format!("worker {number}"));
            thread.spawn(move || slots.work(number, backend))
        };
        let threads = backends.into_iter().enumerate().map(spawn).collect::<Result<_, _>>()?;
        Ok((slots, threads))
    }

    /// Puts a request into the line. Dropping the receiver takes it out again, or ends its answer.
    ///
    /// # Errors
    /// [`ApiError::Busy`] if too many wait, [`ApiError::Stopped`] after [`stop`](Self::stop).
    pub fn submit(&self, asks: Vec<Ask>) -> Result<UnboundedReceiver<News>, ApiError> {
        let mut state = self.lock();
        if self.is_stopped() {
            return Err(ApiError::Stopped);
        }
        state.waiting.retain(|job| !job.to.is_closed());
        if state.waiting.len() >= self.limit && state.slots.iter().all(|slot| slot.is_busy) {
            return Err(ApiError::Busy(state.waiting.len()));
        }
        let (to, news) = unbounded_channel();
        state.waiting.push_back(Job { asks, to });
        state.assign();
        self.changed.notify_all();
        Ok(news)
    }

    /// Ends the answers that are being made, and the workers.
    pub fn stop(&self) {
        let mut state = self.lock();
        self.stopped.store(true, SeqCst);
        state.waiting.clear();
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state can be interrupted half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, number: usize, mut backend: Worker) {
        while let Some(job) = self.next(number) {
            let kept = self.answer_all(&job, backend.as_mut());
            let mut state = self.lock();
            if let Some(slot) = state.slots.get_mut(number) {
                (slot.kept, slot.is_busy) = (kept, false);
            }
            state.assign();
            self.changed.notify_all();
        }
        if let Err(error) = backend.close() {
            note(&format!("a session is left behind: {error:#}"));
        }
    }

    /// Waits for a job; none after the end.
    fn next(&self, number: usize) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if self.is_stopped() {
                return None;
            }
            if let Some(job) = state.slots.get_mut(number)?.job.take() {
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the worker's conversation consists of afterwards.
    fn answer_all(&self, job: &Job, backend: &mut dyn Backend) -> Kept {
        let mut kept = Kept::default();
        for ask in &job.asks {
            if job.to.is_closed() {
                break;
            }
            kept = Kept::new(ask);
            if let Err(error) = self.answer(ask, job, backend, &mut kept.text) {
                // Whoever has gone does not hear it.
                job.to.send(News::Failed(error)).ok();
                break;
            }
        }
        kept
    }

    fn answer(&self, ask: &Ask, job: &Job, backend: &mut dyn Backend, kept: &mut String) -> Result<(), ApiError> {
        let tell = |news| job.to.send(news).map_err(|_| Gone);
        let failed = |error: anyhow::Error| ApiError::of_backend(&error);
        begin(ask, backend).map_err(failed)?;
        tell(News::Began).ok();
        let generated = backend.generate(&mut |event| {
            match event {
                Event::Prefill { .. } if job.to.is_closed() => bail!(Gone),
                Event::Prefill { .. } => {}
                Event::Token { text, logprobs, .. } => {
                    kept.push_str(text);
                    let logprobs = if logprobs.is_empty() { Vec::new() } else { vec![logprobs.to_vec()] };
                    tell(News::Piece { text: text.to_owned(), logprobs })?;
                }
                Event::Call { text, .. } => {
                    kept.push_str(text);
                    tell(News::Piece { text: text.to_owned(), logprobs: Vec::new() })?;
                }
            }
            if self.is_stopped() { bail!(ApiError::Stopped) } else { Ok(()) }
        });
        match generated {
            Ok(generation) => {
                tell(News::Ended(Box::new(generation))).ok();
                Ok(())
            }
            Err(error) => {
                // The next conversation begins in any case; that the last one ends matters only where it goes on by itself.
                backend.cancel().ok();
                let stopped = error.downcast_ref::<ApiError>().cloned();
                Err(stopped.unwrap_or_else(|| failed(error)))
            }
        }
    }
}

/// Begins a session, also where the worker's has gone meanwhile: a canister forgets sessions that were idle too long.
fn begin(ask: &Ask, backend: &mut dyn Backend) -> Result<()> {
    let has_gone = |error: &anyhow::Error| {
        let refusal = error.chain().find_map(|cause| cause.downcast_ref::<api::Error>());
        matches!(refusal, Some(api::Error::SessionNotFound { .. } | api::Error::ModelChanged))
    };
    match backend.restart(&ask.input, &ask.options) {
        Err(error) if has_gone(&error) => {
            // What is not there need not be given up.
            backend.close().ok();
            backend.start(&ask.input, &ask.options)
        }
        begun => begun,
    }
}

impl State {
    /// Gives those who wait to the workers that are free.
    fn assign(&mut self) {
        while let Some(job) = self.waiting.pop_front() {
            if job.to.is_closed() {
                continue;
            }
            let wanted = job.asks.first().map(spelling).unwrap_or_default();
            let Some(number) = self.fitting(&wanted) else { return self.waiting.push_front(job) };
            self.time += 1;
            if let Some(slot) = self.slots.get_mut(number) {
                (slot.used, slot.is_busy, slot.job) = (self.time, true, Some(job));
            }
        }
    }

    /// The free worker whose conversation goes on as `wanted` begins, or else the one that was idle longest. A conversation
    /// of which less than half of what was asked would be kept may still go on itself.
    fn fitting(&self, wanted: &str) -> Option<usize> {
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_busy);
        let known = |slot: &Slot| shared_bytes(&slot.kept.text, wanted);
        let going_on = free().filter(|(_, slot)| 2 * known(slot) > slot.kept.asked);
        let best = going_on.max_by_key(|(_, slot)| known(slot));
        best.or_else(|| free().min_by_key(|(_, slot)| slot.used)).map(|(number, _)| number)
    }
}

/// How many bytes two texts begin with both.
fn shared_bytes(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

/// What a session begins with, so that texts with a common beginning have sessions with one.
fn spelling(ask: &Ask) -> String {
    match &ask.input {
        Input::Text(text) => text.clone(),
        Input::Tokens(tokens) => tokens.iter().map(|id| format!("{id} ")).collect(),
        Input::Messages(messages) => {
            let tools = ask.options.input.tools.iter().map(ToString::to_string);
            let told = messages.iter().map(|message| format!("\n{}\n{}", message.role, message.content));
            tools.chain(told).chain(["\nassistant\n".to_owned()]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use model_core::chat::ChatMessage;

    use super::*;

    fn chat(words: &[&str]) -> Ask {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = roles.zip(words).map(|(role, words)| ChatMessage::new(role, *words)).collect();
        Ask { input: Input::Messages(messages), options: SessionOptions::default() }
    }

    /// A line whose workers have answered these, the first longest ago.
    fn state(answered: &[(Ask, &str)]) -> State {
        let slot = |(used, (ask, answer)): (usize, &(Ask, &str))| {
            let mut kept = Kept::new(ask);
            kept.text.push_str(answer);
            Slot { kept, used: used as u64, ..Slot::default() }
        };
        State { slots: answered.iter().enumerate().map(slot).collect(), ..State::default() }
    }

    #[test]
    fn a_conversation_goes_on_where_it_was() {
        let long = "no ".repeat(100);
        let mut line = state(&[(chat(&["zero"]), "yes"), (chat(&["one"]), "yes"), (chat(&["two"]), &long)]);
        let fitting = |line: &State, words: &[&str]| line.fitting(&spelling(&chat(words)));
        assert_eq!(fitting(&line, &["one", "yes", "more"]), Some(1));
        assert_eq!(fitting(&line, &["two", &long, "more"]), Some(2));
        assert_eq!(fitting(&line, &["two"]), Some(2), "the same once more");
        assert_eq!(line.fitting("something else"), Some(0), "the oldest");
        line.slots[1].is_busy = true;
        assert_eq!(fitting(&line, &["one", "yes", "more"]), Some(0), "nobody waits for a busy worker");
        line.slots.iter_mut().for_each(|slot| slot.is_busy = true);
        assert_eq!(line.fitting(""), None);
    }

    #[test]
    fn a_common_beginning_ends_no_long_conversation() {
        let rules = "be brief ".repeat(10);
        let long = chat(&[&format!("{rules}hello"), "yes", &"and so on ".repeat(20)]);
        let line = state(&[(chat(&["other"]), ""), (long, "")]);
        assert_eq!(line.fitting(&spelling(&chat(&[&format!("{rules}new")]))), Some(0));
    }

    #[test]
    fn jobs_are_taken_in_order_and_by_nobody_if_nobody_waits() {
        let mut line = state(&[(chat(&[""]), "")]);
        let mut receivers = Vec::new();
        for words in ["one", "two", "three"] {
            let (to, news) = unbounded_channel();
            line.waiting.push_back(Job { asks: vec![chat(&[words])], to });
            receivers.push(news);
        }
        line.assign();
        assert!(line.slots[0].is_busy && line.waiting.len() == 2);
        drop(receivers.remove(1));
        (line.slots[0].is_busy, line.slots[0].job) = (false, None);
        line.assign();
        let job = line.slots[0].job.as_ref().unwrap();
        assert!(spelling(&job.asks[0]).contains("three") && line.waiting.is_empty());
    }
}

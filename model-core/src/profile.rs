//! Where the work behind a token goes: marks in the computation that attribute a counter's progress to stages.
//!
//! The counter comes from outside (instructions of a message on the Internet Computer, nanoseconds natively) and means
//! nothing here. Off, which is the default, a mark is one branch.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::parallel;

/// Reads a counter that never decreases, cheaply and often.
pub type Counter = fn() -> u64;

macro_rules! stages {
    ($($(#[$doc:meta])* $stage:ident = $name:literal,)*) => {
        /// A kind of work.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Stage { $($(#[$doc])* $stage,)* }

        impl Stage {
            /// Every stage, in the order of the computation.
            pub const ALL: &[Self] = &[$(Self::$stage,)*];

            /// What reports call it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$stage => $name,)* }
            }
        }
    };
}

stages! {
    /// Deciding what is computed next, and asking the budget.
    Cursor = "cursor and budget",
    /// Rows of the embedding, room in the cache, angles of the positions.
    Embedding = "embedding",
    /// All norms.
    Norm = "norms",
    /// Activations to 16-bit codes, before each product.
    Quantize = "quantising activations",
    /// Product with the query matrix.
    Query = "product: query",
    /// Product with the key matrix.
    Key = "product: key",
    /// Product with the value matrix.
    Value = "product: value",
    /// Rotating queries and keys.
    Rope = "rotary positions",
    /// Keys and values into the cache.
    Store = "attention: store",
    /// Queries times keys.
    Scores = "attention: scores",
    /// Exponentials and their sum.
    Softmax = "attention: softmax",
    /// Values times probabilities.
    Mix = "attention: mix",
    /// Attention between these: walking heads, waiting for threads.
    Attention = "attention: rest",
    /// Product with the attention output matrix.
    AttentionOutput = "product: attention output",
    /// Product with the gate matrix.
    Gate = "product: gate",
    /// Product with the up matrix.
    Up = "product: up",
    /// `activation(gate) * up`.
    Swiglu = "swiglu",
    /// Product with the down matrix.
    Down = "product: down",
    /// Additions to the residual stream, and the check that it is finite.
    Residual = "residual",
    /// Product with the output head, and the check that the logits are finite.
    Head = "product: head",
    /// Penalties, order and choice.
    Sampler = "sampler",
    /// Token to text, stop strings, digest of the logits.
    Text = "text",
}

/// How many stages there are.
const STAGES: usize = Stage::ALL.len();

/// What was attributed to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The stage.
    pub stage: Stage,
    /// Progress of the counter, that of reading it included.
    pub count: u64,
    /// How often the counter was read for it, by each of the threads that did it together.
    pub reads: u64,
}

/// A stretch of work, as a trace shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What was done.
    pub stage: Stage,
    /// The layer it belongs to, if any.
    pub layer: Option<usize>,
    /// Which thread did it, where threads are told apart: inside of [`Profile::laps`]. `None` for the sequence of all work,
    /// in which one stretch begins where the one before it ended.
    pub thread: Option<usize>,
    /// The counter at its beginning.
    pub start: u64,
    /// The counter at its end.
    pub end: u64,
}

/// Stretches in the order of their ends.
#[derive(Debug)]
struct Log {
    stretches: Mutex<Vec<Stretch>>,
    /// The present layer, [`NO_LAYER`] outside of all.
    layer: AtomicUsize,
}

const NO_LAYER: usize = usize::MAX;

impl Log {
    fn add(&self, stage: Stage, thread: Option<usize>, start: u64, end: u64) {
        let layer = Some(self.layer.load(Relaxed)).filter(|&layer| layer != NO_LAYER);
        // Nothing panics while it holds the lock; should it, what is there is whole.
        let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        stretches.push(Stretch { stage, layer, thread, start, end });
    }
}

#[derive(Debug)]
struct Cell {
    count: AtomicU64,
    /// In units of one thread's: a reading while all wait counts for as many as there are threads.
    reads: AtomicU64,
}

impl Cell {
    const fn new() -> Self {
        Self { count: AtomicU64::new(0), reads: AtomicU64::new(0) }
    }

    fn add(&self, count: u64, reads: u64) {
        self.count.fetch_add(count, Relaxed);
        self.reads.fetch_add(reads, Relaxed);
    }
}

/// Attributes the counter's progress to stages. Marks need only a shared reference, since laps are made on all threads.
#[derive(Debug)]
pub struct Profile {
    counter: Option<Counter>,
    started: u64,
    last: AtomicU64,
    /// Threads that work at the same time; laps count for one of as many.
    threads: u64,
    /// What laps took since the last mark, and how often they read the counter without attributing it.
    laps: Cell,
    cells: [Cell; STAGES],
    /// Every stretch of work, if somebody wants to see them all.
    log: Option<Log>,
}

/// A profile that is off, for computations that nobody wants to know about.
pub static OFF: Profile = Profile::new();

impl Default for Profile {
    fn default() -> Self {
        Self::new()
    }
}

impl Profile {
    const fn new() -> Self {
        Self {
            counter: None,
            started: 0,
            last: AtomicU64::new(0),
            threads: 1,
            laps: Cell::new(),
            cells: [const { Cell::new() }; STAGES],
            log: None,
        }
    }

    /// Counts from now on, from zero, with `counter`. `None` switches off.
    pub fn start(&mut self, counter: Option<Counter>) {
        let started = counter.map_or(0, |counter| counter());
        let threads = parallel::threads() as u64;
        *self = Self { counter, started, last: AtomicU64::new(started), threads, ..Self::new() };
    }

    /// As [`Profile::start`], and keeps every stretch of work; they take memory, some hundreds per token.
    pub fn start_log(&mut self, counter: Counter) {
        self.start(Some(counter));
        self.log = Some(Log { stretches: Mutex::default(), layer: AtomicUsize::new(NO_LAYER) });
    }

    /// The stretches since [`Profile::start_log`], in the order of their ends; none without it.
    pub fn stretches(&self) -> Vec<Stretch> {
        let log = self.log.as_ref().map(|log| log.stretches.lock().unwrap_or_else(PoisonError::into_inner));
        log.map(|stretches| stretches.clone()).unwrap_or_default()
    }

    /// What follows belongs to this layer, or to none.
    pub(crate) fn enter(&self, layer: Option<usize>) {
        if let Some(log) = &self.log {
            log.layer.store(layer.unwrap_or(NO_LAYER), Relaxed);
        }
    }

    /// The counter at [`Profile::start`] and at the last mark; none if it is off.
    pub fn range(&self) -> Option<(u64, u64)> {
        self.counter.map(|_| (self.started, self.last.load(Relaxed)))
    }

    /// What was attributed to each stage that was marked. The sum is the length of [`Profile::range`]; where threads
    /// worked at the same time it may differ by a few units per lap, since laps are divided by their number.
    pub fn spent(&self) -> Vec<Spent> {
        let cells = Stage::ALL.iter().zip(&self.cells);
        let spent = cells.map(|(&stage, cell)| Spent {
            stage,
            count: cell.count.load(Relaxed),
            reads: cell.reads.load(Relaxed).div_ceil(self.threads),
        });
        spent.filter(|spent| spent.reads > 0).collect()
    }

    /// Everything since the last mark was `stage`, but what laps took.
    #[inline]
    pub fn mark(&self, stage: Stage) {
        if let Some(counter) = self.counter {
            self.attribute(stage, counter());
        }
    }

    #[cold]
    fn attribute(&self, stage: Stage, now: u64) {
        let before = self.last.swap(now, Relaxed);
        let elapsed = now.saturating_sub(before);
        if let Some(log) = &self.log {
            log.add(stage, None, before, now);
        }
        let cell = &self.cells[stage as usize];
        let laps = &self.laps;
        let rest = elapsed.saturating_sub(laps.count.swap(0, Relaxed));
        cell.add(rest, self.threads + laps.reads.swap(0, Relaxed));
    }

    /// Begins laps inside work that is split over threads. The next mark gets what they leave.
    #[inline]
    pub fn laps(&self) -> Laps<'_> {
        let last = self.counter.map_or(0, |counter| {
            self.laps.reads.fetch_add(1, Relaxed);
            counter()
        });
        Laps { profile: self, last }
    }
}

/// The same as [`Profile`] on one thread among several.
#[derive(Debug)]
pub struct Laps<'a> {
    profile: &'a Profile,
    last: u64,
}

impl Laps<'_> {
    /// Everything on this thread since the last mark was `stage`.
    #[inline]
    pub fn mark(&mut self, stage: Stage) {
        if let Some(counter) = self.profile.counter {
            self.attribute(stage, counter());
        }
    }

    #[cold]
    fn attribute(&mut self, stage: Stage, now: u64) {
        let elapsed = now.saturating_sub(self.last) / self.profile.threads;
        if let Some(log) = &self.profile.log {
            log.add(stage, Some(parallel::thread()), self.last, now);
        }
        self.last = now;
        self.profile.laps.count.fetch_add(elapsed, Relaxed);
        self.profile.cells[stage as usize].add(elapsed, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::cell;

    use super::*;

    thread_local! { static NOW: cell::Cell<u64> = const { cell::Cell::new(0) }; }

    /// Every look takes one unit.
    fn look() -> u64 {
        work(1);
        NOW.get()
    }

    fn work(units: u64) {
        NOW.set(NOW.get() + units);
    }

    fn counted(profile: &Profile) -> Vec<(Stage, u64, u64)> {
        profile.spent().into_iter().map(|Spent { stage, count, reads }| (stage, count, reads)).collect()
    }

    #[test]
    fn everything_since_the_last_mark_goes_to_the_stage_and_the_sum_is_the_whole() {
        let mut profile = Profile::default();
        work(5);
        profile.start(Some(look));
        for _ in 0..2 {
            work(10);
            profile.mark(Stage::Norm);
            work(20);
            profile.mark(Stage::Gate);
        }
        assert_eq!(counted(&profile), [(Stage::Norm, 22, 2), (Stage::Gate, 42, 2)]);
        assert_eq!(profile.range(), Some((6, 70)));
        profile.start(None);
        profile.mark(Stage::Norm);
        assert_eq!((counted(&profile), profile.range()), (vec![], None));
    }

    #[test]
    fn a_mark_gets_what_laps_left() {
        let mut profile = Profile::default();
        profile.start(Some(look));
        profile.threads = 1;
        let started = NOW.get();
        work(3);
        for _ in 0..2 {
            let mut laps = profile.laps();
            work(10);
            laps.mark(Stage::Scores);
            work(7);
            laps.mark(Stage::Mix);
        }
        work(4);
        profile.mark(Stage::Attention);
        assert_eq!(
            counted(&profile),
            [(Stage::Scores, 22, 2), (Stage::Mix, 16, 2), (Stage::Attention, 3 + 2 + 4 + 1, 3)]
        );
        assert_eq!(NOW.get() - started, 22 + 16 + 10);
    }

    #[test]
    fn a_log_has_every_stretch_with_its_layer_and_its_thread() {
        let mut profile = Profile::default();
        profile.start_log(look);
        let (started, _) = profile.range().unwrap();
        work(5);
        profile.mark(Stage::Embedding);
        profile.enter(Some(3));
        let mut laps = profile.laps();
        work(10);
        laps.mark(Stage::Scores);
        profile.mark(Stage::Attention);
        profile.enter(None);
        profile.mark(Stage::Cursor);
        let log = profile.stretches();
        let of = |stage, layer, thread, start, end| Stretch { stage, layer, thread, start, end };
        let [first, lap, rest] = [started + 6, started + 18, started + 19];
        let expected = [
            of(Stage::Embedding, None, None, started, first),
            of(Stage::Scores, Some(3), Some(0), first + 1, lap),
            of(Stage::Attention, Some(3), None, first, rest),
            of(Stage::Cursor, None, None, rest, rest + 1),
        ];
        assert_eq!(log, expected);
        assert_eq!(counted(&profile).iter().map(|(_, count, _)| count).sum::<u64>(), rest + 1 - started);
        profile.start(Some(look));
        profile.mark(Stage::Cursor);
        assert_eq!(profile.stretches(), []);
    }

    #[test]
    fn laps_of_several_threads_count_for_their_share() {
        let mut profile = Profile::default();
        profile.start(Some(look));
        profile.threads = 2;
        for _ in 0..2 {
            let mut laps = profile.laps();
            work(9);
            laps.mark(Stage::Scores);
        }
        assert_eq!(counted(&profile), [(Stage::Scores, 10, 1)]);
    }

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STAGES);
    }
}

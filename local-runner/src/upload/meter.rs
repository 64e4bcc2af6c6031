//! How far an upload is, for the person who waits: a bar on terminals, else a line now and then.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::estimate::Estimate;
use crate::output::{byte_size, note, short, stderr_is_terminal};
use crate::progress::Progress;

/// How often a line is written where no bar can be shown.
const LINES: Duration = Duration::from_secs(10);

/// Counts what has arrived.
pub struct Meter {
    /// Until the end.
    bar: RefCell<Option<Progress>>,
    start: Instant,
    /// Bytes that were there before.
    before: u64,
    total: u64,
    nodes: u64,
    sent: Cell<u64>,
    chunks: Cell<u64>,
    line: RefCell<Instant>,
}

impl Meter {
    /// Of a file of `total` bytes, `before` have arrived.
    pub fn new(total: u64, before: u64, nodes: u64) -> Self {
        let (start, bar) = (Instant::now(), RefCell::new(Some(Progress::transfer("uploading", total, before))));
        let (sent, chunks, line) = (Cell::new(0), Cell::new(0), RefCell::new(start));
        Self { bar, start, before, total, nodes, sent, chunks, line }
    }

    /// A chunk has arrived.
    pub fn add(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        self.chunks.set(self.chunks.get() + 1);
        let cycles = format!("{} cycles", short(self.cycles()));
        if let Some(bar) = &*self.bar.borrow() {
            bar.set(self.there());
            bar.annotate(&cycles);
        }
        let mut line = self.line.borrow_mut();
        if !stderr_is_terminal() && line.elapsed() >= LINES {
            *line = Instant::now();
            let (there, total) = (byte_size(self.there()), byte_size(self.total));
            note(&format!(
                "{there} of {total} uploaded, {}/s, {} s left, {cycles}",
                byte_size(self.rate()),
                self.left()
            ));
        }
    }

    /// All has arrived: clears the bar.
    pub fn end(&self) {
        *self.bar.borrow_mut() = None;
    }

    /// Bytes that are in the canister, as far as is known here.
    pub fn there(&self) -> u64 {
        self.before + self.sent.get()
    }

    /// Bytes that arrived since the beginning.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Chunks that arrived since the beginning.
    pub fn chunks(&self) -> u64 {
        self.chunks.get()
    }

    /// Bytes per second since the beginning.
    pub fn rate(&self) -> u64 {
        (self.sent.get() as f64 / self.start.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    fn left(&self) -> u64 {
        (self.total - self.there().min(self.total)) / self.rate().max(1)
    }

    fn cycles(&self) -> u128 {
        Estimate::of_chunks(self.chunks.get(), self.sent.get(), self.nodes)
    }
}

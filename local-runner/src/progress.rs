//! Progress on stderr, only where a person watches a terminal. Knows nothing of what is being done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::stderr_is_terminal;

/// A bar that clears itself when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over a number of bytes.
    pub fn bytes(label: &str, total: u64) -> Self {
        Self::with(label, total, "{msg} {wide_bar} {bytes}/{total_bytes}")
    }

    /// A bar over bytes that are sent, of which some are there already: with rate, time left and a note.
    pub fn transfer(label: &str, total: u64, there: u64) -> Self {
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left {prefix}";
        let progress = Self::with(label, total, template);
        progress.bar.set_position(there);
        // The rate is that of what is sent.
        progress.bar.reset_eta();
        progress
    }

    /// Shows a note beside the bar, if it has a place for one.
    pub fn annotate(&self, note: &str) {
        self.bar.set_prefix(note.to_owned());
    }

    /// A bar over a number of `unit`s (plural).
    pub fn count(label: &str, total: u64, unit: &str) -> Self {
        Self::with(label, total, &format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {unit}"))
    }

    fn with(label: &str, total: u64, template: &str) -> Self {
        let target = if stderr_is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // The templates are those above; a default bar is fine should one ever not parse.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// Moves the bar to `done`.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Sets the end of the bar where it is only learned on the way.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

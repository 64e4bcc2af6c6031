//! What happened in a soak, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use canister::api::Error;

/// How many unexpected errors are kept word for word.
const KEPT_ERRORS: usize = 20;

/// Counts of one user, or of all.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sessions that were made.
    pub created: u64,
    /// Sessions that came to their own end, with exactly the native answer.
    pub finished: u64,
    /// Sessions that were cancelled, with the beginning of the native answer.
    pub cancelled: u64,
    /// Sessions that were deleted while they generated.
    pub abandoned: u64,
    /// Sessions that the canister does not know any more, though nobody deleted them.
    pub lost: u64,
    /// Generated tokens that were compared with native ones, each with the digest of its logits.
    pub tokens: u64,
    /// Refusals that had to be expected, by kind.
    pub refused: BTreeMap<String, u64>,
    /// Everything else that went wrong.
    pub unexpected: u64,
    /// The first of these.
    pub errors: Vec<String>,
    /// How long each call took, in microseconds.
    pub calls: Vec<u32>,
}

impl Tally {
    /// Notes how long a call took.
    pub fn called(&mut self, elapsed: Duration) {
        self.calls.push(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX));
    }

    /// Notes a refusal that had to be expected.
    pub fn refused(&mut self, error: &Error) {
        let shown = format!("{error:?}");
        let kind = shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        *self.refused.entry(kind.to_owned()).or_default() += 1;
    }

    /// Notes something that must not happen.
    pub fn unexpected(&mut self, what: String) {
        self.unexpected += 1;
        if self.errors.len() < KEPT_ERRORS {
            self.errors.push(what);
        }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: Self) {
        self.created += other.created;
        self.finished += other.finished;
        self.cancelled += other.cancelled;
        self.abandoned += other.abandoned;
        self.lost += other.lost;
        self.tokens += other.tokens;
        self.unexpected += other.unexpected;
        self.calls.extend(other.calls);
        other.refused.into_iter().for_each(|(kind, times)| *self.refused.entry(kind).or_default() += times);
        self.errors.extend(other.errors);
        self.errors.truncate(KEPT_ERRORS);
    }

    /// How long the slowest of so many percent of the calls took.
    fn percentile(&self, percent: usize) -> Duration {
        let mut calls = self.calls.clone();
        calls.sort_unstable();
        let micros = calls.get((calls.len() * percent / 100).min(calls.len().saturating_sub(1)));
        Duration::from_micros(micros.copied().unwrap_or_default().into())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, finished, cancelled, abandoned, lost, tokens, refused, unexpected, errors, calls } = self;
        let [median, slow, slowest] = [50, 99, 100].map(|percent| self.percentile(percent).as_secs_f64() * 1e3);
        writeln!(
            f,
            "sessions   {created} created, {finished} finished, {cancelled} cancelled, {abandoned} deleted, {lost} lost"
        )?;
        writeln!(f, "tokens     {tokens} equal to native ones, with the digests of their logits")?;
        writeln!(f, "calls      {}, p50 {median:.1} ms, p99 {slow:.1} ms, slowest {slowest:.1} ms", calls.len())?;
        let kinds: Vec<_> = refused.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        writeln!(f, "expected   {}", if kinds.is_empty() { "no refusals".to_owned() } else { kinds.join(", ") })?;
        write!(f, "unexpected {unexpected}")?;
        errors.iter().try_for_each(|error| write!(f, "\n           {error}"))
    }
}

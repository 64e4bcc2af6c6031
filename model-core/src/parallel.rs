//! Splits independent work over the threads of the current rayon pool, or does it in one go where there is none. What
//! is computed never depends on the split.

use std::convert::Infallible;
use std::ops::Range;

/// Tokens whose values are worth a thread of their own.
pub(crate) const TOKENS: usize = 8;

/// Threads that may work at the same time.
#[cfg(feature = "rayon")]
pub(crate) fn threads() -> usize {
    rayon::current_num_threads()
}

/// Threads that may work at the same time.
#[cfg(not(feature = "rayon"))]
pub(crate) fn threads() -> usize {
    1
}

/// Which of them calls, from 0.
#[cfg(feature = "rayon")]
pub(crate) fn thread() -> usize {
    rayon::current_thread_index().unwrap_or(0)
}

/// Which of them calls, from 0.
#[cfg(not(feature = "rayon"))]
pub(crate) fn thread() -> usize {
    0
}

/// Calls `work` with ranges that cover `0..count` exactly once, each of at least `least` where `count` allows.
#[cfg(feature = "rayon")]
pub(crate) fn ranges(count: usize, least: usize, work: impl Fn(Range<usize>) + Sync) {
    use rayon::prelude::*;
    // A few ranges per thread, so that a thread that is held up gives work away.
    let threads = rayon::current_num_threads();
    let parts = if threads == 1 { 1 } else { (count / least.max(1)).clamp(1, 2 * threads) };
    if parts == 1 {
        return work(0..count);
    }
    (0..parts).into_par_iter().with_max_len(1).for_each(|part| {
        work(part * count / parts..(part + 1) * count / parts);
    });
}

/// Calls `work` with `0..count`.
#[cfg(not(feature = "rayon"))]
pub(crate) fn ranges(count: usize, _least: usize, work: impl Fn(Range<usize>) + Sync) {
    work(0..count);
}

/// Calls `work(state, i, chunk)` for every chunk of `chunk` values; `state` is made once per thread.
#[cfg(feature = "rayon")]
pub(crate) fn chunks<S: Send>(
    values: &mut [f32],
    chunk: usize,
    state: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, usize, &mut [f32]) + Sync + Send,
) {
    use rayon::prelude::*;
    if rayon::current_num_threads() == 1 {
        let mut state = state();
        values.chunks_exact_mut(chunk).enumerate().for_each(|(i, values)| work(&mut state, i, values));
        return;
    }
    values.par_chunks_exact_mut(chunk).enumerate().for_each_init(state, |state, (i, values)| work(state, i, values));
}

/// Calls `work(state, i, chunk)` for every chunk of `chunk` values.
#[cfg(not(feature = "rayon"))]
pub(crate) fn chunks<S: Send>(
    values: &mut [f32],
    chunk: usize,
    state: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, usize, &mut [f32]) + Sync + Send,
) {
    let mut state = state();
    values.chunks_exact_mut(chunk).enumerate().for_each(|(i, values)| work(&mut state, i, values));
}

/// What can be computed in parts: rows of one table, or of several.
pub(crate) trait Parts: Send + Sized {
    /// The first `rows` rows, and the others.
    #[cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "one thread takes all rows"))]
    fn split(self, rows: usize) -> (Self, Self);
}

/// A table, `[rows, columns]`.
#[derive(Debug)]
pub(crate) struct Rows<'a, T> {
    pub values: &'a mut [T],
    #[cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "one thread takes all rows"))]
    pub columns: usize,
}

impl<T: Send> Parts for Rows<'_, T> {
    fn split(self, rows: usize) -> (Self, Self) {
        let Self { values, columns } = self;
        let (first, others) = values.split_at_mut(rows * columns);
        (Self { values: first, columns }, Self { values: others, columns })
    }
}

impl<A: Parts, B: Parts> Parts for (A, B) {
    fn split(self, rows: usize) -> (Self, Self) {
        let ((a, a_others), (b, b_others)) = (self.0.split(rows), self.1.split(rows));
        ((a, b), (a_others, b_others))
    }
}

/// Calls `work(first, part)` with parts of `tables`, of at least `least` of their `rows` rows each where there are as many; `first`
/// is the first row of a part.
#[inline(always)]
pub(crate) fn rows<P: Parts>(tables: P, rows: usize, least: usize, work: impl Fn(usize, P) + Sync) {
    let Ok(()) = try_rows::<_, Infallible>(tables, rows, least, |first, part| {
        work(first, part);
        Ok(())
    });
}

/// The same with work that can fail.
///
/// # Errors
/// Those of `work`; the other parts may have been computed or not.
#[cfg(feature = "rayon")]
pub(crate) fn try_rows<P: Parts, E: Send>(
    tables: P,
    rows: usize,
    least: usize,
    work: impl Fn(usize, P) -> Result<(), E> + Sync,
) -> Result<(), E> {
    if threads() == 1 {
        return work(0, tables);
    }
    // A few parts per thread, so that a thread that is held up gives work away.
    halve(tables, 0..rows, least.max(rows / (4 * threads())), &work)
}

/// The same with work that can fail, in one go.
///
/// # Errors
/// Those of `work`.
#[cfg(not(feature = "rayon"))]
#[inline(always)]
pub(crate) fn try_rows<P: Parts, E: Send>(
    tables: P,
    _rows: usize,
    _least: usize,
    work: impl Fn(usize, P) -> Result<(), E> + Sync,
) -> Result<(), E> {
    work(0, tables)
}

#[cfg(feature = "rayon")]
fn halve<P: Parts, E: Send>(
    tables: P,
    rows: Range<usize>,
    least: usize,
    work: &(impl Fn(usize, P) -> Result<(), E> + Sync),
) -> Result<(), E> {
    if rows.len() < 2 * least.max(1) {
        return work(rows.start, tables);
    }
    let middle = rows.start + rows.len() / 2;
    let (first, others) = tables.split(rows.len() / 2);
    let (first, others) =
        rayon::join(|| halve(first, rows.start..middle, least, work), || halve(others, middle..rows.end, least, work));
    first.and(others)
}

//! Splits independent work over the threads of the current rayon pool, or does it in one go where there is none. What
//! is computed never depends on the split.

use std::ops::Range;

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

//! Tokens per second and nanoseconds per part, in this process.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use super::profile::{Measured, Part, Profile, Work};
use super::{Args, measure};
use crate::backend::Backend;
use crate::backend::native::NativeBackend;
use crate::clock;
use crate::output::{Output, byte_size, short};
use crate::progress::Progress;

/// Readings of the clock that are timed together to know what one takes, and how often: the quickest counts.
const CLOCK_READINGS: u64 = 1_000;
const CLOCK_TRIALS: u64 = 100;
/// Passes over the weights that are timed to know how fast the memory is.
const READS: u32 = 10;

#[derive(Debug, Serialize)]
struct Report {
    backend: String,
    prompt_tokens: u32,
    generate_tokens: u32,
    repeat: u32,
    load_ms: f64,
    weights_per_token: u64,
    residency: &'static str,
    packed_bytes: u64,
    kv_cache_bits: u8,
    prefill_tokens_per_second: Spread,
    decode_tokens_per_second: Spread,
    /// Bytes of weights that a generated token reads.
    bytes_per_token: u64,
    /// How fast the same threads read the same weights when they do nothing else.
    read_bytes_per_second: f64,
}

/// Mean and standard deviation of some measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    mean: f64,
    deviation: f64,
}

impl Args {
    pub(super) fn native(&self, output: Output) -> Result<()> {
        let mut backend = NativeBackend::load(&self.model, &self.backend.native)?;
        let prompt = self.prompt(backend.model().tokenizer.vocab_size());
        let progress = Progress::count("measuring", self.repeat.into(), "runs");
        // Pages are first touched, caches filled and clocks raised by a run that does not count.
        measure(&mut backend, &prompt, &self.options())?;
        let mut runs = Vec::new();
        for done in 0..self.repeat {
            progress.set(done.into());
            runs.push(measure(&mut backend, &prompt, &self.options())?.timings);
        }
        drop(progress);
        let report = Report {
            backend: backend.describe(),
            prompt_tokens: self.prompt_tokens,
            generate_tokens: self.generate_tokens,
            repeat: self.repeat,
            load_ms: runs.first().map_or(0.0, |run| run.load_ms),
            weights_per_token: backend.model().weights_per_token(),
            residency: backend.model().residency().name(),
            packed_bytes: backend.model().packed_bytes(),
            kv_cache_bits: self.cache.kv_cache.bits(),
            prefill_tokens_per_second: spread(runs.iter().map(|run| run.prefill_rate())),
            decode_tokens_per_second: spread(runs.iter().map(|run| run.decode_rate())),
            bytes_per_token: backend.model().bytes_per_token(),
            read_bytes_per_second: read_speed(&backend),
        };
        output.document(&report, |out| report.write(out))
    }

    /// The fastest of the repetitions, for the prompt and for the token after it.
    pub(super) fn native_profile(&self, output: Output) -> Result<()> {
        let config = self.config()?;
        let mut backend = NativeBackend::load(&self.model, &self.backend.native)?;
        let prompt = self.prompt(config.vocab);
        let per_reading = nanoseconds_per_reading();
        let mut fastest: Option<[Measured; 2]> = None;
        for _ in 0..self.repeat {
            backend.start(&prompt, &self.options())?;
            let run = [nanoseconds(&mut backend, per_reading)?, nanoseconds(&mut backend, per_reading)?];
            fastest = Some(match fastest {
                Some([prompt, token]) => {
                    let [other_prompt, other_token] = run;
                    [prompt.least(other_prompt), token.least(other_token)]
                }
                None => run,
            });
        }
        let profile = Profile::new("ns", self.prompt_tokens, Work::new(&config), fastest.into_iter().flatten());
        output.document(&profile, |out| profile.write(out))
    }
}

/// The fastest of some passes over the weights, in bytes per second.
fn read_speed(backend: &NativeBackend) -> f64 {
    backend.install(|model| {
        let seconds = (0..READS).map(|_| {
            let start = Instant::now();
            std::hint::black_box(model.read_weights());
            start.elapsed().as_secs_f64()
        });
        model.bytes_per_token() as f64 / seconds.fold(f64::INFINITY, f64::min)
    })
}

/// The steps up to the next token.
fn nanoseconds(backend: &mut NativeBackend, per_reading: u64) -> Result<Measured> {
    let (whole, spent) = backend.profile_token(clock::nanoseconds)?;
    let parts = spent.iter().map(|spent| Part::new(spent.stage.name(), spent.count, spent.reads)).collect();
    Ok(Measured::with_marks(whole, parts, per_reading))
}

fn nanoseconds_per_reading() -> u64 {
    let trial = |_| {
        let start = clock::nanoseconds();
        let end = (0..CLOCK_READINGS).fold(start, |last, _| clock::nanoseconds().max(last));
        (end - start) / CLOCK_READINGS
    };
    (0..CLOCK_TRIALS).map(trial).min().unwrap_or(0)
}

impl Report {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = |spread: Spread| format!("{:>8.1} ± {:.1} tok/s", spread.mean, spread.deviation);
        writeln!(out, "{}, loaded in {:.0} ms, {} packed", self.backend, self.load_ms, byte_size(self.packed_bytes))?;
        writeln!(out, "prompt   {:>5} tokens {}", self.prompt_tokens, line(self.prefill_tokens_per_second))?;
        writeln!(out, "generate {:>5} tokens {}", self.generate_tokens, line(self.decode_tokens_per_second))?;
        let products = self.decode_tokens_per_second.mean * self.weights_per_token as f64;
        writeln!(
            out,
            "{} weights multiplied per token: {} per second while generating",
            short(self.weights_per_token.into()),
            short(products as u128)
        )?;
        let used = self.decode_tokens_per_second.mean * self.bytes_per_token as f64;
        writeln!(
            out,
            "{} read per token: {:.1} GB/s while generating, {:.0} % of the {:.1} GB/s that reading alone reaches",
            byte_size(self.bytes_per_token),
            used / 1e9,
            100.0 * used / self.read_bytes_per_second,
            self.read_bytes_per_second / 1e9
        )
    }
}

fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let values: Vec<f64> = values.collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    Spread { mean, deviation: variance.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_mean_and_sample_deviation() {
        assert_eq!(spread([3.0].into_iter()), Spread { mean: 3.0, deviation: 0.0 });
        assert_eq!(spread([1.0, 3.0].into_iter()), Spread { mean: 2.0, deviation: 2f64.sqrt() });
    }
}

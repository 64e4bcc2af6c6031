//! The chain of samplers, and the probability of what it chose.

use super::order::{self, Candidate};
use super::penalties::Penalties;
use super::rng::Pcg32;
use super::{Error, Sampling};
use crate::TokenId;
use crate::math::exp;

/// Partial sums over the vocabulary.
const LANES: usize = 8;

/// Chooses tokens; holds the options and the state of the random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: Sampling,
    rng: Pcg32,
    penalties: Penalties,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler at the beginning of its random numbers.
    ///
    /// # Errors
    /// [`Error`] if an option has no meaning.
    pub fn new(options: Sampling) -> Result<Self, Error> {
        Self::resume(options, Pcg32::new(options.seed).state())
    }

    /// A sampler that goes on where [`Sampler::rng_state`] was read.
    ///
    /// # Errors
    /// [`Error`] if an option has no meaning.
    pub fn resume(options: Sampling, rng_state: u64) -> Result<Self, Error> {
        options.validate()?;
        Ok(Self {
            options,
            rng: Pcg32::from_state(rng_state),
            penalties: Penalties::default(),
            candidates: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// The options.
    pub fn options(&self) -> &Sampling {
        &self.options
    }

    /// The state of the random numbers: one is drawn per token unless the temperature is 0.
    pub fn rng_state(&self) -> u64 {
        self.rng.state()
    }

    /// Chooses the next token after `history`. `logits` (`[vocab]`, finite) are the same afterwards.
    pub fn sample(&mut self, logits: &mut [f32], history: &[TokenId]) -> TokenId {
        self.penalties.apply(&self.options, history, logits);
        let id = self.choose(logits);
        self.penalties.undo(logits);
        id
    }

    /// As [`Sampler::sample`], as if there were no other tokens than `allowed` (ascending, at least one).
    pub fn sample_among(&mut self, logits: &mut [f32], history: &[TokenId], allowed: &[TokenId]) -> TokenId {
        self.penalties.apply(&self.options, history, logits);
        let theirs: Vec<f32> = allowed.iter().map_while(|&id| logits.get(id as usize)).copied().collect();
        self.penalties.undo(logits);
        allowed.get(self.choose(&theirs) as usize).copied().unwrap_or(0)
    }

    fn choose(&mut self, logits: &[f32]) -> TokenId {
        if self.options.temperature == 0.0 { order::best(logits) } else { self.draw(logits) }
    }

    fn draw(&mut self, logits: &[f32]) -> TokenId {
        let k = match self.options.top_k {
            0 => logits.len(),
            k => logits.len().min(k as usize),
        };
        order::select(logits, k, &mut self.candidates);
        self.weigh(1.0);
        self.keep_top_p();
        self.keep_min_p();
        self.weigh(self.options.temperature);
        let target = self.rng.next_unit() * total(&self.weights);
        let mut reached = 0.0;
        for (candidate, &weight) in self.candidates.iter().zip(&self.weights) {
            reached += f64::from(weight);
            if reached > target {
                return candidate.id();
            }
        }
        self.candidates.last().map_or(0, |last| last.id())
    }

    /// Weights of the candidates, that of the best is 1: `exp((logit - best) / temperature)`.
    fn weigh(&mut self, temperature: f32) {
        let best = self.candidates.first().map_or(0.0, |best| best.logit());
        let weight = |candidate: &Candidate| exp((candidate.logit() - best) / temperature);
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(weight));
    }

    fn keep_top_p(&mut self) {
        if self.options.top_p >= 1.0 {
            return;
        }
        let target = f64::from(self.options.top_p) * total(&self.weights);
        let mut reached = 0.0;
        let last = self.weights.iter().position(|&weight| {
            reached += f64::from(weight);
            reached >= target
        });
        self.keep(last.map_or(self.weights.len(), |last| last + 1));
    }

    fn keep_min_p(&mut self) {
        let min_p = self.options.min_p;
        let kept = self.weights.iter().take_while(|&&weight| weight >= min_p).count();
        self.keep(kept);
    }

    /// Keeps the best `count` candidates, at least one.
    fn keep(&mut self, count: usize) {
        self.candidates.truncate(count.max(1));
        self.weights.truncate(count.max(1));
    }
}

/// The sum in the order of the candidates.
fn total(weights: &[f32]) -> f64 {
    weights.iter().map(|&weight| f64::from(weight)).sum()
}

/// A token and the natural logarithm of its probability under a model's own logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: TokenId,
    /// At most 0.
    pub logprob: f32,
}

/// Appends to `out` the log probability of token `id` under `logits`, and those of the `alternatives` likeliest tokens, the
/// likeliest first. Costs a pass over the vocabulary for all together and one to select.
pub fn log_probabilities(logits: &[f32], id: TokenId, alternatives: usize, out: &mut Vec<TokenLogprob>) {
    let normal = Normalizer::of(logits);
    let mut best = Vec::new();
    if alternatives > 0 {
        order::select(logits, alternatives, &mut best);
    }
    let logprob = |id: TokenId| TokenLogprob { id, logprob: normal.log_probability(logits, id) };
    out.extend([id].into_iter().chain(best.into_iter().map(Candidate::id)).map(logprob));
}

/// Natural logarithm of the probability of token `id` under `logits`; minus infinity for an id beyond them. Costs a pass
/// over the vocabulary.
pub fn log_probability(logits: &[f32], id: TokenId) -> f32 {
    Normalizer::of(logits).log_probability(logits, id)
}

/// What turns logits into probabilities.
struct Normalizer {
    /// The largest logit.
    most: f32,
    /// Logarithm of the sum of all `exp(logit - most)`.
    log_sum: f64,
}

impl Normalizer {
    fn of(logits: &[f32]) -> Self {
        let most = logits.get(order::best(logits) as usize).copied().unwrap_or(0.0);
        Self { most, log_sum: libm::log(exp_sum(logits, most)) }
    }

    fn log_probability(&self, logits: &[f32], id: TokenId) -> f32 {
        let Some(&logit) = logits.get(id as usize) else { return f32::NEG_INFINITY };
        (f64::from(logit - self.most) - self.log_sum) as f32
    }
}

/// The sum of all `exp(logit - most)`.
fn exp_sum(logits: &[f32], most: f32) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let chunks = logits.chunks_exact(LANES);
    for (lane, logit) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += exp(logit - most);
    }
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp(logit - most);
        }
    }
    lanes.into_iter().fold(0.0, |sum, lane| sum + f64::from(lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ln of 0.5, 0.25, 0.15, 0.1, shuffled: ids 2, 0, 3, 1 in order of probability.
    fn logits() -> Vec<f32> {
        [0.25, 0.1, 0.5, 0.15].into_iter().map(|p| libm::log(p) as f32).collect()
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Sampling::default() }
    }

    /// How often each token comes out of 4000.
    fn counts(options: Sampling) -> [u32; 4] {
        let mut sampler = Sampler::new(options).unwrap();
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[sampler.sample(&mut logits(), &[]) as usize] += 1;
        }
        counts
    }

    /// The tokens that came out at all.
    fn kept(options: Sampling) -> Vec<usize> {
        counts(options).into_iter().enumerate().filter(|&(_, count)| count > 0).map(|(id, _)| id).collect()
    }

    #[test]
    fn greedy_takes_the_likeliest_and_draws_nothing() {
        let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
        let before = sampler.rng_state();
        assert_eq!(sampler.sample(&mut logits(), &[]), 2);
        assert_eq!(sampler.rng_state(), before);
        let penalised = Sampling { presence_penalty: 10.0, ..Sampling::greedy() };
        assert_eq!(Sampler::new(penalised).unwrap().sample(&mut logits(), &[2]), 0);
    }

    #[test]
    fn chance_follows_the_probabilities() {
        for (count, p) in counts(plain()).into_iter().zip([0.25, 0.1, 0.5, 0.15]) {
            assert!((f64::from(count) / 4000.0 - p).abs() < 0.03, "{count} of {p}");
        }
    }

    #[test]
    fn the_number_drawn_decides_by_cumulated_probability() {
        // Cumulated in order of probability: token 2 below 0.5, token 0 below 0.75, token 3 below 0.9, token 1 above.
        let mut sampler = Sampler::new(Sampling { seed: 42, ..plain() }).unwrap();
        let mut rng = Pcg32::new(42);
        for _ in 0..100 {
            let unit = rng.next_unit();
            let expected = [(0.5, 2), (0.75, 0), (0.9, 3), (1.0, 1)].into_iter().find(|&(end, _)| unit < end).unwrap();
            assert_eq!(sampler.sample(&mut logits(), &[]), expected.1, "{unit}");
        }
    }

    #[test]
    fn top_k_keeps_k() {
        assert_eq!(kept(Sampling { top_k: 2, ..plain() }), [0, 2]);
        assert_eq!(kept(Sampling { top_k: 1, ..plain() }), [2]);
        assert_eq!(kept(Sampling { top_k: 9, ..plain() }), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_keeps_what_reaches_it() {
        assert_eq!(kept(Sampling { top_p: 0.0, ..plain() }), [2]);
        assert_eq!(kept(Sampling { top_p: 0.49, ..plain() }), [2]);
        assert_eq!(kept(Sampling { top_p: 0.51, ..plain() }), [0, 2]);
        assert_eq!(kept(Sampling { top_p: 0.8, ..plain() }), [0, 2, 3]);
        // Of the two that top-k leaves, the first has 2/3.
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.6, ..plain() }), [2]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        assert_eq!(kept(Sampling { min_p: 0.4, ..plain() }), [0, 2]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..plain() }), [2]);
    }

    #[test]
    fn temperature_comes_after_the_filters() {
        // At temperature 0.5 probabilities are squared: 0.25 : 0.0625 : 0.0225 : 0.01.
        let counts_cold = counts(Sampling { temperature: 0.5, ..plain() });
        assert!((f64::from(counts_cold[2]) / 4000.0 - 0.25 / 0.345).abs() < 0.03, "{counts_cold:?}");
        // Filters see temperature 1: 0.8 keeps three even though heat would need all four.
        assert_eq!(kept(Sampling { temperature: 5.0, top_p: 0.8, ..plain() }), [0, 2, 3]);
        assert_eq!(kept(Sampling { temperature: 1e-30, ..plain() }), [2]);
    }

    #[test]
    fn others_than_the_allowed_tokens_count_for_nothing() {
        let allowed = [0, 1, 3];
        let mut greedy = Sampler::new(Sampling::greedy()).unwrap();
        assert_eq!(greedy.sample_among(&mut logits(), &[], &allowed), 0);
        let penalised = Sampling { presence_penalty: 10.0, ..Sampling::greedy() };
        assert_eq!(Sampler::new(penalised).unwrap().sample_among(&mut logits(), &[0], &allowed), 3);
        let (mut sampler, mut counts) = (Sampler::new(plain()).unwrap(), [0; 4]);
        for _ in 0..4000 {
            counts[sampler.sample_among(&mut logits(), &[], &allowed) as usize] += 1;
        }
        for (count, p) in counts.into_iter().zip([0.5, 0.2, 0.0, 0.3]) {
            assert!((f64::from(count) / 4000.0 - p).abs() < 0.03, "{count} of {p}");
        }
    }

    #[test]
    fn the_seed_and_the_state_determine_the_tokens() {
        let run =
            |sampler: &mut Sampler| -> Vec<TokenId> { (0..40).map(|_| sampler.sample(&mut logits(), &[])).collect() };
        let sampler = |seed| Sampler::new(Sampling { seed, ..plain() }).unwrap();
        assert_eq!(run(&mut sampler(5)), run(&mut sampler(5)));
        assert_ne!(run(&mut sampler(5)), run(&mut sampler(6)));
        let mut first = sampler(5);
        run(&mut first);
        let mut second = Sampler::resume(*first.options(), first.rng_state()).unwrap();
        assert_eq!(run(&mut first), run(&mut second));
    }

    #[test]
    fn log_probability_of_known_values() {
        assert!((log_probability(&logits(), 2) + std::f32::consts::LN_2).abs() < 1e-6);
        let mut many = vec![3.0; 1001];
        assert!((log_probability(&many, 7) + libm::log(1001.0) as f32).abs() < 1e-5);
        many[0] = 1000.0;
        assert_eq!(log_probability(&many, 0), 0.0);
        assert_eq!(log_probability(&many, 1001), f32::NEG_INFINITY);
    }

    #[test]
    fn alternatives_come_by_probability_after_the_token_itself() {
        let mut out = vec![TokenLogprob { id: 9, logprob: -1.0 }];
        log_probabilities(&logits(), 3, 2, &mut out);
        assert_eq!(out.iter().map(|token| token.id).collect::<Vec<_>>(), [9, 3, 2, 0]);
        for token in &out[1..] {
            assert_eq!(token.logprob, log_probability(&logits(), token.id));
        }
        out.clear();
        log_probabilities(&logits(), 1, 0, &mut out);
        assert_eq!(out.len(), 1);
    }
}

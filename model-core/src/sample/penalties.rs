//! Penalties on tokens that occurred recently.

use super::Sampling;
use crate::TokenId;

/// Changes the logits of recent tokens and can undo it, so that the model's own logits need no copy.
#[derive(Debug, Clone, Default)]
pub(super) struct Penalties {
    recent: Vec<TokenId>,
    saved: Vec<(usize, f32)>,
}

impl Penalties {
    /// Applies the penalties for the last `repeat_last_n` tokens of `history`: a positive logit is divided by
    /// `repeat_penalty`, any other multiplied by it, then `count * frequency_penalty + presence_penalty` is subtracted.
    /// Results are kept finite.
    pub(super) fn apply(&mut self, options: &Sampling, history: &[TokenId], logits: &mut [f32]) {
        self.saved.clear();
        if options.repeat_penalty == 1.0 && options.frequency_penalty == 0.0 && options.presence_penalty == 0.0 {
            return;
        }
        let window = history.len().saturating_sub(options.repeat_last_n as usize);
        self.recent.clear();
        self.recent.extend(history.iter().skip(window));
        self.recent.sort_unstable();
        for run in self.recent.chunk_by(|a, b| a == b) {
            let id = run[0] as usize;
            let Some(logit) = logits.get_mut(id) else { continue };
            self.saved.push((id, *logit));
            let scaled = if *logit > 0.0 { *logit / options.repeat_penalty } else { *logit * options.repeat_penalty };
            let scaled = finite(scaled);
            *logit = finite(scaled - finite(run.len() as f32 * options.frequency_penalty) - options.presence_penalty);
        }
    }

    /// Restores what [`Penalties::apply`] changed.
    pub(super) fn undo(&mut self, logits: &mut [f32]) {
        for (id, logit) in self.saved.drain(..) {
            logits[id] = logit;
        }
    }
}

fn finite(x: f32) -> f32 {
    x.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(options: Sampling, history: &[TokenId], logits: &[f32]) -> Vec<f32> {
        let (mut penalties, mut changed) = (Penalties::default(), logits.to_vec());
        penalties.apply(&options, history, &mut changed);
        let result = changed.clone();
        penalties.undo(&mut changed);
        assert_eq!(changed, logits, "undo restores the logits");
        result
    }

    fn neutral() -> Sampling {
        Sampling { repeat_penalty: 1.0, frequency_penalty: 0.0, presence_penalty: 0.0, ..Sampling::default() }
    }

    #[test]
    fn repeat_divides_positive_and_multiplies_negative_logits() {
        let options = Sampling { repeat_penalty: 2.0, ..neutral() };
        assert_eq!(penalised(options, &[0, 1, 1, 2], &[4.0, -4.0, 0.0, 4.0]), [2.0, -8.0, 0.0, 4.0]);
    }

    #[test]
    fn frequency_counts_and_presence_does_not() {
        let options = Sampling { frequency_penalty: 0.5, presence_penalty: 0.25, ..neutral() };
        assert_eq!(penalised(options, &[0, 0, 0, 2], &[2.0, 2.0, 2.0]), [0.25, 2.0, 1.25]);
    }

    #[test]
    fn only_the_window_counts() {
        let options = Sampling { presence_penalty: 1.0, repeat_last_n: 2, ..neutral() };
        assert_eq!(penalised(options, &[0, 1, 2], &[5.0; 3]), [5.0, 4.0, 4.0]);
        let none = Sampling { presence_penalty: 1.0, repeat_last_n: 0, ..neutral() };
        assert_eq!(penalised(none, &[0, 1, 2], &[5.0; 3]), [5.0; 3]);
    }

    #[test]
    fn extreme_penalties_stay_finite() {
        let options = Sampling { frequency_penalty: -f32::MAX, presence_penalty: f32::MAX, ..neutral() };
        assert!(penalised(options, &[0, 0], &[1.0]).iter().all(|x| x.is_finite()));
        let options = Sampling { repeat_penalty: 1e-30, ..neutral() };
        assert_eq!(penalised(options, &[0], &[1e30]), [f32::MAX]);
    }
}

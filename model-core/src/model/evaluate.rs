//! Logits at every position of a text, by the same layers that sessions use.

use super::{CachePrecision, Error as ModelError, Forward, Model};
use crate::{Error, TokenId};

/// Tokens per batch.
const BATCH: usize = 64;
/// Positions whose logits are in memory at a time.
const HEAD_BATCH: usize = 8;

impl Model {
    /// Evaluates `tokens` from position 0 on and hands the logits (`[vocab]`) of every position to `each`, in order. They
    /// are those that a session samples from after the same tokens, bit for bit.
    ///
    /// # Errors
    /// The tokens do not fit the context or the vocabulary, or the model is damaged.
    pub fn logits_for(&self, tokens: &[TokenId], each: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        self.logits_with(CachePrecision::default(), tokens, each)
    }

    /// [`Model::logits_for`] with keys and values of another precision.
    ///
    /// # Errors
    /// As there.
    pub fn logits_with(
        &self,
        precision: CachePrecision,
        tokens: &[TokenId],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let context_length = self.config.context_length;
        if tokens.len() > context_length {
            return Err(ModelError::ContextTooShort { tokens: tokens.len(), context_length }.into());
        }
        let (mut cache, mut forward, mut logits) = (self.new_cache(precision), Forward::default(), Vec::new());
        for batch in tokens.chunks(BATCH) {
            let start = cache.len();
            forward.begin(self, &mut cache, start, batch)?;
            while !forward.layer(self, &mut cache)? {}
            cache.set_len(start + batch.len());
            for first in (0..batch.len()).step_by(HEAD_BATCH) {
                let count = HEAD_BATCH.min(batch.len() - first);
                forward.logits_into(self, first, count, &mut logits)?;
                for (i, logits) in logits.chunks_exact(self.config.vocab).enumerate() {
                    each(start + first + i, logits);
                }
            }
        }
        Ok(())
    }
}

//! The tokens of a vocabulary in the order of their bytes, so that those that begin alike are checked together.

use crate::TokenId;
use crate::tokenizer::Tokenizer;

/// All tokens with text, by their bytes.
#[derive(Debug, Clone)]
pub struct TokenOrder {
    tokens: Vec<Ordered>,
}

/// A token in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ordered {
    pub(super) id: TokenId,
    /// How many bytes it has in common with the token before it.
    pub(super) shared: u32,
}

impl TokenOrder {
    /// Sorts the tokens of `tokenizer`; about 2,000 instructions for each of SmolLM2's 49,152 in the canister.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let bytes = |id: TokenId| tokenizer.token_bytes(id).unwrap_or_default();
        let ids = (0..tokenizer.vocab_size() as TokenId).filter(|&id| !bytes(id).is_empty());
        // The first eight bytes as a number decide most comparisons.
        let mut keys: Vec<(u64, TokenId)> = ids.map(|id| (beginning(bytes(id)), id)).collect();
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| (bytes(a.1), a.1).cmp(&(bytes(b.1), b.1))));
        let mut before: &[u8] = &[];
        let tokens = keys.into_iter().map(|(_, id)| {
            let shared = before.iter().zip(bytes(id)).take_while(|(a, b)| a == b).count() as u32;
            before = bytes(id);
            Ordered { id, shared }
        });
        Self { tokens: tokens.collect() }
    }

    pub(super) fn tokens(&self) -> &[Ordered] {
        &self.tokens
    }
}

/// Up to eight bytes as a number that orders as they do, but for zeros at the end.
fn beginning(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{TinyLlama, Vocabulary};
    use crate::gguf::File;

    #[test]
    fn every_token_with_text_comes_once_after_its_beginnings() {
        for vocabulary in [Vocabulary::ByteBpe, Vocabulary::SentencePiece] {
            let file = File::read(&TinyLlama { vocabulary, vocab: 420, ..TinyLlama::default() }.build()).unwrap();
            let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
            let bytes = |id| tokenizer.token_bytes(id).unwrap();
            let order = TokenOrder::new(&tokenizer);
            let mut expected: Vec<TokenId> = (0..tokenizer.vocab_size() as TokenId).collect();
            expected.retain(|&id| !bytes(id).is_empty());
            expected.sort_by_key(|&id| (bytes(id), id));
            assert_eq!(order.tokens().iter().map(|token| token.id).collect::<Vec<_>>(), expected);
            for pair in order.tokens().windows(2) {
                let (before, token) = (bytes(pair[0].id), bytes(pair[1].id));
                let shared = pair[1].shared as usize;
                assert_eq!(before[..shared], token[..shared]);
                assert!(before.get(shared).is_none() || before.get(shared) != token.get(shared));
            }
        }
    }
}

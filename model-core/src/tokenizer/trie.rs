//! Finds which spellings a text begins with, in time that grows with the longest of them and not with their number.
//! Knows nothing of what they spell.

use super::merge::PairTable;
use super::vocab::NO_TOKEN;
use crate::TokenId;

/// A tree of spellings, byte by byte.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    /// By first byte: its node, or 0, which is the root and below none.
    first: Vec<u32>,
    /// Node and byte to the node below.
    edges: PairTable,
    /// By node: the token whose spelling ends there, or [`NO_TOKEN`].
    tokens: Vec<TokenId>,
}

impl Trie {
    /// An empty tree with room for spellings of `bytes` bytes in all.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { first: vec![0; 256], edges: PairTable::with_capacity(bytes), tokens: vec![NO_TOKEN] }
    }

    /// Adds a spelling that is not empty.
    ///
    /// # Errors
    /// The token that has this spelling already.
    pub(super) fn insert(&mut self, text: &[u8], id: TokenId) -> Result<(), TokenId> {
        let mut node = 0;
        for &byte in text {
            node = match self.below(node, byte) {
                Some(below) => below,
                None => self.grow(node, byte),
            };
        }
        match self.tokens.get_mut(node as usize) {
            Some(token) if *token == NO_TOKEN => *token = id,
            Some(token) => return Err(*token),
            None => {}
        }
        Ok(())
    }

    fn grow(&mut self, node: u32, byte: u8) -> u32 {
        let below = self.tokens.len() as u32;
        self.tokens.push(NO_TOKEN);
        match self.first.get_mut(usize::from(byte)) {
            Some(first) if node == 0 => *first = below,
            _ => self.edges.insert(0, node, byte.into(), below),
        }
        below
    }

    fn below(&self, node: u32, byte: u8) -> Option<u32> {
        match node {
            0 => self.first.get(usize::from(byte)).copied().filter(|&below| below != 0),
            _ => self.edges.find((node, byte.into())).map(|(_, below)| below),
        }
    }

    /// Bytes of `text` before the first that some spelling begins with.
    pub(super) fn skip(&self, text: &[u8]) -> usize {
        let begins = |&byte: &u8| self.first.get(usize::from(byte)).is_some_and(|&below| below != 0);
        text.iter().position(begins).unwrap_or(text.len())
    }

    /// The tokens whose spelling `text` begins with, the shortest first, with the lengths of their spellings.
    pub(super) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (TokenId, usize)> {
        let nodes = text.iter().scan(0, |node, &byte| {
            *node = self.below(*node, byte)?;
            Some(*node)
        });
        nodes.zip(1..).filter_map(|(node, len)| {
            let id = *self.tokens.get(node as usize)?;
            (id != NO_TOKEN).then_some((id, len))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_are_found_from_the_shortest() {
        let mut trie = Trie::with_capacity(20);
        for (id, text) in (0..).zip(["a", "abc", "b", "abd", "é"]) {
            trie.insert(text.as_bytes(), id).unwrap();
        }
        let prefixes = |text: &str| trie.prefixes(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(prefixes("abcd"), [(0, 1), (1, 3)]);
        assert_eq!(prefixes("abx"), [(0, 1)]);
        assert_eq!(prefixes("éa"), [(4, 2)]);
        assert_eq!(prefixes("xa"), []);
        assert_eq!(prefixes(""), []);
    }

    #[test]
    fn a_spelling_belongs_to_one_token() {
        let mut trie = Trie::with_capacity(4);
        assert_eq!(trie.insert(b"ab", 3), Ok(()));
        assert_eq!(trie.insert(b"a", 4), Ok(()));
        assert_eq!(trie.insert(b"ab", 5), Err(3));
    }
}

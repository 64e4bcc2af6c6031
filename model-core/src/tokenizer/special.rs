//! Tokens that are matched as a whole in the text before it is cut into words, and those that end a generation.

use std::borrow::Cow;

use super::error::{Error, shorten};
use super::trie::Trie;
use super::vocab::{TokenKind, Vocabulary};
use crate::TokenId;

/// A stretch of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// To be cut into words.
    Text(&'t str),
    /// One whole token.
    Token(TokenId),
}

/// Finds control, unknown and user-defined tokens in text by their spelling.
#[derive(Debug, Clone)]
pub(super) struct SpecialTokens {
    trie: Trie,
    /// Tokens that swallow the white space after them, ascending.
    swallowing: Vec<TokenId>,
}

impl SpecialTokens {
    /// Collects the special tokens of `vocabulary`.
    ///
    /// # Errors
    /// [`Error::DuplicateToken`] if two are spelled alike.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, Error> {
        let special = || vocabulary.iter().filter(|&(_, kind)| is_special(kind)).map(|(id, _)| id);
        let mut trie = Trie::with_capacity(special().map(|id| vocabulary.text(id).len()).sum());
        for id in special() {
            let text = vocabulary.text(id);
            trie.insert(text.as_bytes(), id).map_err(|first| Error::DuplicateToken {
                first,
                second: id,
                text: shorten(text),
            })?;
        }
        Ok(Self { trie, swallowing: Vec::new() })
    }

    /// Lets all special tokens but those spelled as in `except` swallow the white space that follows them.
    pub(super) fn swallow_space(&mut self, vocabulary: &Vocabulary, except: &[&str]) {
        let swallows = |&(id, kind): &(TokenId, TokenKind)| is_special(kind) && !except.contains(&vocabulary.text(id));
        self.swallowing = vocabulary.iter().filter(swallows).map(|(id, _)| id).collect();
    }

    /// The special token spelled `text`.
    pub(super) fn find(&self, text: &[u8]) -> Option<TokenId> {
        self.trie.prefixes(text).find(|&(_, len)| len == text.len()).map(|(id, _)| id)
    }

    /// Cuts out the tokens found in `text`, from the left, the longest first. Control and unknown tokens are found
    /// only with `parse_special`, user-defined ones always. Empty stretches of text are left out.
    pub(super) fn split<'t>(&self, vocabulary: &Vocabulary, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let wanted = |kind| parse_special || kind == TokenKind::UserDefined;
        let mut fragments = Vec::new();
        let mut text_start = 0;
        let mut at = 0;
        while let Some(tail) = text.as_bytes().get(at..) {
            at += self.trie.skip(tail);
            let Some(tail) = text.as_bytes().get(at..).filter(|tail| !tail.is_empty()) else { break };
            let Some((id, len)) = self.match_at(vocabulary, tail, wanted) else {
                at += 1;
                continue;
            };
            push_text(&mut fragments, &text[text_start..at]);
            fragments.push(Fragment::Token(id));
            at += len + self.swallowed(id, &text[at + len..]);
            text_start = at;
        }
        push_text(&mut fragments, &text[text_start..]);
        fragments
    }

    /// Bytes at the beginning of `rest` that go with the token before it.
    fn swallowed(&self, id: TokenId, rest: &str) -> usize {
        let swallows = self.swallowing.binary_search(&id).is_ok();
        if swallows { rest.len() - rest.trim_start().len() } else { 0 }
    }

    /// Puts `guard` after the first character of every control or unknown token spelled in `text`, so that it is
    /// found no more. A character that spells such a token alone cannot be guarded.
    pub(super) fn guard<'t>(&self, vocabulary: &Vocabulary, text: &'t str, guard: char) -> Cow<'t, str> {
        let obeyed = |kind| kind != TokenKind::UserDefined;
        let mut guarded = String::new();
        let mut copied = 0;
        for (at, character) in text.char_indices() {
            let tail = &text.as_bytes()[at..];
            if self.match_at(vocabulary, tail, obeyed).is_some_and(|(_, len)| len > character.len_utf8()) {
                let end = at + character.len_utf8();
                guarded.push_str(&text[copied..end]);
                guarded.push(guard);
                copied = end;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        guarded.push_str(&text[copied..]);
        Cow::Owned(guarded)
    }

    /// The longest wanted token at the beginning of `tail`, and its length.
    fn match_at(
        &self,
        vocabulary: &Vocabulary,
        tail: &[u8],
        wanted: impl Fn(TokenKind) -> bool,
    ) -> Option<(TokenId, usize)> {
        self.trie.prefixes(tail).filter(|&(id, _)| vocabulary.kind(id).is_some_and(&wanted)).last()
    }
}

fn push_text<'t>(fragments: &mut Vec<Fragment<'t>>, text: &'t str) {
    if !text.is_empty() {
        fragments.push(Fragment::Text(text));
    }
}

fn is_special(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined)
}

/// Spellings that end an answer in models whose file names no such token, or only one of several
/// (the list that llama.cpp keeps).
const END_SPELLINGS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<turn|>",
    "<|tool_response>",
    "<end_of_utterance>",
    "<\u{FF5C}end\u{2581}of\u{2581}sentence\u{FF5C}>",
    "[e~[",
    // What a model of code writes after the middle that it was to fill in: padding, the next file, the next repository.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// The spelling among [`END_SPELLINGS`] that may be something else, as in Gemma's vocabulary, which has the tags of HTML.
const MARKUP: &str = "</s>";

/// Whether a token spelled so is a control token, whatever the file says: plain text must not end an answer.
pub(super) fn must_be_control(text: &[u8]) -> bool {
    let ends = |spelling: &&str| spelling.as_bytes() == text && *spelling != MARKUP;
    matches!(text, [b'<' | b'_' | b'[', ..]) && END_SPELLINGS.iter().any(ends)
}

/// The special tokens of `vocabulary` with a spelling that ends an answer, in ascending order.
///
/// Where an answer ends in `<|return|>` or `<|call|>`, or in `<|flush|>` or `<|calls|>`, `<|end|>` only ends a part of it
/// and is left out.
pub(super) fn end_of_generation(vocabulary: &Vocabulary, special: &SpecialTokens) -> Vec<TokenId> {
    let find = |text: &str| {
        special.find(text.as_bytes()).filter(|&id| match vocabulary.kind(id) {
            Some(TokenKind::Control) => true,
            Some(TokenKind::UserDefined) => text != MARKUP,
            _ => false,
        })
    };
    let both = |first, second| find(first).is_some() && find(second).is_some();
    let in_parts = both("<|return|>", "<|call|>") || both("<|flush|>", "<|calls|>");
    let spellings = END_SPELLINGS.iter().filter(|&&text| !(in_parts && text == "<|end|>"));
    let mut ids: Vec<_> = spellings.filter_map(|text| find(text)).collect();
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use super::super::vocab::Spelling;
    use super::*;

    fn vocabulary(tokens: &[(&str, TokenKind)]) -> (Vocabulary, SpecialTokens) {
        let mut vocabulary = Vocabulary::new(Spelling::Plain, tokens.len());
        for (text, kind) in tokens {
            vocabulary.push(text.as_bytes(), *kind).unwrap();
        }
        let special = SpecialTokens::new(&vocabulary).unwrap();
        (vocabulary, special)
    }

    #[test]
    fn user_defined_tokens_are_always_found_and_control_tokens_on_request() {
        let (vocabulary, special) =
            vocabulary(&[("<s>", TokenKind::Control), ("<u>", TokenKind::UserDefined), ("<n>", TokenKind::Normal)]);
        let split = |parse| special.split(&vocabulary, "a<s><u>é<n>", parse);
        assert_eq!(split(false), [Fragment::Text("a<s>"), Fragment::Token(1), Fragment::Text("é<n>")]);
        assert_eq!(split(true), [Fragment::Text("a"), Fragment::Token(0), Fragment::Token(1), Fragment::Text("é<n>")]);
        assert!(special.split(&vocabulary, "", true).is_empty());
    }

    #[test]
    fn the_longest_token_wins() {
        let (vocabulary, special) = vocabulary(&[("ab", TokenKind::UserDefined), ("abc", TokenKind::UserDefined)]);
        assert_eq!(special.split(&vocabulary, "abcab", false), [Fragment::Token(1), Fragment::Token(0)]);
    }

    #[test]
    fn a_control_token_does_not_hide_a_shorter_user_defined_one() {
        let (vocabulary, special) = vocabulary(&[("<a>", TokenKind::Control), ("<", TokenKind::UserDefined)]);
        assert_eq!(special.split(&vocabulary, "<a>", false), [Fragment::Token(1), Fragment::Text("a>")]);
    }

    #[test]
    fn guarded_control_tokens_are_found_no_more() {
        let (vocabulary, special) =
            vocabulary(&[("<s>", TokenKind::Control), ("<u>", TokenKind::UserDefined), ("s><", TokenKind::Control)]);
        let guarded = special.guard(&vocabulary, "é<s><u>", '|');
        assert_eq!(guarded, "é<|s|><u>");
        let fragments = special.split(&vocabulary, &guarded, true);
        assert_eq!(fragments, [Fragment::Text("é<|s|>"), Fragment::Token(1)]);
        assert!(matches!(special.guard(&vocabulary, "<u> < s>", '|'), Cow::Borrowed(_)));
    }

    #[test]
    fn white_space_is_swallowed_where_asked_for() {
        let (vocabulary, mut special) = vocabulary(&[("<s>", TokenKind::Control), ("<e>", TokenKind::Control)]);
        special.swallow_space(&vocabulary, &["<s>"]);
        let fragments = special.split(&vocabulary, "<s> a<e> \n\u{3000}<e>\tb ", true);
        let [start, end] = [Fragment::Token(0), Fragment::Token(1)];
        assert_eq!(fragments, [start, Fragment::Text(" a"), end, end, Fragment::Text("b ")]);
        assert_eq!(special.split(&vocabulary, "<e> ", false), [Fragment::Text("<e> ")]);
    }

    #[test]
    fn ends_are_found_by_spelling_unless_they_are_plain_text() {
        let (vocabulary, special) = vocabulary(&[
            ("<|end|>", TokenKind::Normal),
            ("<|eot_id|>", TokenKind::Control),
            ("<|im_end|>", TokenKind::UserDefined),
            ("<|im_start|>", TokenKind::Control),
            ("</s>", TokenKind::UserDefined),
        ]);
        assert_eq!(end_of_generation(&vocabulary, &special), [1, 2]);
        assert!(must_be_control(b"<|end|>") && !must_be_control(b"</s>") && !must_be_control(b"<|im_start|>"));
    }

    #[test]
    fn an_end_of_part_does_not_end_the_generation() {
        let all =
            [("<|end|>", TokenKind::Control), ("<|return|>", TokenKind::Control), ("<|call|>", TokenKind::Control)];
        let (all_vocabulary, special) = vocabulary(&all);
        assert_eq!(end_of_generation(&all_vocabulary, &special), [1, 2]);
        let (two_vocabulary, special) = vocabulary(&all[..2]);
        assert_eq!(end_of_generation(&two_vocabulary, &special), [0, 1]);
    }
}

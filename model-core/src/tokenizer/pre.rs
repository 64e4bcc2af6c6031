//! Pre-tokenizers: how the text is cut into words before byte-level merges, by the names GGUF gives them.
//! Knows nothing of vocabularies.
//!
//! The patterns are those the models were trained with. Each ends in `\s+(?!\S)|\s+`: a run of spaces leaves its
//! last one to the word that follows. Look-ahead would need a backtracking engine, so that the tables here say
//! `\s+` and [`Stage`] gives the last character back: the same words from a linear-time automaton.

use std::borrow::Cow;

use tokenizers::normalizers::NFC;
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer as _};

use super::Error;

const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// One pass over the text; a pre-tokenizer makes several, each within the words of the one before.
#[derive(Debug, Clone, Copy)]
enum Pass {
    /// Every match is a word of its own, and so is what lies between.
    Isolate(&'static str),
    /// The pattern covers the text; white space before a word gives back its last character.
    Words(&'static str),
    /// The same, except that runs ending in a line break stay whole.
    WordsKeepingLines(&'static str),
}

/// A pre-tokenizer as data.
#[derive(Debug)]
pub(super) struct Profile {
    /// Values of `tokenizer.ggml.pre`, the usual one first.
    names: &'static [&'static str],
    passes: &'static [Pass],
    /// Whether the text is first brought into Unicode's composed form, as Hugging Face's tokenizers of these
    /// models do (llama.cpp leaves decomposed text as it is).
    composed: bool,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub(super) whole_words_first: bool,
    /// Whether texts begin with the bos token unless the file says otherwise.
    pub(super) add_bos: bool,
}

const PLAIN: Profile = Profile { names: &[], passes: &[], composed: false, whole_words_first: false, add_bos: false };

/// Every supported pre-tokenizer.
static PROFILES: &[Profile] = &[
    Profile {
        names: &["default"],
        passes: &[
            Pass::Isolate(r"[\p{P}\$\+<=>\^~\|]+"),
            Pass::Words(GPT2_WORDS),
            Pass::Isolate(r"\p{N}+"),
            Pass::Isolate("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
    Profile { names: &["gpt-2"], passes: &[Pass::Words(GPT2_WORDS)], ..PLAIN },
    Profile {
        names: &["llama-bpe", "llama3", "llama-v3"],
        passes: &[Pass::WordsKeepingLines(LLAMA3_WORDS)],
        whole_words_first: true,
        add_bos: true,
        ..PLAIN
    },
    Profile { names: &["qwen2"], passes: &[Pass::WordsKeepingLines(QWEN2_WORDS)], composed: true, ..PLAIN },
    Profile { names: &["smollm", "starcoder"], passes: &[Pass::Isolate(r"\p{N}"), Pass::Words(GPT2_WORDS)], ..PLAIN },
];

/// A compiled [`Profile`].
#[derive(Debug)]
pub(super) struct PreTokenizer {
    pub(super) profile: &'static Profile,
    stages: Vec<Stage>,
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    pub(super) fn named(name: &str) -> Result<Self, Error> {
        let profile = PROFILES.iter().find(|profile| profile.names.contains(&name));
        let profile = profile.ok_or_else(|| Error::UnsupportedPreTokenizer {
            found: super::error::shorten(name),
            supported: PROFILES.iter().flat_map(|profile| profile.names).copied().collect::<Vec<_>>().join(", "),
        })?;
        let stages = profile.passes.iter().map(|&pass| Stage::compile(pass)).collect::<Result<_, _>>()?;
        Ok(Self { profile, stages })
    }

    /// The text as the vocabulary expects it.
    pub(super) fn normalize<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Error> {
        if !self.profile.composed || text.is_ascii() {
            return Ok(Cow::Borrowed(text));
        }
        let mut composed = NormalizedString::from(text);
        NFC.normalize(&mut composed).map_err(|error| Error::Encode { reason: error.to_string() })?;
        Ok(Cow::Owned(composed.get().to_owned()))
    }

    /// Cuts `text` into words, which joined give `text`.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut words = vec![text];
        for stage in &self.stages {
            let mut parts = Vec::with_capacity(words.len().max(text.len() / 4));
            for word in words {
                stage.split(word, &mut parts);
            }
            words = parts;
        }
        words
    }
}

#[derive(Debug)]
struct Stage {
    pass: Pass,
    pattern: SysRegex,
}

impl Stage {
    fn compile(pass: Pass) -> Result<Self, Error> {
        let (Pass::Isolate(pattern) | Pass::Words(pattern) | Pass::WordsKeepingLines(pattern)) = pass;
        let pattern = SysRegex::new(pattern).map_err(|error| Error::Encode { reason: error.to_string() })?;
        Ok(Self { pass, pattern })
    }

    fn split<'t>(&self, text: &'t str, out: &mut Vec<&'t str>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (start, end) = self.pattern.find_iter(rest).next().unwrap_or((rest.len(), rest.len()));
            let Some((gap, found)) = rest.get(..end).and_then(|head| head.split_at_checked(start)) else { return };
            let kept = &found[..found.len() - self.given_back(found, end < rest.len())];
            out.extend([gap, kept].into_iter().filter(|part| !part.is_empty()));
            rest = &rest[gap.len() + kept.len()..];
        }
    }

    /// Bytes at the end of a match that belong to the next word.
    fn given_back(&self, found: &str, more_follows: bool) -> usize {
        let last = found.chars().next_back().unwrap_or_default();
        let keeps_lines = match self.pass {
            Pass::Isolate(_) => return 0,
            Pass::Words(_) => false,
            Pass::WordsKeepingLines(_) => true,
        };
        let stays = !last.is_whitespace() || (keeps_lines && matches!(last, '\r' | '\n'));
        if stays || !more_follows || found.len() == last.len_utf8() { 0 } else { last.len_utf8() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        PreTokenizer::named(name).unwrap().split(text)
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_next_word() {
        assert_eq!(split("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(split("gpt-2", "a\n\nb  "), ["a", "\n", "\n", "b", "  "]);
        assert_eq!(split("gpt-2", "a\t\u{3000}b"), ["a", "\t", "\u{3000}", "b"]);
    }

    #[test]
    fn line_breaks_stay_together_for_llama3_and_qwen2() {
        for name in ["llama-bpe", "qwen2"] {
            assert_eq!(split(name, "a \n\n  b!\n"), ["a", " \n\n", " ", " b", "!\n"], "{name}");
        }
    }

    #[test]
    fn digits_come_single_in_threes_or_in_runs() {
        assert_eq!(split("smollm", "in 1234"), ["in", " ", "1", "2", "3", "4"]);
        assert_eq!(split("qwen2", "in 1234"), ["in", " ", "1", "2", "3", "4"]);
        assert_eq!(split("llama-bpe", "in 1234"), ["in", " ", "123", "4"]);
        assert_eq!(split("gpt-2", "in 1234"), ["in", " 1234"]);
        assert_eq!(split("default", "in 12345"), ["in", " ", "123", "45"]);
    }

    #[test]
    fn contractions_are_words() {
        assert_eq!(split("gpt-2", "I'LL it's"), ["I", "'", "LL", " it", "'s"]);
        assert_eq!(split("llama-bpe", "I'LL it's"), ["I", "'LL", " it", "'s"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_supported_ones() {
        let error = PreTokenizer::named("tekken").unwrap_err().to_string();
        assert!(error.contains("`tekken`") && error.contains("llama-bpe") && error.contains("smollm"), "{error}");
    }

    #[test]
    fn only_qwen2_composes_characters() {
        let decomposed = "e\u{301}";
        for (name, expected) in [("qwen2", "\u{E9}"), ("llama-bpe", decomposed)] {
            assert_eq!(PreTokenizer::named(name).unwrap().normalize(decomposed).unwrap(), expected);
        }
    }
}

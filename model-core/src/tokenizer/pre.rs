//! Pre-tokenizers: how the text is cut into words before byte-level merges, by the names GGUF gives them.
//! Knows nothing of vocabularies.
//!
//! The patterns are those the models were trained with, from their `tokenizer.json`. Most end in `\s+(?!\S)|\s+`: a run
//! of spaces leaves its last one to the word that follows. Look-ahead would need a backtracking engine, so that the
//! tables here say `\s+` and [`Stage`] gives the last character back: the same words from a linear-time automaton.
//! Which names mean the same is what llama.cpp says (`src/llama-vocab.cpp`).

use std::borrow::Cow;

use regex_syntax::hir::HirKind;
use tokenizers::normalizers::NFC;
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer as _};

use super::Error;
use super::ascii::{AsciiWords, count};
use crate::characters::Class;

const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const SEED_CODER_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+";
const GPT4O_WORDS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const TEKKEN_WORDS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
/// ASCII as [`GPT2_WORDS`] cuts it.
const GPT2_ASCII: AsciiWords = AsciiWords {
    any_before_letters: false,
    cased: false,
    joins_contractions: false,
    digits: usize::MAX,
    space_before_digits: true,
    after_signs: b"",
};
const QWEN2_ASCII: AsciiWords =
    AsciiWords { any_before_letters: true, digits: 1, space_before_digits: false, after_signs: b"\r\n", ..GPT2_ASCII };
const LLAMA3_ASCII: AsciiWords = AsciiWords { digits: 3, ..QWEN2_ASCII };
const SEED_CODER_ASCII: AsciiWords = AsciiWords { after_signs: b"", ..QWEN2_ASCII };
const TEKKEN_ASCII: AsciiWords = AsciiWords { cased: true, after_signs: b"\r\n/", ..QWEN2_ASCII };
const GPT4O_ASCII: AsciiWords = AsciiWords { joins_contractions: true, digits: 3, ..TEKKEN_ASCII };

/// One pass over the text; a pre-tokenizer makes several, each within the words of the one before. A search for a pattern
/// costs as much as many characters, so that what can be said without a pattern is.
#[derive(Debug, Clone, Copy)]
enum Pass {
    /// Every such character is a word of its own, and so is what lies between.
    Single(fn(char) -> bool),
    /// Runs of such characters are words, and so is what lies between.
    Runs(fn(char) -> bool),
    /// `[0-9][0-9][0-9]`: three ASCII digits in a row are a word, and so is what lies between.
    Threes,
    /// `\s?C+` for a class `C`: a run with a white space before it is a word, and so is what lies between.
    SpacedRuns(&'static str),
    /// `[\p{P}\$\+<=>\^~\|]+`: runs of such characters are words, and so is what lies between.
    Punctuation,
    /// The pattern covers the text; white space before a word gives back its last character. ASCII needs no search.
    Words(&'static str, AsciiWords),
    /// The same, except that runs ending in a line break stay whole.
    WordsKeepingLines(&'static str, AsciiWords),
}

/// What [`Pass::Punctuation`] matches at the beginning of a text.
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+|[^\p{P}\$\+<=>\^~\|]+";

/// `[\r\n]`.
fn is_line_break(character: char) -> bool {
    matches!(character, '\r' | '\n')
}

/// `[一-龥\u{800}-一가-\u{D7FF}]`, by which DeepSeek means Chinese, Japanese and Korean.
fn is_east_asian(character: char) -> bool {
    matches!(character, '\u{800}'..='龥' | '가'..='\u{D7FF}')
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
        passes: &[Pass::Punctuation, Pass::Words(GPT2_WORDS, GPT2_ASCII), Pass::Runs(char::is_numeric), Pass::Threes],
        ..PLAIN
    },
    Profile {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
        ],
        passes: &[Pass::Words(GPT2_WORDS, GPT2_ASCII)],
        ..PLAIN
    },
    Profile {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2"],
        passes: &[Pass::WordsKeepingLines(LLAMA3_WORDS, LLAMA3_ASCII)],
        whole_words_first: true,
        add_bos: true,
        ..PLAIN
    },
    Profile { names: &["dbrx", "smaug-bpe"], passes: &[Pass::WordsKeepingLines(LLAMA3_WORDS, LLAMA3_ASCII)], ..PLAIN },
    Profile {
        names: &["qwen2"],
        passes: &[Pass::WordsKeepingLines(QWEN2_WORDS, QWEN2_ASCII)],
        composed: true,
        ..PLAIN
    },
    Profile {
        names: &["deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"],
        passes: &[Pass::WordsKeepingLines(QWEN2_WORDS, QWEN2_ASCII)],
        ..PLAIN
    },
    Profile {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        passes: &[Pass::Single(char::is_numeric), Pass::Words(GPT2_WORDS, GPT2_ASCII)],
        ..PLAIN
    },
    Profile {
        names: &["tekken"],
        passes: &[Pass::WordsKeepingLines(TEKKEN_WORDS, TEKKEN_ASCII)],
        whole_words_first: true,
        add_bos: true,
        ..PLAIN
    },
    Profile { names: &["gpt-4o", "llama4"], passes: &[Pass::WordsKeepingLines(GPT4O_WORDS, GPT4O_ASCII)], ..PLAIN },
    Profile { names: &["seed-coder"], passes: &[Pass::WordsKeepingLines(SEED_CODER_WORDS, SEED_CODER_ASCII)], ..PLAIN },
    Profile {
        names: &["deepseek-coder"],
        passes: &[
            Pass::Single(is_line_break),
            Pass::SpacedRuns(r"\p{L}"),
            Pass::SpacedRuns(r"\p{P}"),
            Pass::Runs(is_east_asian),
            Pass::Single(char::is_numeric),
        ],
        ..PLAIN
    },
];

/// The names of every supported pre-tokenizer, the usual one first.
pub(super) fn names() -> impl Iterator<Item = &'static [&'static str]> {
    PROFILES.iter().map(|profile| profile.names)
}

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
            supported: names().flatten().copied().collect::<Vec<_>>().join(", "),
        })?;
        let stages = profile.passes.iter().map(|&pass| Stage::compile(pass)).collect::<Result<_, _>>()?;
        Ok(Self { profile, stages })
    }

    /// The text as the vocabulary expects it.
    pub(super) fn normalize<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Error> {
        if !self.profile.composed || text.chars().all(is_composed) {
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

/// Whether the character, whatever stands beside it, stays as it is in Unicode's composed form: true of what most texts
/// are made of, false of all that may change and of some that does not.
fn is_composed(character: char) -> bool {
    matches!(character,
        '\0'..='\u{2FF}' // Latin
        | '\u{400}'..='\u{482}' // Cyrillic
        | '\u{2010}'..='\u{2027}' // dashes and quotes
        | '\u{3001}'..='\u{3029}' | '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FA}' // Japanese
        | '\u{4E00}'..='\u{9FFF}' | '\u{FF01}'..='\u{FF5E}' // Chinese
        | '\u{AC00}'..='\u{D7A3}' // Korean
        | '\u{1F300}'..='\u{1F6FF}') // pictures
}

/// A [`Pass`] with its pattern compiled.
#[derive(Debug)]
enum Stage {
    Characters { matches: fn(char) -> bool, single: bool },
    Threes,
    SpacedRuns(Class),
    Punctuation(SysRegex),
    Words { pattern: SysRegex, ascii: AsciiWords, keeps_lines: bool },
}

impl Stage {
    fn compile(pass: Pass) -> Result<Self, Error> {
        let compile =
            |pattern: &str| SysRegex::new(pattern).map_err(|error| Error::Encode { reason: error.to_string() });
        // A match that has to begin at once is found without looking for its beginning from its end.
        let at_once = |pattern| compile(&format!("^(?:{pattern})"));
        Ok(match pass {
            Pass::Single(matches) => Self::Characters { matches, single: true },
            Pass::Runs(matches) => Self::Characters { matches, single: false },
            Pass::Threes => Self::Threes,
            Pass::SpacedRuns(pattern) => Self::SpacedRuns(class(pattern)?),
            Pass::Punctuation => Self::Punctuation(at_once(PUNCTUATION)?),
            Pass::Words(pattern, ascii) => Self::Words { pattern: at_once(pattern)?, ascii, keeps_lines: false },
            Pass::WordsKeepingLines(pattern, ascii) => {
                Self::Words { pattern: at_once(pattern)?, ascii, keeps_lines: true }
            }
        })
    }

    /// Appends the words of `text`.
    fn split<'t>(&self, text: &'t str, out: &mut Vec<&'t str>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (gap, word) = match self {
                Self::Characters { matches, single } => next_characters(rest, *matches, *single),
                Self::Threes => next_three(rest),
                Self::SpacedRuns(class) => next_spaced_run(rest, class),
                Self::Punctuation(pattern) => match next_ascii_punctuation(rest.as_bytes()) {
                    Some(word) => (0, word),
                    None => next_match(rest, pattern),
                },
                Self::Words { pattern, ascii, keeps_lines } => match ascii.next(rest.as_bytes()) {
                    Some(word) => (0, word),
                    None => next_word(rest, pattern, *keeps_lines),
                },
            };
            let Some((between, tail)) = rest.split_at_checked(gap) else { return };
            let Some((word, tail)) = tail.split_at_checked(word) else { return };
            if !between.is_empty() {
                out.push(between);
            }
            if !word.is_empty() {
                out.push(word);
            }
            rest = tail;
        }
    }
}

/// The characters that a pattern of one character matches.
fn class(pattern: &str) -> Result<Class, Error> {
    let parsed = regex_syntax::parse(pattern).map_err(|error| Error::Encode { reason: error.to_string() })?;
    match parsed.into_kind() {
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
            Ok(Class::new(class.iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect()))
        }
        _ => Err(Error::Encode { reason: format!("`{pattern}` is no class of characters") }),
    }
}

/// Length of what lies before the next matching character, or run of such, and its length.
fn next_characters(text: &str, matches: fn(char) -> bool, single: bool) -> (usize, usize) {
    let gap = text.find(matches).unwrap_or(text.len());
    let found = text.get(gap..).unwrap_or_default();
    let word = if single {
        found.chars().next().map_or(0, char::len_utf8)
    } else {
        found.find(|character| !matches(character)).unwrap_or(found.len())
    };
    (gap, word)
}

/// Length of what lies before the next three ASCII digits, and theirs.
fn next_three(text: &str) -> (usize, usize) {
    let three = text.as_bytes().windows(3).position(|three| three.iter().all(u8::is_ascii_digit));
    three.map_or((text.len(), 0), |gap| (gap, 3))
}

/// Length of what lies before the next match, and of the match.
fn next_match(text: &str, pattern: &SysRegex) -> (usize, usize) {
    pattern.find_iter(text).next().map_or((text.len(), 0), |(start, end)| (start, end - start))
}

/// Length of what lies before the next run of characters of the class with a white space before it, and of both.
fn next_spaced_run(text: &str, class: &Class) -> (usize, usize) {
    let is_such = |character| class.contains(u32::from(character));
    let (before, found) = text.split_at(text.find(is_such).unwrap_or(text.len()));
    if found.is_empty() {
        return (text.len(), 0);
    }
    let space = before.chars().next_back().filter(|last| last.is_whitespace()).map_or(0, char::len_utf8);
    let run = found.find(|character| !is_such(character)).unwrap_or(found.len());
    (before.len() - space, space + run)
}

/// Length of the run of punctuation, or of anything else, that `text` begins with, where ASCII decides it.
fn next_ascii_punctuation(text: &[u8]) -> Option<usize> {
    // The class has all of ASCII's punctuation but for the backtick, which is a sign to Unicode.
    let is_punctuation = |byte: u8| byte.is_ascii_punctuation() && byte != b'`';
    let first = is_punctuation(*text.first()?);
    let len = count(text, |byte| byte.is_ascii() && is_punctuation(byte) == first);
    text.get(len).is_none_or(u8::is_ascii).then_some(len)
}

/// As [`next_match`] for a pattern that covers the text; white space before a word gives back its last character.
fn next_word(text: &str, pattern: &SysRegex, keeps_lines: bool) -> (usize, usize) {
    let (gap, len) = next_match(text, pattern);
    let found = text.get(gap..gap + len).unwrap_or_default();
    let last = found.chars().next_back().unwrap_or_default();
    let stays = !last.is_whitespace() || (keeps_lines && is_line_break(last));
    let alone = len == last.len_utf8();
    (gap, if stays || alone || gap + len == text.len() { len } else { len - last.len_utf8() })
}

#[cfg(test)]
mod tests {
    use tokenizers::normalizers::NFD;

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
    fn numbers_are_those_of_the_patterns() {
        let [number, unassigned] = [r"\p{N}", r"\p{Cn}"].map(|pattern| SysRegex::new(pattern).unwrap());
        for character in '\0'..=char::MAX {
            let is = |pattern: &SysRegex| pattern.find_iter(&character.to_string()).next().is_some();
            // The standard library may know a newer Unicode.
            let same = is(&number) == character.is_numeric() || is(&unassigned);
            assert!(same, "U+{:04X}", character as u32);
        }
    }

    #[test]
    fn capital_letters_begin_words_in_newer_patterns() {
        assert_eq!(split("tekken", "macOS's //\n\n/x"), ["mac", "OS", "'s", " //\n\n/", "x"]);
        assert_eq!(split("gpt-4o", "macOS's //\n\n/x"), ["mac", "OS's", " //\n\n/", "x"]);
        assert_eq!(split("gpt-4o", "12345"), ["123", "45"]);
        assert_eq!(split("tekken", "123"), ["1", "2", "3"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_supported_ones() {
        let error = PreTokenizer::named("bloom").unwrap_err().to_string();
        assert!(error.contains("`bloom`") && error.contains("llama-bpe") && error.contains("smollm"), "{error}");
    }

    #[test]
    fn no_name_is_given_twice() {
        let all: Vec<_> = names().flatten().collect();
        assert_eq!(std::collections::BTreeSet::from_iter(&all).len(), all.len());
    }

    #[test]
    fn only_qwen2_composes_characters() {
        let decomposed = "e\u{301}";
        for (name, expected) in [("qwen2", "\u{E9}"), ("llama-bpe", decomposed)] {
            assert_eq!(PreTokenizer::named(name).unwrap().normalize(decomposed).unwrap(), expected);
        }
    }

    /// What changes when composed is a character that is written otherwise, or one that joins the character before it: the
    /// latter are those that decompositions have behind their first.
    #[test]
    fn characters_taken_for_composed_never_change() {
        let composed = |text: &str| {
            let mut text = NormalizedString::from(text);
            NFC.normalize(&mut text).unwrap();
            text.get().to_owned()
        };
        let decomposed = |character: char| {
            let mut text = NormalizedString::from(character.to_string());
            NFD.normalize(&mut text).unwrap();
            text.get().to_owned()
        };
        for character in ('\0'..=char::MAX).filter(|character| is_composed(*character)) {
            assert_eq!(composed(&character.to_string()), character.to_string());
        }
        for joining in
            ('\0'..=char::MAX).flat_map(|character| decomposed(character).chars().skip(1).collect::<Vec<_>>())
        {
            assert!(!is_composed(joining), "{joining:?}");
        }
    }

    /// The same passes by patterns alone.
    fn split_by_patterns<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let profile = PROFILES.iter().find(|profile| profile.names.contains(&name)).unwrap();
        let pattern = |pass| match pass {
            Pass::Single(matches) if matches('1') => r"\p{N}",
            Pass::Single(_) => r"[\r\n]",
            Pass::Runs(matches) if matches('1') => r"\p{N}+",
            Pass::Runs(_) => "[一-龥\u{800}-一가-\u{D7FF}]+",
            Pass::Threes => "[0-9][0-9][0-9]",
            Pass::Punctuation => r"[\p{P}\$\+<=>\^~\|]+",
            Pass::SpacedRuns(r"\p{L}") => r"\s?\p{L}+",
            Pass::SpacedRuns(_) => r"\s?\p{P}+",
            Pass::Words(pattern, _) | Pass::WordsKeepingLines(pattern, _) => pattern,
        };
        profile.passes.iter().fold(vec![text], |words, &pass| {
            let regex = SysRegex::new(pattern(pass)).unwrap();
            let mut parts = Vec::new();
            for mut rest in words {
                while !rest.is_empty() {
                    let (gap, len) = match pass {
                        Pass::Words(..) => next_word(rest, &regex, false),
                        Pass::WordsKeepingLines(..) => next_word(rest, &regex, true),
                        _ => next_match(rest, &regex),
                    };
                    parts.extend([&rest[..gap], &rest[gap..gap + len]].into_iter().filter(|part| !part.is_empty()));
                    rest = &rest[gap + len..];
                }
            }
            parts
        })
    }

    proptest::proptest! {
        #[test]
        fn what_needs_no_pattern_is_what_the_patterns_say(
            text in proptest::collection::vec(proptest::sample::select(vec![
                "a", "bc", "A", "BC", "'s", "'Ll", "'", "1", "234", "56789", " ", "  ", "\t", "\n", "\r\n", "\x0b", "\x1c", "\0",
                "!", "?!", "/", "/\n", "`", "$", "<=", "_", "é", "É", "\u{301}", "ſ", "日", "가", "，", "²", "٣", "\u{a0}", "\u{85}",
                "।", "क्षि", "👩\u{200d}👧", "ǅ", "ª", "\u{2028}",
            ]), 0..24),
        ) {
            let text = text.concat();
            for name in names().map(|names| names[0]) {
                proptest::prop_assert_eq!(split(name, &text), split_by_patterns(name, &text), "{}", name);
            }
        }
    }
}

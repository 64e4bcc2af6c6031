//! The next word of a text by looking at bytes, where ASCII decides it: a shortcut past the search for a pattern, which costs
//! as much as many characters. Says nothing where a contraction, white space or another character than ASCII matters.

/// How a pattern cuts ASCII, as far as patterns differ there.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsciiWords {
    /// Whether any character but letters, digits and line breaks may stand before letters; else a space only.
    pub(super) any_before_letters: bool,
    /// Whether capital letters begin words.
    pub(super) cased: bool,
    /// Whether contractions are part of the word before them.
    pub(super) joins_contractions: bool,
    /// Digits of a word at most.
    pub(super) digits: usize,
    /// Whether a space may stand before digits.
    pub(super) space_before_digits: bool,
    /// What may follow signs.
    pub(super) after_signs: &'static [u8],
}

impl AsciiWords {
    /// Length of the word that `text` begins with, if that can be told.
    pub(super) fn next(&self, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        if first == b'\'' {
            return None;
        }
        let after_space = text.get(usize::from(first == b' ')..)?;
        let space = text.len() - after_space.len();
        let len = if first.is_ascii_alphabetic() {
            self.letters(text)
        } else if text.get(1).is_some_and(u8::is_ascii_alphabetic) && self.may_begin(first) {
            1 + self.letters(text.get(1..)?)
        } else if after_space.first()?.is_ascii_digit() && (space == 0 || self.space_before_digits) {
            // No further than the word may go, since the same digits are looked at for the next one.
            let most = after_space.get(..self.digits).unwrap_or(after_space);
            space + count(most, |byte| byte.is_ascii_digit())
        } else if is_sign(*after_space.first()?) {
            let signs = space + count(after_space, is_sign);
            signs + count(text.get(signs..)?, |byte| self.after_signs.contains(&byte))
        } else {
            return None;
        };
        // A character beyond ASCII may belong to the word too.
        let next = text.get(len).copied();
        let undecided = |next: u8| !next.is_ascii() || (self.joins_contractions && next == b'\'');
        if next.is_some_and(undecided) { None } else { Some(len) }
    }

    fn may_begin(&self, first: u8) -> bool {
        first == b' ' || (self.any_before_letters && first.is_ascii() && !matches!(first, b'\r' | b'\n' | b'0'..=b'9'))
    }

    fn letters(&self, text: &[u8]) -> usize {
        if !self.cased {
            return count(text, |byte| byte.is_ascii_alphabetic());
        }
        let capitals = count(text, |byte| byte.is_ascii_uppercase());
        capitals + count(text.get(capitals..).unwrap_or_default(), |byte| byte.is_ascii_lowercase())
    }
}

/// What is neither white space nor a letter nor a digit.
fn is_sign(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'\t'..=b'\r' | b' ')
}

/// Bytes at the beginning of `text` that are such.
pub(super) fn count(text: &[u8], is_such: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|&byte| !is_such(byte)).unwrap_or(text.len())
}

//! The printable alphabet in which byte-level vocabularies spell bytes (GPT-2): every byte has one character,
//! itself where that is printable, else one of U+0100 to U+0143.

/// Highest character of the alphabet, plus one.
const END: usize = 0x144;

/// Character to byte, and back.
pub(super) struct Alphabet {
    bytes: [Option<u8>; END],
}

impl Alphabet {
    /// The table, computed from the rule.
    pub(super) const fn new() -> Self {
        let mut bytes = [None; END];
        let mut shifted = 0x100;
        let mut byte = 0;
        while byte < 256 {
            if is_printable(byte) {
                bytes[byte] = Some(byte as u8);
            } else {
                bytes[shifted] = Some(byte as u8);
                shifted += 1;
            }
            byte += 1;
        }
        Self { bytes }
    }

    /// The byte spelled by the next character of `text`, which moves on; characters have at most two bytes of UTF-8.
    fn next(&self, text: &mut std::slice::Iter<'_, u8>) -> Option<u8> {
        let character = match *text.next()? {
            lead @ 0xC2..=0xC5 => {
                let next = text.next().filter(|&next| next & 0xC0 == 0x80)?;
                usize::from(lead & 0x1F) << 6 | usize::from(next & 0x3F)
            }
            ascii @ 0..=0x7F => usize::from(ascii),
            _ => return None,
        };
        self.bytes.get(character).copied().flatten()
    }

    /// Appends the bytes spelled by `text` to `out`. Returns `false`, with `out` unchanged, unless all of `text` is
    /// UTF-8 in the alphabet.
    pub(super) fn decode_into(&self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.reserve(text.len());
        let mut rest = text.iter();
        while rest.len() > 0 {
            match self.next(&mut rest) {
                Some(byte) => out.push(byte),
                None => {
                    out.truncate(start);
                    return false;
                }
            }
        }
        true
    }
}

/// Whether GPT-2's rule lets `byte`, read as Latin-1, stand for itself.
const fn is_printable(byte: usize) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The one table.
pub(super) static ALPHABET: Alphabet = Alphabet::new();

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        ALPHABET.decode_into(text.as_bytes(), &mut out).then_some(out)
    }

    #[test]
    fn spells_every_byte_exactly_once() {
        let mut seen = [false; 256];
        for bytes in (0..=0x10_FFFF).filter_map(char::from_u32).filter_map(|c| decode(&c.to_string())) {
            assert_eq!(bytes.len(), 1);
            assert!(!std::mem::replace(&mut seen[usize::from(bytes[0])], true), "{bytes:?} is spelled twice");
        }
        assert!(seen.iter().all(|&s| s));
    }

    #[test]
    fn decodes_the_well_known_characters_and_refuses_others() {
        assert_eq!(decode("\u{120}a\u{10A}\u{E2}").unwrap(), [b' ', b'a', b'\n', 0xE2]);
        let mut out = vec![7];
        for text in [&b"ab c"[..], b"a\xE2", b"\xC4", b"\xC4a", b"\xC1\xA1", b"\xFF"] {
            assert!(!ALPHABET.decode_into(text, &mut out), "{text:?}");
            assert_eq!(out, [7]);
        }
    }
}

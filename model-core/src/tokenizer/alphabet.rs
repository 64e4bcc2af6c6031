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

    /// The byte that `character` spells.
    pub(super) fn byte(&self, character: char) -> Option<u8> {
        self.bytes.get(character as usize).copied().flatten()
    }

    /// Appends the bytes spelled by `text` to `out`. Returns `false`, with `out` unchanged, where `text` has a
    /// character that spells no byte.
    pub(super) fn decode_into(&self, text: &str, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        for character in text.chars() {
            match self.byte(character) {
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

    #[test]
    fn spells_every_byte_exactly_once() {
        let mut seen = [false; 256];
        for byte in (0..0x200).filter_map(char::from_u32).filter_map(|c| ALPHABET.byte(c)) {
            assert!(!std::mem::replace(&mut seen[usize::from(byte)], true), "{byte} is spelled twice");
        }
        assert!(seen.iter().all(|&s| s));
    }

    #[test]
    fn decodes_the_well_known_characters_and_refuses_others() {
        let mut out = vec![7];
        assert!(ALPHABET.decode_into("\u{120}a\u{10A}\u{E2}", &mut out));
        assert_eq!(out, [7, b' ', b'a', b'\n', 0xE2]);
        assert!(!ALPHABET.decode_into("ab c", &mut out));
        assert_eq!(out.len(), 5);
    }
}

//! Token bytes to whole UTF-8 text, piece by piece. Knows nothing of vocabularies.

/// Turns a stream of byte pieces into text without ever showing half a character.
///
/// Tokens of byte-level vocabularies may end inside a multi-byte character. Such an ending is held back until
/// the bytes that complete it arrive. All strings returned by [`push`](Self::push) and the one returned by
/// [`finish`](Self::finish), joined, equal `String::from_utf8_lossy` of all bytes joined, however the bytes were cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextStream {
    /// The start of a character that may still be completed; at most three bytes.
    pending: Vec<u8>,
}

impl TextStream {
    /// Adds bytes and returns the text that is complete now (often empty).
    /// Bytes that can never become valid UTF-8 come out as U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.pending.is_empty() {
            return self.take_complete(bytes);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        self.take_complete(&joined)
    }

    /// Ends the stream: the bytes held back come out as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Bytes held back, waiting for the rest of their character.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    fn take_complete(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_unfinished(invalid) {
                self.pending = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Whether `bytes`, refused by the UTF-8 decoder at the very end of its input, may be the start of a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_in_pieces(bytes: &[u8], cuts: &[usize]) -> String {
        let mut stream = TextStream::default();
        let mut text = String::new();
        let mut start = 0;
        for &cut in cuts {
            let cut = start + cut.min(bytes.len() - start);
            text.push_str(&stream.push(&bytes[start..cut]));
            start = cut;
        }
        text.push_str(&stream.push(&bytes[start..]));
        assert!(stream.pending().len() < 4);
        text.push_str(&stream.finish());
        text
    }

    #[test]
    fn holds_back_half_a_character_until_it_is_whole() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"a\xF0\x9F"), "a");
        assert_eq!(stream.pending(), b"\xF0\x9F");
        assert_eq!(stream.push(b"\x98"), "");
        assert_eq!(stream.push(b"\x80b"), "\u{1F600}b");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn shows_a_replacement_for_bytes_that_never_complete() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"\xE2\x82"), "");
        assert_eq!(stream.push(b"x"), "\u{FFFD}x");
        assert_eq!(stream.push(b"\xC3"), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }

    proptest::proptest! {
        #[test]
        fn any_cuts_give_the_lossy_text_of_the_whole(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::prelude::any::<char>().prop_map(|c| c.to_string().into_bytes()),
                    proptest::collection::vec(proptest::prelude::any::<u8>(), 1..3),
                    proptest::sample::select(vec![vec![0xF0, 0x9F], vec![0xE2], vec![0x80], vec![0xC0, 0xAF], vec![0xED, 0xA0]]),
                ],
                0..12,
            ),
            cuts in proptest::collection::vec(0usize..5, 0..20),
        ) {
            let bytes: Vec<u8> = pieces.concat();
            proptest::prop_assert_eq!(stream_in_pieces(&bytes, &cuts), String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    use proptest::strategy::Strategy as _;
}

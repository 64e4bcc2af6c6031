//! Bytes of generated tokens to text that may be shown: whole characters, and nothing that may still turn out to be a stop
//! string.

use crate::tokenizer::TextStream;

/// The text of all answers of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Output {
    /// Holds back incomplete characters.
    stream: TextStream,
    /// Text that may be the start of a stop string.
    held: String,
    /// Everything shown, of all answers.
    text: String,
    /// Where the present answer begins in `text`.
    answer_start: usize,
}

impl Output {
    /// Goes on where another output was taken apart.
    pub fn from_parts(pending: &[u8], held: String, text: String, answer_start: usize) -> Self {
        let mut stream = TextStream::default();
        // Pending bytes are the beginning of a character, so nothing comes out.
        stream.push(pending);
        Self { stream, held, text, answer_start }
    }

    /// Bytes of an incomplete character.
    pub fn pending(&self) -> &[u8] {
        self.stream.pending()
    }

    /// Whole characters that may be the start of a stop string.
    pub fn held(&self) -> &str {
        &self.held
    }

    /// Everything shown, of all answers.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the present answer begins in [`Output::text`].
    pub fn answer_start(&self) -> usize {
        self.answer_start
    }

    /// Everything shown of the present answer.
    pub fn answer(&self) -> &str {
        self.text.get(self.answer_start..).unwrap_or_default()
    }

    /// The next answer begins.
    pub fn begin_answer(&mut self) {
        self.answer_start = self.text.len();
    }

    /// Takes the bytes of a token. Returns what may be shown now, and whether a stop string was found; then everything
    /// from the stop string on is gone.
    pub fn push(&mut self, bytes: &[u8], stop: &[String]) -> (String, bool) {
        self.held.push_str(&self.stream.push(bytes));
        if let Some(at) = first_match(&self.held, stop) {
            self.held.truncate(at);
            self.stream = TextStream::default();
            return (self.show(self.held.len()), true);
        }
        (self.show(self.held.len() - longest_beginning(&self.held, stop)), false)
    }

    /// No more tokens will come: returns everything that was held back.
    pub fn finish(&mut self) -> String {
        let rest = self.stream.finish();
        self.held.push_str(&rest);
        self.show(self.held.len())
    }

    /// Moves the first `len` bytes of the held text to the shown.
    fn show(&mut self, len: usize) -> String {
        let rest = self.held.split_off(len);
        let shown = std::mem::replace(&mut self.held, rest);
        self.text.push_str(&shown);
        shown
    }
}

/// Where the first stop string begins.
fn first_match(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// Length of the longest end of `text` with which a stop string begins.
fn longest_beginning(text: &str, stop: &[String]) -> usize {
    let held_by = |stop: &String| {
        let longest = text.len().min(stop.len().saturating_sub(1));
        (1..=longest).rev().find(|&len| stop.as_bytes().starts_with(&text.as_bytes()[text.len() - len..]))
    };
    stop.iter().filter_map(held_by).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(strings: &[&str]) -> Vec<String> {
        strings.iter().map(|&string| string.to_owned()).collect()
    }

    /// What each piece shows, until a stop string is found.
    fn shown(pieces: &[&str], stop: &[&str]) -> (Vec<String>, bool) {
        let (mut output, stop, mut all) = (Output::default(), stops(stop), Vec::new());
        for piece in pieces {
            let (text, stopped) = output.push(piece.as_bytes(), &stop);
            all.push(text);
            if stopped {
                assert_eq!(output.answer(), all.concat());
                assert_eq!(output.finish(), "", "nothing of a stop string comes out later");
                return (all, true);
            }
        }
        all.push(output.finish());
        assert_eq!(output.answer(), all.concat());
        (all, false)
    }

    #[test]
    fn without_stop_strings_everything_comes_at_once() {
        assert_eq!(shown(&["ab", "c"], &[]), (stops(&["ab", "c", ""]), false));
    }

    #[test]
    fn a_stop_string_over_three_tokens_is_never_shown() {
        assert_eq!(shown(&["one\n", "#", "## two"], &["\n###"]), (stops(&["one", "", ""]), true));
        assert_eq!(shown(&["x END y"], &["END"]), (stops(&["x "]), true));
    }

    #[test]
    fn a_beginning_that_does_not_go_on_is_shown() {
        assert_eq!(shown(&["a<", "b<|", "c<"], &["<|end|>"]), (stops(&["a", "<b", "<|c", "<"]), false));
        // After "aab" fails, its end may still begin the stop string.
        assert_eq!(shown(&["aa", "a", "b"], &["aab"]), (stops(&["", "a", ""]), true));
    }

    #[test]
    fn the_earliest_of_several_stop_strings_counts() {
        assert_eq!(shown(&["1 bc 2"], &["c", "bc", "2"]), (stops(&["1 "]), true));
    }

    #[test]
    fn stop_strings_of_several_bytes_per_character() {
        let (mut output, stop) = (Output::default(), stops(&["é!"]));
        assert_eq!(output.push(b"a\xC3", &stop), ("a".to_owned(), false));
        assert_eq!((output.pending(), output.held()), (&b"\xC3"[..], ""));
        assert_eq!(output.push(b"\xA9", &stop), (String::new(), false));
        assert_eq!(output.held(), "é");
        // "è" shares its first byte with the stop string and is no beginning of it.
        assert_eq!(output.push("è".as_bytes(), &stop), ("éè".to_owned(), false));
    }

    #[test]
    fn goes_on_from_its_parts() {
        let (mut output, stop) = (Output::default(), stops(&["<end>"]));
        output.push(b"old", &stop);
        output.begin_answer();
        output.push(b"ab<e\xE2\x82", &stop);
        let copy = Output::from_parts(
            output.pending(),
            output.held().to_owned(),
            output.text().to_owned(),
            output.answer_start(),
        );
        assert_eq!(copy, output);
        assert_eq!((copy.text(), copy.answer(), copy.held()), ("oldab", "ab", "<e"));
    }

    proptest::proptest! {
        #[test]
        fn any_cuts_show_the_text_before_the_first_stop_string(text in "[ab<>é]{0,30}", cuts in proptest::collection::vec(1usize..4, 0..30)) {
            let stop = stops(&["ab<", "<>", "éé"]);
            let (mut output, mut rest, mut stopped) = (Output::default(), text.as_bytes(), false);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                rest = tail;
                stopped = output.push(piece, &stop).1;
                if stopped { break; }
            }
            output.finish();
            let end = first_match(&text, &stop);
            proptest::prop_assert_eq!(stopped, end.is_some());
            proptest::prop_assert_eq!(output.answer(), &text[..end.unwrap_or(text.len())]);
        }
    }
}

//! `value[start:stop:step]` as in Python. The template engine's own slices with a negative step panic where there is nothing to
//! slice, and take the first item where they should stop before it (minijinja 3.0.5, `range_step_backwards`). So slices
//! with a step become calls of a method that is answered here.

use std::fmt::Write;
use std::iter;

use minijinja::machinery::{Span, Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind};

/// Name of the method.
pub(super) const METHOD: &str = "__getitem__";

/// A bracket, parenthesis or brace that is open.
#[derive(Default)]
struct Open {
    /// Where it stands, if it is a bracket.
    bracket: Option<Span>,
    /// Colons directly in it, and whether something stands in front of each.
    colons: Vec<(Span, bool)>,
    /// Whether something stands after the last of them.
    is_filled: bool,
}

/// The template with slices that have a step as calls of [`METHOD`]. What is no template stays as it is.
pub(super) fn as_calls(source: &str, syntax: &SyntaxConfig) -> String {
    let mut changes = changes(source, syntax).unwrap_or_default();
    changes.sort_unstable_by_key(|(span, _)| span.start_offset);
    let (mut out, mut rest) = (String::with_capacity(source.len() + 16 * changes.len()), 0);
    for (span, text) in changes {
        let kept = source.get(rest..span.start_offset as usize).unwrap_or_default();
        // Failing to write to a string is impossible.
        let _ = write!(out, "{kept}{text}");
        rest = span.end_offset as usize;
    }
    out + source.get(rest..).unwrap_or_default()
}

fn changes(source: &str, syntax: &SyntaxConfig) -> Result<Vec<(Span, String)>, Error> {
    let (mut open, mut changes) = (Vec::<Open>::new(), Vec::new());
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) = token?;
        let is_colon = matches!(token, Token::Colon);
        if matches!(token, Token::BracketClose | Token::ParenClose | Token::BraceClose) {
            open.pop().into_iter().for_each(|closed| call(closed, span, &mut changes));
        }
        if let Some(around) = open.last_mut() {
            if is_colon {
                around.colons.push((span, around.is_filled));
            }
            around.is_filled = !is_colon;
        }
        match token {
            Token::BracketOpen => open.push(Open { bracket: Some(span), ..Open::default() }),
            Token::ParenOpen | Token::BraceOpen => open.push(Open::default()),
            _ => {}
        }
    }
    Ok(changes)
}

/// Adds what makes a call out of a slice with a step, which ends with the bracket at `end`.
fn call(slice: Open, end: Span, changes: &mut Vec<(Span, String)>) {
    let (Some(start), [_, _]) = (slice.bracket, slice.colons.as_slice()) else { return };
    let or_none = |is_filled: bool| if is_filled { "" } else { "none" };
    changes.push((start, format!(" .{METHOD}(")));
    changes.extend(slice.colons.iter().map(|&(colon, is_filled)| (colon, format!("{},", or_none(is_filled)))));
    changes.push((end, format!("{})", or_none(slice.is_filled))));
}

/// The method: items of a sequence, or characters of a string.
pub(super) fn slice(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (start, stop, step): (Option<i64>, Option<i64>, Option<i64>) = from_args(args)?;
    let refused = |reason: String| Err(Error::new(ErrorKind::InvalidOperation, reason));
    let step = step.unwrap_or(1);
    if step == 0 {
        return refused("a slice cannot have a step of 0".to_owned());
    }
    match (value.kind(), value.as_str()) {
        (ValueKind::Undefined | ValueKind::None, _) => Ok(Value::from(Vec::<Value>::new())),
        (_, Some(text)) => {
            let characters: Vec<char> = text.chars().collect();
            Ok(picked(&characters, start, stop, step).collect::<String>().into())
        }
        (ValueKind::Seq | ValueKind::Iterable, _) => {
            let items: Vec<Value> = value.try_iter()?.collect();
            Ok(picked(&items, start, stop, step).collect())
        }
        (kind, _) => refused(format!("value of type {kind} cannot be sliced")),
    }
}

/// The items that Python's `items[start:stop:step]` has.
fn picked<T: Clone>(items: &[T], start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = T> {
    let len = items.len() as i64;
    let [first, end] = if step > 0 { [0, len] } else { [len - 1, -1] };
    let (least, most) = (first.min(end), first.max(end));
    let place = |at: i64| (if at < 0 { at.saturating_add(len) } else { at }).clamp(least, most);
    let (start, stop) = (start.map_or(first, place), stop.map_or(end, place));
    let is_before_stop = move |at: &i64| if step > 0 { *at < stop } else { *at > stop };
    let places = iter::successors(Some(start), move |at| at.checked_add(step)).take_while(is_before_stop);
    places.filter_map(|at| items.get(usize::try_from(at).ok()?).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatTemplate, Variables};

    fn rendered(template: &str) -> String {
        ChatTemplate::new(template, None, None).unwrap().render(&[], &Variables::default(), false).unwrap()
    }

    /// The right sides are what Python answers.
    #[test]
    fn slices_are_those_of_python() {
        for (slice, expected) in [
            ("[::-1]", "43210"),
            ("[::1]", "01234"),
            ("[::2]", "024"),
            ("[3::-1]", "3210"),
            ("[3:0:-1]", "321"),
            ("[3:1:-1]", "32"),
            ("[1:3:-1]", ""),
            ("[0:2:-1]", ""),
            ("[-2::-1]", "3210"),
            ("[:-3:-1]", "43"),
            ("[:-9:-2]", "420"),
            ("[9::-3]", "41"),
            ("[-9::-1]", ""),
            ("[-9:9:3]", "03"),
            ("[1:-1:2]", "13"),
            ("[ 1 + 1 : : ]", "234"),
            ("[::-9223372036854775807 - 1]", "4"),
            ("[9223372036854775807:-9223372036854775807:-4]", "40"),
        ] {
            assert_eq!(rendered(&format!("{{{{ [0, 1, 2, 3, 4]{slice}|join }}}}")), expected, "{slice}");
            assert_eq!(rendered(&format!("{{{{ '01234'{slice} }}}}")), expected, "{slice}");
        }
    }

    #[test]
    fn what_is_empty_can_be_sliced() {
        for empty in ["[]", "''", "messages", "nothing", "none", "[1][1:]", "({}|list)"] {
            for slice in ["[::-1]", "[:0:-1]", "[5:2:-1]", "[::3]", "[-1::-1]"] {
                assert_eq!(rendered(&format!("{{{{ {empty}{slice}|join }}}}")), "", "{empty}{slice}");
            }
        }
    }

    #[test]
    fn only_slices_with_a_step_are_changed() {
        for template in [
            "x[::-1] {# x[::-1] #} {% raw %}{{ x[::-1] }}{% endraw %}",
            "{{ x[1:] ~ x[:2] ~ x[1:2] ~ 'a[::-1]' ~ {'a': [1], \"b\": {'c': 1}}['a'] }}",
            "{{ f({'a': 1, 'b': 2, 'c': 3})[{'a': 'b', 'c': 'd'}.a] }}",
            "{{ x[::-1",
            "{{ ] }} {{ x[a:b:c:d] }}",
        ] {
            assert_eq!(as_calls(template, &SyntaxConfig::default()), template);
        }
        let nested = "{%- for x in (y)[ a[::2] : b['::'] : {'c': 1}.c ] -%}{{ x[z[1:]:-1:][0] }}";
        let expected = "{%- for x in (y) .__getitem__( a .__getitem__(none,none,2) , b['::'] , {'c': 1}.c ) -%}\
                        {{ x .__getitem__(z[1:],-1,none)[0] }}";
        assert_eq!(as_calls(nested, &SyntaxConfig::default()), expected);
    }

    #[test]
    fn what_cannot_be_sliced_is_refused() {
        for (template, reason) in [
            ("{{ 5[::-1] }}", "number cannot be sliced"),
            ("{{ {'a': 1}[::2] }}", "map cannot be sliced"),
            ("{{ [1][::0] }}", "step of 0"),
            ("{{ [1]['a'::2] }}", "cannot convert"),
        ] {
            let template = ChatTemplate::new(template, None, None).unwrap();
            let error = template.render(&[], &Variables::default(), false).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

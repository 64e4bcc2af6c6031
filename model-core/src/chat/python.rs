//! What templates use of Python: methods of strings and mappings, and Hugging Face's marks around generated text. Each behaves as in Python for the arguments that templates pass.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use super::slices;

/// Methods that minijinja's values do not have.
pub(super) fn call_method(_: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        _ if method == slices::METHOD => slices::slice(value, args),
        (ValueKind::String, Some(text)) => string_method(text, method, args),
        (ValueKind::Map, _) => map_method(value, method, args),
        _ => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "strip" | "lstrip" | "rstrip" => strip(text, method, args),
        "split" => split(text, args),
        "splitlines" => no_args(args).map(|()| text.lines().map(Value::from).collect()),
        "startswith" | "endswith" => affix(text, method, args),
        "removeprefix" => from_args(args).map(|(prefix,): (&str,)| text.strip_prefix(prefix).unwrap_or(text).into()),
        "removesuffix" => from_args(args).map(|(suffix,): (&str,)| text.strip_suffix(suffix).unwrap_or(text).into()),
        "lower" => no_args(args).map(|()| text.to_lowercase().into()),
        "upper" => no_args(args).map(|()| text.to_uppercase().into()),
        "title" => no_args(args).map(|()| title(text).into()),
        "capitalize" => no_args(args).map(|()| capitalize(text).into()),
        "isdigit" => no_args(args).map(|()| (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into()),
        "replace" => replace(text, args),
        "find" => from_args(args).map(|(part,): (&str,)| position(text, part).into()),
        "count" => from_args(args).map(|(part,): (&str,)| count(text, part).into()),
        "join" => join(text, args),
        _ => Err(unknown()),
    }
}

fn map_method(map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let pair = |key: Value| map.get_item(&key).map(|value| Value::from(vec![key, value]));
    match method {
        "get" => {
            let (key, default): (&Value, Option<&Value>) = from_args(args)?;
            let found = map.get_item(key)?;
            let missing = || default.cloned().unwrap_or(Value::from(()));
            Ok(if found.is_undefined() { missing() } else { found })
        }
        "keys" => no_args(args).and_then(|()| Ok(map.try_iter()?.collect())),
        "values" => no_args(args).and_then(|()| map.try_iter()?.map(|key| map.get_item(&key)).collect()),
        "items" => no_args(args).and_then(|()| map.try_iter()?.map(pair).collect()),
        _ => Err(unknown()),
    }
}

fn no_args(args: &[Value]) -> Result<(), Error> {
    from_args(args)
}

fn strip(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (characters,): (Option<&str>,) = from_args(args)?;
    let stripped = |c: char| characters.map_or(c.is_whitespace(), |set| set.contains(c));
    Ok(Value::from(match method {
        "lstrip" => text.trim_start_matches(stripped),
        "rstrip" => text.trim_end_matches(stripped),
        _ => text.trim_matches(stripped),
    }))
}

/// Without a separator, runs of white space separate and empty parts are left out.
fn split(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
    match separator {
        Some("") => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => Ok(text.splitn(most, separator).map(Value::from).collect()),
        None => Ok(split_whitespace(text, most)),
    }
}

fn split_whitespace(text: &str, most: usize) -> Value {
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = if parts.len() + 1 == most { None } else { rest.find(char::is_whitespace) };
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        parts.push(Value::from(part));
        rest = after.trim_start();
    }
    Value::from(parts)
}

/// `startswith` and `endswith` take one string or several.
fn affix(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (&Value,) = from_args(args)?;
    let matches = |part: &str| if method == "startswith" { text.starts_with(part) } else { text.ends_with(part) };
    if let Some(part) = wanted.as_str() {
        return Ok(matches(part).into());
    }
    Ok(wanted.try_iter()?.any(|part| part.as_str().is_some_and(matches)).into())
}

fn replace(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (from, to, most): (&str, &str, Option<i64>) = from_args(args)?;
    Ok(Value::from(match most.and_then(|most| usize::try_from(most).ok()) {
        Some(most) => text.replacen(from, to, most),
        None => text.replace(from, to),
    }))
}

/// In characters, −1 if there is none.
fn position(text: &str, part: &str) -> i64 {
    let before = text.find(part).and_then(|at| text.get(..at));
    before.map_or(-1, |before| before.chars().count() as i64)
}

/// Python counts the empty string once more than there are characters, as Rust does.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

fn join(separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (parts,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (index, part) in parts.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        let part = part.as_str().map(str::to_owned);
        joined.push_str(&part.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "join wants strings"))?);
    }
    Ok(joined.into())
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    [first, characters.as_str().to_lowercase()].concat()
}

fn title(text: &str) -> String {
    let mut inside = false;
    let mut titled = String::with_capacity(text.len());
    for character in text.chars() {
        if inside {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    titled
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, with which Hugging Face marks what the assistant wrote
/// for training, by a block without effect, so that white space control around them still works.
pub(super) fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let (inside, after) = tag.split_once("%}").unwrap_or((tag, ""));
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let block = match word {
            "generation" => inside.replacen(word, "if true", 1),
            "endgeneration" => inside.replacen(word, "endif", 1),
            _ => {
                let kept = before.len() + 2;
                out.push_str(&rest[..kept]);
                rest = &rest[kept..];
                continue;
            }
        };
        out.extend([before, "{%", &block, "%}"]);
        rest = after;
    }
    out.push_str(rest);
    out
}

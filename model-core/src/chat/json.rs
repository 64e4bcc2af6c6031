//! The filter `tojson`: Python's `json.dumps` with the arguments that Hugging Face passes on.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deeper than this no template nests; the limit keeps hostile ones from exhausting the stack.
const MAX_DEPTH: usize = 100;
/// Widest indentation of a level, in bytes.
const MAX_INDENT: usize = 16;

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<&Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let named: Option<Value> = options.get("indent")?;
    let indent = indent.cloned().or(named).map(|indent| indentation(&indent)).transpose()?.flatten();
    let separators: Option<Value> = options.get("separators")?;
    let [between_items, after_key] = match separators.filter(|separators| !separators.is_none()) {
        Some(separators) => [separator(&separators, 0)?, separator(&separators, 1)?],
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let mut writer = Writer {
        between_items,
        after_key,
        indent,
        ascii: ensure_ascii.or(options.get("ensure_ascii")?).unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        out: String::new(),
    };
    options.assert_all_used()?;
    writer.write(value, 0)?;
    Ok(writer.out)
}

/// As a number of spaces or as text; none for no new lines.
fn indentation(value: &Value) -> Result<Option<String>, Error> {
    if value.is_none() {
        return Ok(None);
    }
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(i64::try_from(value.clone())?).unwrap_or(0).min(MAX_INDENT)),
    };
    if text.len() > MAX_INDENT {
        return Err(wrong(format!("an indentation of more than {MAX_INDENT} bytes")));
    }
    Ok(Some(text))
}

fn separator(separators: &Value, index: usize) -> Result<String, Error> {
    let separator = separators.get_item_by_index(index)?;
    separator.as_str().map(str::to_owned).ok_or_else(|| wrong("separators are two strings".to_owned()))
}

fn wrong(reason: String) -> Error {
    Error::new(ErrorKind::BadSerialization, reason)
}

struct Writer {
    between_items: String,
    after_key: String,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
    out: String,
}

impl Writer {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.items(['[', ']'], items, depth)?;
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()? {
                    items.push((Some(self::key(&key)?), value.get_item(&key)?));
                }
                if self.sorted {
                    items.sort_by(|(one, _), (other, _)| one.cmp(other));
                }
                self.items(['{', '}'], items, depth)?;
            }
            kind => return Err(wrong(format!("{kind} has no JSON form"))),
        }
        Ok(())
    }

    fn items(
        &mut self,
        [open, close]: [char; 2],
        items: Vec<(Option<String>, Value)>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth >= MAX_DEPTH {
            return Err(wrong("nested too deeply".to_owned()));
        }
        self.out.push(open);
        let empty = items.is_empty();
        for (index, (key, item)) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.between_items);
            }
            self.new_line(depth + 1);
            if let Some(key) = key {
                self.string(&key);
                self.out.push_str(&self.after_key);
            }
            self.write(&item, depth + 1)?;
        }
        if !empty {
            self.new_line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            self.character(character);
        }
        self.out.push('"');
    }

    fn character(&mut self, character: char) {
        match character {
            '"' => self.out.push_str("\\\""),
            '\\' => self.out.push_str("\\\\"),
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            '\u{8}' => self.out.push_str("\\b"),
            '\u{c}' => self.out.push_str("\\f"),
            // A guard has to be found again in the prompt, and noncharacters are in no text of people.
            '\u{FDD0}'..='\u{FDEF}' => self.out.push(character),
            _ if character < ' ' || (self.ascii && !character.is_ascii()) || (self.ascii && character == '\u{7f}') => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    self.out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => self.out.push(character),
        }
    }
}

/// Python's keys may be more than strings, JSON's not.
fn key(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number => number(key)?,
        kind => return Err(wrong(format!("a key that is {kind} has no JSON form"))),
    })
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() { Ok(value.to_string()) } else { Ok(float(f64::try_from(value.clone())?)) }
}

/// As Python's `repr` writes it: the fewest digits that are this number, with an exponent below −4 and from 16 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    match exponent.parse::<i32>().unwrap_or_default() {
        exponent @ -4..16 if exponent < 0 || number.fract() != 0.0 => number.to_string(),
        -4..16 => format!("{number:.1}"),
        exponent => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (2.5, "2.5"),
            (100.0, "100.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (-1.25e-5, "-1.25e-05"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::INFINITY, "Infinity"),
        ];
        for (number, expected) in cases {
            assert_eq!(float(number), expected);
        }
    }
}

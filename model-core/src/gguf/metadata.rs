//! The metadata of a file in its order, and typed lookups. Knows no key by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::value::{Array, StringArray, Value};
use super::{Error, KeyError};

/// Keys and values in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: BTreeMap<String, usize>,
}

/// A required entry and its optional twin.
macro_rules! getters {
    ($(#[doc = $doc:literal] $name:ident, $opt:ident -> $ty:ty, $expected:literal, $read:path;)*) => {
        $(
            #[doc = $doc]
            ///
            /// # Errors
            /// [`KeyError`] if the entry is missing, of another type or out of range.
            pub fn $name(&self, key: &str) -> Result<$ty, KeyError> {
                self.$opt(key)?.ok_or_else(|| KeyError::Missing { key: key.to_owned(), expected: $expected })
            }

            #[doc = $doc]
            /// `None` if the file does not have the key.
            ///
            /// # Errors
            /// [`KeyError`] if the entry is there, but of another type or out of range.
            pub fn $opt(&self, key: &str) -> Result<Option<$ty>, KeyError> {
                self.get(key).map(|value| $read(key, $expected, value)).transpose()
            }
        )*
    };
}

impl Metadata {
    /// The value of `key`, of whatever type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let &at = self.index.get(key)?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// Sets `key`, in its place if it is there already, otherwise at the end.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.index.get(key).and_then(|&at| self.entries.get_mut(at)) {
            Some(entry) => entry.1 = value,
            None => {
                self.index.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
            }
        }
    }

    /// Adds an entry that must be new.
    pub(super) fn push(&mut self, key: String, value: Value) -> Result<(), Error> {
        if self.index.insert(key.clone(), self.entries.len()).is_some() {
            return Err(Error::DuplicateKey { key });
        }
        self.entries.push((key, value));
        Ok(())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    getters! {
        #[doc = "A UTF-8 string."]
        str, opt_str -> &str, "string", text;
        #[doc = "An integer of any width whose value fits."]
        u32, opt_u32 -> u32, "u32", integer;
        #[doc = "An integer of any width whose value fits."]
        u64, opt_u64 -> u64, "u64", integer;
        #[doc = "A float; double precision is rounded to nearest."]
        f32, opt_f32 -> f32, "f32", float;
        #[doc = "A truth value."]
        bool, opt_bool -> bool, "bool", boolean;
        #[doc = "An array of strings."]
        strings, opt_strings -> &StringArray, "array of string", string_array;
        #[doc = "An array of integers of any width whose values fit; borrowed where the file has `i32`."]
        i32s, opt_i32s -> Cow<'_, [i32]>, "array of i32", i32_array;
        #[doc = "An array of floats."]
        f32s, opt_f32s -> &[f32], "array of f32", f32_array;
    }
}

fn wrong_type(key: &str, expected: &'static str, found: &Value) -> KeyError {
    KeyError::WrongType { key: key.to_owned(), expected, found: found.type_name() }
}

fn text<'a>(key: &str, expected: &'static str, value: &'a Value) -> Result<&'a str, KeyError> {
    match value {
        Value::String(bytes) => std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8 { key: key.to_owned() }),
        other => Err(wrong_type(key, expected, other)),
    }
}

fn integer<T: TryFrom<i128>>(key: &str, expected: &'static str, value: &Value) -> Result<T, KeyError> {
    let number = value.as_integer().ok_or_else(|| wrong_type(key, expected, value))?;
    T::try_from(number).map_err(|_| KeyError::OutOfRange { key: key.to_owned(), expected, found: number.to_string() })
}

fn float(key: &str, expected: &'static str, value: &Value) -> Result<f32, KeyError> {
    match *value {
        Value::F32(number) => Ok(number),
        Value::F64(number) => Ok(number as f32),
        _ => Err(wrong_type(key, expected, value)),
    }
}

fn boolean(key: &str, expected: &'static str, value: &Value) -> Result<bool, KeyError> {
    match *value {
        Value::Bool(truth) => Ok(truth),
        _ => Err(wrong_type(key, expected, value)),
    }
}

fn string_array<'a>(key: &str, expected: &'static str, value: &'a Value) -> Result<&'a StringArray, KeyError> {
    match value {
        Value::Array(Array::String(strings)) => Ok(strings),
        other => Err(wrong_type(key, expected, other)),
    }
}

fn i32_array<'a>(key: &str, expected: &'static str, value: &'a Value) -> Result<Cow<'a, [i32]>, KeyError> {
    let Value::Array(array) = value else { return Err(wrong_type(key, expected, value)) };
    if let Array::I32(numbers) = array {
        return Ok(Cow::Borrowed(numbers));
    }
    (0..array.len())
        .filter_map(|i| array.get(i))
        .map(|element| match element.as_integer() {
            Some(_) => integer(key, expected, &element),
            None => Err(wrong_type(key, expected, value)),
        })
        .collect()
}

fn f32_array<'a>(key: &str, expected: &'static str, value: &'a Value) -> Result<&'a [f32], KeyError> {
    match value {
        Value::Array(Array::F32(numbers)) => Ok(numbers),
        other => Err(wrong_type(key, expected, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut meta = Metadata::default();
        meta.insert("n", 7u8);
        meta.insert("minus", -1i64);
        meta.insert("x", 0.5f64);
        meta.insert("text", "hé");
        meta.insert("raw", Value::String(vec![0xff]));
        meta.insert("ids", Array::U64(vec![1, 2]));
        meta.insert("big", Array::U64(vec![1 << 40]));
        meta.insert("names", Array::String(["a"].iter().collect()));
        meta
    }

    #[test]
    fn integers_of_any_width_are_accepted_if_they_fit() {
        let meta = sample();
        assert_eq!(meta.u32("n"), Ok(7));
        assert_eq!(meta.u64("n"), Ok(7));
        assert!(matches!(meta.u32("minus"), Err(KeyError::OutOfRange { found, .. }) if found == "-1"));
        assert_eq!(meta.i32s("ids").unwrap().as_ref(), [1, 2]);
        assert!(matches!(meta.i32s("big"), Err(KeyError::OutOfRange { .. })));
        assert!(matches!(meta.i32s("names"), Err(KeyError::WrongType { found, .. }) if found == "array of string"));
    }

    #[test]
    fn missing_entries_are_errors_only_where_required() {
        let meta = sample();
        assert!(matches!(meta.u32("nope"), Err(KeyError::Missing { key, expected: "u32" }) if key == "nope"));
        assert_eq!(meta.opt_u32("nope"), Ok(None));
        assert!(matches!(meta.opt_u32("text"), Err(KeyError::WrongType { .. })));
    }

    #[test]
    fn strings_are_checked_only_when_read_as_text() {
        let meta = sample();
        assert_eq!(meta.str("text"), Ok("hé"));
        assert_eq!(meta.f32("x"), Ok(0.5));
        assert!(matches!(meta.str("raw"), Err(KeyError::NotUtf8 { .. })));
        assert_eq!(meta.get("raw"), Some(&Value::String(vec![0xff])));
    }

    #[test]
    fn insert_replaces_in_place() {
        let mut meta = sample();
        let len = meta.len();
        meta.insert("n", 9u32);
        assert_eq!(meta.u32("n"), Ok(9));
        assert_eq!(meta.len(), len);
        assert_eq!(meta.iter().next(), Some(("n", &Value::U32(9))));
    }
}

//! The fields of a request's JSON object, by name and type. A field that is null is as one that is absent.

use serde_json::{Map, Value as Json};

use super::error::ApiError;

/// What is left of a request's object.
#[derive(Debug)]
pub struct Fields(Map<String, Json>);

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Json::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::Request("the request's body is no JSON object".to_owned())),
            Err(error) => Err(ApiError::Request(format!("the request's body is no JSON: {error}"))),
        }
    }

    /// The fields of an object inside of the request.
    ///
    /// # Errors
    /// If it is none.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        self.take(name, "an object", |value| match value {
            Json::Object(fields) => Some(Self(fields)),
            _ => None,
        })
    }

    /// Takes a value of any type.
    pub fn value(&mut self, name: &str) -> Option<Json> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a number.
    ///
    /// # Errors
    /// If it is none.
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        self.take(name, "a number", |value| Some(value.as_f64()? as f32))
    }

    /// Takes a whole number.
    ///
    /// # Errors
    /// If it is none.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        self.take(name, "a whole number", |value| value.as_i64())
    }

    /// Takes a whole number between 0 and `most`.
    ///
    /// # Errors
    /// If it is none.
    pub fn count(&mut self, name: &str, most: u32) -> Result<Option<u32>, ApiError> {
        match self.integer(name)? {
            None => Ok(None),
            Some(found) => match u32::try_from(found).ok().filter(|count| *count <= most) {
                Some(count) => Ok(Some(count)),
                None => Err(ApiError::field(name, format!("{name} is {found}; it must be 0 to {most}"))),
            },
        }
    }

    /// Takes true or false.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name, "true or false", |value| value.as_bool())
    }

    /// Takes a text.
    ///
    /// # Errors
    /// If it is none.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.take(name, "a string", |value| match value {
            Json::String(text) => Some(text),
            _ => None,
        })
    }

    /// Takes a list of texts, or one.
    ///
    /// # Errors
    /// If it is neither.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        self.take(name, "a string or a list of strings", |value| match value {
            Json::String(text) => Some(vec![text]),
            value => serde_json::from_value(value).ok(),
        })
    }

    /// Takes a list.
    ///
    /// # Errors
    /// If it is none.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Json>>, ApiError> {
        self.take(name, "a list", |value| match value {
            Json::Array(items) => Some(items),
            _ => None,
        })
    }

    /// What was not taken.
    pub fn rest(self) -> Map<String, Json> {
        self.0
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Json) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(ApiError::field(name, format!("{name} must be {expected}"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn values_have_their_type_or_are_refused_by_name() {
        let mut good = fields(r#"{"a": 1.5, "b": 7, "c": "x", "d": ["x", "y"], "e": null, "f": true}"#);
        assert_eq!(good.number("a"), Ok(Some(1.5)));
        assert_eq!(good.count("b", 7), Ok(Some(7)));
        assert_eq!(good.texts("c"), Ok(Some(vec!["x".to_owned()])));
        assert_eq!(good.texts("d").unwrap().unwrap().len(), 2);
        assert_eq!((good.text("e"), good.text("absent")), (Ok(None), Ok(None)));
        assert_eq!(good.flag("f"), Ok(Some(true)));
        let bad = || fields(r#"{"a": "1", "b": -1, "c": 1.5}"#);
        for error in [bad().number("a").unwrap_err(), bad().texts("c").unwrap_err(), bad().count("b", 9).unwrap_err()] {
            assert!(matches!(&error, ApiError::Field { name, message } if message.starts_with(name.as_str())));
        }
        assert!(bad().integer("c").is_err());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "{", "\"text\""] {
            assert!(matches!(Fields::parse(body.as_bytes()), Err(ApiError::Request(_))), "{body}");
        }
    }
}

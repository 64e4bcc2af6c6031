//! What templates are told besides the messages.

use minijinja::value::{Serde, Value};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::{Error, date, message};

/// What a template is told besides the messages; nothing by default, as Hugging Face does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// Descriptions of the functions that the model may call, in the form that it was trained with: usually
    /// `{"type": "function", "function": {"name": …, "description": …, "parameters": …}}`. None if empty.
    pub tools: Vec<Json>,
    /// Anything else by name, such as `enable_thinking`. They go before what has the same name otherwise.
    pub named: Map<String, Json>,
    /// Seconds since 1970 that are now, in the time zone of whoever asks. Without them the function `strftime_now` is
    /// undefined, which most templates are prepared for.
    pub now: Option<i64>,
}

impl Variables {
    /// The tools in a JSON array.
    ///
    /// # Errors
    /// [`Error::Variables`] for other text.
    pub fn parse_tools(json: &str) -> Result<Vec<Json>, Error> {
        parse("the JSON array of tools", json)
    }

    /// The variables in a JSON object.
    ///
    /// # Errors
    /// [`Error::Variables`] for other text.
    pub fn parse_named(json: &str) -> Result<Map<String, Json>, Error> {
        parse("the JSON object of template variables", json)
    }

    /// Lets `change` see and change every text.
    pub(super) fn each_text(&mut self, change: &mut impl FnMut(&mut String)) {
        self.tools.iter_mut().chain(self.named.values_mut()).for_each(|value| message::each_text(value, change));
    }

    /// The variables as the engine takes them, the more important last.
    pub(super) fn values(&self) -> impl Iterator<Item = (&str, Value)> {
        let tools = if self.tools.is_empty() { Value::from(()) } else { Value::from(Serde(&self.tools)) };
        let clock = self.now.map(|now| {
            let strftime_now = move |format: &str| date::strftime(now, format);
            ("strftime_now", Value::from_function(strftime_now))
        });
        let named = self.named.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        [("tools", tools)].into_iter().chain(clock).chain(named)
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|error| Error::Variables { what, reason: error.to_string() })
}

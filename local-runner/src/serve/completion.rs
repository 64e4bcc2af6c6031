//! `POST /v1/completions`: text or tokens to continue.

use model_core::TokenId;
use model_core::tokenizer::Tokenizer;
use serde_json::Value as Json;

use super::error::ApiError;
use super::fields::Fields;
use super::request::{self, Asked, Defaults};
use crate::backend::Input;

/// Takes a request apart. Tokens can be echoed only with the vocabulary.
///
/// # Errors
/// Names the field that is missing, wrong or not supported.
pub fn read(body: &[u8], defaults: &Defaults, tokenizer: Option<&Tokenizer>) -> Result<Asked, ApiError> {
    let mut fields = Fields::parse(body)?;
    let prompt = fields.value("prompt").ok_or_else(|| ApiError::field("prompt", "prompt is missing"))?;
    let inputs = inputs(prompt).ok_or_else(|| {
        let message = "prompt must be a string, a list of strings, a list of tokens, or a list of lists of tokens";
        ApiError::field("prompt", message)
    })?;
    let mut options = request::options(&mut fields, defaults)?;
    if let Some(parse_special) = fields.flag("parse_special")? {
        options.input.parse_special = parse_special;
    }
    options.logprobs = request::alternatives(&mut fields, "logprobs")?;
    let echo = fields.flag("echo")?.unwrap_or(false);
    if echo && options.logprobs.is_some() {
        return Err(ApiError::unsupported("echo", "together with logprobs, which only generated tokens have"));
    }
    let mut asked = Asked::new(&mut fields, inputs, options)?;
    if echo {
        asked.echoes = asked.asks.iter().map(|ask| text_of(&ask.input, tokenizer)).collect::<Result<_, _>>()?;
    }
    Ok(asked)
}

fn inputs(prompt: Json) -> Option<Vec<Input>> {
    let tokens = |value: &Json| serde_json::from_value::<Vec<TokenId>>(value.clone()).ok().map(Input::Tokens);
    match &prompt {
        Json::String(text) => Some(vec![Input::Text(text.clone())]),
        Json::Array(items) if items.is_empty() => None,
        Json::Array(items) if items.iter().all(Json::is_string) => {
            Some(items.iter().filter_map(Json::as_str).map(|text| Input::Text(text.to_owned())).collect())
        }
        Json::Array(items) if items.iter().all(Json::is_array) => items.iter().map(tokens).collect(),
        prompt => Some(vec![tokens(prompt)?]),
    }
}

fn text_of(input: &Input, tokenizer: Option<&Tokenizer>) -> Result<String, ApiError> {
    match (input, tokenizer) {
        (Input::Text(text), _) => Ok(text.clone()),
        (Input::Tokens(tokens), Some(tokenizer)) => match tokenizer.decode(tokens) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(ApiError::field("prompt", error.to_string())),
        },
        _ => Err(ApiError::unsupported("echo", "for tokens, since the server has no vocabulary")),
    }
}

#[cfg(test)]
mod tests {
    use model_core::session::SessionOptions;

    use super::*;

    fn read(json: &str) -> Result<Asked, ApiError> {
        let defaults = Defaults { options: SessionOptions::default(), seed: None };
        super::read(json.as_bytes(), &defaults, None)
    }

    fn prompts(json: &str) -> Vec<String> {
        let asked = read(json).unwrap();
        let spelled = |input: &Input| match input {
            Input::Text(text) => text.clone(),
            Input::Tokens(tokens) => format!("{tokens:?}"),
            Input::Messages(messages) => panic!("{messages:?}"),
        };
        asked.asks.iter().map(|ask| spelled(&ask.input)).collect()
    }

    #[test]
    fn prompts_are_texts_or_tokens_one_or_several() {
        assert_eq!(prompts(r#"{"prompt": "a"}"#), ["a"]);
        assert_eq!(prompts(r#"{"prompt": ["a", "b"], "n": 2}"#), ["a", "a", "b", "b"]);
        assert_eq!(prompts(r#"{"prompt": [1, 2]}"#), ["[1, 2]"]);
        assert_eq!(prompts(r#"{"prompt": [[1], [2, 3]]}"#), ["[1]", "[2, 3]"]);
        for wrong in ["[]", "5", "[1, \"a\"]", "[-1]", "[[1], \"a\"]", "{}", "[1.5]"] {
            let error = read(&format!(r#"{{"prompt": {wrong}}}"#)).unwrap_err();
            assert!(matches!(&error, ApiError::Field { name, .. } if name == "prompt"), "{wrong}");
        }
    }

    #[test]
    fn echoes_stand_in_front_of_the_text() {
        assert_eq!(read(r#"{"prompt": ["a", "b"], "echo": true}"#).unwrap().echoes, ["a", "b"]);
        assert_eq!(read(r#"{"prompt": ["a", "b"]}"#).unwrap().echoes, ["", ""]);
        assert!(read(r#"{"prompt": [1], "echo": true}"#).is_err(), "there is no vocabulary");
        assert!(read(r#"{"prompt": "a", "echo": true, "logprobs": 0}"#).is_err());
    }
}

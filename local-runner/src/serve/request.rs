//! What chats and completions have in common: how is generated, and in which form the answer is wanted. The names are those
//! of OpenAI's API, and of llama.cpp's server for what that lacks.

use model_core::grammar::{Grammar, JSON};
use model_core::sample::Sampling;
use model_core::session::{MAX_LOGPROBS, SessionOptions};
use rand_core::{OsRng, RngCore};
use serde_json::Value as Json;

use super::error::ApiError;
use super::fields::Fields;
use super::slots::Ask;
use crate::backend::Input;

/// Most answers to one request.
const MAX_ANSWERS: usize = 128;

/// What holds where a request says nothing else.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// How to generate.
    pub options: SessionOptions,
    /// Seed of the random choices; none for another one with each request.
    pub seed: Option<u64>,
}

/// In which form the answer is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form {
    /// Bit by bit.
    pub stream: bool,
    /// With a last bit that tells how many tokens there were.
    pub include_usage: bool,
}

/// A request taken apart.
#[derive(Debug)]
pub struct Asked {
    /// The answers that are wanted.
    pub asks: Vec<Ask>,
    /// How many follow each other with the same prompt.
    pub per_prompt: usize,
    /// In front of the text of each answer.
    pub echoes: Vec<String>,
    /// In which form they are wanted.
    pub form: Form,
    /// The seed of the first.
    pub seed: u64,
}

impl Asked {
    /// `n` answers to each input, with one seed after the other.
    ///
    /// # Errors
    /// If an option has no meaning, or too many answers are wanted.
    pub fn new(fields: &mut Fields, inputs: Vec<Input>, options: SessionOptions) -> Result<Self, ApiError> {
        options.validate().map_err(|error| ApiError::Request(error.to_string()))?;
        let per_prompt = match fields.count("n", MAX_ANSWERS as u32)? {
            None => 1,
            Some(0) => return Err(ApiError::field("n", format!("n is 0; it must be 1 to {MAX_ANSWERS}"))),
            Some(count) => count as usize,
        };
        if inputs.len() * per_prompt > MAX_ANSWERS {
            return Err(ApiError::field("n", format!("more than {MAX_ANSWERS} answers to one request are asked for")));
        }
        let seed = options.sampling.seed;
        let answers = inputs.iter().flat_map(|input| (0..per_prompt as u64).map(move |number| (input, number)));
        let ask = |(input, number): (&Input, u64)| {
            let sampling = Sampling { seed: seed.wrapping_add(number), ..options.sampling };
            Ask { input: input.clone(), options: SessionOptions { sampling, ..options.clone() } }
        };
        let asks: Vec<_> = answers.map(ask).collect();
        let echoes = vec![String::new(); asks.len()];
        Ok(Self { asks, per_prompt, echoes, form: form(fields)?, seed })
    }
}

/// How to generate.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub fn options(fields: &mut Fields, defaults: &Defaults) -> Result<SessionOptions, ApiError> {
    refuse_unsupported(fields)?;
    let default = &defaults.options;
    Ok(SessionOptions {
        max_tokens: max_tokens(fields)?.unwrap_or(default.max_tokens),
        sampling: sampling(fields, &default.sampling, defaults.seed)?,
        stop: fields.texts("stop")?.unwrap_or_else(|| default.stop.clone()),
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(default.ignore_eos),
        grammar: grammar(fields)?,
        ..default.clone()
    })
}

/// The number of alternatives that log probabilities are wanted of.
///
/// # Errors
/// If it is no number, or too large.
pub fn alternatives(fields: &mut Fields, name: &str) -> Result<Option<u32>, ApiError> {
    fields.count(name, MAX_LOGPROBS)
}

fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let mut limit = None;
    for name in ["n_predict", "max_tokens", "max_completion_tokens"] {
        limit = match fields.integer(name)? {
            None => limit,
            Some(-1) => Some(u32::MAX),
            Some(found) => Some(u32::try_from(found).map_err(|_| {
                ApiError::field(name, format!("{name} is {found}; it must be at least 0, or -1 for no limit"))
            })?),
        };
    }
    Ok(limit)
}

fn sampling(fields: &mut Fields, default: &Sampling, seed: Option<u64>) -> Result<Sampling, ApiError> {
    let mut number = |name: &str, default: f32| Ok(fields.number(name)?.unwrap_or(default));
    let sampling = Sampling {
        temperature: number("temperature", default.temperature)?,
        top_p: number("top_p", default.top_p)?,
        min_p: number("min_p", default.min_p)?,
        repeat_penalty: number("repeat_penalty", default.repeat_penalty)?,
        frequency_penalty: number("frequency_penalty", default.frequency_penalty)?,
        presence_penalty: number("presence_penalty", default.presence_penalty)?,
        ..*default
    };
    // Others than positive numbers keep all tokens in llama.cpp's server.
    let top_k = fields.integer("top_k")?.map(|k| u32::try_from(k.max(0)).unwrap_or(u32::MAX));
    let repeat_last_n = match fields.integer("repeat_last_n")? {
        Some(-1) => Some(u32::MAX),
        Some(found) => Some(u32::try_from(found).map_err(|_| {
            let message = format!("repeat_last_n is {found}; it must be at least 0, or -1 for all tokens");
            ApiError::field("repeat_last_n", message)
        })?),
        None => None,
    };
    let sampling = Sampling {
        top_k: top_k.unwrap_or(default.top_k),
        repeat_last_n: repeat_last_n.unwrap_or(default.repeat_last_n),
        seed: chosen_seed(fields, seed)?,
        ..sampling
    };
    sampling.validate().map_err(|error| ApiError::field(error.option, error.to_string()))?;
    Ok(sampling)
}

/// The request's seed, the server's, or another one with each request: one that every JSON reader can hold.
fn chosen_seed(fields: &mut Fields, default: Option<u64>) -> Result<u64, ApiError> {
    match fields.integer("seed")? {
        None | Some(-1) => Ok(default.unwrap_or_else(|| OsRng.next_u32().into())),
        Some(seed) => u64::try_from(seed).map_err(|_| {
            ApiError::field("seed", format!("seed is {seed}; it must be at least 0, or -1 for a random one"))
        }),
    }
}

fn grammar(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let given = fields.text("grammar")?.filter(|text| !text.is_empty());
    let json = match fields.object("response_format")? {
        None => false,
        Some(mut format) => match format.text("type")?.as_deref() {
            Some("text") => false,
            Some("json_object") => true,
            Some("json_schema") => {
                let hint = "use {\"type\": \"json_object\"}, or describe the form as GBNF in the field grammar";
                return Err(ApiError::unsupported("response_format", &format!("of the type json_schema; {hint}")));
            }
            _ => {
                return Err(ApiError::field(
                    "response_format",
                    "response_format must be of the type text or json_object",
                ));
            }
        },
    };
    match (given, json) {
        (Some(_), true) => Err(ApiError::field("grammar", "grammar and response_format exclude each other")),
        (Some(text), false) => match Grammar::parse(&text) {
            Ok(_) => Ok(Some(text)),
            Err(error) => Err(ApiError::field("grammar", error.to_string())),
        },
        (None, true) => Ok(Some(JSON.to_owned())),
        (None, false) => Ok(None),
    }
}

fn form(fields: &mut Fields) -> Result<Form, ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let include_usage = match fields.object("stream_options")? {
        Some(_) if !stream => {
            return Err(ApiError::field("stream_options", "stream_options needs \"stream\": true"));
        }
        Some(mut options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(Form { stream, include_usage })
}

/// Whether a value of a field that is not supported asks for nothing.
type Harmless = fn(&Json) -> bool;

/// Fields that change answers elsewhere and cannot here, when they do not, and what to do instead.
const UNSUPPORTED: &[(&str, Harmless, &str)] = &[
    ("audio", never, "answers are text"),
    ("best_of", is_one, "use n"),
    ("dry_multiplier", is_zero, "use repeat_penalty"),
    ("dynatemp_range", is_zero, "use temperature"),
    ("function_call", is_unforced, "use tools"),
    ("functions", is_empty, "use tools"),
    ("json_schema", is_empty, "describe the form as GBNF in the field grammar"),
    ("logit_bias", is_empty, "leave it out"),
    ("lora", is_empty, "leave it out"),
    ("mirostat", is_zero, "use temperature"),
    ("modalities", is_text, "answers are text"),
    ("n_probs", is_zero, "use logprobs"),
    ("prediction", never, "leave it out"),
    ("samplers", is_empty, "the order is penalties, top_k, top_p, min_p, temperature"),
    ("suffix", is_empty, "leave it out"),
    ("top_n_sigma", is_not_positive, "use min_p"),
    ("typical_p", is_one, "use min_p"),
    ("web_search_options", never, "leave it out"),
    ("xtc_probability", is_zero, "leave it out"),
];

fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, is_harmless, hint) in UNSUPPORTED {
        if fields.value(name).is_some_and(|value| !is_harmless(&value)) {
            return Err(ApiError::unsupported(name, hint));
        }
    }
    Ok(())
}

fn never(_: &Json) -> bool {
    false
}

fn is_zero(value: &Json) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_one(value: &Json) -> bool {
    value.as_f64() == Some(1.0)
}

fn is_not_positive(value: &Json) -> bool {
    value.as_f64().is_some_and(|value| value <= 0.0)
}

fn is_unforced(value: &Json) -> bool {
    matches!(value.as_str(), Some("auto" | "none"))
}

fn is_text(value: &Json) -> bool {
    value.as_array().is_some_and(|modes| modes.iter().all(|mode| mode == "text"))
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<SessionOptions, ApiError> {
        let defaults = Defaults { options: SessionOptions::default(), seed: Some(7) };
        options(&mut Fields::parse(json.as_bytes())?, &defaults)
    }

    fn field_of(error: ApiError) -> String {
        match error {
            ApiError::Field { name, .. } => name,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn requests_change_what_the_server_does_by_default() {
        let options = read(
            r#"{"max_completion_tokens": 5, "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1, "seed": 3,
                "stop": "x", "presence_penalty": 1, "frequency_penalty": -1, "repeat_penalty": 1.5,
                "repeat_last_n": -1, "ignore_eos": true, "user": "somebody", "logit_bias": {}}"#,
        )
        .unwrap();
        let sampling = Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 0.5,
            min_p: 0.1,
            repeat_penalty: 1.5,
            repeat_last_n: u32::MAX,
            frequency_penalty: -1.0,
            presence_penalty: 1.0,
            seed: 3,
        };
        assert_eq!((options.sampling, options.max_tokens, options.ignore_eos), (sampling, 5, true));
        assert_eq!(options.stop, ["x"]);
        let plain = read("{}").unwrap();
        assert_eq!(plain.sampling, Sampling { seed: 7, ..Sampling::default() });
        assert_eq!(read(r#"{"max_tokens": -1}"#).unwrap().max_tokens, u32::MAX);
    }

    #[test]
    fn without_any_seed_each_request_has_its_own() {
        let defaults = Defaults { options: SessionOptions::default(), seed: None };
        let seed = || options(&mut Fields::parse(b"{}").unwrap(), &defaults).unwrap().sampling.seed;
        assert!((0..4).map(|_| seed()).collect::<std::collections::BTreeSet<_>>().len() > 1);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (json, name) in [
            (r#"{"logit_bias": {"1": 5}}"#, "logit_bias"),
            (r#"{"modalities": ["text", "audio"]}"#, "modalities"),
            (r#"{"functions": [{}]}"#, "functions"),
            (r#"{"response_format": {"type": "json_schema"}}"#, "response_format"),
            (r#"{"response_format": {"type": "json_object"}, "grammar": "root ::= \"a\""}"#, "grammar"),
            (r#"{"grammar": "root ::= nothing"}"#, "grammar"),
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"top_p": 2}"#, "top_p"),
            (r#"{"seed": -7}"#, "seed"),
            (r#"{"max_tokens": -2}"#, "max_tokens"),
            (r#"{"stop": 5}"#, "stop"),
        ] {
            assert_eq!(field_of(read(json).unwrap_err()), name, "{json}");
        }
    }

    #[test]
    fn answers_in_json_follow_the_grammar_of_an_object() {
        let options = read(r#"{"response_format": {"type": "json_object"}}"#).unwrap();
        assert_eq!(options.grammar.as_deref(), Some(JSON));
        assert_eq!(read(r#"{"response_format": {"type": "text"}, "grammar": ""}"#).unwrap().grammar, None);
    }

    #[test]
    fn several_answers_have_several_seeds() {
        let mut fields =
            Fields::parse(br#"{"n": 2, "stream": true, "stream_options": {"include_usage": true}}"#).unwrap();
        let inputs = vec![Input::Text("a".into()), Input::Text("b".into())];
        let sampling = Sampling { seed: 9, ..Sampling::default() };
        let options = SessionOptions { sampling, ..SessionOptions::default() };
        let asked = Asked::new(&mut fields, inputs, options.clone()).unwrap();
        let seeds: Vec<_> = asked.asks.iter().map(|ask| ask.options.sampling.seed).collect();
        assert_eq!((seeds, asked.per_prompt, asked.seed), (vec![9, 10, 9, 10], 2, 9));
        assert_eq!(asked.form, Form { stream: true, include_usage: true });
        for json in [r#"{"n": 0}"#, r#"{"n": 129}"#, r#"{"n": 100}"#, r#"{"stream_options": {}}"#] {
            let inputs = vec![Input::Text("a".into()), Input::Text("b".into())];
            let mut fields = Fields::parse(json.as_bytes()).unwrap();
            assert!(Asked::new(&mut fields, inputs, options.clone()).is_err(), "{json}");
        }
    }
}

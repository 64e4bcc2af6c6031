//! Chat messages to one prompt, by the template in the model's file, or by a built-in one. Knows nothing of tokens beyond
//! the spelling of bos and eos, and has no clock.
//!
//! Templates are written for Hugging Face's Jinja2 environment; this is that environment on minijinja: blocks are
//! trimmed, `raise_exception` and loop controls exist, `tojson` writes what Python's `json.dumps` writes, strings
//! and mappings have the Python methods that templates use. As there, `tools` and `documents` are none unless given.
//!
//! A template comes from a file and is not trusted: the steps it takes, its recursion and its output are limited.
//! The memory of strings it builds on the way is not: the engine has no such limit, so that one which doubles a string
//! again and again can exhaust the memory of the process (in a canister, of the message).

mod date;
mod json;
mod message;
mod presets;
mod python;
mod slices;
mod variables;

use std::collections::BTreeSet;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};

use crate::TokenId;
use crate::gguf::{KeyError, Metadata, keys};
use crate::tokenizer::{self, EncodeOptions, Tokenizer};

pub use message::ChatMessage;
pub use variables::Variables;

/// Template steps per rendering; a long conversation takes some hundred per message.
const FUEL: u64 = 2_000_000;
/// Nested blocks, macros and calls; minijinja's own ceiling is 500, sized for larger stacks than wasm has.
const RECURSION: usize = 100;
/// Bytes of a rendered prompt: beyond what any context holds.
const MAX_OUTPUT: usize = 16 << 20;
/// The name under which templates are compiled.
const NAME: &str = "chat_template";

/// Why a conversation could not become a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The metadata entry is not a string.
    #[error("the chat template cannot be read: {0}")]
    Metadata(#[from] KeyError),
    /// There is no built-in template of this name, nor is it a template.
    #[error("{name:?} is neither a template nor the name of a built-in one, which are {known}")]
    UnknownName {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The template does not compile.
    #[error("the chat template is wrong in line {line}: {reason}; use the model without it, or give another")]
    Syntax {
        /// Line of the template, from 1; 0 if unknown.
        line: usize,
        /// What the template engine said.
        reason: String,
    },
    /// The template failed on these messages.
    #[error("the chat template failed in line {line}: {reason}")]
    Render {
        /// Line of the template, from 1; 0 if unknown.
        line: usize,
        /// What the template engine said.
        reason: String,
    },
    /// The template itself refused the messages.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// What a template is to be told is not as it has to be.
    #[error("{what} cannot be read: {reason}")]
    Variables {
        /// Which of it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The template asks for the date and none was given.
    #[error("the chat template needs today's date in line {line}, and was given none")]
    NeedsDate {
        /// Line of the template, from 1; 0 if unknown.
        line: usize,
    },
    /// The template took too many steps.
    #[error("the chat template took more than {steps} steps; it is faulty or the conversation is too long")]
    TooManySteps {
        /// The limit.
        steps: u64,
    },
    /// The prompt became too long.
    #[error("the prompt became longer than {limit} bytes; shorten the conversation")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    /// What compiles to nothing says so whenever it is to be rendered.
    environment: Result<Environment<'static>, Error>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    guessed: Option<&'static str>,
}

impl ChatTemplate {
    /// The template in a file's metadata (`tokenizer.chat_template`: a template, or the name of a built-in one). A file that
    /// has none gets the built-in one that fits its special tokens or its name, `None` if none does. A template that does
    /// not compile refuses every conversation with [`Error::Syntax`]: the model is of use without it.
    ///
    /// # Errors
    /// [`Error::Metadata`] if the entry is not a string.
    pub fn from_gguf(meta: &Metadata, tokenizer: &Tokenizer) -> Result<Option<Self>, Error> {
        if let Some(source) = meta.opt_str(keys::CHAT_TEMPLATE)? {
            let source = presets::named(source).map_or(source, |preset| preset.template);
            return Ok(Some(Self::for_tokenizer(compile(source), tokenizer)));
        }
        let Some(preset) = presets::fitting(meta, tokenizer) else { return Ok(None) };
        Ok(Some(Self { guessed: Some(preset.name), ..Self::for_tokenizer(compile(preset.template), tokenizer) }))
    }

    /// The built-in template of a name, or the template that `text` is, for the model of `tokenizer`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for what is neither, [`Error::Syntax`] for a template that does not compile.
    pub fn chosen(text: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        Ok(Self::for_tokenizer(Ok(compile(source_of(text)?)?), tokenizer))
    }

    /// Whether [`chosen`](Self::chosen) will take `text`.
    ///
    /// # Errors
    /// As there.
    pub fn check(text: &str) -> Result<(), Error> {
        compile(source_of(text)?).map(drop)
    }

    /// Names of the built-in templates, which are those of llama.cpp.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        presets::PRESETS.iter().map(|preset| preset.name)
    }

    /// Name of the built-in template that was taken because the file has none.
    pub fn guessed(&self) -> Option<&'static str> {
        self.guessed
    }

    fn for_tokenizer(environment: Result<Environment<'static>, Error>, tokenizer: &Tokenizer) -> Self {
        let text = |id| tokenizer.token_text(id).ok();
        Self::of(environment, tokenizer.bos().and_then(text), tokenizer.eos().and_then(text))
    }

    /// Compiles `source`; the tokens are what it sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Syntax`] if it does not compile.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self, Error> {
        Ok(Self::of(Ok(compile(source)?), bos_token, eos_token))
    }

    fn of(environment: Result<Environment<'static>, Error>, bos_token: Option<&str>, eos_token: Option<&str>) -> Self {
        let own = |token: Option<&str>| token.map(str::to_owned);
        Self { environment, bos_token: own(bos_token), eos_token: own(eos_token), guessed: None }
    }

    /// The prompt for a conversation, ready to become tokens; with `add_generation_prompt` it ends where the model's
    /// answer begins.
    ///
    /// Control tokens are those that the template writes. Where a message or a variable spells one, it stays text, so that
    /// nobody ends their own turn and speaks as the system.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[ChatMessage],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<Prompt, Error> {
        let guard = unused_character(messages, variables);
        let mut guarded = (messages.to_vec(), variables.clone());
        let mut put_guard = |text: &mut String| *text = tokenizer.guard(text, guard).into_owned();
        guarded.0.iter_mut().for_each(|message| message.each_text(&mut put_guard));
        guarded.1.each_text(&mut put_guard);
        Ok(Prompt { text: self.render(&guarded.0, &guarded.1, add_generation_prompt)?, guard })
    }

    /// The prompt for a conversation as text. To get its tokens use [`prompt`](Self::prompt): here control tokens
    /// that the template wrote and those spelled by a message look the same.
    ///
    /// # Errors
    /// [`Error::Refused`] if the template refuses the conversation (some want alternating roles), the other
    /// variants if it fails or exceeds a limit.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        variables: &Variables,
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let environment = self.environment.as_ref().map_err(Clone::clone)?;
        let template = environment.get_template(NAME).map_err(|error| syntax_error(&error))?;
        let mut context = vec![
            ("messages", messages.iter().map(|message| Value::from(Serde(message))).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("documents", Value::from(())),
        ];
        let tokens = [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)];
        context.extend(tokens.into_iter().filter_map(|(name, text)| Some((name, Value::from(text.as_deref()?)))));
        let context = context.into_iter().chain(variables.values());
        let mut output = Limited { bytes: Vec::new(), exceeded: false };
        let rendered = template.render_captured_to(Value::from_pairs(context), &mut output).map(drop);
        if output.exceeded {
            return Err(Error::TooLong { limit: MAX_OUTPUT });
        }
        rendered.map_err(|error| render_error(&error))?;
        Ok(String::from_utf8_lossy(&output.bytes).into_owned())
    }
}

/// A rendered conversation that remembers which control tokens the template wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    text: String,
    /// Inside every control token that a message spells; in no message of its own.
    guard: char,
}

impl Prompt {
    /// The tokens; with `begins`, the bos token is put in front if the model wants it and the template did not
    /// write it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer, begins: bool) -> Result<Vec<TokenId>, tokenizer::Error> {
        let options = EncodeOptions { add_bos: begins, parse_special: true };
        tokenizer.encode_guarded(&self.text, options, Some(self.guard))
    }

    /// What comes after the first occurrence of `words`, if they occur.
    pub fn after(&self, words: &str) -> Option<Self> {
        let (_, following) = self.text.split_once(words)?;
        Some(Self { text: following.to_owned(), guard: self.guard })
    }
}

/// A character that nothing told to a template has: of the noncharacters and private-use characters, the first.
fn unused_character(messages: &[ChatMessage], variables: &Variables) -> char {
    const FIRST: char = '\u{FDD0}';
    let mut used = BTreeSet::new();
    let mut note = |text: &mut String| used.extend(text.chars().filter(|&character| character >= FIRST));
    messages.iter().cloned().for_each(|mut message| message.each_text(&mut note));
    variables.clone().each_text(&mut note);
    let mut candidates = (FIRST..='\u{FDEF}').chain('\u{F0000}'..=char::MAX);
    candidates.find(|candidate| !used.contains(candidate)).unwrap_or(FIRST)
}

/// The template that is meant by a name or is given.
fn source_of(text: &str) -> Result<&str, Error> {
    match presets::named(text) {
        Some(preset) => Ok(preset.template),
        None if text.contains('{') => Ok(text),
        None => {
            let known = ChatTemplate::built_in().collect::<Vec<_>>().join(", ");
            Err(Error::UnknownName { name: text.to_owned(), known })
        }
    }
}

fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let syntax = syntax.map_err(|error| syntax_error(&error))?;
    let source = slices::as_calls(&python::without_generation_marks(source), &syntax);
    let mut environment = environment(syntax);
    environment.add_template_owned(NAME, source).map_err(|error| syntax_error(&error))?;
    Ok(environment)
}

fn environment(syntax: SyntaxConfig) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_unknown_method_callback(python::call_method);
    environment.add_filter("tojson", json::to_json);
    environment.add_function("raise_exception", |message: &str| -> Result<Value, minijinja::Error> {
        let refused = Refused(message.to_owned());
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "the template refuses").with_source(refused))
    });
    environment
}

/// What `raise_exception` was called with, found again at the end of the chain of causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn syntax_error(error: &minijinja::Error) -> Error {
    Error::Syntax { line: error.line().unwrap_or(0), reason: reason(error) }
}

fn render_error(error: &minijinja::Error) -> Error {
    let mut line = error.line().unwrap_or(0);
    let mut kind = error.kind();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(Refused(message)) = inner.downcast_ref() {
            return Error::Refused { message: message.clone() };
        }
        if let Some(inner) = inner.downcast_ref::<minijinja::Error>() {
            kind = inner.kind();
            line = inner.line().unwrap_or(line);
        }
        cause = inner.source();
    }
    let reason = reason(error);
    match kind {
        ErrorKind::OutOfFuel => Error::TooManySteps { steps: FUEL },
        ErrorKind::UnknownFunction if reason.contains("strftime_now") => Error::NeedsDate { line },
        _ => Error::Render { line, reason },
    }
}

/// The engine's kind and detail, without the position, which has a field of its own.
fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Collects output up to [`MAX_OUTPUT`].
struct Limited {
    bytes: Vec<u8>,
    exceeded: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.exceeded = true;
            return Err(io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

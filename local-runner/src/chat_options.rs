//! By which template conversations are rendered, and what it is told. Knows nothing of backends.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use model_core::chat::{ChatTemplate, Variables};
use model_core::prompt::InputOptions;

use crate::options::read_text;

/// How conversations become prompts. The names are those of llama.cpp.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Chat template in place of the model's own: the name of a built-in one (chatml, llama3, mistral-v7, ..), Jinja, or
    /// @FILE.
    #[arg(long, value_name = "NAME|JINJA", conflicts_with = "chat_template_file")]
    chat_template: Option<String>,
    /// Read the chat template from a file.
    #[arg(long, value_name = "FILE")]
    chat_template_file: Option<PathBuf>,
    /// More variables for the chat template, a JSON object.
    #[arg(long, value_name = "JSON")]
    chat_template_kwargs: Option<String>,
    /// Whether the model shall think before it answers, for chat templates that ask (enable_thinking).
    #[arg(long, value_enum, default_value = "auto")]
    reasoning: Reasoning,
    /// Functions that the model may call, for the chat template: a JSON array in a file.
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
}

/// What `enable_thinking` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reasoning {
    /// Not said.
    Auto,
    /// True.
    On,
    /// False.
    Off,
}

impl ChatArgs {
    /// The template, or the name of a built-in one, in place of the model's own.
    ///
    /// # Errors
    /// If a file cannot be read, or it is no template.
    pub fn template(&self) -> Result<Option<String>> {
        let file = match &self.chat_template {
            Some(text) => text.strip_prefix('@').map(PathBuf::from),
            None => self.chat_template_file.clone(),
        };
        let template = match file {
            Some(path) => Some(read_text(&path)?),
            None => self.chat_template.clone(),
        };
        template.as_deref().map_or(Ok(()), ChatTemplate::check)?;
        Ok(template)
    }

    /// What the template is told.
    ///
    /// # Errors
    /// If something is no JSON of its kind.
    pub fn input(&self) -> Result<InputOptions> {
        let named = self.chat_template_kwargs.as_deref().map(Variables::parse_named).transpose();
        let mut named = named.context("--chat-template-kwargs is wrong")?.unwrap_or_default();
        match self.reasoning {
            Reasoning::Auto => {}
            choice => drop(named.insert("enable_thinking".to_owned(), (choice == Reasoning::On).into())),
        }
        let tools = self.tools.as_deref().map(read_text).transpose()?;
        let tools = tools.as_deref().map(Variables::parse_tools).transpose().context("--tools is wrong")?;
        Ok(InputOptions { tools: tools.unwrap_or_default(), named, parse_special: false })
    }
}

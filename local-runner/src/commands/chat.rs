//! The interactive chat of `icllama run`: reads a line, streams the answer, keeps the computed conversation.

use std::io::{self, BufRead};

use anyhow::{Context, Result, bail};
use model_core::session::{FinishReason, SessionOptions};

use super::run;
use crate::backend::{Backend, Input};
use crate::output::{self, Output};

/// Talks until the end of the input.
pub fn converse(
    backend: &mut dyn Backend,
    system: Option<&str>,
    options: &SessionOptions,
    output: Output,
) -> Result<()> {
    if !backend.has_chat_template() {
        bail!("the model has no chat template to hold a conversation with; give a prompt and use --raw");
    }
    output::note("Type a message and press Enter. Ctrl-D ends the conversation.");
    let mut lines = io::stdin().lock().lines();
    let mut started = false;
    loop {
        output.piece("> ")?;
        let Some(line) = lines.next() else { break };
        let line = line.context("cannot read the message from stdin as UTF-8")?;
        if line.trim().is_empty() {
            continue;
        }
        let input = Input::turn(if started { None } else { system }, &line);
        if started {
            backend.append(&input, options.max_tokens)?;
        } else {
            backend.start(&input, options)?;
            started = true;
        }
        if answer(backend, output)? == FinishReason::ContextFull {
            output::note("The model's context is full; the conversation ends here.");
            break;
        }
    }
    output.line("")
}

fn answer(backend: &mut dyn Backend, output: Output) -> Result<FinishReason> {
    let generation = backend.generate(&mut |event| run::show(&event, false, output))?;
    if generation.cost.is_some() {
        output.piece(&generation.text)?;
    }
    output.line("")?;
    run::summarize(backend, &generation, output);
    Ok(generation.finish_reason)
}

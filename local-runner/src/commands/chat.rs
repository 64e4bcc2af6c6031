//! The interactive chat of `icllama run`: reads a line, streams the answer, keeps the computed conversation.

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use model_core::session::{FinishReason, SessionOptions};

use super::run;
use crate::backend::{Backend, Input};
use crate::output::{self, Output, grouped, short};

/// Talks until the end of `input`.
pub fn converse(
    backend: &mut dyn Backend,
    input: impl BufRead,
    system: Option<&str>,
    options: &SessionOptions,
    output: Output,
) -> Result<()> {
    if !backend.has_chat_template() {
        bail!("the model has no chat template to hold a conversation with; give a prompt and use --raw");
    }
    output::note("Type a message and press Enter. Ctrl-D ends the conversation.");
    let mut lines = input.lines();
    let mut started = false;
    loop {
        output.piece("> ")?;
        let Some(line) = lines.next() else { break };
        let line = line.context("cannot read the message from stdin as UTF-8")?;
        if line.trim().is_empty() {
            continue;
        }
        if started {
            backend.append(&Input::turn(None, &line), options.max_tokens)?;
        } else {
            backend.start(&Input::turn(system, &line), options)?;
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
    if let Some(cost) = generation.cost {
        output.line(&generation.text)?;
        let (calls, instructions) = (grouped(cost.calls.into()), short(cost.instructions.into()));
        output::note(&format!("{calls} calls, {instructions} instructions, {} cycles", grouped(cost.cycles)));
    } else {
        output.line("")?;
        run::summarize(backend, &generation, output);
    }
    Ok(generation.finish_reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Generation, Sink, Timings};

    /// Records what it is asked; its second answer fills the context.
    #[derive(Default)]
    struct Recorder {
        asked: Vec<String>,
    }

    impl Recorder {
        fn record(&mut self, verb: &str, input: &Input) {
            let Input::Messages(messages) = input else { panic!("a chat sends messages") };
            let messages: Vec<_> = messages.iter().map(|m| format!("{}={}", m.role, m.content)).collect();
            self.asked.push(format!("{verb} {}", messages.join(" ")));
        }
    }

    impl Backend for Recorder {
        fn name(&self) -> &'static str {
            "recorder"
        }

        fn has_chat_template(&self) -> bool {
            true
        }

        fn start(&mut self, input: &Input, _: &SessionOptions) -> Result<()> {
            self.record("start", input);
            Ok(())
        }

        fn append(&mut self, input: &Input, max_tokens: u32) -> Result<()> {
            self.record(&format!("append {max_tokens}"), input);
            Ok(())
        }

        fn generate(&mut self, _: Sink<'_>) -> Result<Generation> {
            let is_full = self.asked.len() > 1;
            Ok(Generation {
                prompt: Vec::new(),
                tokens: Vec::new(),
                text: String::new(),
                finish_reason: if is_full { FinishReason::ContextFull } else { FinishReason::EndOfGeneration },
                digests: Vec::new(),
                timings: Timings::default(),
                cost: None,
            })
        }

        fn logits(&mut self) -> Result<Vec<f32>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn turns_are_appended_and_the_system_message_comes_once() {
        let mut backend = Recorder::default();
        let options = SessionOptions { max_tokens: 7, ..SessionOptions::default() };
        let input = "one\n  \ntwo\nnever read\n";
        converse(&mut backend, input.as_bytes(), Some("be brief"), &options, Output::new(true, false)).unwrap();
        assert_eq!(backend.asked, ["start system=be brief user=one", "append 7 user=two"]);
    }
}

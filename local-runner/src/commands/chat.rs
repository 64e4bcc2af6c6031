//! `icllama chat`, and `icllama run` without a prompt: reads messages line by line, streams the answers, keeps the
//! conversation and what was computed of it.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, Result, bail};
use model_core::chat::ChatMessage;
use model_core::session::{FinishReason, SessionOptions};
use model_core::tokenizer::Tokenizer;

use super::run::{self, GenerateArgs};
use crate::backend::{Backend, ChatSupport, Event, Generation, Input, no_chat_template};
use crate::interrupt::{Interrupted, Interrupts};
use crate::options::OptionalModelArgs;
use crate::output::{self, Output, grouped, short};

const HELP: &str = "/reset begins a new conversation, /exit or Ctrl-D ends; Ctrl-C stops an answer.";

/// Hold a conversation: a message per line, from a terminal or a pipe.
///
/// Only what is new in the conversation is computed, and every answer is, bit for bit, the one that a run of the whole
/// conversation gives, natively and in the canister. /reset begins a new conversation, /exit
/// ends, Ctrl-C stops the answer. With --json every answer is a line of JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: OptionalModelArgs,
    /// System message of the chat; empty for none but the template's own.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    generate: GenerateArgs,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let options = self.generate.options()?;
        let naming = self.generate.naming(&self.model)?;
        let mut backend = self.generate.open(&self.model, output)?;
        let system = self.system.as_deref().filter(|text| !text.is_empty());
        let stdin = io::stdin();
        let interactive = stdin.is_terminal();
        let done = Chat::new(backend.as_mut(), system, options, naming, output)
            .and_then(|mut chat| chat.converse(stdin.lock(), interactive));
        self.generate.finish(backend.as_mut(), done)
    }
}

/// What a line of input asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Exit,
    Reset,
    /// A word that looks like a command and is none.
    Unknown(&'a str),
    Message(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        match line.trim() {
            "" => Self::Nothing,
            "/exit" => Self::Exit,
            "/reset" => Self::Reset,
            word if word.strip_prefix('/').is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())) => {
                Self::Unknown(word)
            }
            _ => Self::Message(line),
        }
    }
}

/// A conversation with a backend.
pub struct Chat<'a> {
    backend: &'a mut dyn Backend,
    options: SessionOptions,
    system: Option<ChatMessage>,
    messages: Vec<ChatMessage>,
    interrupts: Interrupts,
    /// Names tokens, if log probabilities are to be shown.
    naming: Option<Tokenizer>,
    output: Output,
}

impl<'a> Chat<'a> {
    /// A conversation in which nothing has been said yet.
    ///
    /// # Errors
    /// If the model has no chat template, or signals cannot be handled.
    pub fn new(
        backend: &'a mut dyn Backend,
        system: Option<&str>,
        options: SessionOptions,
        naming: Option<Tokenizer>,
        output: Output,
    ) -> Result<Self> {
        match backend.chat_support() {
            ChatSupport::None => bail!("{}", no_chat_template()),
            ChatSupport::Guessed(name) => {
                output::note(&format!("The model file has no chat template; its tokens or its name tell of {name}."));
            }
            ChatSupport::Template => {}
        }
        let interrupts = Interrupts::new().context("cannot watch for Ctrl-C")?;
        let system = system.map(|text| ChatMessage::new("system", text));
        let messages = system.iter().cloned().collect();
        Ok(Self { backend, options, system, messages, interrupts, naming, output })
    }

    /// Talks until `input` ends or says so. Prompts for messages if a person types them.
    ///
    /// # Errors
    /// If the backend fails; where a person types, the message is dropped instead.
    pub fn converse(&mut self, input: impl BufRead, interactive: bool) -> Result<()> {
        if interactive {
            output::note(&format!("Type a message and press Enter. {HELP}"));
        }
        let mut lines = input.lines();
        loop {
            if interactive {
                self.output.piece("> ")?;
            }
            let Some(line) = lines.next() else { break };
            match Line::parse(&line.context("cannot read the message from stdin as UTF-8")?) {
                Line::Nothing => {}
                Line::Exit => return Ok(()),
                Line::Reset => self.messages = self.system.iter().cloned().collect(),
                Line::Unknown(word) => output::note(&format!("{word} is no command. {HELP}")),
                Line::Message(text) => match self.say(text) {
                    Ok(FinishReason::ContextFull) => {
                        output::note("The model's context is full; begin anew with /reset.")
                    }
                    Ok(_) => {}
                    Err(error) if interactive => output::note(&format!("error: {error:#}")),
                    Err(error) => return Err(error),
                },
            }
        }
        if interactive { self.output.line("") } else { Ok(()) }
    }

    /// Sends a message and shows the answer; both stay in the conversation. A message that fails does not.
    fn say(&mut self, text: &str) -> Result<FinishReason> {
        let before = self.messages.len();
        self.messages.push(ChatMessage::new("user", text));
        let answered = self.answer();
        match &answered {
            Ok((answer, _)) => self.messages.push(ChatMessage::new("assistant", answer)),
            Err(_) => self.messages.truncate(before),
        }
        Ok(answered?.1)
    }

    fn answer(&mut self) -> Result<(String, FinishReason)> {
        self.backend.restart(&Input::Messages(self.messages.clone()), &self.options)?;
        let (watched, output, mut shown) = (self.interrupts.watch(), self.output, String::new());
        let is_streaming = run::is_streaming(self.backend, output);
        let generated = self.backend.generate(&mut |event| {
            run::show(&event, false, is_streaming, output)?;
            if let Event::Token { text, .. } | Event::Call { text, .. } = event {
                shown.push_str(text);
            }
            if watched.is_raised() { bail!(Interrupted) } else { Ok(()) }
        });
        match generated {
            Ok(generation) => {
                self.show_end(&generation)?;
                Ok((generation.text, generation.finish_reason))
            }
            Err(error) if error.is::<Interrupted>() => {
                self.backend.cancel()?;
                output.line(if is_streaming { "" } else { &shown })?;
                output::note("(stopped)");
                Ok((shown, FinishReason::Cancelled))
            }
            Err(error) => Err(error),
        }
    }

    /// What follows an answer: its text where it was not streamed, and what it cost.
    fn show_end(&self, generation: &Generation) -> Result<()> {
        let output = self.output;
        let report = run::report(self.backend, generation, self.naming.as_ref())?;
        output.json_line(&report)?;
        output.line(if run::is_streaming(self.backend, output) { "" } else { &generation.text })?;
        run::show_logprobs(&report, output);
        match generation.cost {
            _ if output.is_json() => {}
            Some(cost) => {
                let (calls, instructions) = (grouped(cost.calls.into()), short(cost.instructions.into()));
                output::note(&format!("{calls} calls, {instructions} instructions, {} cycles", grouped(cost.cycles)));
            }
            None => run::summarize(self.backend, generation, output),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model_core::fixtures::TinyLlama;
    use model_core::model::LoadOptions;
    use model_core::sample::Sampling;

    use super::*;
    use crate::backend::Sink;
    use crate::backend::native::NativeBackend;

    /// Keeps every answer of a native backend, and what each conversation was.
    struct Recorder {
        native: NativeBackend,
        conversations: Vec<Vec<ChatMessage>>,
        answers: Vec<Generation>,
        /// Stop the answer of this number after some tokens.
        interrupted: Option<usize>,
        cancelled: usize,
    }

    fn native() -> NativeBackend {
        let model = TinyLlama { context: 1024, ..TinyLlama::default() }.build();
        NativeBackend::from_source(&model, LoadOptions::default(), 2).unwrap()
    }

    impl Recorder {
        fn new() -> Self {
            let (conversations, answers) = (Vec::new(), Vec::new());
            Self { native: native(), conversations, answers, interrupted: None, cancelled: 0 }
        }
    }

    impl Backend for Recorder {
        fn name(&self) -> &'static str {
            "recorder"
        }

        fn chat_support(&self) -> ChatSupport {
            self.native.chat_support()
        }

        fn choose_chat_template(&mut self, template: &str) -> Result<()> {
            self.native.choose_chat_template(template)
        }

        fn start(&mut self, _: &Input, _: &SessionOptions) -> Result<()> {
            panic!("a chat holds conversations")
        }

        fn restart(&mut self, input: &Input, options: &SessionOptions) -> Result<()> {
            let Input::Messages(messages) = input else { panic!("a chat holds conversations") };
            self.conversations.push(messages.clone());
            self.native.restart(input, options)
        }

        fn generate(&mut self, sink: Sink<'_>) -> Result<Generation> {
            let (stop, mut tokens) = (self.interrupted == Some(self.conversations.len()), 0);
            let generation = self.native.generate(&mut |event| {
                sink(event.clone())?;
                tokens += event.generated();
                if stop && tokens == 5 { bail!(Interrupted) } else { Ok(()) }
            })?;
            self.answers.push(generation.clone());
            Ok(generation)
        }

        fn cancel(&mut self) -> Result<()> {
            self.cancelled += 1;
            self.native.cancel()
        }

        fn logits(&mut self) -> Result<Vec<f32>> {
            self.native.logits()
        }
    }

    fn options() -> SessionOptions {
        let sampling = Sampling { seed: 4, repeat_penalty: 1.1, ..Sampling::default() };
        SessionOptions { max_tokens: 12, sampling, audit: true, ..SessionOptions::default() }
    }

    fn chat(backend: &mut Recorder, system: Option<&str>, input: &str) -> Result<()> {
        Chat::new(backend, system, options(), None, Output::new(true, false))?.converse(input.as_bytes(), false)
    }

    fn told(conversation: &[ChatMessage]) -> String {
        conversation.iter().map(|message| format!("{}={} ", message.role, message.content)).collect()
    }

    #[test]
    fn answers_are_those_of_the_whole_conversation_and_only_what_is_new_is_computed() {
        let mut backend = Recorder::new();
        chat(&mut backend, Some("be brief"), "one\n  \ntwo\nthree\n").unwrap();
        assert_eq!(backend.answers.len(), 3);
        let (mut fresh, mut before) = (native(), Vec::new());
        for (conversation, answer) in backend.conversations.iter().zip(&backend.answers) {
            fresh.start(&Input::Messages(conversation.clone()), &options()).unwrap();
            let expected = fresh.generate(&mut |_| Ok(())).unwrap();
            assert_eq!((&answer.prompt, &answer.tokens), (&expected.prompt, &expected.tokens));
            assert_eq!((&answer.digests, &answer.text), (&expected.digests, &expected.text));
            let known = before.iter().zip(&answer.prompt).take_while(|(before, now)| before == now).count();
            assert_eq!(answer.timings.prefill_tokens, answer.prompt.len() - known);
            assert!(before.is_empty() || known > 10);
            // The last token of an answer has not been computed.
            before = [&answer.prompt[..], &answer.tokens[..answer.tokens.len() - 1]].concat();
        }
        let texts: Vec<_> = backend.answers.iter().map(|answer| answer.text.as_str()).collect();
        let expected =
            format!("system=be brief user=one assistant={} user=two assistant={} user=three ", texts[0], texts[1]);
        assert_eq!(told(&backend.conversations[2]), expected);
    }

    #[test]
    fn commands_are_obeyed_and_not_sent() {
        let mut backend = Recorder::new();
        chat(&mut backend, Some("be brief"), "one\n/reset\n/nonsense\n/etc is a folder\n/exit\nnever read\n").unwrap();
        let conversations: Vec<_> = backend.conversations.iter().map(|messages| told(messages)).collect();
        assert_eq!(conversations, ["system=be brief user=one ", "system=be brief user=/etc is a folder "]);
        let [first, second] = &backend.answers[..] else { panic!("two answers") };
        let shared = first.prompt.iter().zip(&second.prompt).take_while(|(one, other)| one == other).count();
        assert!(
            shared > 0 && second.timings.prefill_tokens == second.prompt.len() - shared,
            "the system message is kept"
        );
    }

    #[test]
    fn a_stopped_answer_stays_in_the_conversation_as_far_as_it_came() {
        let mut backend = Recorder { interrupted: Some(1), ..Recorder::new() };
        chat(&mut backend, None, "one\ntwo\n").unwrap();
        assert_eq!((backend.cancelled, backend.answers.len()), (1, 1));
        let shown = &backend.conversations[1][1];
        assert!(shown.role == "assistant" && !shown.content.is_empty());
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_of_pipes_and_dropped_on_terminals() {
        let long = "word ".repeat(2000);
        let input = format!("{long}\nshort\n");
        assert!(chat(&mut Recorder::new(), None, &input).unwrap_err().to_string().contains("positions"));
        let mut backend = Recorder::new();
        let mut terminal = Chat::new(&mut backend, None, options(), None, Output::new(true, false)).unwrap();
        terminal.converse(input.as_bytes(), true).unwrap();
        assert_eq!(told(backend.conversations.last().unwrap()), "user=short ");
    }
}

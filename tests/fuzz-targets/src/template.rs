//! Chat templates of any content, and conversations of any content.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use model_core::TokenId;
use model_core::chat::{ChatMessage, ChatTemplate, Variables};
use model_core::fixtures::{CHATML_TEMPLATE, TinyLlama};
use model_core::gguf::File;
use model_core::tokenizer::Tokenizer;

use crate::pieces::{number, one_of, several, words};

/// Bytes of a rendered prompt that `model_core::chat` allows.
const MAX_OUTPUT: usize = 16 << 20;

/// What templates are made of.
const PIECES: [&str; 44] = [
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if ",
    "{% else %}",
    "{% endif %}",
    "{{ ",
    " }}",
    " %}",
    "{% set x = ",
    "{% set ns = namespace(s='ab') %}",
    "{% set ns.s = ns.s ~ ns.s %}",
    "{% macro f(a) %}",
    "{% endmacro %}",
    "f(1)",
    "m",
    "m.content",
    "m['role']",
    "messages",
    "messages[0].content",
    "[1:]",
    "[::-1]",
    "|tojson",
    "|trim",
    "|length",
    "|upper",
    "|join(',')",
    ".strip()",
    ".split('a')",
    ".replace('a', 'bb')",
    ".items()",
    "range(99999)",
    "loop.index",
    " ~ ",
    " + ",
    " * ",
    " == ",
    " in ",
    "'ab'",
    "7",
    "raise_exception('no')",
    "strftime_now('%d %b %Y')",
    "add_generation_prompt",
    "bos_token",
    "{%- break %}",
];
const TEXTS: [&str; 14] = [
    "user",
    "system",
    "assistant",
    "tool",
    "hello",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_",
    "start|>",
    "\n",
    "{{ 1 }}",
    "\u{FDD0}",
    "\u{F0000}",
    "é日",
];

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_gguf(File::read(&TinyLlama::default().build()).unwrap().metadata()).unwrap());

/// A conversation with a template that is known, that is made of pieces, or that the input spells up to a zero byte.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let (spelled, after) = rest.split_at(end);
    let _ = match kind % 4 {
        0 => with_turns(&mut Unstructured::new(rest)),
        1 => with_built_in(&mut Unstructured::new(rest)),
        2 => with_pieces(&mut Unstructured::new(rest)),
        _ => with_source(&String::from_utf8_lossy(spelled), &mut Unstructured::new(after)),
    };
}

fn with_turns(input: &mut Unstructured<'_>) -> Result<()> {
    let (messages, variables) = conversation(input)?;
    check_turns(&messages, &variables);
    Ok(())
}

fn with_built_in(input: &mut Unstructured<'_>) -> Result<()> {
    let names: Vec<&str> = ChatTemplate::built_in().collect();
    let name = one_of(input, &names)?;
    let (messages, variables) = conversation(input)?;
    check(&ChatTemplate::chosen(name, &TOKENIZER).unwrap(), &messages, &variables);
    Ok(())
}

fn with_pieces(input: &mut Unstructured<'_>) -> Result<()> {
    let source = words(input, 40, &PIECES)?;
    with_source(&source, input)
}

fn with_source(source: &str, input: &mut Unstructured<'_>) -> Result<()> {
    let (messages, variables) = conversation(input)?;
    if !may_exhaust_memory(source)
        && let Ok(template) = ChatTemplate::new(source, Some("<s>"), Some("</s>"))
    {
        check(&template, &messages, &variables);
    }
    Ok(())
}

fn conversation(input: &mut Unstructured<'_>) -> Result<(Vec<ChatMessage>, Variables)> {
    Ok((several(input, 4, message)?, variables(input)?))
}

/// Whether a template could make a string that doubles again and again, which nothing limits: `model_core::chat` says so.
fn may_exhaust_memory(source: &str) -> bool {
    const GROWTH: [&str; 9] = ["~", "+", "*", "replace", "join", "indent", "endset", "tojson", "macro"];
    let growth: usize = GROWTH.iter().map(|word| source.matches(word).count()).sum();
    let repeats = source.contains("for") || source.contains("macro") || source.contains("call");
    growth > if repeats { 1 } else { 5 }
}

fn message(input: &mut Unstructured<'_>) -> Result<ChatMessage> {
    let mut message = ChatMessage::new(words(input, 2, &TEXTS)?, words(input, 6, &TEXTS)?);
    if input.ratio(1, 4)? {
        message.more.insert(words(input, 1, &["tool_calls", "name"])?, words(input, 2, &TEXTS)?.into());
    }
    Ok(message)
}

fn variables(input: &mut Unstructured<'_>) -> Result<Variables> {
    let now = if input.ratio(1, 2)? { Some(number(input)? as i64) } else { None };
    let mut variables = Variables { now, ..Variables::default() };
    if input.ratio(1, 8)? {
        let name = one_of(input, &["messages", "enable_thinking", "bos_token", "m"])?;
        variables.named.insert(name.to_owned(), words(input, 2, &TEXTS)?.into());
    }
    Ok(variables)
}

/// A rendering ends, with an error or with text of a bounded length, and the same the next time.
fn check(template: &ChatTemplate, messages: &[ChatMessage], variables: &Variables) {
    let rendered = template.render(messages, variables, true);
    if let Ok(text) = &rendered {
        assert!(text.len() <= MAX_OUTPUT);
    }
    if let Err(error) = &rendered {
        assert!(!error.to_string().is_empty());
    }
    if let Ok(prompt) = template.prompt(&TOKENIZER, messages, variables, true) {
        prompt.encode(&TOKENIZER, true).unwrap();
    }
}

/// Whatever is said in a conversation, nobody ends their own turn: the control tokens are those of the template.
fn check_turns(messages: &[ChatMessage], variables: &Variables) {
    let template = ChatTemplate::new(CHATML_TEMPLATE, None, None).unwrap();
    let variables = Variables { now: variables.now, ..Variables::default() };
    let Ok(prompt) = template.prompt(&TOKENIZER, messages, &variables, true) else { return };
    let ids = prompt.encode(&TOKENIZER, true).unwrap();
    let control: Vec<TokenId> = ids.into_iter().filter(|&id| TOKENIZER.is_control(id)).collect();
    assert_eq!(control.len(), 2 * messages.len() + 1, "{messages:?}");
}

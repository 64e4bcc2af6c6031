//! Built-in chat templates, for files that have none: the formats of llama.cpp's templates of the same names, and by what
//! a file is seen to want one of them. As there, formats without a place for a system message put it before the first
//! message of the user.

use crate::gguf::{Metadata, keys};
use crate::tokenizer::{EncodeOptions, TokenKind, Tokenizer};

/// A built-in chat template.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) template: &'static str,
    fits: Fits,
}

/// By what a file is seen to want a preset.
#[derive(Debug)]
enum Fits {
    /// All these are tokens of its own, which are matched as a whole.
    Tokens(&'static [&'static str]),
    /// As `Tokens`, in a byte-level vocabulary (Mistral's "Tekken").
    ByteLevelTokens(&'static [&'static str]),
    /// Its name has all these words. The formats are of plain text, so that the vocabulary does not tell.
    Names(&'static [&'static [&'static str]]),
    /// Never by itself.
    Chosen,
}

/// Formats of one block per message: a beginning with the role, the message, an end.
macro_rules! blocks {
    ($begin:literal, $after_role:literal, $end:literal, $answer:literal) => {
        concat!(
            "{% for message in messages %}{{ '",
            $begin,
            "' ~ message.role ~ '",
            $after_role,
            "' ~ message.content ~ '",
            $end,
            "' }}{% endfor %}{% if add_generation_prompt %}{{ '",
            $answer,
            "' }}{% endif %}"
        )
    };
}

/// Llama 2's format: what is taken of a message, what becomes of a system message's `text`, what precedes a later turn.
macro_rules! llama2 {
    ($text:literal, $system:literal, $again:literal) => {
        concat!(
            "{{ '[INST] ' }}{% set turn = namespace(open=true) %}{% for message in messages %}{% set text = ",
            $text,
            " %}{% if not turn.open %}{{ '",
            $again,
            "' }}{% set turn.open = true %}{% endif %}{% if message.role == 'system' %}{{ ",
            $system,
            " }}{% elif message.role == 'user' %}{{ text ~ ' [/INST]' }}{% else %}{{ text ~ '</s>' }}",
            "{% set turn.open = false %}{% endif %}{% endfor %}"
        )
    };
}

/// Mistral's formats up to version 3: the space before both marks, that after `[INST]` and before an answer, and what is
/// taken of an answer.
macro_rules! mistral {
    ($before:literal, $after:literal, $answer:literal) => {
        concat!(
            "{% set turn = namespace(open=false) %}{% for message in messages %}{% if not turn.open %}{{ '",
            $before,
            "[INST]",
            $after,
            "' }}{% set turn.open = true %}{% endif %}{% if message.role == 'system' %}",
            "{{ message.content ~ '\\n\\n' }}{% elif message.role == 'user' %}{{ message.content ~ '",
            $before,
            "[/INST]' }}{% else %}{{ '",
            $after,
            "' ~ ",
            $answer,
            " ~ '</s>' }}{% set turn.open = false %}{% endif %}{% endfor %}"
        )
    };
}

/// Mistral's formats from version 7 on; the space after each mark.
macro_rules! mistral7 {
    ($space:literal) => {
        concat!(
            "{% for message in messages %}{% if message.role == 'system' %}{{ '[SYSTEM_PROMPT]",
            $space,
            "' ~ message.content ~ '[/SYSTEM_PROMPT]' }}{% elif message.role == 'user' %}{{ '[INST]",
            $space,
            "' ~ message.content ~ '[/INST]' }}{% else %}{{ '",
            $space,
            "' ~ message.content ~ '</s>' }}{% endif %}{% endfor %}"
        )
    };
}

/// Vicuna's format; what precedes and follows the system message.
macro_rules! vicuna {
    ($before:literal, $after:literal) => {
        concat!(
            "{% for message in messages %}{% if message.role == 'system' %}{{ '",
            $before,
            "' ~ message.content ~ '",
            $after,
            "' }}{% elif message.role == 'user' %}{{ 'USER: ' ~ message.content ~ '\\n' }}",
            "{% else %}{{ 'ASSISTANT: ' ~ message.content ~ '</s>\\n' }}{% endif %}{% endfor %}",
            "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
        )
    };
}

/// All presets. Of those that fit a file, the first is taken.
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "deepseek3",
        template: "{% for message in messages %}{% if message.role == 'system' %}{{ message.content ~ '\n\n' }}\
            {% elif message.role == 'user' %}{{ '<｜User｜>' ~ message.content }}\
            {% else %}{{ '<｜Assistant｜>' ~ message.content ~ '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}\
            {% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
        fits: Fits::Tokens(&["<｜User｜>", "<｜Assistant｜>"]),
    },
    Preset {
        name: "phi4",
        template: blocks!("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
        fits: Fits::Tokens(&["<|im_start|>", "<|im_sep|>", "<|im_end|>"]),
    },
    Preset {
        name: "chatml",
        template: blocks!("<|im_start|>", "\\n", "<|im_end|>\\n", "<|im_start|>assistant\\n"),
        fits: Fits::Tokens(&["<|im_start|>", "<|im_end|>"]),
    },
    Preset {
        name: "llama3",
        template: "{% for message in messages %}{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ \
            message.content | trim ~ '<|eot_id|>' }}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        fits: Fits::Tokens(&["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
    },
    Preset {
        name: "gemma",
        template: "{% set system = namespace(text='') %}{% for message in messages %}\
            {% if message.role == 'system' %}{% set system.text = system.text ~ message.content | trim %}\
            {% else %}{{ '<start_of_turn>' ~ ('model' if message.role == 'assistant' else message.role) ~ '\n' }}\
            {% if system.text and message.role != 'assistant' %}{{ system.text ~ '\n\n' }}\
            {% set system.text = '' %}{% endif %}{{ message.content | trim ~ '<end_of_turn>\n' }}\
            {% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        fits: Fits::Tokens(&["<start_of_turn>", "<end_of_turn>"]),
    },
    Preset {
        name: "phi3",
        template: blocks!("<|", "|>\\n", "<|end|>\\n", "<|assistant|>\\n"),
        fits: Fits::Tokens(&["<|user|>", "<|assistant|>", "<|end|>"]),
    },
    Preset {
        name: "mistral-v7-tekken",
        template: mistral7!(""),
        fits: Fits::ByteLevelTokens(&["[SYSTEM_PROMPT]", "[INST]", "[/INST]"]),
    },
    Preset {
        name: "mistral-v7",
        template: mistral7!(" "),
        fits: Fits::Tokens(&["[SYSTEM_PROMPT]", "[INST]", "[/INST]"]),
    },
    Preset {
        name: "mistral-v3-tekken",
        template: mistral!("", "", "message.content"),
        fits: Fits::ByteLevelTokens(&["[INST]", "[/INST]"]),
    },
    Preset {
        name: "mistral-v3",
        template: mistral!("", " ", "message.content | trim"),
        fits: Fits::Tokens(&["[INST]", "[/INST]"]),
    },
    Preset { name: "falcon3", template: blocks!("<|", "|>\\n", "\\n", "<|assistant|>\\n"), fits: Fits::Chosen },
    Preset {
        name: "zephyr",
        // llama.cpp ends messages with <|endoftext|> in all files; those with another eos token were trained with that.
        template: "{% set end = eos_token or '<|endoftext|>' %}{% for message in messages %}\
            {{ '<|' ~ message.role ~ '|>\n' ~ message.content ~ end ~ '\n' }}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        fits: Fits::Names(&[&["zephyr"], &["tinyllama", "chat"]]),
    },
    Preset {
        name: "mistral-v1",
        template: mistral!(" ", " ", "message.content"),
        fits: Fits::Names(&[&["mistral", "instruct"], &["mixtral", "instruct"]]),
    },
    Preset { name: "vicuna-orca", template: vicuna!("SYSTEM: ", "\\n"), fits: Fits::Names(&[&["vicuna", "orca"]]) },
    Preset { name: "vicuna", template: vicuna!("", "\\n\\n"), fits: Fits::Names(&[&["vicuna"]]) },
    Preset {
        name: "llama2-sys-bos",
        template: llama2!("message.content", "'<<SYS>>\\n' ~ text ~ '\\n<</SYS>>\\n\\n'", "<s>[INST] "),
        fits: Fits::Names(&[&["llama", "2", "chat"], &["llama", "v2", "chat"], &["llama2", "chat"]]),
    },
    Preset {
        name: "llama2-sys",
        template: llama2!("message.content", "'<<SYS>>\\n' ~ text ~ '\\n<</SYS>>\\n\\n'", "[INST] "),
        fits: Fits::Chosen,
    },
    Preset {
        name: "llama2-sys-strip",
        template: llama2!("message.content | trim", "'<<SYS>>\\n' ~ text ~ '\\n<</SYS>>\\n\\n'", "[INST] "),
        fits: Fits::Chosen,
    },
    Preset { name: "llama2", template: llama2!("message.content", "text ~ '\\n'", "[INST] "), fits: Fits::Chosen },
];

/// The preset of this name.
pub(super) fn named(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The preset that a file without a template is seen to want, by the tokens that it has and by its name.
pub(super) fn fitting(meta: &Metadata, tokenizer: &Tokenizer) -> Option<&'static Preset> {
    let name = meta.opt_str(keys::NAME).ok().flatten().unwrap_or_default().to_lowercase();
    let words: Vec<_> = name.split(|character: char| !character.is_alphanumeric()).collect();
    let byte_level = meta.opt_str(keys::TOKENIZER_MODEL).ok().flatten() == Some("gpt2");
    let has_all = |tokens: &[&str]| tokens.iter().all(|token| has_special(tokenizer, token));
    PRESETS.iter().find(|preset| match &preset.fits {
        Fits::Tokens(tokens) => has_all(tokens),
        Fits::ByteLevelTokens(tokens) => byte_level && has_all(tokens),
        Fits::Names(names) => names.iter().any(|wanted| wanted.iter().all(|word| words.contains(word))),
        Fits::Chosen => false,
    })
}

/// Whether a text is one token that is matched as a whole.
fn has_special(tokenizer: &Tokenizer, text: &str) -> bool {
    match tokenizer.encode(text, EncodeOptions { add_bos: false, parse_special: true }).as_deref() {
        Ok(&[id]) => !matches!(tokenizer.token_kind(id), Ok(TokenKind::Normal) | Err(_)),
        _ => false,
    }
}

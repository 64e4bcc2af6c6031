//! What the template environment does; renderings of real templates are compared with Python's in
//! `tests/chat_golden.rs`.

use super::*;
use crate::fixtures::{TinyLlama, Vocabulary};
use crate::gguf::File;

fn render(source: &str) -> Result<String, Error> {
    ChatTemplate::new(source, Some("<s>"), None)?.render(
        &[ChatMessage::new("user", " Hi you ")],
        &Variables::default(),
        true,
    )
}

/// The value of an expression, printed.
fn eval(expression: &str) -> String {
    render(&format!("{{{{ {expression} }}}}")).unwrap()
}

#[test]
fn blocks_are_trimmed_and_one_final_line_break_is_dropped() {
    assert_eq!(render("  {% if true %}\na\n  {% endif %}\nb\n\n").unwrap(), "a\nb\n");
}

#[test]
fn templates_see_what_hugging_face_gives_them() {
    assert_eq!(eval("bos_token"), "<s>");
    assert_eq!(eval("eos_token"), "");
    assert_eq!(eval("eos_token is defined"), "False");
    assert_eq!(eval("tools is none and documents is none"), "True");
    assert_eq!(eval("messages[0].content ~ add_generation_prompt"), " Hi you True");
    assert_eq!(eval("'tool_calls' in messages[0] or messages[0].tool_calls is defined"), "False");
}

#[test]
fn strings_have_pythons_methods() {
    assert_eq!(eval("messages[0].content.strip()"), "Hi you");
    assert_eq!(eval("' x '.lstrip() ~ '|' ~ ' x '.rstrip() ~ '|' ~ '--x-'.strip('-')"), "x | x|x");
    assert_eq!(eval("' a  b '.split() | length ~ 'a,b,c'.split(',', 1)[1] ~ 'a b  c'.split(none, 1)[1]"), "2b,cb  c");
    assert_eq!(eval("'<think>a</think>b'.split('</think>')[-1]"), "b");
    assert_eq!(eval("'abc'.startswith('ab') and 'abc'.endswith(('x', 'bc')) and not 'abc'.endswith('b')"), "True");
    assert_eq!(eval("'aXbX'.replace('X', '-') ~ 'aXbX'.replace('X', '-', 1)"), "a-b-a-bX");
    assert_eq!(eval("'aB c'.upper() ~ 'aB c'.lower() ~ 'aB cD'.title() ~ 'aB c'.capitalize()"), "AB Cab cAb CdAb c");
    assert_eq!(eval("'äbc'.find('c') ~ 'a'.find('b') ~ 'aaa'.count('a')"), "2-13");
    assert_eq!(eval("', '.join(['a', 'b']) ~ 'a\\nb'.splitlines()[1] ~ '12'.isdigit()"), "a, bbTrue");
    assert_eq!(eval("'prefix'.removeprefix('pre') ~ 'prefix'.removesuffix('fix') ~ 'x'.removeprefix('y')"), "fixprex");
}

#[test]
fn mappings_have_pythons_methods() {
    assert_eq!(
        eval("messages[0].get('role') ~ messages[0].get('name', 'none') ~ ({}.get('a') is none)"),
        "usernoneTrue"
    );
    let items = "{% for key, value in {'a': 1, 'b': 2}.items() %}{{ key }}={{ value }};{% endfor %}";
    assert_eq!(render(items).unwrap(), "a=1;b=2;");
    assert_eq!(eval("{'a': 1}.keys() | list ~ {'a': 1}.values() | list"), "['a'][1]");
}

#[test]
fn an_unknown_method_is_an_error_with_its_line() {
    let error = render("\n\n{{ 'x'.casefold() }}").unwrap_err();
    assert!(matches!(&error, Error::Render { line: 3, .. }), "{error}");
}

#[test]
fn tojson_writes_what_python_writes() {
    assert_eq!(
        eval("{'a': [1, 2.5, none, true], 'b': '<é\"\\n'} | tojson"),
        r#"{"a": [1, 2.5, null, true], "b": "<é\"\n"}"#
    );
    assert_eq!(
        eval("{'a': [1, {}], 'b': []} | tojson(indent=2)"),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"
    );
    assert!(render("{{ nothing | tojson }}").is_err());
}

#[test]
fn loops_can_be_left_and_variables_outlive_them_in_a_namespace() {
    let source = "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}\
                  {% if i == 5 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}";
    assert_eq!(render(source).unwrap(), "8");
}

#[test]
fn marks_around_generated_text_are_ignored() {
    assert_eq!(render("a {%- generation -%} b {%- endgeneration %} c{{ '{%' }}").unwrap(), "ab c{%");
}

#[test]
fn a_refusal_carries_the_templates_words() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert_eq!(error, Error::Refused { message: "roles must alternate".to_owned() });
    let inside = "{% macro check() %}{{ raise_exception('no') }}{% endmacro %}{{ check() }}";
    assert_eq!(render(inside).unwrap_err(), Error::Refused { message: "no".to_owned() });
}

#[test]
fn a_date_is_given_or_asked_for() {
    let asks = "\n{{ strftime_now('%d %b %Y') }} {{ strftime_now('%H:%M') }}";
    assert_eq!(render(asks).unwrap_err(), Error::NeedsDate { line: 2 });
    let dated = |source| {
        let variables = Variables { now: Some(1_722_000_000), ..Variables::default() };
        ChatTemplate::new(source, None, None).unwrap().render(&[], &variables, false)
    };
    assert_eq!(dated(asks).unwrap(), "\n26 Jul 2024 13:20");
    assert_eq!(dated("{% macro day() %}{{ strftime_now('%A') }}{% endmacro %}{{ day() }}").unwrap(), "Friday");
    assert!(matches!(dated("\n\n{{ strftime_now('%Q') }}"), Err(Error::Render { line: 3, .. })));
    assert_eq!(eval("strftime_now is defined or date_string is defined"), "False");
}

#[test]
fn variables_come_from_json_and_keep_their_order() {
    let variables = Variables {
        tools: Variables::parse_tools(r#"[{"zeta": 1, "alpha": {"b": 2, "a": [1.0]}}]"#).unwrap(),
        named: Variables::parse_named(r#"{"enable_thinking": false, "bos_token": "<b>"}"#).unwrap(),
        now: None,
    };
    let template = "{{ tools | tojson }} {{ enable_thinking }} {{ bos_token }}";
    let rendered = ChatTemplate::new(template, Some("<s>"), None).unwrap().render(&[], &variables, false);
    assert_eq!(rendered.unwrap(), r#"[{"zeta": 1, "alpha": {"b": 2, "a": [1.0]}}] False <b>"#);
    for wrong in ["{}", "[1", "7"] {
        assert!(matches!(Variables::parse_tools(wrong), Err(Error::Variables { .. })));
    }
    for wrong in ["[]", "{\"a\": }", "\"a\""] {
        assert!(matches!(Variables::parse_named(wrong), Err(Error::Variables { .. })));
    }
}

#[test]
fn nothing_that_a_template_is_told_can_write_control_tokens() {
    let file = File::read(&TinyLlama::default().build()).unwrap();
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    let source = "<|im_start|>{{ messages | tojson(ensure_ascii=true) }}{{ tools[0] }}{{ style }}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    let mut message = ChatMessage::new("user<|im_end|>", "<|im_end|>\u{FDD0}");
    message.more.insert("<|im_end|>".into(), serde_json::json!([{"name": "<|im_end|>"}]));
    let variables = Variables {
        tools: Variables::parse_tools(r#"["<|im_end|>"]"#).unwrap(),
        named: Variables::parse_named(r#"{"style": "<|im_end|>"}"#).unwrap(),
        now: None,
    };
    let ids = template.prompt(&tokenizer, &[message], &variables, true).unwrap().encode(&tokenizer, true).unwrap();
    assert_eq!(ids.iter().filter(|&&id| tokenizer.is_control(id)).count(), 1);
    let text = String::from_utf8(tokenizer.decode(&ids).unwrap()).unwrap();
    assert_eq!(text.matches("<|im_end|>").count(), 6, "{text}");
}

#[test]
fn syntax_errors_name_the_line() {
    assert!(matches!(ChatTemplate::new("a\n{% if %}", None, None), Err(Error::Syntax { line: 2, .. })));
}

#[test]
fn hostile_templates_are_stopped() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert_eq!(render(endless), Err(Error::TooManySteps { steps: FUEL }));
    let recursive = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    assert!(matches!(render(recursive), Err(Error::Render { .. })));
    let long = "{% set x = 'x' * 1000000 %}{% for a in range(99) %}{{ x }}{% endfor %}";
    assert_eq!(render(long), Err(Error::TooLong { limit: MAX_OUTPUT }));
    let deep = format!("{{{{ {}1{} | tojson }}}}", "[".repeat(120), "]".repeat(120));
    assert!(render(&deep).is_err());
}

#[derive(serde::Deserialize)]
struct Presets {
    conversations: Vec<Vec<(String, String)>>,
    cases: Vec<PresetCase>,
}

#[derive(serde::Deserialize)]
struct PresetCase {
    template: String,
    conversation: usize,
    add_generation_prompt: bool,
    text: String,
}

/// The vectors are written by `scripts/golden/chat_presets.py`. llama.cpp ends Zephyr's messages with <|endoftext|>.
#[test]
fn built_in_templates_render_as_llama_cpps() {
    let golden: Presets = serde_json::from_str(include_str!("../../tests/golden/chat_presets.json")).unwrap();
    let mut seen = BTreeSet::new();
    for case in &golden.cases {
        let PresetCase { template: name, conversation, add_generation_prompt, text } = case;
        let source = presets::named(name).unwrap().template;
        let template = ChatTemplate::new(source, Some("<s>"), Some("<|endoftext|>")).unwrap();
        let messages: Vec<_> =
            golden.conversations[*conversation].iter().map(|(role, content)| ChatMessage::new(role, content)).collect();
        let rendered = template.render(&messages, &Variables::default(), *add_generation_prompt).unwrap();
        assert_eq!(&rendered, text, "{name}, conversation {conversation}");
        seen.insert(name.as_str());
    }
    assert_eq!(seen, ChatTemplate::built_in().collect());
}

/// What is guessed for a file of this name without a template, whose control tokens are these besides eos and bos.
fn guessed(name: &str, vocabulary: Vocabulary, turns: [&'static str; 2]) -> Option<&'static str> {
    let tiny = TinyLlama { turns, vocabulary, vocab: 420, ..TinyLlama::without_chat() };
    let mut file = File::read(&tiny.build()).unwrap();
    file.metadata_mut().insert(keys::NAME, name);
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    ChatTemplate::from_gguf(file.metadata(), &tokenizer).unwrap().map(|template| template.guessed().unwrap())
}

#[test]
fn a_file_without_a_template_gets_the_one_that_its_tokens_or_its_name_tell_of() {
    use Vocabulary::{ByteBpe, SentencePiece};
    let none = ["<|a|>", "<|b|>"];
    for (vocabulary, turns, expected) in [
        (ByteBpe, ["<|im_start|>", "<|im_end|>"], Some("chatml")),
        (SentencePiece, ["<start_of_turn>", "<end_of_turn>"], Some("gemma")),
        (ByteBpe, ["<｜User｜>", "<｜Assistant｜>"], Some("deepseek3")),
        (SentencePiece, ["[INST]", "[/INST]"], Some("mistral-v3")),
        (ByteBpe, ["[INST]", "[/INST]"], Some("mistral-v3-tekken")),
        (ByteBpe, ["<|start_header_id|>", "<|eot_id|>"], None),
        (ByteBpe, none, None),
    ] {
        assert_eq!(guessed("Mistrals", vocabulary, turns), expected, "{turns:?}");
    }
    for (name, expected) in [
        ("Llama-2-7B-Chat", Some("llama2-sys-bos")),
        ("TinyLlama 1.1B Chat v1.0", Some("zephyr")),
        ("mistralai_Mistral-7B-Instruct-v0.1", Some("mistral-v1")),
        ("vicuna-7b-v1.5", Some("vicuna")),
        ("Llama-2-7B", None),
    ] {
        assert_eq!(guessed(name, SentencePiece, none), expected, "{name}");
    }
}

#[test]
fn a_template_is_chosen_by_name_or_given() {
    let mut file = File::read(&TinyLlama::without_chat().build()).unwrap();
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    let message = [ChatMessage::new("user", "hi")];
    let render = |template: &ChatTemplate| template.render(&message, &Variables::default(), true).unwrap();
    let vicuna = ChatTemplate::chosen("vicuna", &tokenizer).unwrap();
    assert_eq!((render(&vicuna).as_str(), vicuna.guessed()), ("USER: hi\nASSISTANT:", None));
    let given = ChatTemplate::chosen("{{ bos_token }}{{ messages[0].content }}", &tokenizer).unwrap();
    assert_eq!(render(&given), "<|begin_of_text|>hi");
    let unknown = ChatTemplate::chosen("vicunia", &tokenizer).unwrap_err();
    assert!(unknown.to_string().contains("vicuna-orca"), "{unknown}");
    assert!(matches!(ChatTemplate::chosen("{% if %}", &tokenizer), Err(Error::Syntax { line: 1, .. })));
    file.metadata_mut().insert(keys::CHAT_TEMPLATE, "vicuna");
    let named = ChatTemplate::from_gguf(file.metadata(), &tokenizer).unwrap().unwrap();
    assert_eq!((render(&named), named.guessed()), (render(&vicuna), None));
}

//! What the template environment does; renderings of real templates are compared with Python's in
//! `tests/chat_golden.rs`.

use super::*;

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

fn render(source: &str) -> Result<String, Error> {
    ChatTemplate::new(source, Some("<s>"), None)?.render(&[message("user", " Hi you ")], true)
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
    let asks = "\n{{ strftime_now('%d %b %Y') }}";
    assert_eq!(render(asks).unwrap_err(), Error::NeedsDate { line: 2 });
    let dated = |source| ChatTemplate::new(source, None, None).unwrap().with_date("26 Jul 2024").render(&[], false);
    assert_eq!(dated(asks).unwrap(), "\n26 Jul 2024");
    assert_eq!(dated("{{ date_string }}").unwrap(), "26 Jul 2024");
    assert_eq!(eval("strftime_now is defined or date_string is defined"), "False");
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

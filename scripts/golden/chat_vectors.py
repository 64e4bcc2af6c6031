#!/usr/bin/env python3
"""Golden renderings of chat templates, by the code with which Hugging Face transformers applies them.

Needs: pip install transformers==5.23.0 jinja2==3.1.6 gguf
Usage: scripts/golden/chat_vectors.py [--model models/SmolLM2-135M-Instruct.Q4_1.gguf]
Writes model-core/tests/golden/chat.json, the same bytes each time.

The templates below and in chat_templates/ follow the formats of model families in the ways of writing found in real
templates; their prose is our own.
"""

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

import gguf
import jinja2
from transformers.utils import chat_template_utils

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "model-core/tests/golden/chat.json"

TEMPLATES = {
    "chatml": """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}
""",
    "llama3": """\
{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    "llama3.2": """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes first, if there is one. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "llama2": """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "gemma": """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    "zephyr": """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "thinking": """\
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if loop.index0 > 20 %}{% break %}{% endif %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}{% continue %}{% endif %}
    {%- set content = message.get('content') or '' %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' }}
        {%- if loop.index0 > ns.last and reasoning %}{{ '<think>\\n' ~ reasoning.strip('\\n') ~ '\\n</think>\\n\\n' }}{% endif %}
        {%- generation -%}
        {{- content ~ '<|im_end|>\\n' }}
        {%- endgeneration %}
    {%- else %}
        {{- '<|im_start|>' + message.role.upper() + '\\n' + content.replace('\\r\\n', '\\n') + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "json": """\
{% for message in messages %}
{% for key in ['role', 'content'] %}
{{ key }}: {{ message[key] | tojson }}{{ ',' if not loop.last }}
{% endfor %}
{% endfor %}
{{ {'n': [1, 2.5, true, none], 's': 'a'} | tojson(indent=4) }}
{{ [] | tojson }} {{ messages | length }} {{ true }} {{ none }} {{ 7 // 2 }} {{ 7 / 2 }} {{ missing }}|
""",
}

NOW = 1_772_323_449
DATES = "%d %b %Y|%Y-%m-%d|%B %-d, %Y|%A|%a %H:%M:%S|%I:%M %p|%j|%y%%"

TEMPLATES["dates"] = f"{{{{ strftime_now('{DATES}') }}}}{{{{ ' ' ~ (strftime_now('%H') | int + 1) }}}}"

TEMPLATES["python"] = """\
{%- macro show(value) %}[{{ value }}]{% endmacro -%}
{% for message in messages[1:] + messages[:1] if message.role != 'system' %}
{{ loop.index }}/{{ loop.length }} {{ message.content.strip() | upper }} {{ message.content.title() }}|{{ message['content'][:3] }}|{{ message.content[-2:] }}
{% if loop.index > 2 %}{% break %}{% endif %}
{% else %}
none
{% endfor %}
{% set first = messages | first %}{% set last = messages | map(attribute='role') | unique | list | last %}
{{ show(last) }}{{ show(first.get('name', 'nobody')) }}{{ show(first.get('name') is none) }}{{ show(1 if not tools else tools | length) }}
{% for key, value in {'zeta': 1, 'alpha': [1.5, 'x'], 'b': {'c': none}}.items() %}{{ key ~ '=' ~ value | tojson }};{% endfor %}
{{ {'zeta': 'é🙂', 'alpha': [1, 2.0, 1e-7, 1e22]} | tojson(ensure_ascii=True, sort_keys=True) }}
{{ {'zeta': {}, 'alpha': [1, []]} | tojson(indent=2, separators=(' ,', ' : ')) }}
{{ 'a-b-c'.split('-', 1) | join('+') }} {{ 'abc' in 'xabcx' }} {{ 'a,b'.split(',')[-1] }} {{ [3, 1, 2] | sort | reverse | list | string }}
{{ 'x' * 3 }} {{ '%s is %d' | format('a', 3) }} {{ "A" ~ 1 ~ none ~ true }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ (1, 'a') | string }} {{ {'a': 'b', 'c': [true, 1.0]} | string }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | list | length }}
{{ namespace(a=1).a }} {{ undefined_name is defined }} {{ undefined_name | default('d') }} {{ '' or 'e' }} {{ dict(a=1).a }} {{ 'ab'.endswith('b') and 'Ab'.lower() == 'ab' }}
"""

WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a \"place\" <now>", "parameters": {
        "type": "object", "properties": {
            "place": {"type": "string", "description": "City, e.g. Zürich"},
            "days": {"type": "integer"}, "units": {"type": "array", "items": {"type": "string"}}},
        "required": ["place"]}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdef123", "type": "function", "function": {
    "name": "weather", "arguments": {"place": "Zürich <1>", "days": 3, "ratio": 0.5, "exact": True, "none": None}}}]}
TWO_CALLS = {"role": "assistant", "content": "I call.", "tool_calls": [
    {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"place": "Bern"}}},
    {"id": "abcdef124", "type": "function", "function": {"name": "clock", "arguments": {}}}]}


def said(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


ANSWERED = [CALL, {"role": "tool", "name": "weather", "tool_call_id": "abcdef123", "content": "{\"sky\": \"grey\"}"},
            {"role": "assistant", "content": "It is grey."}]
BOTH = [TWO_CALLS, {"role": "tool", "tool_call_id": "abcdef123", "content": "grey"},
        {"role": "tool", "tool_call_id": "abcdef124", "content": "12:00"}]
THOUGHT = [{"role": "user", "content": "Why?"},
           {"role": "assistant", "content": "Because.", "reasoning_content": "\nHm.\n"}, {"role": "user", "content": "Sure?"}]

CONVERSATIONS = [
    {"messages": said(("user", "Hello!"))},
    {"messages": said(("user", "  spaces around \n"), ("assistant", "\n\nAnswer.\n "), ("user", ""))},
    {"messages": said(("system", "Be brief."), ("user", "What is 2 < 3 & \"quoted\"?"), ("assistant", "It's true."),
                      ("user", "日本語 🙂 é"))},
    {"messages": said(("system", " "), ("user", "{{ not }} {% code %}\r\n<|im_end|>"),
                      ("assistant", "<think>\nhm\n</think>\n\nYes."), ("user", "a"), ("assistant", "<think>again</think>b"))},
    {"messages": said(("assistant", "First?"), ("user", "Roles do not alternate here."))},
    {"messages": said(("user", "one"), ("user", "two"))},
    {"messages": said(("tool", "result"), ("user", "x"))},
    {"messages": said(("user", "Hello!")), "named": {"enable_thinking": False}},
    {"messages": said(("system", "Sys /no_think"), ("user", "Hello!")), "named": {"enable_thinking": True}},
    {"messages": THOUGHT, "named": {"enable_thinking": False}},
    {"messages": said(("user", "Hello!")), "named": {"date_string": "1 Jan 2030", "tools_in_user_message": False}},
    {"messages": said(("user", "Hello!")), "tools": [WEATHER]},
    {"messages": said(("system", "Be brief."), ("user", "Weather?")) + ANSWERED[:1], "tools": [WEATHER, CLOCK]},
    {"messages": said(("user", "Weather?")) + ANSWERED[:2], "tools": [WEATHER, CLOCK],
     "named": {"enable_thinking": False}},
    {"messages": said(("user", "Weather?")) + ANSWERED + said(("user", "And now?")), "tools": [CLOCK, WEATHER],
     "named": {"tools_in_user_message": False}},
    {"messages": said(("user", "Weather and time?")) + BOTH, "tools": [WEATHER, CLOCK]},
    {"messages": said(("user", "Weather?")) + ANSWERED, "named": {"builtin_tools": ["code_interpreter", "search"]}},
]


class Clock(datetime):
    """A clock that stands still, in UTC."""

    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(NOW, timezone.utc).replace(tzinfo=None)


def render(source, conversation, add_generation_prompt):
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [conversation["messages"]], tools=conversation.get("tools"), chat_template=source, bos_token="<s>",
            eos_token="</s>", add_generation_prompt=add_generation_prompt, **conversation.get("named", {}))
        return {"text": rendered[0]}
    except jinja2.exceptions.TemplateError as refused:
        return {"refused": str(refused)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    reader = gguf.GGUFReader(parser.parse_args().model)
    folder = Path(__file__).with_name("chat_templates")
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}
    templates = {"smollm2": reader.fields["tokenizer.chat_template"].contents(), **TEMPLATES, **files}
    chat_template_utils.datetime = Clock
    rows = []
    for name, source in templates.items():
        for index, conversation in enumerate(CONVERSATIONS):
            for add_generation_prompt in [True, False]:
                row = {"template": name, "conversation": index, "add_generation_prompt": add_generation_prompt,
                       **render(source, conversation, add_generation_prompt)}
                rows.append(json.dumps(row, ensure_ascii=False))
    head = json.dumps({"made_by": "scripts/golden/chat_vectors.py, transformers", "bos_token": "<s>", "eos_token": "</s>",
                       "now": NOW, "templates": templates, "conversations": CONVERSATIONS}, ensure_ascii=False, indent=0)
    OUT.write_text(head[:-2] + ',\n"cases": [\n' + ",\n".join(rows) + "\n]\n}\n", encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {len(rows)} renderings, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Golden renderings of chat templates, from Jinja2 set up as Hugging Face transformers does.

Needs: pip install jinja2==3.1.6 gguf
Usage: scripts/golden/chat_vectors.py [--model models/SmolLM2-135M-Instruct.Q4_1.gguf]
Writes model-core/tests/golden/chat.json, the same bytes each time.

The templates below follow the formats of model families in the ways of writing found in real templates.
"""

import argparse
import json
from pathlib import Path

import gguf
import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

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

CONVERSATIONS = [
    [("user", "Hello!")],
    [("user", "  spaces around \n"), ("assistant", "\n\nAnswer.\n "), ("user", "")],
    [("system", "Be brief."), ("user", "What is 2 < 3 & \"quoted\"?"), ("assistant", "It's true."), ("user", "日本語 🙂 é")],
    [("system", " "), ("user", "{{ not }} {% code %}\r\n<|im_end|>"), ("assistant", "<think>\nhm\n</think>\n\nYes."),
     ("user", "a"), ("assistant", "<think>again</think>b")],
    [("assistant", "First?"), ("user", "Roles do not alternate here.")],
    [("user", "one"), ("user", "two")],
    [("tool", "result"), ("user", "x")],
]


class Refused(Exception):
    pass


def environment():
    def raise_exception(message):
        raise Refused(message)

    class Generation(jinja2.ext.Extension):
        """Transformers' mark around generated text; the text itself is unchanged."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller):
            return caller()

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    return env


def render(template, messages, add_generation_prompt):
    messages = [{"role": role, "content": content} for role, content in messages]
    try:
        text = template.render(messages=messages, tools=None, documents=None, bos_token="<s>", eos_token="</s>",
                               add_generation_prompt=add_generation_prompt)
        return {"text": text}
    except Refused as refused:
        return {"refused": str(refused)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    reader = gguf.GGUFReader(parser.parse_args().model)
    templates = {"smollm2": reader.fields["tokenizer.chat_template"].contents(), **TEMPLATES}
    rows = []
    for name, source in templates.items():
        template = environment().from_string(source)
        for messages in CONVERSATIONS:
            for add_generation_prompt in [True, False]:
                row = {"template": name, "messages": messages, "add_generation_prompt": add_generation_prompt,
                       **render(template, messages, add_generation_prompt)}
                rows.append(json.dumps(row, ensure_ascii=False))
    head = json.dumps({"made_by": "scripts/golden/chat_vectors.py, Jinja2", "bos_token": "<s>", "eos_token": "</s>",
                       "templates": templates}, ensure_ascii=False, indent=0)
    OUT.write_text(head[:-2] + ',\n"cases": [\n' + ",\n".join(rows) + "\n]\n}\n", encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {len(rows)} renderings, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

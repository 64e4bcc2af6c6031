#!/usr/bin/env python3
"""Golden renderings of the built-in chat templates, by llama.cpp's templates of the same names.

Needs: pip install llama-cpp-python==0.3.36
Usage: scripts/golden/chat_presets.py
Writes model-core/tests/golden/chat_presets.json, the same bytes each time.
"""

import ctypes
import json
from pathlib import Path

import llama_cpp

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "model-core/tests/golden/chat_presets.json"
NAMES = [
    "chatml", "deepseek3", "falcon3", "gemma", "llama2", "llama2-sys", "llama2-sys-bos", "llama2-sys-strip", "llama3",
    "mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken", "phi3", "phi4", "vicuna",
    "vicuna-orca", "zephyr",
]
CONVERSATIONS = [
    [["user", "Hello!"]],
    [["system", " Be brief.\n"], ["user", "What's \"2 < 3\"?"]],
    [["user", " one "], ["assistant", " two "], ["user", "three"]],
    [["system", "Be brief."], ["user", "one"], ["assistant", "two"], ["user", "three"], ["assistant", "four"]],
    [["assistant", "First?"], ["user", "日本語 🙂"]],
    [["user", "one"], ["system", "Be brief."], ["user", "two"]],
]


def render(name, messages, add_generation_prompt):
    texts = [(role.encode(), content.encode()) for role, content in messages]
    chat = (llama_cpp.llama_chat_message * len(texts))(*(llama_cpp.llama_chat_message(*text) for text in texts))
    buffer = ctypes.create_string_buffer(4096)
    size = llama_cpp.llama_chat_apply_template(name.encode(), chat, len(texts), add_generation_prompt, buffer, 4096)
    if not 0 <= size < 4096:
        raise ValueError(f"{name}: {size}")
    return buffer.raw[:size].decode()


def main():
    rows = [json.dumps({"template": name, "conversation": index, "add_generation_prompt": prompt,
                        "text": render(name, messages, prompt)}, ensure_ascii=False)
            for name in NAMES for index, messages in enumerate(CONVERSATIONS) for prompt in [True, False]]
    head = json.dumps({"made_by": "scripts/golden/chat_presets.py, llama.cpp", "conversations": CONVERSATIONS},
                      ensure_ascii=False, indent=0)
    OUT.write_text(head[:-2] + ',\n"cases": [\n' + ",\n".join(rows) + "\n]\n}\n", encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {len(rows)} renderings, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

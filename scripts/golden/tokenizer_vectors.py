#!/usr/bin/env python3
"""Golden vectors for model-core's tokenizers, from the Hugging Face `tokenizers` library, with llama.cpp as a second opinion.

Needs: pip install tokenizers==0.23.3 llama-cpp-python==0.3.36 gguf==0.19.0
Usage: scripts/golden/tokenizer_vectors.py [--model models/SmolLM2-135M-Instruct.Q4_1.gguf]
Writes model-core/tests/golden/tokenizer_{smollm2,bytelevel,sentencepiece}.json, the same bytes each time.
"""

import argparse
import json
import random
import unicodedata
from pathlib import Path

import gguf
from llama_opinion import LlamaCpp
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "model-core/tests/golden"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CASED = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?%s*%s+|[^\r\n\p{L}\p{N}]?%s+%s*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
          % (CASED * 2))
GPT4O = (r"[^\r\n\p{L}\p{N}]?%s*%s+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?%s+%s*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+" % (CASED * 2))
SEED_CODER = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "It's what we've said: they'll go, I'd stay, you're right, I'm done, don't.",
    "IT'S WHAT WE'VE SAID: THEY'LL GO, I'D STAY, YOU'RE RIGHT, I'M DONE.",
    "Call me Ishmael. Some years ago—never mind how long precisely—having little or no money in my purse",
    "«Voilà», dit-elle, «l'été s'achève déjà; où êtes-vous?»",
    "Übergrößenträger fließen über die Straße, 3,50 € bitte!",
    "El niño pidió una piñata: ¿cuánto cuesta? ¡Qué lástima!",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを わかよたれそ つねならむ",
    "私は東京に住んでいます。昨日、カフェで3時間本を読みました。",
    "我能吞下玻璃而不伤身体。2024年1月1日，天气晴。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "Tiếng Việt có rất nhiều dấu thanh điệu khác nhau.",
    "Pijamalı hasta yağız şoföre çabucak güvendi.",
    "🙂 👍🏽 👩‍👩‍👧‍👦 🇨🇭🇯🇵 ❤️‍🔥 ☃︎ ☃️ 1️⃣",
    "e\u0301 a\u0308 o\u0302\u0323 n\u0303 Å\u212b \u1e9b\u0323 ﬁ ﬂ ǆ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 Ⅷ ½ ¾ ² ³ ① ⑩ ٣٤٥ ३४५ 一二三",
    "def f(x: int) -> int:\n    return x ** 2 + 1  # square\n\n\nprint(f(3))\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\r\n\t}\r\n",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;",
    "<div class=\"a b\"><p>&amp; &lt;tag&gt;</p><!-- comment --></div>",
    "{\"key\": [1, 2.5, -3e10, null, true], \"nested\": {\"a\": \"b\\n\"}}",
    "fn main() { let v: Vec<_> = (0..10).map(|x| x * x).collect(); println!(\"{v:?}\"); }",
    "\\frac{1}{2} \\sum_{i=0}^{n} x_i^2 \\leq \\int_0^\\infty e^{-x}\\,dx",
    "https://example.com/path/to?q=a+b&c=%20d#frag user@mail.example",
    "0 1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9 2024-02-29T23:59:60Z",
    "AbCdEfGhIjKl snake_case camelCase PascalCase kebab-case SCREAMING_CASE",
    "!!! ??? ... --- === ### $$$ %%% ^^^ &&& *** (((()))) [[]] {{}} <<>> ~~ `` || \\\\ //",
    "iOS macOS McDonald's O'NEILL'S ÉCOLE École écolE ǅungla ΣΊΣΥΦΟΣ straßE ａＢｃ İstanbul ıI // a/b/\n/c /\n\n/",
    "a" * 300, "ab" * 150, "aA" * 40, " " * 70 + "x", "\n" * 40 + "x", " \n\t" * 20, "1234567890" * 8, "।" * 9 + "क्षि" * 9,
    "\u0000\u0001\u0002\u001f\u007f\u0080\ufffd\uffff\U0010ffff\ue000",
]
WHITESPACE = ["", " ", "  ", "   ", "    ", "\t", "\n", "\n\n", "\r\n", "\r\n\r\n", " \n", "\n ", "\t\t ", "\u00a0",
              "\u2003", "\u3000", "\u200b", "\u2028", "\x0b\x0c", "\x85", "        ", " " * 17, "\n" * 5, "\ufeff"]
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<|eot_id|>", "<s>", "</s>", "<unk>",
            "<0x0A>", "<|im_start", "|>", "<empty_output><empty_output>"]


def strings(count, seed):
    """`count` different strings: whole sentences, then random mixes of words, runs, characters and white space."""
    rng = random.Random(seed)
    words = [word for sentence in SENTENCES for word in sentence.split(" ")]
    blocks = [(0x20, 0x7E), (0xA1, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
              (0x5D0, 0x5EA), (0x620, 0x64A), (0x900, 0x97F), (0xE01, 0xE5B), (0x1100, 0x11FF), (0x2000, 0x206F),
              (0x2190, 0x21FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF),
              (0xFE00, 0xFE0F), (0xFF01, 0xFF5E), (0x1F300, 0x1F6FF), (0x20000, 0x2A6DF), (0xE0020, 0xE007E)]

    def character():
        low, high = rng.choice(blocks)
        return chr(rng.randint(low, high))

    def piece():
        kind = rng.randrange(8)
        if kind < 3:
            return rng.choice(words)
        if kind == 3:
            return str(rng.randrange(10 ** rng.randrange(1, 9)))
        if kind == 4:
            return "".join(character() for _ in range(rng.randrange(1, 6)))
        if kind == 5:
            return rng.choice("-=_*.!?aé中 \n") * rng.randrange(1, 12)
        if kind == 6:
            return rng.choice(SPECIALS)
        return rng.choice(["'s", "'S", "'ll", "'LL", "'re", "'", "’s", "'ſ", "'d", "s'", "n't"])

    seen = list(dict.fromkeys(SENTENCES + WHITESPACE + SPECIALS))
    known = set(seen)
    while len(seen) < count:
        parts = []
        for _ in range(rng.randrange(1, 9)):
            parts.append(piece())
            parts.append(rng.choice(["", " ", " ", " ", rng.choice(WHITESPACE)]))
        text = "".join(parts)
        if text not in known:
            known.add(text)
            seen.append(text)
    return seen[:count]


def corpus(count, seed):
    """Texts to train on, without special tokens, which must not become pieces of the vocabulary."""
    return [text for text in strings(count, seed) if not any(special in text for special in SPECIALS)]


def encode(tokenizer, text, parse_special):
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text, add_special_tokens=False).ids


def cases(tokenizer, texts):
    """[text, ids without special tokens, ids with them where they differ]"""
    rows = []
    for text in texts:
        plain, special = encode(tokenizer, text, False), encode(tokenizer, text, True)
        rows.append([text, plain] if plain == special else [text, plain, special])
    return rows


def write(name, document, made_by="scripts/golden/tokenizer_vectors.py, Hugging Face tokenizers"):
    """One case per line, so that differences can be read."""
    document = {"made_by": made_by, **document}
    lines = []
    for key, value in document.items():
        if key.startswith("cases"):
            rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}")
    path = OUT / name
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def pre_tokenizer(name):
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    steps = {
        "default": [split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), byte_level],
        "gpt-2": [gpt2],
        "smollm": [digits, gpt2],
        "llama-bpe": [split(LLAMA3), byte_level],
        "dbrx": [split(LLAMA3), byte_level],
        "qwen2": [split(QWEN2), byte_level],
        "deepseek-r1-qwen": [split(QWEN2), byte_level],
        "tekken": [split(TEKKEN), byte_level],
        "gpt-4o": [split(GPT4O), byte_level],
        "seed-coder": [split(SEED_CODER), byte_level],
        "deepseek-coder": [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), digits,
                           byte_level],
    }
    return pre_tokenizers.Sequence(steps[name])


def may_differ(name, text):
    """Where llama.cpp is known to cut otherwise than the model's own tokenizer."""
    if name == "qwen2":  # llama.cpp does not compose characters
        return unicodedata.normalize("NFC", text) != text
    if name in ["tekken", "gpt-4o"]:  # llama.cpp takes letters beyond ASCII for both cases and marks for none
        return any(character > "\x7f" and unicodedata.category(character)[0] in "LM" for character in text)
    return False


def smollm2(model):
    """The real vocabulary, configured as in SmolLM2's tokenizer.json."""
    reader = gguf.GGUFReader(model)
    field = lambda key: reader.fields[key].contents()
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer("smollm")
    special = [token for token, kind in zip(tokens, types) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    write("tokenizer_smollm2.json", {"cases": cases(tokenizer, strings(1500, 1))})


def byte_level():
    """One small vocabulary whose merges cross every boundary, so that a word cut elsewhere changes the ids."""
    trainer = trainers.BpeTrainer(
        vocab_size=900, show_progress=False, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    runs = [run for unit in [" ", "\n", "\r\n", "1", "12", "!", "a b", "'s ", " \n", "\t"] for run in [unit * 16] * 20]
    tokenizer.train_from_iterator(corpus(800, 2) + runs, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(merge) for merge in model["merges"]]
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    user_defined = ["<repo_name>", "camelCase"]
    added = [AddedToken(text, normalized=False, special=True) for text in special]
    added += [AddedToken(text, normalized=False, special=False) for text in user_defined]
    document = {
        "tokens": vocab + special + user_defined,
        "token_types": [1] * len(vocab) + [3] * len(special) + [4] * len(user_defined),
        "merges": [" ".join(merge) for merge in merges],
    }
    for name in ["default", "gpt-2", "smollm", "llama-bpe", "qwen2", "dbrx", "deepseek-r1-qwen", "tekken", "gpt-4o",
                 "seed-coder", "deepseek-coder"]:
        whole = name in ["llama-bpe", "tekken"]
        tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, ignore_merges=whole))
        tokenizer.pre_tokenizer = pre_tokenizer(name)
        tokenizer.decoder = decoders.ByteLevel()
        if name == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_tokens(added)
        document[f"cases {name}"] = cases(tokenizer, strings(220, 3))
        llama = LlamaCpp("gpt2", document, pre=name, add_bos_token=False)
        llama.compare(name, document[f"cases {name}"], lambda text: may_differ(name, text))
        if name == "llama-bpe":
            document["json"] = json.loads(tokenizer.to_str())
    write("tokenizer_bytelevel.json", document)


def sentence_piece():
    """A vocabulary like Llama 2's: bytes, pieces with scores, the merges derived from the scores."""
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    # Latin text only, so that the characters of other scripts fall back to bytes.
    tokenizer.train_from_iterator([text for text in corpus(3000, 4) if max(text, default="a") < "\u0250"], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(model["vocab"], key=model["vocab"].get)
    pieces = [piece for piece in by_id if len(piece) > 1] + [piece for piece in by_id if len(piece) == 1]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    types = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(pieces))]
    score = dict(zip(tokens, scores))
    known = set(pieces)
    merges = [(piece[:cut], piece[cut:], score[piece]) for piece in pieces for cut in range(1, len(piece))
              if piece[:cut] in known and piece[cut:] in known]
    merges.sort(key=lambda merge: -merge[2])
    vocab = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[merge[:2] for merge in merges], byte_fallback=True,
                                     fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    special = [AddedToken(text, normalized=False, special=True) for text in tokens[:3]]
    tokenizer.add_special_tokens(special)
    texts = strings(320, 5)
    document = {"tokens": tokens, "token_types": types, "scores": scores, "json": json.loads(tokenizer.to_str()),
                "cases": cases(tokenizer, texts)}
    LlamaCpp("llama", document).compare("SentencePiece", document["cases"])
    document["cases phi-3"] = phi3(tokenizer, document)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    document["cases without space prefix"] = cases(tokenizer, texts[::4])
    LlamaCpp("llama", document, add_space_prefix=False).compare("no prefix", document["cases without space prefix"])
    write("tokenizer_sentencepiece.json", document)


def phi3(tokenizer, document):
    """The same vocabulary with Phi-3's special tokens, most of which swallow the white space after them."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    special = ["<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True, rstrip=text in ["</s>"] + special[1:])
                                  for text in ["<s>", "<unk>", "</s>"] + special])
    texts = ["<|user|>\nHello<|end|>\n<|assistant|>\n", "<|user|>  a<|end|> \t\u3000\u00a0b <|end|> ", "<s> \n a</s> \n b",
             "<unk>  a <|endoftext|>\n\nb", "<|end|><|end|>\n\n<|end|>", "<|end|>\n", "a<|assistant|> <|user", "<|user|>é\n "]
    phi3 = {**document, "tokens": document["tokens"] + special, "token_types": document["token_types"] + [3] * 4,
            "scores": document["scores"] + [0.0] * 4}
    rows = cases(tokenizer, texts + strings(80, 6))
    # llama.cpp's white space is ASCII's.
    LlamaCpp("llama", phi3, name="Phi3").compare("phi-3", rows, lambda text: "\u3000" in text)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    smollm2(arguments.model)
    byte_level()
    sentence_piece()


if __name__ == "__main__":
    main()

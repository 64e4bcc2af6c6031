#!/usr/bin/env python3
"""Golden vectors for model-core's tokenizers, from the `sentencepiece` library itself, with llama.cpp as a second opinion.

Needs: pip install sentencepiece==0.2.3 tokenizers==0.23.3 llama-cpp-python==0.3.36 gguf==0.19.0
Usage: scripts/golden/sentencepiece_vectors.py
Writes model-core/tests/golden/tokenizer_sentencepiece_models.json, the same bytes each time.
"""

import io

import sentencepiece
from llama_opinion import LlamaCpp
from tokenizer_vectors import corpus, strings, write

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
TURNS = ["<start_of_turn>", "<end_of_turn>"]
# As in Gemma's vocabulary: runs of white space and the tags of HTML are matched before anything merges.
USER_DEFINED_SYMBOLS = ["\n" * n for n in range(1, 6)] + ["▁" * n for n in range(2, 9)] + ["<table>", "</s>", "<b>", "[multimodal]"]


def train(**options):
    """A BPE model as Llama 2, Mistral and Gemma have it: byte fallback, single digits, text taken as it is."""
    proto = io.BytesIO()
    # Latin text only, so that the characters of other scripts fall back to bytes.
    texts = [text for text in corpus(3000, 4) if max(text, default="a") < "\u0250"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=proto, model_type="bpe", vocab_size=700, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1,
        allow_whitespace_only_pieces=True, hard_vocab_limit=False, minloglevel=2, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())


def vocabulary(model, user_defined=()):
    """The three arrays that a GGUF file has; user-defined symbols with spaces, as llama.cpp's converter writes them."""
    def kind(id):
        if model.is_unknown(id):
            return UNKNOWN
        if model.is_control(id):
            return CONTROL
        if model.is_byte(id):
            return BYTE
        return USER_DEFINED if model.id_to_piece(id) in user_defined else NORMAL

    ids = range(model.vocab_size())
    types = [kind(id) for id in ids]
    spell = lambda id: model.id_to_piece(id).replace("▁", " ") if types[id] == USER_DEFINED else model.id_to_piece(id)
    return {"tokens": [spell(id) for id in ids], "token_types": types, "scores": [model.get_score(id) for id in ids]}


def llama2(texts):
    model = train()
    document = vocabulary(model)
    document["cases"] = [[text, model.encode(text)] for text in texts]
    llama = LlamaCpp("llama", document)
    for row in document["cases"]:
        special = llama.ids(row[0], True)
        row.extend([special] if special != row[1] else [])
    llama.compare("Llama 2", document["cases"])
    return document


def gemma(texts):
    model = train(add_dummy_prefix=False, user_defined_symbols=USER_DEFINED_SYMBOLS, control_symbols=TURNS)
    document = vocabulary(model, USER_DEFINED_SYMBOLS)
    assert {kind for kind in document["token_types"]} == {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE}
    llama = LlamaCpp("llama", document, add_space_prefix=False)
    # llama.cpp takes `</s>` for a control token in every vocabulary.
    texts = [text for text in texts if "</s>" not in text or "<s>" not in text]
    document["cases"] = [[text, model.encode(text)] for text in texts]
    for row in document["cases"]:
        special = llama.ids(row[0], True)
        row.extend([special] if special != row[1] else [])
    llama.compare("Gemma", document["cases"], lambda text: "</s>" in text)
    return document


def main():
    # sentencepiece ends a text at a null character.
    texts = [text for text in strings(300, 7) if "\0" not in text]
    spaced = [" " * n + word + " " * m for n in range(0, 20, 3) for m in (0, 1, 9) for word in ("", "a", "the <b>", "\n")]
    turns = [f"{TURNS[0]}user\nHello  the\n\n\nworld{TURNS[1]}\n{TURNS[0]}model\n", "<table>\n\n<b>x</b>", "a</s>b", "<unk> <s>a"]
    documents = {"llama2": llama2(texts + spaced), "gemma": gemma(texts + spaced + turns)}
    flat = {f"{key} {name}": value for name, document in documents.items() for key, value in document.items()}
    write("tokenizer_sentencepiece_models.json", flat, made_by="scripts/golden/sentencepiece_vectors.py, sentencepiece")


if __name__ == "__main__":
    main()

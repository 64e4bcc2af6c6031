"""A second opinion on token ids: llama.cpp's, through the PyPI package `llama-cpp-python`.

Needs: pip install llama-cpp-python==0.3.36 gguf
"""

import tempfile
from pathlib import Path

import gguf
import llama_cpp


def write_vocabulary(path, model, document, pre=None, name=None, **flags):
    """A GGUF file without tensors: a vocabulary as the golden files have it."""
    writer = gguf.GGUFWriter(path, "llama")
    if name is not None:
        writer.add_name(name)
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(document["tokens"])
    writer.add_token_types(document["token_types"])
    if "merges" in document:
        writer.add_token_merges(document["merges"])
    if "scores" in document:
        writer.add_token_scores(document["scores"])
    for key, value in flags.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """llama.cpp's tokenizer of such a file; arguments as of `write_vocabulary`."""

    def __init__(self, model, document, **options):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vocabulary.gguf"
            write_vocabulary(path, model, document, **options)
            self.llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)

    def ids(self, text, parse_special):
        return self.llama.tokenize(text.encode(), add_bos=False, special=parse_special)

    def compare(self, what, cases, may_differ=lambda text: False):
        """Fails where the ids are others, but for texts that `may_differ`."""
        differing = []
        for text, plain, *special in cases:
            expected = [plain, (special or [plain])[0]]
            found = [self.ids(text, parse_special) for parse_special in (False, True)]
            if found != expected:
                assert may_differ(text), f"{what}: {text!r}: {expected} but llama.cpp {found}"
                differing.append(text)
        print(f"{what}: llama.cpp agrees on {len(cases) - len(differing)} of {len(cases)} texts")

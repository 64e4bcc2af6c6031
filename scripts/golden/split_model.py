#!/usr/bin/env python3
"""A tiny model split into three files by the PyPI package `gguf`, and the digest of the same model in one file.

Needs: pip install gguf==0.19.0 numpy
Usage: scripts/golden/split_model.py
Writes local-runner/tests/golden/split-0000N-of-00003.gguf and split.sha256, the same bytes each time.
"""

import hashlib
import tempfile
from pathlib import Path

import gguf
import numpy

OUT = Path(__file__).resolve().parents[2] / "local-runner/tests/golden"
DIM, HIDDEN, HEADS, LAYERS = 32, 32, 2, 2


def byte_letters():
    """The character that stands for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def tensors():
    rng = numpy.random.default_rng(1)
    matrix = lambda rows, columns: (rng.standard_normal((rows, columns)) / columns**0.5).astype(numpy.float16)
    norm = lambda: (1 + rng.standard_normal(DIM) / 8).astype(numpy.float32)
    yield "token_embd.weight", matrix(259, DIM)
    for layer in range(LAYERS):
        for name, rows, columns in [("attn_q", DIM, DIM), ("attn_k", DIM // 2, DIM), ("attn_v", DIM // 2, DIM),
                                    ("attn_output", DIM, DIM), ("ffn_gate", HIDDEN, DIM), ("ffn_up", HIDDEN, DIM),
                                    ("ffn_down", DIM, HIDDEN)]:
            yield f"blk.{layer}.{name}.weight", matrix(rows, columns)
        yield f"blk.{layer}.attn_norm.weight", norm()
        yield f"blk.{layer}.ffn_norm.weight", norm()
    yield "output_norm.weight", norm()


def write(path, **split):
    writer = gguf.GGUFWriter(path, "llama", **split)
    writer.add_name("split")
    writer.add_context_length(128)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(byte_letters() + ["he", "<s>", "</s>"])
    writer.add_token_types([1] * 257 + [3] * 2)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    for name, tensor in tensors():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write(OUT / "split.gguf", split_max_tensors=8)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.gguf"
        write(whole)
        digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    (OUT / "split.sha256").write_text(digest + "\n")
    for path in sorted(OUT.glob("split*")):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()

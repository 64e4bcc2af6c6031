#!/usr/bin/env python3
"""Tiny models of every supported architecture, and their logits by llama.cpp.

Needs: pip install gguf==0.19.0 numpy==2.4.6 llama-cpp-python==0.3.36 (the last builds llama.cpp from its source package)
Usage: scripts/golden/architecture_vectors.py
Writes model-core/tests/golden/architectures/*.gguf and logits.json, the same models each time.

The models have random F32 weights and are written with the PyPI package `gguf`. llama.cpp evaluates 16 tokens with keys
and values in F32 and without flash attention. It does not implement the sliding windows of `llama` and `phi3` files, so
there the cache entries that have left the window are removed before each token, which is what a window means.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import gguf
import llama_cpp
import numpy as np

OUT = Path(__file__).resolve().parents[2] / "model-core/tests/golden/architectures"
VOCAB = 64
TOKENS = [1] + [3 + (7 * i * i + 5 * i) % (VOCAB - 3) for i in range(15)]
LAYER = "blk.{}."


@dataclass
class Shape:
    """Sizes that all models share unless they say otherwise."""

    layers: int = 2
    dim: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    hidden: int = 40
    context: int = 256


@dataclass
class Variant:
    """A model: its metadata beyond the sizes, and which tensors it has."""

    arch: str
    metadata: Callable[[gguf.GGUFWriter], None] = lambda writer: None
    shape: Shape = field(default_factory=Shape)
    tied: bool = True
    biases: tuple[str, ...] = ()
    head_norms: bool = False
    post_norms: bool = False
    fused: bool = False
    factors: dict[str, Callable[[int], np.ndarray]] = field(default_factory=dict)
    # A window that llama.cpp does not implement.
    evict: int | None = None


def extension(kind: gguf.RopeScalingType, factor=None, original=None, attn_factor=None):
    """Metadata of a context extension."""

    def write(writer):
        writer.add_rope_scaling_type(kind)
        if factor is not None:
            writer.add_rope_scaling_factor(factor)
        if original is not None:
            writer.add_rope_scaling_orig_ctx_len(original)
        if attn_factor is not None:
            writer.add_rope_scaling_attn_factors(attn_factor)

    return write


def together(*parts):
    return lambda writer: [part(writer) for part in parts]


def gemma(window, linear=None, pattern=None, cap=None):
    def write(writer):
        writer.add_sliding_window(window)
        if linear:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(linear)
        if pattern:
            writer.add_sliding_window_pattern(pattern)
            writer.add_rope_freq_base_swa(500.0)
        if cap:
            writer.add_final_logit_softcapping(cap)

    return write


SCALING = gguf.RopeScalingType
QKV = ("attn_q", "attn_k", "attn_v")
ALL_BIASES = QKV + ("attn_output", "ffn_gate", "ffn_up", "ffn_down")
LLAMA3 = {"rope_freqs": lambda pairs: np.linspace(1, 8, pairs)}
LONG_AND_SHORT = {
    "rope_factors_long": lambda pairs: np.linspace(1.1, 9, pairs),
    "rope_factors_short": lambda pairs: np.linspace(1, 1.6, pairs),
}
LONGROPE = dict(original=256, attn_factor=1.19)
WIDE_HEADS = Shape(head_dim=16)
ONE = Shape(layers=1)
LONG = Shape(layers=1, context=512)

VARIANTS = {
    "llama": Variant("llama", lambda w: w.add_rope_freq_base(500000.0), WIDE_HEADS, tied=False, factors=LLAMA3),
    "llama-linear": Variant("llama", extension(SCALING.LINEAR, 4.0), ONE, biases=ALL_BIASES),
    "llama-yarn": Variant("llama", extension(SCALING.YARN, 4.0, 64, 1.1), ONE),
    "llama-longrope": Variant("llama", extension(SCALING.LONGROPE, **LONGROPE), LONG, factors=LONG_AND_SHORT),
    "mistral": Variant("llama", lambda w: w.add_sliding_window(5), evict=5),
    "qwen2": Variant("qwen2", lambda w: w.add_rope_freq_base(1000000.0), biases=QKV),
    "qwen2-yarn": Variant("qwen2", extension(SCALING.YARN, 4.0, 32), ONE, tied=False, biases=QKV + ("output",)),
    "qwen3": Variant("qwen3", lambda w: w.add_rope_freq_base(1000000.0), WIDE_HEADS, head_norms=True),
    "phi3": Variant("phi3", lambda w: w.add_sliding_window(6), tied=False, fused=True, evict=6),
    "phi3-short": Variant(
        "phi3",
        together(lambda w: w.add_rope_scaling_orig_ctx_len(256), lambda w: w.add_rope_scaling_attn_factors(1.19)),
        ONE,
        fused=True,
        factors=LONG_AND_SHORT,
    ),
    "phi3-long": Variant(
        "phi3",
        together(lambda w: w.add_rope_scaling_orig_ctx_len(256), lambda w: w.add_rope_scaling_attn_factors(1.19)),
        LONG,
        fused=True,
        factors=LONG_AND_SHORT,
    ),
    "phi3-partial": Variant("phi3", lambda w: w.add_rope_dimension_count(6), ONE, fused=True),
    "gemma3": Variant(
        "gemma3",
        together(lambda w: w.add_rope_freq_base(1000000.0), gemma(5, linear=8.0)),
        Shape(layers=7, dim=24, heads=2, kv_heads=1, head_dim=16, hidden=32),
        head_norms=True,
        post_norms=True,
    ),
    "gemma3-pattern": Variant(
        "gemma3", gemma(3, pattern=[True, False], cap=3.0), WIDE_HEADS, head_norms=True, post_norms=True
    ),
}


def write_metadata(writer, variant):
    shape = variant.shape
    writer.add_name("tiny random model")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.heads * shape.head_dim != shape.dim:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    variant.metadata(writer)


def write_vocabulary(writer):
    """The smallest SentencePiece vocabulary: specials, a space, letters and digits."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "\u2581"] + [chr(c) for c in range(48, 48 + VOCAB - 5)]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, kinds.BYTE] + [kinds.NORMAL] * (VOCAB - 4)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(-i) for i in range(VOCAB)])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


class Weights:
    """Random tensors; values have the precision of BF16, so that the files compress."""

    def __init__(self, writer, seed):
        self.writer = writer
        self.random = np.random.default_rng(seed)

    def add(self, name, values):
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) & 0xFFFF0000
        self.writer.add_tensor(name, bits.view(np.float32))

    def matrix(self, name, rows, columns, gain=1.0):
        self.add(f"{name}.weight", self.random.standard_normal((rows, columns)) * gain / np.sqrt(columns))

    def norm(self, name, size, gain=1.0):
        self.add(f"{name}.weight", gain * (1 + 0.4 * self.random.uniform(-1, 1, size)))

    def bias(self, name, size):
        self.add(f"{name}.bias", 0.5 * self.random.standard_normal(size))


def write_tensors(weights, variant):
    shape = variant.shape
    # Gemma multiplies its embeddings by the root of their width.
    weights.matrix("token_embd", VOCAB, shape.dim, 1.0 if variant.post_norms else np.sqrt(shape.dim))
    for name, values in variant.factors.items():
        weights.add(f"{name}.weight", values(shape.head_dim // 2))
    for layer in range(shape.layers):
        write_layer(weights, variant, LAYER.format(layer))
    weights.norm("output_norm", shape.dim)
    if not variant.tied:
        weights.matrix("output", VOCAB, shape.dim)
    if "output" in variant.biases:
        weights.bias("output", VOCAB)


def write_layer(weights, variant, prefix):
    shape = variant.shape
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights.norm(prefix + "attn_norm", shape.dim)
    weights.norm(prefix + "ffn_norm", shape.dim)
    if variant.fused:
        weights.matrix(prefix + "attn_qkv", query + 2 * kv, shape.dim, 1.5)
        weights.matrix(prefix + "ffn_up", 2 * shape.hidden, shape.dim)
        matrices = {}
    else:
        matrices = {"attn_q": (query, 1.5), "attn_k": (kv, 1.5), "attn_v": (kv, 1.0)}
        matrices |= {"ffn_gate": (shape.hidden, 1.0), "ffn_up": (shape.hidden, 1.0)}
    for name, (rows, gain) in matrices.items():
        weights.matrix(prefix + name, rows, shape.dim, gain)
    weights.matrix(prefix + "attn_output", shape.dim, query)
    weights.matrix(prefix + "ffn_down", shape.dim, shape.hidden)
    outputs = {name: rows for name, (rows, _) in matrices.items()} | {"attn_output": shape.dim, "ffn_down": shape.dim}
    for name in variant.biases:
        if name in outputs:
            weights.bias(prefix + name, outputs[name])
    if variant.head_norms:
        weights.norm(prefix + "attn_q_norm", shape.head_dim)
        weights.norm(prefix + "attn_k_norm", shape.head_dim)
    if variant.post_norms:
        weights.norm(prefix + "post_attention_norm", shape.dim)
        # Small, since GGML's GeLU comes from a table of F16 numbers, whose rounding is all that differs.
        weights.norm(prefix + "post_ffw_norm", shape.dim, 0.4)


def write_model(path, variant, seed):
    writer = gguf.GGUFWriter(path, variant.arch)
    write_metadata(writer, variant)
    write_vocabulary(writer)
    write_tensors(Weights(writer, seed), variant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(path, variant):
    """`[16, 64]`, of every position."""
    f32 = int(gguf.GGMLQuantizationType.F32)
    model = llama_cpp.Llama(
        str(path),
        logits_all=True,
        n_ctx=variant.shape.context,
        n_gpu_layers=0,
        n_threads=1,
        flash_attn=False,
        type_k=f32,
        type_v=f32,
        verbose=False,
    )
    if variant.evict is None:
        model.eval(TOKENS)
    else:
        for position, token in enumerate(TOKENS):
            model._ctx.kv_cache_seq_rm(0, 0, max(0, position + 1 - variant.evict))
            model.eval([token])
    return model.scores[: len(TOKENS)].copy()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    models = {}
    for seed, (name, variant) in enumerate(VARIANTS.items()):
        path = OUT / f"{name}.gguf"
        write_model(path, variant, seed)
        models[name] = [[float(f"{x:.7g}") for x in row] for row in logits(path, variant).tolist()]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(rows)}" for name, rows in models.items())
    text = f'{{"tokens": {json.dumps(TOKENS)},\n "logits": {{\n{lines}\n}}}}\n'
    (OUT / "logits.json").write_text(text)


if __name__ == "__main__":
    main()

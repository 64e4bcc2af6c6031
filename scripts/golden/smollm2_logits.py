#!/usr/bin/env python3
"""Golden logits of SmolLM2 from an independent evaluation in NumPy float64.

usage: smollm2_logits.py MODEL.gguf > model-core/tests/golden/smollm2_logits.json

Needs the PyPI packages `gguf` (decodes the file and its tensors) and `numpy`. The evaluation is written down from the
architecture's description and shares nothing with this project: RMSNorm, grouped-query attention, rotary embedding of
adjacent pairs, SwiGLU, tied head. For every position of a fixed prompt the file holds the ten largest logits and every
1021st one.
"""
import json
import sys

import gguf
import numpy as np

# A fixed prompt, as pieces of the vocabulary.
PIECES = """Once Ġupon Ġa Ġtime , Ġin Ġa Ġvillage Ġby Ġthe Ġsea , Ġthere Ġlived Ġ 3 Ġold Ġfisher men . Ċ
def Ġadd ( x , Ġy ): ĊĠĠĠ Ġreturn Ġx Ġ+ Ġy Ċ""".split()


def load(path):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    vocabulary = field("tokenizer.ggml.tokens")
    return field, tensors, [vocabulary.index(piece) for piece in PIECES]


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def rotate(x, theta):
    """x: [tokens, heads, head_dim]"""
    tokens, _, dim = x.shape
    angle = np.arange(tokens)[:, None] * theta ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def logits(field, tensors, tokens):
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    epsilon, theta = field("llama.attention.layer_norm_rms_epsilon"), field("llama.rope.freq_base")
    x = tensors["token_embd.weight"][tokens]
    mask = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for layer in range(field("llama.block_count")):
        w = lambda name: tensors[f"blk.{layer}.{name}.weight"]
        h = rms_norm(x, w("attn_norm"), epsilon)
        split = lambda y, n: y.reshape(len(tokens), n, -1)
        q = rotate(split(h @ w("attn_q").T, heads), theta)
        k = rotate(split(h @ w("attn_k").T, kv_heads), theta)
        v = split(h @ w("attn_v").T, kv_heads)
        k, v = (np.repeat(y, heads // kv_heads, axis=1) for y in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1]) + mask
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shd->thd", p, v).reshape(len(tokens), -1) @ w("attn_output").T
        h = rms_norm(x, w("ffn_norm"), epsilon)
        gate = h @ w("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up").T)) @ w("ffn_down").T
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    return rms_norm(x, tensors["output_norm.weight"], epsilon) @ head.T


def main():
    field, tensors, tokens = load(sys.argv[1])
    result = logits(field, tensors, tokens)
    every = list(range(0, result.shape[1], 1021))
    rows = []
    for row in result:
        top = np.argsort(-row)[:10].tolist()
        rows.append({"top": top, "top_logits": [round(row[i], 5) for i in top],
                     "sample_logits": [round(row[i], 5) for i in every]})
    versions = {"gguf": __import__("importlib.metadata").metadata.version("gguf"), "numpy": np.__version__}
    json.dump({"generator": "scripts/golden/smollm2_logits.py", "versions": versions, "tokens": tokens,
               "sample_every": 1021, "positions": rows}, sys.stdout, indent=None, separators=(",", ":"))
    print()


main()

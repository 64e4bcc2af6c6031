#!/usr/bin/env python3
"""Writes model-core/tests/golden/quant_vectors.json with the reference codecs of the PyPI package `gguf`, and for Q8_K,
which it cannot decode, and Q4_K, Q5_K and Q6_K, which it cannot encode, of ggml itself as llama-cpp-python builds it.

    pip install gguf==0.19.0 numpy==2.4.6 llama-cpp-python==0.3.36
    scripts/golden/quant_vectors.py model-core/tests/golden/quant_vectors.json

`decode`: blocks with chosen scales and random codes, and their values. `encode`: the blocks of `encode_values`, or of the
values beside them.
All bytes are hexadecimal, floats are little-endian f32.
"""

import ctypes
import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import sys

import gguf
import numpy as np

ENCODED = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
# Where blocks have their scale and the scale of their offsets, in bytes.
PLACES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
}
DECODED = ENCODED + [name for name in PLACES if name not in ENCODED]
# One (which makes the values equal the codes), zeros, subnormals, the extremes, and ordinary scales.
SCALES = [0x3C00, 0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x0400, 0x2E66, 0xA19A, 0x1234, 0x3C00]
OFFSETS = [0x0000, 0x3C00, 0x0001, 0x8000, 0xBC00, 0x7BFF, 0x7BFF, 0x0400, 0xA999, 0x2CCD, 0x9234, 0x0000]


def halves(bits):
    return np.array(bits, dtype="<u2").view(np.uint8).reshape(len(bits), 2)


def blocks_to_decode(name, rng):
    qtype = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    if elements == 1:
        # Every exponent of the type once, infinities included, no NaN (its payload is not part of the format).
        if name == "F16":
            bits = [sign << 15 | e << 10 | (0 if e == 31 else m) for sign in (0, 1) for e in range(32) for m in (0, 1, 0x2A5, 0x3FF)]
            return np.array(bits, dtype="<u2").view(np.uint8)
        if name == "BF16":
            bits = [sign << 15 | e << 7 | (0 if e == 255 else m) for sign in (0, 1) for e in range(0, 256, 5) for m in (0, 1, 0x7F)]
            return np.array(bits, dtype="<u2").view(np.uint8)
        return rng.standard_normal(64).astype("<f4").view(np.uint8)
    step = 1 if elements == 32 else 2  # six super-blocks are enough
    blocks = rng.integers(0, 256, (len(SCALES) // step, size), dtype=np.uint8)
    for at, bits in zip(PLACES[name], (SCALES, OFFSETS)):
        blocks[:, at : at + 2] = halves(bits[::step])
    return blocks.reshape(-1)


def ggml():
    package = pathlib.Path(importlib.util.find_spec("llama_cpp").origin).parent
    return ctypes.CDLL(package / "lib" / "libggml-base.so")


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def q8_k(rng):
    """Blocks of Q8_K and their values."""
    blocks = rng.integers(0, 256, (4, 292), dtype=np.uint8)
    blocks[:, 0:4] = np.array([1.0, -0.0, 1e-41, -0.0123], dtype="<f4").view(np.uint8).reshape(4, 4)
    out = np.zeros(4 * 256, dtype="<f4")
    ggml().dequantize_row_q8_K(pointer(blocks), pointer(out), ctypes.c_int64(out.size))
    return blocks, out


def super_blocks_to_encode(rng):
    """Values in super-blocks of 256: the kinds of `values_to_encode`, alone and mixed, and runs of nothing."""
    normal = lambda scale: rng.standard_normal(256) * scale
    heavy = rng.standard_t(3, 256) * 0.02
    mixed = np.concatenate([rng.standard_normal(32) * 10.0**power for power in range(-6, 2)])
    sided = np.concatenate([rng.uniform(3.0, 4.0, 128), -rng.uniform(3.0, 4.0, 128)])
    sparse = np.where(rng.random(256) < 0.1, rng.standard_normal(256), 0.0)
    gaps = np.concatenate([np.zeros(48), normal(1.0)[:16], np.full(64, 0.7), np.full(64, -0.7), normal(0.02)[:64]])
    steps = (np.arange(256) - 127.5) / 8
    tiny = normal(1e-7)
    kinds = [normal(1.0), normal(0.02), normal(1e4), heavy, mixed, sided, sparse, gaps, steps, tiny, np.zeros(256)]
    return np.concatenate(kinds).astype("<f4")


def encode_k(name, values):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = np.zeros(values.size // elements * size, dtype=np.uint8)
    getattr(ggml(), f"quantize_row_{name.lower().replace('k', 'K')}_ref")(pointer(values), pointer(blocks), ctypes.c_int64(values.size))
    return {"type": name, "values": values.tobytes().hex(), "bytes": blocks.tobytes().hex()}


def values_to_encode(rng):
    groups = [
        rng.standard_normal(32),
        rng.standard_normal(32) * 0.02,
        rng.standard_normal(32) * 1e4,
        rng.standard_normal(32) * 1e-6,  # the scale is a subnormal half
        rng.uniform(3.0, 4.0, 32),  # one sign: affine formats have an offset far from zero
        -rng.uniform(3.0, 4.0, 32),
        np.zeros(32),
        np.full(32, 0.7),
        np.arange(32) - 16.0,
        (np.arange(32) - 15.5) / 8,  # halves: rounding of ties
        np.concatenate([[-127.0], np.arange(31) + 0.5]),  # ties away from zero in Q8_0
        np.concatenate([np.zeros(31), [1.0]]),
        np.concatenate([[2.0, -2.0], np.linspace(-2, 2, 30)]),  # two extremes of equal magnitude
    ]
    return np.concatenate(groups).astype("<f4")


def main():
    rng = np.random.default_rng(20260801)
    values = values_to_encode(rng)
    decode, encode = [], []
    for name in DECODED:
        qtype = gguf.GGMLQuantizationType[name]
        blocks = blocks_to_decode(name, rng)
        out = gguf.quants.dequantize(blocks, qtype).astype("<f4")
        decode.append({"type": name, "bytes": blocks.tobytes().hex(), "values": out.tobytes().hex()})
        if name in ENCODED:
            encode.append({"type": name, "bytes": gguf.quants.quantize(values, qtype).tobytes().hex()})
    blocks, out = q8_k(rng)
    decode.append({"type": "Q8_K", "bytes": blocks.tobytes().hex(), "values": out.tobytes().hex()})
    values_k = super_blocks_to_encode(rng)
    encode += [encode_k(name, values_k) for name in ("Q4_K", "Q5_K", "Q6_K")]
    versions = {package: importlib.metadata.version(package) for package in ("gguf", "numpy", "llama-cpp-python")}
    document = {
        "generator": "scripts/golden/quant_vectors.py",
        "versions": {**versions, "python": platform.python_version()},
        "decode": decode,
        "encode_values": values.tobytes().hex(),
        "encode": encode,
    }
    with open(sys.argv[1], "w", encoding="ascii") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()

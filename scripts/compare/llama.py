"""One process of llama.cpp, through the C functions of llama-cpp-python: quantises a file, or measures one.

Usage: llama.py quantize SOURCE TARGET FORMAT
       llama.py measure MODEL THREADS PROMPT_TOKENS GENERATED_TOKENS     prints JSON
"""

import ctypes
import json
import sys
import time

# Imported by llama_cpp too; first, so that its memory is in the baseline.
import numpy  # noqa: F401


def status(key):
    """A memory figure of this process in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def baseline():
    """What Python itself holds; the peak starts again from there."""
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    return status("VmRSS")


def load_library():
    """Imports llama_cpp without its messages."""
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    return llama_cpp, quiet


def quantize(source, target, file_format):
    llama, quiet = load_library()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{file_format}")
    parameters.allow_requantize = True
    if llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp cannot make {target} out of {source}")


def decode(llama, context, tokens):
    """Seconds until the logits of the last of `tokens` are there."""
    batch = (llama.llama_token * len(tokens))(*tokens)
    start = time.perf_counter()
    if llama.llama_decode(context, llama.llama_batch_get_one(batch, len(tokens))) != 0:
        sys.exit("llama_decode failed")
    llama.llama_get_logits_ith(context, -1)
    return time.perf_counter() - start


def measure(path, threads, prompt_tokens, generated_tokens):
    """Like llama-bench: default settings, no sampling, one run to warm up."""
    held = baseline()
    llama, quiet = load_library()
    start = time.perf_counter()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = prompt_tokens + generated_tokens
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = threads
    context = model and llama.llama_init_from_model(model, parameters)
    load = time.perf_counter() - start
    if not context:
        sys.exit(f"llama.cpp cannot load {path}")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    # The prompt of `icllama bench`.
    prompt = [i * 7919 % vocabulary for i in range(prompt_tokens)]
    for _ in range(2):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        prefill = decode(llama, context, prompt)
        generate = sum(decode(llama, context, [prompt[i % prompt_tokens]]) for i in range(generated_tokens))
    return {
        "system": llama.llama_print_system_info().decode().strip(),
        "version": llama.__version__,
        "load_ms": load * 1000,
        "prefill": prompt_tokens / prefill,
        "decode": generated_tokens / generate,
        "resident_bytes": status("VmHWM") - held,
    }


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "quantize":
        quantize(*arguments)
    else:
        print(json.dumps(measure(arguments[0], *map(int, arguments[1:]))))

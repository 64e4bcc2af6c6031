"""Interleaved rounds of icllama and llama.cpp in fresh processes, and a table of what they say. Called by
scripts/compare-llama-cpp.sh."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
PROMPT_TOKENS = 512
GENERATED_TOKENS = 128
# What is compared: key, heading, unit, factor to it, and the ratio icllama / llama.cpp to reach.
MEASURES = [
    ("prefill", "prefill", "tok/s", 1, ">=", 1.5),
    ("decode", "decode", "tok/s", 1, ">=", 1.1),
    ("load_ms", "load", "ms", 1, "<=", 1.0),
    ("resident_bytes", "memory", "MiB", 1 / 2**20, "<=", 1.0),
]


def run(command):
    """Standard output of a process, and its peak of resident memory in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"compare-llama-cpp: failed: {' '.join(map(str, command))}")
    return json.loads(output), usage.ru_maxrss * 1024


def activation_bits(name):
    """16, or 8 if the format says so after a colon."""
    return (name.split(":") + ["16"])[1]


def icllama(options, name, model, threads):
    """One process: the first token belongs to the prompt, so one more is generated."""
    command = [options.icllama, "bench", model, "--threads", str(threads), "--json", "--repeat", "1"]
    command += ["--activations", activation_bits(name)]
    command += ["--prompt-tokens", str(PROMPT_TOKENS), "--generate-tokens", str(GENERATED_TOKENS + 1)]
    report, resident = run(command)
    return {
        "backend": report["backend"],
        "load_ms": report["load_ms"],
        "prefill": report["prefill_tokens_per_second"]["mean"],
        "decode": report["decode_tokens_per_second"]["mean"],
        "resident_bytes": resident,
        "bytes_per_token": report["bytes_per_token"],
        "read_bytes_per_second": report["read_bytes_per_second"],
    }


def llama_cpp(_options, _name, model, threads):
    """One process. What Python holds before the library is loaded does not count."""
    command = [sys.executable, HERE / "llama.py", "measure", model, threads, PROMPT_TOKENS, GENERATED_TOKENS]
    return run(list(map(str, command)))[0]


def variants(options):
    """The files to measure by format; those that are missing are made."""
    source = pathlib.Path(options.model)
    files = {}
    for name in options.formats.split(","):
        kind = name.split(":")[0]
        files[name] = source.with_name(source.name.replace("Q4_1", kind))
        if not files[name].exists():
            print(f"compare-llama-cpp: making {files[name]}", file=sys.stderr)
            part = files[name].with_suffix(".part")
            subprocess.run(
                [sys.executable, HERE / "llama.py", "quantize", source, part, kind], check=True
            )
            part.rename(files[name])
    return files


def measure(options):
    """All rounds: {(format, threads): {"icllama": [run, …], "llama.cpp": [run, …]}}."""
    files = variants(options)
    cells = {(name, int(threads)): {"icllama": [], "llama.cpp": []}
             for name in files for threads in options.threads.split(",")}
    for done in range(options.rounds):
        for (name, threads), runs in cells.items():
            print(f"\rround {done + 1} of {options.rounds}: {name}, {threads} threads ", end="", file=sys.stderr)
            pair = [("icllama", icllama), ("llama.cpp", llama_cpp)]
            # Every second round the other way round, so that neither profits from its place.
            for label, one in pair if done % 2 == 0 else reversed(pair):
                runs[label].append(one(options, name, files[name], threads))
    print("\r\033[K", end="", file=sys.stderr)
    return cells


def middle(runs, key):
    """Median, least and greatest."""
    values = [one[key] for one in runs]
    return statistics.median(values), min(values), max(values)


def rows(cells):
    """One row per format, threads and measure, in units of the table."""
    for (name, threads), runs in cells.items():
        for key, label, unit, factor, sense, target in MEASURES:
            ours, theirs = ([value * factor for value in middle(runs[side], key)] for side in ("icllama", "llama.cpp"))
            ratio = ours[0] / theirs[0]
            met = ratio >= target if sense == ">=" else ratio <= target
            yield {"format": name, "threads": threads, "measure": label, "unit": unit, "icllama": ours,
                   "llama.cpp": theirs, "ratio": ratio, "target": f"{sense} {target}", "met": met}


def bandwidth(cells):
    """How much of the memory's speed each decode uses."""
    for (name, threads), runs in cells.items():
        speed, *_ = middle(runs["icllama"], "read_bytes_per_second")
        used = middle(runs["icllama"], "decode")[0] * runs["icllama"][0]["bytes_per_token"]
        yield {"format": name, "threads": threads, "bytes_per_token": runs["icllama"][0]["bytes_per_token"],
               "read_bytes_per_second": speed, "used_bytes_per_second": used, "share": used / speed}


def table(report):
    """The report for people."""
    print(f"{report['processor']}, {report['cores']} cores; icllama {report['icllama']}; llama-cpp-python "
          f"{report['llama_cpp']}; {report['rounds']} rounds; median (least - greatest)\n")
    spread = "{:8.1f} ({:7.1f} -{:8.1f})".format
    print(f"{'file':6} {'threads':>7}  {'':8} {'icllama':^27} {'llama.cpp':^27} {'unit':5} {'ratio':>6}  target")
    for row in report["rows"]:
        print(f"{row['format']:6} {row['threads']:7}  {row['measure']:8} {spread(*row['icllama'])} "
              f"{spread(*row['llama.cpp'])} {row['unit']:5} {row['ratio']:6.2f}  {row['target']} "
              f"{'' if row['met'] else '  missed'}")
    print("\nicllama's decode reads all weights once per token; the machine reads the same weights, and does nothing else, at:")
    for row in report["bandwidth"]:
        print(f"{row['format']:6} {row['threads']:7}  {row['read_bytes_per_second'] / 1e9:6.1f} GB/s, of which decode uses "
              f"{row['used_bytes_per_second'] / 1e9:6.1f} GB/s = {row['share']:4.0%} ({row['bytes_per_token'] / 1e6:.1f} MB per token)")


def processor():
    """The processor's name, or the platform's word for it."""
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main():
    parser = argparse.ArgumentParser(prog="compare-llama-cpp.sh")
    parser.add_argument("--icllama", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--model", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--formats", default="Q4_1,Q4_0,Q8_0,Q4_1:8,Q4_0:8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    cells = measure(options)
    one = next(iter(cells.values()))
    report = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "prompt_tokens": PROMPT_TOKENS,
        "generated_tokens": GENERATED_TOKENS,
        "icllama": one["icllama"][0]["backend"].split(",")[0],
        "llama_cpp": one["llama.cpp"][0]["version"],
        "llama_cpp_system": one["llama.cpp"][0]["system"],
        "rows": list(rows(cells)),
        "bandwidth": list(bandwidth(cells)),
    }
    table(report)
    if options.record:
        path = HERE.parent.parent / "bench" / "record" / f"native-llama-cpp-{report['date']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(HERE.parent.parent)}")


if __name__ == "__main__":
    main()

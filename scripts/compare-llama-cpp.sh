#!/usr/bin/env bash
# Compares the native speed, load time and memory of icllama with llama.cpp's on this machine, for the demo model as
# Q4_1, Q4_0 and Q8_0, with 1 and 2 threads, in interleaved rounds of fresh processes. Not a part of the checks: run it
# on a machine that does nothing else.
#
# Usage: scripts/compare-llama-cpp.sh [--rounds N] [--formats Q4_1,Q4_0,Q8_0,Q4_1:8,Q4_0:8] [--threads 1,2] [--record]
#   A format followed by :8 is run by icllama with activations of 8 bits, which llama.cpp has in any case.
#   --record   also writes the result to bench/record/native-llama-cpp-DATE.json
#
# llama.cpp comes from the source distribution of the PyPI package llama-cpp-python, built here for this processor (a
# few minutes, once) into target/llama-cpp. LLAMA_CPP_VENV names another virtual environment that has the package.
#
# The Q4_0 and Q8_0 files are made out of the Q4_1 file by llama.cpp's own quantiser. Quantising twice costs accuracy,
# so they serve for measuring speed and nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package="llama-cpp-python==0.3.36"
venv="${LLAMA_CPP_VENV:-target/llama-cpp}"

fail() { echo "compare-llama-cpp: $*" >&2; exit 1; }
case " $* " in *" -h "* | *" --help "*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;; esac

scripts/prepare.sh
model="$(scripts/fetch-model.sh)"
cargo build --release -p local-runner
icllama="${CARGO_TARGET_DIR:-target}/release/icllama"

if ! "$venv/bin/python" -c "import llama_cpp" 2>/dev/null; then
  [[ -z "${LLAMA_CPP_VENV:-}" ]] || fail "LLAMA_CPP_VENV=$venv has no usable llama_cpp"
  command -v c++ >/dev/null || fail "a C++ compiler (c++) is needed to build llama.cpp"
  echo "compare-llama-cpp: building $package in $venv" >&2
  python3 -m venv "$venv" || fail "python3 cannot make virtual environments; install its venv package"
  # cmake and ninja come from PyPI as the package's build requirements; GGML_NATIVE is -march=native.
  CMAKE_ARGS="-DGGML_NATIVE=ON" "$venv/bin/python" -m pip install --disable-pip-version-check \
    --no-binary llama-cpp-python "$package" >"$venv/build.log" 2>&1 || fail "the build failed; see $venv/build.log"
fi

exec "$venv/bin/python" scripts/compare/rounds.py --icllama "$icllama" --model "$model" "$@"

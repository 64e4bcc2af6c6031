#!/usr/bin/env bash
# From a fresh clone to an answer out of the canister: fetches a model, builds the canister and the command,
# asks a question in the local shim, and proves that the native run gives the same bits.
# Usage: scripts/demo.sh [QUESTION]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
question="${1:-What is gravity?}"

say() { printf '\n--- %s\n' "$*" >&2; }
scripts/prepare.sh
say "Model"
model="$(scripts/fetch-model.sh)"
say "Canister wasm"
scripts/build-canister.sh
say "The icllama command"
cargo build --release -p local-runner
icllama="${CARGO_TARGET_DIR:-target}/release/icllama"

say "Question to the canister: $question"
"$icllama" run "$model" --backend shim -p "$question" --temp 0 -n 48 --tokens-per-call 8

say "Parity: the same generation natively and in the canister"
"$icllama" parity "$model" -p "$question" -n 24

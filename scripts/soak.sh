#!/usr/bin/env bash
# A hundred users at once for SECONDS [900], twice: in the shim, and through `icllama replica` with an agent each. Cancels at
# random, upgrades every minute, compares all answers with native ones, prints the numbers, and fails if one is wrong.
#   scripts/soak.sh [SECONDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export ICLLAMA_SOAK_SECONDS="${1:-900}"
[[ -e "${CARGO_TARGET_DIR:-target}/icllama.wasm.gz" ]] || scripts/build-canister.sh
cargo build --locked -p local-runner
exec cargo test --locked -p end-to-end --test end-to-end soak:: -- --ignored --nocapture --test-threads 2

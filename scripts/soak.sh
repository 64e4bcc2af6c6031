#!/usr/bin/env bash
# A hundred users at once for SECONDS [900], twice: in the shim, and through `icllama replica` with an agent each. Cancels at
# random, upgrades every minute, compares all answers with native ones, prints the numbers, and fails if one is wrong.
#   scripts/soak.sh [SECONDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export ICLLAMA_SOAK_SECONDS="${1:-900}"
[[ -e "${CARGO_TARGET_DIR:-target}/icllama.wasm.gz" ]] || scripts/build-canister.sh
# As scripts/test.sh builds them, so that nothing is built twice: the tests, and the command.
tests=(cargo test --locked --workspace --test end-to-end --test command)
"${tests[@]}" --no-run
exec "${tests[@]}" soak:: -- --ignored --nocapture --test-threads 2

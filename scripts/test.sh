#!/usr/bin/env bash
# Every check of the repository. Runs them all, names those that failed at the end, and then exits with 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
check() { # NAME COMMAND...
  local name="$1" start=$SECONDS
  shift
  echo "=== $name"
  if "$@"; then echo "=== $name: ok ($((SECONDS - start)) s)"; else failed+=("$name"); echo "=== $name: FAILED" >&2; fi
}
# One process per crate, so that its tests share loaded models and compiled modules.
tests() { cargo test --locked --workspace --no-fail-fast ${POCKET_IC_BIN:+--features end-to-end/pocket-ic} "$@"; }
wasm() { scripts/build-canister.sh && scripts/build-wasm.sh kernel-probe llm-caller; }
wasm_ends() { wait "$wasm"; local status=$?; cat "$wasm_log"; return "$status"; }

scripts/prepare.sh || exit 1
# Optimising the wasm at link time keeps one core busy for minutes, so everything else is compiled beside it.
wasm_log="$(mktemp)"
wasm >"$wasm_log" 2>&1 &
wasm=$!
trap 'kill "$wasm" 2>/dev/null; rm -f "$wasm_log"' EXIT
check "model" scripts/fetch-model.sh
check "format" cargo fmt --all --check
check "dependencies" scripts/deny.sh
check "lint" cargo clippy --workspace --all-targets -- -D warnings
check "lint for wasm" cargo clippy -p model-core -p canister -p llm-caller --target wasm32-unknown-unknown -- -D warnings
check "compile the tests" tests --no-run
check "wasm" wasm_ends
check "tests" tests
if command -v npm >/dev/null; then
  check "clients" scripts/test-clients.sh "${CARGO_TARGET_DIR:-target}/debug/icllama"
else
  echo "=== clients: skipped, npm not found"
fi
if command -v npm >/dev/null && [[ -n "${CHROMIUM:-$(command -v chromium)}" ]]; then
  check "page" scripts/test-page.sh "${CARGO_TARGET_DIR:-target}/debug/icllama"
else
  echo "=== page: skipped, npm or chromium not found"
fi
check "documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --quiet

if ((${#failed[@]})); then
  echo "test.sh: failed: $(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
echo "test.sh: all checks passed in $SECONDS s"

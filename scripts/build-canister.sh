#!/usr/bin/env bash
# Builds the canister: TARGET/icllama.wasm, and icllama.wasm.gz that fits an install message, with the candid
# interface inside. Prints the path of the gzipped module. Needs rustup, cargo and python3.
# Usage: scripts/build-canister.sh [OUTPUT]    OUTPUT also receives the gzipped module
set -euo pipefail
output="${1:+$(realpath -m "$1")}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
target="${CARGO_TARGET_DIR:-target}"
scripts/build-wasm.sh canister >&2

cp "$target/wasm32-unknown-unknown/canister/canister.wasm" "$target/icllama.wasm"
python3 scripts/check-wasm.py "$target/icllama.wasm" canister/canister.did >&2
# No name and no time in the header: equal modules give equal files.
gzip -9nc "$target/icllama.wasm" >"$target/icllama.wasm.gz"

# An ingress message holds 2 MiB; its envelope and the init argument take a little.
limit=$((2 * 1024 * 1024 - 16 * 1024))
size=$(wc -c <"$target/icllama.wasm.gz")
echo "build-canister: $(wc -c <"$target/icllama.wasm") bytes, gzipped $size" >&2
if ((size > limit)); then
  echo "build-canister: the gzipped module is larger than $limit bytes and could not be installed in one message" >&2
  exit 1
fi
if [[ -n "$output" ]]; then
  mkdir -p "$(dirname "$output")"
  cp "$target/icllama.wasm.gz" "$output"
fi
echo "$target/icllama.wasm.gz"

#!/usr/bin/env bash
# Builds crates as the wasm modules of canisters, so that the same source gives the same bytes wherever it lies: rustc writes
# paths of source files into panic messages, and here those of this checkout, of its target folder and of downloaded
# crates are replaced by the same words everywhere.
# Usage: scripts/build-wasm.sh PACKAGE...    writes TARGET/wasm32-unknown-unknown/canister/PACKAGE.wasm of each
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

(($#)) || { echo "build-wasm: which packages?" >&2; exit 1; }
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
cargo_home="$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")"
# The folders of registries, whose names depend on where the crates came from, exist once something was fetched.
cargo fetch --locked --quiet --target wasm32-unknown-unknown

# The longest prefix has to come last: rustc takes the last that fits.
remap=("--remap-path-prefix=$PWD=/icllama" "--remap-path-prefix=$target=/target")
for registry in "$cargo_home"/registry/src/*/; do
  remap+=("--remap-path-prefix=${registry%/}=/crates")
done
flags="$(printf "'%s'," "${remap[@]}")"
# Added to the flags of .cargo/config.toml, which RUSTFLAGS would replace.
exec cargo build --locked --config "target.wasm32-unknown-unknown.rustflags=[${flags%,}]" \
  --target wasm32-unknown-unknown --profile canister "${@/#/--package=}"

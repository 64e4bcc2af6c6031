#!/usr/bin/env bash
# cargo for the modules that run in canisters, so that the same source gives the same bytes wherever it lies: rustc writes
# paths of source files into panic messages, and here those of this checkout, of its target folder and of downloaded
# crates are replaced by the same words everywhere.
# Usage: scripts/cargo-wasm.sh build|clippy|… ARGUMENTS…
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command="$1"
shift
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
exec cargo "$command" --locked --config "target.wasm32-unknown-unknown.rustflags=[${flags%,}]" \
  --target wasm32-unknown-unknown "$@"

#!/usr/bin/env bash
# Checks that a checkout gives the same canister module wherever it lies: builds what is committed in a fresh folder, and
# compares the result with MODULE (for example a released icllama.wasm.gz) or, without it, with a second build in another
# folder. Takes a few minutes of both processors for each build. Needs what scripts/build-canister.sh needs, and git.
# Usage: scripts/check-reproducible.sh [MODULE.wasm.gz]
set -euo pipefail
module="${1:+$(realpath "$1")}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Builds the commit that is checked out in the folder $1.
build() {
  mkdir -p "$1"
  git archive HEAD | tar -x -C "$1"
  (unset CARGO_TARGET_DIR; "$1/scripts/build-canister.sh" "$1/module.wasm.gz") >&2
}

build "$work/one"
if [[ -z "$module" ]]; then
  build "$work/another/folder"
  module="$work/another/folder/module.wasm.gz"
fi
sha256sum "$work/one/module.wasm.gz" "$module"
if ! cmp "$work/one/module.wasm.gz" "$module"; then
  echo "check-reproducible: the modules differ; is the same commit checked out, and the toolchain of rust-toolchain.toml used?" >&2
  exit 1
fi
echo "check-reproducible: the same bytes"

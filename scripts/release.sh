#!/usr/bin/env bash
# Makes the files of a release: icllama.wasm.gz (the canister's module, as it is installed), icllama.did (its interface)
# and SHA256SUMS. The hash of the module is what the platform shows as the canister's module hash.
# Usage: scripts/release.sh [FOLDER]    target/release-files unless given
set -euo pipefail
folder="$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../target/release-files}")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -n "$(git status --porcelain 2>/dev/null)" ]]; then
  echo "release: the checkout has changes that are not committed; nobody could build the same module" >&2
  exit 1
fi
scripts/prepare.sh
mkdir -p "$folder"
scripts/build-canister.sh "$folder/icllama.wasm.gz" >/dev/null
cp canister/canister.did "$folder/icllama.did"
(cd "$folder" && sha256sum icllama.wasm.gz icllama.did | tee SHA256SUMS)

#!/usr/bin/env bash
# Checks for the tools that the other scripts need and adds the wasm target of the pinned toolchain.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
for tool in rustup cargo python3; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || missing+=("a C compiler (cc)")
if ((${#missing[@]})); then
  echo "prepare: not found: $(IFS=,; echo "${missing[*]}"). Install and run again; rustup comes from https://rustup.rs" >&2
  exit 1
fi

# The toolchain of rust-toolchain.toml, where rustup does not install it by itself.
rustc --version >/dev/null 2>&1 || rustup toolchain install
if ! rustup target list --installed | grep -qx wasm32-unknown-unknown; then
  rustup target add wasm32-unknown-unknown
fi

#!/usr/bin/env bash
# Checks all crates that are built in, and those of tests, as deny.toml says: licences, bans and sources always; advisories where
# the database (github.com/RustSec/advisory-db) can be reached. Installs cargo-deny into the target folder if it is not there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.20.2
root="${CARGO_TARGET_DIR:-target}/tools/cargo-deny-$version"
if [[ ! -x "$root/bin/cargo-deny" ]]; then
  # It runs for seconds, so that optimising it would cost more than it saves.
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --quiet --locked --version "$version" --root "$root" --target-dir "$root/build" cargo-deny
  rm -rf "$root/build"
fi
deny() { "$root/bin/cargo-deny" --locked "$@"; }

# What is built for other targets and what this machine has not downloaded belongs to the graph, too.
cargo fetch --quiet --locked
deny --offline check licenses bans sources
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
if GIT_TERMINAL_PROMPT=0 deny fetch db >"$log" 2>&1; then
  deny --offline check advisories
else
  tail -n 1 "$log"
  echo "deny.sh: ADVISORIES SKIPPED: the database cannot be fetched from github.com/RustSec/advisory-db"
fi

#!/usr/bin/env bash
# Renews the records in bench/record: builds the canister, measures what it costs with every model, writes the figures
# as today's column. docs/bench.md says how to read them. Needs what scripts/test.sh needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/prepare.sh
scripts/fetch-model.sh >/dev/null
scripts/build-canister.sh >/dev/null
ICLLAMA_UPDATE=1 cargo test --locked --workspace --test command -- record::of_
# What other models would cost follows from the records.
ICLLAMA_UPDATE=1 cargo test --locked --workspace --test command -- estimate::the_guide
git --no-pager diff --stat -- bench/record docs/pick-a-model.md

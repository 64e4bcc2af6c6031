#!/usr/bin/env bash
# Other people's clients, each at the version pinned in scripts/clients and installed below the target folder: @icp-sdk/core
# under node and icp-py-core against `icllama replica`, the openai package against `icllama serve`.
# Usage: scripts/test-clients.sh [ICLLAMA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-target}"
wasm="${ICLLAMA_WASM:-$target/icllama.wasm.gz}"
model="${ICLLAMA_MODEL:-models/SmolLM2-135M-Instruct.Q4_1.gguf}"
icllama="${1:-}"
for built in "$target/release/icllama" "$target/debug/icllama"; do
  [[ -z "$icllama" && -x "$built" ]] && icllama="$built"
done
for file in "$wasm" "$model" "${icllama:-$target/release/icllama}"; do
  [[ -e "$file" ]] || { echo "test-clients: no $file; build it with scripts/build-canister.sh and cargo build --release, fetch the model with scripts/fetch-model.sh" >&2; exit 1; }
done
command -v npm >/dev/null || { echo "test-clients: npm not found; install node 20 or newer" >&2; exit 1; }

clients="$target/clients"
mkdir -p "$clients"
cp scripts/clients/* "$clients"
python3 -m pip install --quiet --disable-pip-version-check --upgrade --target "$clients/python" -r "$clients/requirements.txt"
(cd "$clients" && npm ci --no-audit --no-fund --silent)

running=()
trap '((${#running[@]})) && kill "${running[@]}" 2>/dev/null || true' EXIT
start() { # ARGUMENTS...: runs icllama until the end of this script, and sets url to what it says at its start
  local started="$clients/started.json"
  "$icllama" "$@" --port 0 --json >"$started" &
  running+=("$!")
  url=""
  for _ in $(seq 300); do
    url="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$started" 2>/dev/null)" && return
    kill -0 "${running[-1]}" || exit 1
    sleep 0.1
  done
  echo "test-clients: icllama $1 does not start" >&2
  exit 1
}
python() { PYTHONPATH="$clients/python" python3 "$@"; }

start replica
node "$clients/client.mjs" "$url" "$wasm"
python "$clients/client.py" "$url" "$wasm"
start serve "$model" --api-key secret
"$icllama" run "$model" -p "What is gravity?" --temp 0 -n 24 --json >"$clients/expected.json"
python "$clients/openai_client.py" "$url" secret "$clients/expected.json"

#!/usr/bin/env bash
# Other people's clients against `icllama replica`: @icp-sdk/core under node and icp-py-core, each at the version pinned in
# scripts/clients, installed below the target folder. Usage: scripts/test-clients.sh [ICLLAMA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-target}"
wasm="${ICLLAMA_WASM:-$target/icllama.wasm.gz}"
icllama="${1:-}"
for built in "$target/release/icllama" "$target/debug/icllama"; do
  [[ -z "$icllama" && -x "$built" ]] && icllama="$built"
done
for file in "$wasm" "${icllama:-$target/release/icllama}"; do
  [[ -e "$file" ]] || { echo "test-clients: no $file; build it with scripts/build-canister.sh and cargo build --release" >&2; exit 1; }
done
command -v npm >/dev/null || { echo "test-clients: npm not found; install node 20 or newer" >&2; exit 1; }

clients="$target/clients"
mkdir -p "$clients"
cp scripts/clients/* "$clients"
python3 -m pip install --quiet --disable-pip-version-check --upgrade --target "$clients/python" -r "$clients/requirements.txt"
(cd "$clients" && npm ci --no-audit --no-fund --silent)

started="$clients/started.json"
"$icllama" replica --port 0 --json >"$started" &
replica=$!
trap 'kill "$replica" 2>/dev/null || true' EXIT
url=""
for _ in $(seq 100); do
  url="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$started" 2>/dev/null)" && break
  kill -0 "$replica" || exit 1
  sleep 0.1
done
node "$clients/client.mjs" "$url" "$wasm"
PYTHONPATH="$clients/python" python3 "$clients/client.py" "$url" "$wasm"

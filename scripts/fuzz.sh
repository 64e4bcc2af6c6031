#!/usr/bin/env bash
# Looks for inputs that break what reads strangers' bytes: scripts/fuzz.sh [TARGET|all] [SECONDS]
# Prints a table at the end and exits with 1 if anything was found. What is found lies in fuzz/artifacts/TARGET.
# scripts/fuzz.sh minimise TARGET puts the inputs that reach most into fuzz/corpus/TARGET, to be committed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=(gguf tokenizer template grammar candid cbor)
# The fuzzer's instrumentation is unstable in name; the pinned compiler has it all the same.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="${ICLLAMA_FUZZ_TARGET_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/fuzz}"
# Leaks, stalls and huge allocations are findings, too. An input of 64 KiB has no business with 128 MB.
limits=(-timeout=60 -rss_limit_mb=2560 -malloc_limit_mb=128 -max_len=65536)

command -v cargo-fuzz >/dev/null || (CARGO_TARGET_DIR= cargo install cargo-fuzz --locked) || exit 1

features() { [[ "$1" == cbor ]] && echo "--features=endpoint"; }
# Where the inputs of earlier runs are: more than what is committed.
work() { echo "$CARGO_TARGET_DIR/corpus/$1"; }

fuzz() { # TARGET SECONDS
  local target="$1" seconds="$2" log
  mkdir -p "$(work "$target")" "fuzz/corpus/$target"
  log="$CARGO_TARGET_DIR/$target.log"
  # shellcheck disable=SC2046 # no feature is no argument
  cargo fuzz run $(features "$target") "$target" "$(work "$target")" "fuzz/corpus/$target" -- \
    "${limits[@]}" "-max_total_time=$seconds" -print_final_stats=1 2>&1 | tee "$log"
  return "${PIPESTATUS[0]}"
}

row() { # TARGET SECONDS STATUS
  local log="$CARGO_TARGET_DIR/$1.log" executions coverage found
  executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)"
  coverage="$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2)"
  found="$(find "fuzz/artifacts/$1" -type f 2>/dev/null | wc -l)"
  [[ "$3" == 0 || "$found" != 0 ]] || found="failed"
  printf '| %-9s | %7s | %10s | %6s | %6s | %6s |\n' "$1" "$2" "${executions:--}" "${coverage:--}" \
    "$(find "$(work "$1")" -type f | wc -l)" "$found"
}

minimise() { # TARGET
  mkdir -p "$(work "$1")"
  cp "fuzz/corpus/$1"/* "$(work "$1")"/ 2>/dev/null
  rm -rf "fuzz/corpus/$1" && mkdir -p "fuzz/corpus/$1"
  # An input for each place that is reached, not for each number of times; what only long ones reach has no place here.
  # shellcheck disable=SC2046 # no feature is no argument
  cargo fuzz run $(features "$1") "$1" "fuzz/corpus/$1" "$(work "$1")" -- "${limits[@]}" -max_len=1024 -set_cover_merge=1 -use_counters=0
  du -sh --apparent-size "fuzz/corpus/$1"
}

if [[ "${1:-all}" == minimise ]]; then
  minimise "${2:?which target}"
  exit
fi
targets=("${1:-all}")
[[ "${targets[0]}" != all ]] || targets=("${all[@]}")
rows=() failed=0
for target in "${targets[@]}"; do
  fuzz "$target" "${2:-60}"
  status=$?
  ((status == 0)) || failed=1
  rows+=("$(row "$target" "${2:-60}" "$status")")
done
printf '| %-9s | %7s | %10s | %6s | %6s | %6s |\n' target seconds executions cov corpus found
echo '| --------- | ------: | ---------: | -----: | -----: | -----: |'
printf '%s\n' "${rows[@]}"
exit "$failed"

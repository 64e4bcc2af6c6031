//! The fuzzers' committed inputs, tried without a fuzzer: what was found once stays found. `scripts/fuzz.sh` looks for more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure is a failed test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz_targets::{TARGETS, Target};

/// Most bytes that the inputs of a target may take in the repository.
const MAX_CORPUS_BYTES: usize = 100_000;
/// Longest that an input may take, on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(20);

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Tries every input of a target.
fn replay(target: &str, run: Target) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{target} has {} inputs", paths.len());
    let mut bytes = 0;
    for path in paths {
        let input = std::fs::read(&path).unwrap();
        bytes += input.len();
        let start = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| run(&input)));
        assert!(tried.is_ok(), "{} fails; cargo fuzz run {target} {} shows more", path.display(), path.display());
        assert!(start.elapsed() < PATIENCE, "{} took {:?}", path.display(), start.elapsed());
    }
    assert!(bytes <= MAX_CORPUS_BYTES, "{bytes} bytes of inputs of {target}; minimise them with scripts/fuzz.sh");
}

#[test]
fn every_target_has_inputs_and_none_fails() {
    for (target, run) in TARGETS {
        replay(target, *run);
    }
}

//! Models that are split into several files, through the real `icllama` command.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{failure, icllama, json, stdout};
use model_core::fixtures::TinyLlama;
use model_core::gguf::{File, GgmlType};
use sha2::{Digest, Sha256};

/// A folder with a model in one file and in three, of which the first has the metadata.
struct Split {
    folder: tempfile::TempDir,
    whole: Vec<u8>,
}

impl Split {
    fn new() -> Self {
        let model = TinyLlama { types: vec![("attn_v.weight", GgmlType::F16)], ..TinyLlama::default() };
        let split = Self { folder: tempfile::tempdir().unwrap(), whole: model.build() };
        std::fs::write(split.path("whole.gguf"), &split.whole).unwrap();
        for (number, part) in (1..).zip(model.builder().split(3)) {
            std::fs::write(split.part(number), part).unwrap();
        }
        split
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn part(&self, number: u32) -> String {
        self.path(&format!("model-{number:05}-of-00003.gguf"))
    }

    fn sha256(&self) -> String {
        hex(&self.whole)
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn answer(path: &str, more: &[&str]) -> serde_json::Value {
    let common = ["run", path, "-p", "Hello", "-n", "9", "--temp", "0", "--ignore-eos", "--json"];
    json(&[&common, more].concat())
}

#[test]
fn a_split_model_is_quantized_as_the_one_that_it_is() {
    let split = Split::new();
    let quantize = |input: &str, output: &str| {
        let report = json(&["quantize", input, output, "--type", "Q8_0", "--allow-requantize", "--json"]);
        (std::fs::read(output).unwrap(), report)
    };
    let (expected, expected_report) = quantize(&split.path("whole.gguf"), &split.path("from-whole.gguf"));
    for number in 1..=3 {
        let (found, report) = quantize(&split.part(number), &split.path("from-parts.gguf"));
        assert!(found == expected && report["tensors"] == expected_report["tensors"], "part {number}");
        let file = File::read(&found).unwrap();
        assert!(file.metadata().iter().all(|(key, _)| !key.starts_with("split.")), "part {number}");
    }
}

#[test]
fn any_part_stands_for_the_whole_model() {
    let split = Split::new();
    let expected = answer(&split.path("whole.gguf"), &[]);
    for number in 1..=3 {
        assert_eq!(answer(&split.part(number), &[])["tokens"], expected["tokens"], "part {number}");
    }
    let inspect = |path: &str| json(&["inspect", path, "--full", "--json"]);
    assert_eq!(inspect(&split.part(2)), inspect(&split.path("whole.gguf")));
    let tokenize = |path: &str| json(&["tokenize", path, "-p", "hello the world", "--json"]);
    assert_eq!(tokenize(&split.part(3)), tokenize(&split.path("whole.gguf")));
}

#[test]
fn a_canister_gets_the_file_that_was_split() {
    let split = Split::new();
    let native = answer(&split.path("whole.gguf"), &[]);
    let output =
        icllama(&["run", &split.part(2), "-p", "Hello", "-n", "9", "--temp", "0", "--ignore-eos", "--backend", "shim"]);
    let log = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(log.contains(&split.sha256()), "{log}");
    assert!(stdout(&output).contains(native["text"].as_str().unwrap().trim()));
    let parity = json(&["parity", &split.part(1), "-p", "Hello", "-n", "6", "--json"]);
    assert_eq!(parity["identical"], true);
}

#[test]
fn a_split_model_can_be_quantized() {
    let split = Split::new();
    let quantize = |from: &str, to: &str| {
        let to = split.path(to);
        stdout(&icllama(&["quantize", from, &to, "--type", "Q8_0", "--allow-requantize"]));
        std::fs::read(to).unwrap()
    };
    assert!(quantize(&split.part(1), "a.gguf") == quantize(&split.path("whole.gguf"), "b.gguf"), "the bytes differ");
}

#[test]
fn what_is_wrong_with_the_parts_is_said() {
    let split = Split::new();
    let alone = split.path("alone.gguf");
    std::fs::copy(split.part(2), &alone).unwrap();
    let message = failure(&["run", &alone, "-p", "Hello"]);
    assert!(message.contains("part 2 of 3") && message.contains("-00002-of-00003.gguf"), "{message}");

    std::fs::copy(split.part(1), split.part(3)).unwrap();
    let message = failure(&["run", &split.part(2), "-p", "Hello"]);
    assert!(message.contains("part 3 of 3 says that it is part 1 of 3"), "{message}");

    std::fs::remove_file(split.part(3)).unwrap();
    let message = failure(&["run", &split.part(1), "-p", "Hello"]);
    assert!(message.contains("part 3 of 3 of the model is missing") && message.contains(&split.part(3)), "{message}");

    std::fs::write(split.part(3), "no model").unwrap();
    let message = failure(&["inspect", &split.part(1)]);
    assert!(message.contains(&split.part(3)) && message.contains("GGUF"), "{message}");
}

#[test]
fn a_whole_model_may_be_called_like_a_part() {
    let split = Split::new();
    let name = split.path("other-00001-of-00002.gguf");
    std::fs::copy(split.path("whole.gguf"), &name).unwrap();
    assert_eq!(answer(&name, &[])["tokens"], answer(&split.path("whole.gguf"), &[])["tokens"]);
}

/// Written by `scripts/golden/split_model.py`: parts and digest of the whole are those of the `gguf` package.
#[test]
fn parts_written_by_the_gguf_package_are_its_whole_file() {
    let part = golden("split-00002-of-00003.gguf");
    let expected = std::fs::read_to_string(golden("split.sha256")).unwrap();
    let output =
        icllama(&["run", part.to_str().unwrap(), "-p", "Hello", "-n", "3", "--backend", "shim", "--temp", "0"]);
    let log = String::from_utf8(output.stderr.clone()).unwrap();
    stdout(&output);
    assert!(log.contains(expected.trim()), "{log}");
}

//! `icllama quantize`: what it writes, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use crate::common::{Tiny, failure, ids, json, stdout, usage};
use model_core::fixtures::TinyLlama;
use model_core::gguf::{File, GgmlType, Value, keys};
use model_core::quant;

fn plain(ty: GgmlType) -> Tiny {
    Tiny::new(&TinyLlama { ty, tied: false, alignment: Some(64), ..TinyLlama::default() })
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn out(tiny: &Tiny) -> String {
    tiny.folder.path().join("out.gguf").to_str().unwrap().to_owned()
}

#[test]
fn the_new_file_has_the_old_metadata_and_the_reference_blocks() {
    let types = [
        ("Q4_0", GgmlType::Q4_0, 2),
        ("Q5_1", GgmlType::Q5_1, 9),
        ("BF16", GgmlType::BF16, 32),
        ("Q5_K_S", GgmlType::Q5_K, 16),
    ];
    for (name, ty, number) in types {
        let wide = TinyLlama { ty: GgmlType::F32, dim: 256, hidden: 512, alignment: Some(64), ..TinyLlama::default() };
        let tiny = Tiny::new(&wide);
        let report = json(&["quantize", &tiny.path(), &out(&tiny), "--type", name, "--json"]);
        let (before, after) = (fs::read(tiny.path()).unwrap(), fs::read(out(&tiny)).unwrap());
        assert_eq!(report["output_bytes"].as_u64().unwrap(), after.len() as u64);
        let (old, new) = (File::read(&before).unwrap(), File::read(&after).unwrap());
        let mut expected = old.metadata().clone();
        expected.insert(keys::FILE_TYPE, Value::U32(number));
        expected.insert(keys::QUANTIZATION_VERSION, Value::U32(2));
        assert_eq!((new.version(), new.metadata()), (3, &expected));
        for (old, new) in old.tensors().iter().zip(new.tensors()) {
            assert_eq!((&new.name, &new.shape, new.offset % 64), (&old.name, &old.shape, 0));
            let data = |bytes: &[u8], range: (u64, u64)| bytes[range.0 as usize..][..range.1 as usize].to_vec();
            let mut values = vec![0.0; old.elements() as usize];
            quant::dequantize(old.ty, &data(&before, (old.offset, old.bytes)), &mut values).unwrap();
            let expected = quant::quantize(new.ty, &values).unwrap();
            assert!(data(&after, (new.offset, new.bytes)) == expected, "{}", new.name);
        }
        assert_eq!(new.tensor("blk.0.attn_q.weight").unwrap().ty, ty);
        assert_eq!(names_in(tiny.folder.path()), ["out.gguf", "tiny.gguf"]);
    }
}

#[test]
fn the_new_file_runs_and_does_not_depend_on_threads() {
    let tiny = plain(GgmlType::F16);
    let quantize = |threads: &str| {
        stdout(&crate::common::icllama(&[
            "quantize",
            &tiny.path(),
            &out(&tiny),
            "--type",
            "q8_0",
            "--threads",
            threads,
        ]));
        fs::read(out(&tiny)).unwrap()
    };
    assert!(quantize("1") == quantize("3"));
    let tokens = |model: &str| {
        ids(
            &json(&["run", model, "-p", "Hello", "--raw", "-n", "8", "--temp", "0", "--ignore-eos", "--json"])["tokens"],
        )
    };
    assert_eq!(tokens(&out(&tiny)), tokens(&out(&plain_q8())));
    assert_eq!(tokens(&out(&tiny)).len(), 8);

    /// The same weights, quantized where the fixture is written.
    fn plain_q8() -> Tiny {
        let tiny =
            Tiny::new(&TinyLlama { ty: GgmlType::Q8_0, tied: false, alignment: Some(64), ..TinyLlama::default() });
        fs::copy(tiny.path(), out(&tiny)).unwrap();
        tiny
    }
}

#[test]
fn options_choose_the_types_of_head_and_embedding() {
    let tiny = plain(GgmlType::F32);
    let types = |more: &[&str]| {
        let report = json(&[&["quantize", &tiny.path(), &out(&tiny), "--type", "Q4_1", "--json"], more].concat());
        ["output.weight", "token_embd.weight", "blk.1.ffn_up.weight", "output_norm.weight"].map(|name| {
            let tensors = report["tensors"].as_array().unwrap();
            tensors.iter().find(|tensor| tensor["name"] == name).unwrap()["to"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(types(&[]), ["Q8_0", "Q4_1", "Q4_1", "F32"]);
    assert_eq!(types(&["--pure"]), ["Q4_1", "Q4_1", "Q4_1", "F32"]);
    assert_eq!(types(&["--output-tensor-type", "F16"]), ["F16", "Q4_1", "Q4_1", "F32"]);
    assert_eq!(types(&["--token-embedding-type", "q5_0"]), ["Q8_0", "Q5_0", "Q4_1", "F32"]);
}

#[test]
fn what_is_quantized_is_quantized_again_only_on_request() {
    let tiny = plain(GgmlType::Q8_0);
    let args = ["quantize", &tiny.path(), &out(&tiny), "--type", "F16"];
    assert!(failure(&args).contains("--allow-requantize"));
    assert_eq!(names_in(tiny.folder.path()), ["tiny.gguf"]);
    stdout(&crate::common::icllama(&[&args[..], &["--allow-requantize"]].concat()));
    let bytes = fs::read(out(&tiny)).unwrap();
    let file = File::read(&bytes).unwrap();
    assert_eq!(file.tensor("output.weight").unwrap().ty, GgmlType::F16);
}

#[test]
fn failures_leave_nothing_behind_and_the_input_is_safe() {
    let tiny = plain(GgmlType::F32);
    let link = tiny.folder.path().join("link.gguf");
    std::os::unix::fs::symlink(tiny.path(), &link).unwrap();
    let before = fs::read(tiny.path()).unwrap();
    for own in [tiny.path(), link.to_str().unwrap().to_owned()] {
        assert!(failure(&["quantize", &tiny.path(), &own, "--type", "Q4_0"]).contains("the input itself"));
    }
    let mut broken = before.clone();
    let tensor = File::read(&before).unwrap().tensor("blk.1.ffn_up.weight").unwrap().clone();
    broken[tensor.offset as usize..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = tiny.folder.path().join("nan.gguf");
    fs::write(&path, broken).unwrap();
    let message = failure(&["quantize", path.to_str().unwrap(), &out(&tiny), "--type", "Q4_0"]);
    assert!(message.contains("blk.1.ffn_up.weight") && message.contains("NaN"), "{message}");
    let nowhere = tiny.folder.path().join("no/out.gguf");
    assert!(failure(&["quantize", &tiny.path(), nowhere.to_str().unwrap(), "--type", "Q4_0"]).contains("no/out.gguf"));
    assert!(usage(&["quantize", &tiny.path(), &out(&tiny), "--type", "Q3_K"]).contains("Q4_K_M"));
    assert!(fs::read(tiny.path()).unwrap() == before);
    assert_eq!(names_in(tiny.folder.path()), ["link.gguf", "nan.gguf", "tiny.gguf"]);
}

//! The reader on a file that llama.cpp's converter wrote: SmolLM2-135M-Instruct, Q4_1.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use model_core::gguf::{File, GgmlType, keys};
use model_core::quant;
use model_core::source::{ByteSource, SourceError};

const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Reads from the file itself: the header is small, the model is not.
struct Disk(fs::File);

impl ByteSource for Disk {
    fn len(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let len = buf.len() as u64;
        self.0.read_exact_at(buf, offset).map_err(|error| SourceError::Io { offset, len, reason: error.to_string() })
    }
}

fn model() -> Disk {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(NAME);
    let path = std::env::var_os("ICLLAMA_MODEL").map_or_else(default, PathBuf::from);
    let file = fs::File::open(&path);
    Disk(file.unwrap_or_else(|error| {
        panic!("{}: {error}; fetch the model with scripts/fetch-model.sh or set ICLLAMA_MODEL", path.display())
    }))
}

#[test]
fn metadata_and_tensors_are_those_of_the_converter() {
    let file = File::read(&model()).unwrap();
    let meta = file.metadata();
    assert_eq!((file.version(), meta.len(), file.tensors().len()), (3, 33, 272));
    assert_eq!(meta.str(keys::ARCHITECTURE), Ok("llama"));
    assert_eq!(meta.f32(&keys::rope_freq_base("llama")), Ok(100_000.0));
    assert_eq!(meta.u32(&keys::head_count_kv("llama")), Ok(3));
    let tokens = meta.strings(keys::TOKENS).unwrap();
    assert_eq!((tokens.len(), tokens.get(17)), (49_152, Some(&b"!"[..])));
    let merges = meta.strings(keys::MERGES).unwrap();
    assert_eq!((merges.len(), merges.get(0)), (48_900, Some("Ġ t".as_bytes())));

    // Shapes and offsets as the PyPI package `gguf` 0.19.0 reads them.
    let embedding = file.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.ty, embedding.shape.as_slice()), (GgmlType::Q8_0, [576, 49_152].as_slice()));
    assert_eq!((embedding.offset, embedding.bytes), (1_785_664, 49_152 * 576 / 32 * 34));
    let down = file.tensor("blk.0.ffn_down.weight").unwrap();
    assert_eq!((down.ty, down.shape.as_slice(), down.offset), (GgmlType::Q4_1, [1_536, 576].as_slice(), 31_868_992));
}

#[test]
fn weights_are_those_of_the_reference_decoder() {
    let source = model();
    let file = File::read(&source).unwrap();
    // Sums of the magnitudes of a whole tensor in f64, from `gguf` 0.19.0 and numpy 2.4.6.
    for (name, expected) in SUMS {
        let tensor = file.tensor(name).unwrap();
        let mut bytes = vec![0; tensor.bytes as usize];
        source.read_at(tensor.offset, &mut bytes).unwrap();
        let mut values = vec![0.0; tensor.elements() as usize];
        quant::dequantize(tensor.ty, &bytes, &mut values).unwrap();
        let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
        assert!((sum / expected - 1.0).abs() < 1e-12, "{name}: {sum} instead of {expected}");
    }
}

const SUMS: [(&str, f64); 3] = [
    ("token_embd.weight", 2802153.619805813),
    ("blk.7.ffn_down.weight", 131425.78338623047),
    ("output_norm.weight", 1045.09765625),
];

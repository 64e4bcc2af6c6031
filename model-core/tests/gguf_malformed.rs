//! What the GGUF reader does with files that are cut, endless, unreadable or wrong at random: an error, never a panic. Files
//! with one defect each are in `defects`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::Cell;

use model_core::fixtures::{GgufBuilder, RawTensor, TinyLlama};
use model_core::gguf::{self, Array, Error, File, GgmlType, Value, ValueType, keys};
use model_core::source::{ByteSource, SourceError};
use proptest::prelude::*;

fn new() -> GgufBuilder {
    GgufBuilder::new()
}

/// A file whose only metadata entry is `key` with this type id and value bytes.
fn entry(type_id: u32, value: &[u8]) -> GgufBuilder {
    new().kv_raw(b"key", type_id, value)
}

/// A valid tensor of eight f32.
fn tensor() -> RawTensor {
    RawTensor { name: b"t".to_vec(), shape: vec![8], type_id: GgmlType::F32.id(), offset: None, data: vec![0; 32] }
}

fn with(tensor: RawTensor) -> GgufBuilder {
    new().tensor_raw(tensor)
}

fn at(name: &str, offset: u64) -> RawTensor {
    RawTensor { name: name.into(), offset: Some(offset), ..tensor() }
}

/// An array of arrays of … of nothing, nested `depth` deep.
fn nested(depth: usize) -> GgufBuilder {
    let array = (1..depth).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    new().kv("key", array)
}

/// Files that only just do not have one of the defects in [`model_core::fixtures::defects`].
#[test]
fn files_without_the_defects_are_accepted() {
    let files = [
        new(),
        new().version(2).kv("key", 1u8),
        new().alignment(8).kv("key", true),
        nested(4),
        with(tensor()),
        with(at("a", 32)).tensor_raw(at("b", 0)),
        with(tensor()).alignment(64),
        with(RawTensor { name: vec![b't'; 64], shape: vec![2, 1, 2, 2], ..tensor() }),
    ];
    for file in files {
        File::read(&file.build()).unwrap();
    }
    // No tensors and no padding after the header.
    let file = new().kv("key", 1u8).build();
    File::read(&file[..24 + 8 + 3 + 4 + 1].to_vec()).unwrap();
}

/// A file with every kind of entry, and a last tensor that ends with the file.
fn sample() -> Vec<u8> {
    new()
        .alignment(16)
        .kv("text", "some text")
        .kv("flag", true)
        .kv("wide", -5i64)
        .kv("double", 0.1f64)
        .kv("names", Array::String(["a", "", "bcd"].iter().collect()))
        .kv("flags", Array::Bool(vec![true, false]))
        .kv("numbers", Array::I32((0..9).collect()))
        .kv("deep", Array::Array(vec![Array::U16(vec![1, 2]), Array::Array(vec![Array::U8(vec![3])])]))
        .tensor("first", &[4, 3], GgmlType::F16, vec![1; 24])
        .tensor("second", &[32, 2], GgmlType::Q5_1, vec![2; 48])
        .tensor("third", &[3], GgmlType::F32, vec![3; 12])
        .build()
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let file = sample();
    File::read(&file).unwrap();
    for len in 0..file.len() {
        let error = File::read(&file[..len].to_vec()).expect_err("a cut file was accepted");
        let expected = matches!(
            error,
            Error::Truncated { .. }
                | Error::AbsurdCount { .. }
                | Error::ArrayTooLong { .. }
                | Error::TensorOutOfRange { .. }
        );
        assert!(expected, "cut to {len}: {error:?}");
    }
}

/// Announces any length, and delivers `start` followed by zeros.
struct Endless {
    start: Vec<u8>,
    len: u64,
    reads: Cell<u32>,
}

impl ByteSource for Endless {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.reads.set(self.reads.get() + 1);
        buf.fill(0);
        for (byte, value) in buf.iter_mut().zip(self.start.iter().skip(offset as usize)) {
            *byte = *value;
        }
        Ok(())
    }
}

#[test]
fn a_header_may_not_fill_a_huge_file() {
    let start = entry(ValueType::String.id(), &(200u64 << 20).to_le_bytes()).build();
    let source = Endless { start, len: 1 << 40, reads: Cell::new(0) };
    let error = File::read(&source).unwrap_err();
    assert!(matches!(error, Error::HeaderTooLarge { limit: gguf::MAX_HEADER_BYTES, .. }), "{error:?}");
    assert_eq!(source.reads.get(), 1, "refused before it was read");
}

#[test]
fn a_large_vocabulary_is_read_in_few_reads() {
    let tokens: Array = Array::String((0..50_000).map(|i| format!("token {i}")).collect());
    let start = new().kv(keys::TOKENS, tokens).build();
    let len = start.len() as u64;
    let source = Endless { start, len, reads: Cell::new(0) };
    let file = File::read(&source).unwrap();
    assert_eq!(file.metadata().strings(keys::TOKENS).unwrap().get(49_999), Some(&b"token 49999"[..]));
    assert!(u64::from(source.reads.get()) <= len.div_ceil(64 * 1024), "{} reads", source.reads.get());
}

/// Fails on every read.
struct Broken;

impl ByteSource for Broken {
    fn len(&self) -> u64 {
        1_000
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        Err(SourceError::Io { offset, len: buf.len() as u64, reason: "unplugged".into() })
    }
}

#[test]
fn failures_of_the_medium_are_passed_on() {
    assert!(matches!(File::read(&Broken), Err(Error::Source(SourceError::Io { .. }))));
}

#[test]
fn errors_say_what_and_where() {
    let error = File::read(&with(at("blk.0.attn_q.weight", 8)).build()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("blk.0.attn_q.weight") && message.contains("offset 8"), "{message}");
    let error = File::read(&entry(ValueType::Bool.id(), &[2]).build()).unwrap_err();
    assert!(error.to_string().contains("\"key\""), "{error}");
}

/// What a reader of an accepted file relies on.
fn check(file: &File, len: u64) {
    for tensor in file.tensors() {
        assert!(tensor.bytes > 0 && tensor.offset.checked_add(tensor.bytes).is_some_and(|end| end <= len));
        assert_eq!(file.tensor(&tensor.name), Some(tensor));
    }
    for (key, value) in file.metadata().iter() {
        assert_eq!(file.metadata().get(key).map(Value::value_type), Some(value.value_type()));
    }
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = sample();
        for (index, flip) in flips {
            let at = index.index(file.len());
            file[at] ^= flip;
        }
        if let Ok(read) = File::read(&file) {
            check(&read, file.len() as u64);
        }
    }

    #[test]
    fn lengths_and_counts_at_random_never_panic(
        index in any::<prop::sample::Index>(),
        number in prop_oneof![any::<u64>(), 0u64..300, Just(u64::MAX), Just(1 << 63), Just(1 << 32)],
    ) {
        let mut file = sample();
        let at = index.index(file.len() - 8);
        file[at..at + 8].copy_from_slice(&number.to_le_bytes());
        if let Ok(read) = File::read(&file) {
            check(&read, file.len() as u64);
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300), tensors in 0u64..4, entries in 0u64..4) {
        let file = [b"GGUF\x03\0\0\0".as_slice(), &tensors.to_le_bytes(), &entries.to_le_bytes(), &noise].concat();
        if let Ok(read) = File::read(&file) {
            check(&read, file.len() as u64);
        }
    }

    #[test]
    fn flips_in_a_whole_model_never_panic(index in any::<prop::sample::Index>(), flip in 1u8..) {
        thread_local!(static MODEL: Vec<u8> = TinyLlama::default().build());
        let mut file = MODEL.with(Vec::clone);
        let at = index.index(12_000); // metadata and tensor table
        file[at] ^= flip;
        if let Ok(read) = File::read(&file) {
            check(&read, file.len() as u64);
        }
    }
}

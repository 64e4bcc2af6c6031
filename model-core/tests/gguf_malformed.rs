//! One wrong file for each defect that the GGUF reader names, and wrong files at random: an error, never a panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::Cell;

use model_core::fixtures::{GgufBuilder, RawTensor, TinyLlama};
use model_core::gguf::{self, Array, Error, File, GgmlType, KeyError, Value, ValueType, keys};
use model_core::source::{ByteSource, SourceError};
use proptest::prelude::*;

/// A defect in words, a file that has it, and the error that names it.
type Case = (&'static str, Vec<u8>, fn(&Error) -> bool);

macro_rules! case {
    ($what:literal, $file:expr, $pattern:pat $(if $guard:expr)?) => {
        ($what, $file.build(), (|error| matches!(error, $pattern $(if $guard)?)) as fn(&Error) -> bool)
    };
}

fn new() -> GgufBuilder {
    GgufBuilder::new()
}

/// A file whose only metadata entry is `key` with this type id and value bytes.
fn entry(type_id: u32, value: &[u8]) -> GgufBuilder {
    new().kv_raw(b"key", type_id, value)
}

/// Element type and count as they stand before the elements of an array.
fn array_head(element: u32, count: u64) -> Vec<u8> {
    [element.to_le_bytes().as_slice(), &count.to_le_bytes()].concat()
}

/// A valid tensor of eight f32, to be spoiled.
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

fn container_cases() -> Vec<Case> {
    vec![
        case!("wrong magic", new().magic(*b"GGML"), Error::BadMagic { found: [b'G', b'G', b'M', b'L'] }),
        case!("version 0", new().version(0), Error::UnsupportedVersion { found: 0 }),
        case!("version 1", new().version(1), Error::UnsupportedVersion { found: 1 }),
        case!("version 4", new().version(4), Error::UnsupportedVersion { found: 4 }),
        case!("big-endian", new().version(3u32.swap_bytes()), Error::WrongEndian { version: 0x0300_0000 }),
        case!(
            "more metadata than bytes",
            new().announce_metadata(1),
            Error::AbsurdCount { what: "metadata entries", count: 1, limit: 0 }
        ),
        case!(
            "metadata count with the top bit",
            new().announce_metadata(1 << 63),
            Error::AbsurdCount { what: "metadata entries", .. }
        ),
        case!(
            "more metadata than any model has",
            new().announce_metadata(70_000).kv("pad", Array::U8(vec![0; 1 << 20])),
            Error::AbsurdCount { what: "metadata entries", count: 70_000, limit: gguf::MAX_METADATA_ENTRIES }
        ),
        case!("more tensors than bytes", new().announce_tensors(2), Error::AbsurdCount { what: "tensors", .. }),
        case!(
            "more tensors than any model has",
            new().announce_tensors(u64::MAX).kv("pad", Array::U8(vec![0; 1 << 22])),
            Error::AbsurdCount { what: "tensors", count: u64::MAX, limit: gguf::MAX_TENSORS }
        ),
        case!("zero alignment", new().alignment(0), Error::BadAlignment { found: 0 }),
        case!("odd alignment", new().alignment(33), Error::BadAlignment { found: 33 }),
        case!("alignment below 8", new().alignment(4), Error::BadAlignment { found: 4 }),
        case!("alignment no power of two", new().alignment(24), Error::BadAlignment { found: 24 }),
        case!(
            "alignment beyond 32 bits",
            new().kv(keys::ALIGNMENT, 1u64 << 40),
            Error::BadAlignment { found: 0x100_0000_0000 }
        ),
        case!("alignment as text", new().kv(keys::ALIGNMENT, "32"), Error::Key(KeyError::WrongType { .. })),
        case!("negative alignment", new().kv(keys::ALIGNMENT, -32), Error::Key(KeyError::OutOfRange { .. })),
    ]
}

fn metadata_cases() -> Vec<Case> {
    let text = ValueType::String.id();
    let list = ValueType::Array.id();
    vec![
        case!("duplicate key", new().kv("a", 1u8).kv("b", 2u8).kv("a", 1u8), Error::DuplicateKey { key } if key == "a"),
        case!("key not UTF-8", new().kv_raw(b"\xff", 0, &[0]), Error::NameNotUtf8 { what: "key", offset: 24 }),
        case!(
            "key too long",
            new().kv_raw(&[b'k'; 65_536], 0, &[0]),
            Error::NameTooLong { what: "key", len: 65_536, .. }
        ),
        case!("unknown value type", entry(13, &[0; 8]), Error::UnknownValueType { id: 13, offset: 35, .. }),
        case!("boolean of 2", entry(ValueType::Bool.id(), &[2]), Error::BadBool { found: 2, offset: 39, .. }),
        case!(
            "string longer than the file",
            entry(text, &1_000u64.to_le_bytes()),
            Error::Truncated { needed: 1_000, .. }
        ),
        case!(
            "string of 2^64-1 bytes",
            entry(text, &u64::MAX.to_le_bytes()),
            Error::Truncated { needed: u64::MAX, .. }
        ),
        case!(
            "array with unknown element type",
            entry(list, &array_head(99, 0)),
            Error::UnknownValueType { id: 99, .. }
        ),
        case!(
            "array longer than the file",
            entry(list, &array_head(ValueType::U32.id(), 1 << 40)),
            Error::ArrayTooLong { count: 0x100_0000_0000, limit: 0..10, .. }
        ),
        case!(
            "array of strings longer than the file",
            entry(list, &array_head(text, u64::MAX)),
            Error::ArrayTooLong { count: u64::MAX, .. }
        ),
        case!(
            "array of arrays longer than the file",
            entry(list, &array_head(list, u64::MAX)),
            Error::ArrayTooLong { count: u64::MAX, .. }
        ),
        case!(
            "array with a boolean of 255",
            entry(list, &[array_head(ValueType::Bool.id(), 2), vec![1, 255]].concat()),
            Error::BadBool { found: 255, .. }
        ),
        case!("arrays nested too deep", nested(5), Error::ArrayTooDeep { limit: 4, .. }),
    ]
}

fn tensor_cases() -> Vec<Case> {
    let raw = tensor;
    vec![
        case!("duplicate tensor", with(raw()).tensor_raw(raw()), Error::DuplicateTensor { name } if name == "t"),
        case!(
            "tensor name not UTF-8",
            with(RawTensor { name: vec![0xc3], ..raw() }),
            Error::NameNotUtf8 { what: "tensor name", .. }
        ),
        case!(
            "tensor name too long",
            with(RawTensor { name: vec![b't'; 65], ..raw() }),
            Error::NameTooLong { what: "tensor name", len: 65, limit: 64, .. }
        ),
        case!("no dimensions", with(RawTensor { shape: vec![], ..raw() }), Error::NoDimensions { .. }),
        case!(
            "five dimensions",
            with(RawTensor { shape: vec![1; 5], ..raw() }),
            Error::TooManyDimensions { found: 5, .. }
        ),
        case!("zero dimension", with(RawTensor { shape: vec![8, 0], ..raw() }), Error::ZeroDimension { axis: 1, .. }),
        case!(
            "element count beyond 64 bits",
            with(RawTensor { shape: vec![1 << 32, 1 << 32], ..raw() }),
            Error::SizeOverflow { .. }
        ),
        case!(
            "element count beyond 63 bits",
            with(RawTensor { shape: vec![1 << 63], ..raw() }),
            Error::SizeOverflow { .. }
        ),
        case!(
            "byte count beyond 64 bits",
            with(RawTensor { shape: vec![1 << 62], ..raw() }),
            Error::SizeOverflow { .. }
        ),
        case!(
            "row with a part of a block",
            with(RawTensor { shape: vec![40, 2], type_id: GgmlType::Q4_0.id(), ..raw() }),
            Error::RaggedRow { ty: GgmlType::Q4_0, row: 40, block: 32, .. }
        ),
        case!("retired tensor type", with(RawTensor { type_id: 4, ..raw() }), Error::UnknownTensorType { id: 4, .. }),
        case!(
            "unknown tensor type",
            with(RawTensor { type_id: u32::MAX, ..raw() }),
            Error::UnknownTensorType { id: u32::MAX, .. }
        ),
        case!("misaligned tensor", with(at("t", 8)), Error::MisalignedTensor { offset: 8, alignment: 32, .. }),
        case!(
            "tensor misaligned for the alignment given",
            with(at("t", 32)).alignment(64),
            Error::MisalignedTensor { offset: 32, alignment: 64, .. }
        ),
        case!(
            "tensor longer than the data",
            with(RawTensor { shape: vec![9], ..raw() }),
            Error::TensorOutOfRange { bytes: 36, available: 32, .. }
        ),
        case!("tensor beyond the data", with(at("t", 64)), Error::TensorOutOfRange { offset: 64, .. }),
        case!(
            "tensor at the end of 64 bits",
            with(at("t", u64::MAX - 31)),
            Error::TensorOutOfRange { offset: 0xffff_ffff_ffff_ffe0, .. }
        ),
        case!(
            "two tensors at the same place",
            with(at("a", 0)).tensor_raw(at("b", 0)),
            Error::OverlappingTensors { first, second, offset: 0 } if first == "a" && second == "b"
        ),
        case!(
            "a tensor that starts inside another, listed first",
            with(at("late", 32)).tensor_raw(RawTensor { shape: vec![16], ..at("early", 0) }),
            Error::OverlappingTensors { first, offset: 32, .. } if first == "early"
        ),
    ]
}

#[test]
fn each_defect_has_its_error() {
    let cases = [container_cases(), metadata_cases(), tensor_cases()].concat();
    for (what, file, names_it) in cases {
        match File::read(&file) {
            Ok(_) => panic!("{what}: accepted"),
            Err(error) => assert!(names_it(&error), "{what}: {error:?}"),
        }
    }
}

/// The files from which the cases above deviate are fine.
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

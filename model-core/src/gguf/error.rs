//! Everything that can be wrong with a GGUF header, one variant per defect.

use super::GgmlType;
use crate::source::SourceError;

/// Why a file was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The medium failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file ends inside a field.
    #[error(
        "the file ends inside {what} at offset {offset}: {needed} bytes needed, {left} left; it is truncated, fetch it again"
    )]
    Truncated {
        /// The field being read.
        what: &'static str,
        /// Where it starts in the file.
        offset: u64,
        /// Its length in bytes.
        needed: u64,
        /// Bytes from `offset` to the end of the file.
        left: u64,
    },
    /// Metadata and tensor table take more than [`super::MAX_HEADER_BYTES`].
    #[error("the header does not end within {limit} bytes ({what} at offset {offset}); this is no sane model file")]
    HeaderTooLarge {
        /// The field being read.
        what: &'static str,
        /// Where it starts in the file.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is a part of a split model, where a whole one is needed.
    #[error(
        "the file is part {number} of {count} of a split model; give it under a name that ends in \
         -{number:05}-of-{count:05}.gguf, with the other parts beside it"
    )]
    PartOfModel {
        /// Which part, from 1.
        number: u32,
        /// Number of parts.
        count: u32,
    },
    /// The first four bytes are not `GGUF`.
    #[error("the file starts with {found:02x?} instead of \"GGUF\"; give a GGUF file")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file is big-endian.
    #[error(
        "the file is big-endian (its version field reads {version:#010x}); convert it to little-endian with gguf-convert-endian"
    )]
    WrongEndian {
        /// The version field read as little-endian.
        version: u32,
    },
    /// Neither version 2 nor 3.
    #[error("GGUF version {found} is not supported (2 and 3 are); convert the model again with a current llama.cpp")]
    UnsupportedVersion {
        /// The version field.
        found: u32,
    },
    /// A count of the header exceeds its limit or what the bytes left could hold.
    #[error("the header announces {count} {what}, at most {limit} are possible; the file is damaged")]
    AbsurdCount {
        /// What is counted.
        what: &'static str,
        /// The number found.
        count: u64,
        /// The most that was possible.
        limit: u64,
    },
    /// A key or tensor name exceeds the length that the specification allows.
    #[error("the {what} at offset {offset} is {len} bytes long, at most {limit} are allowed; the file is damaged")]
    NameTooLong {
        /// "key" or "tensor name".
        what: &'static str,
        /// Where it starts in the file.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The longest allowed.
        limit: u64,
    },
    /// A key or tensor name is not UTF-8.
    #[error("the {what} at offset {offset} is not UTF-8; the file is damaged")]
    NameNotUtf8 {
        /// "key" or "tensor name".
        what: &'static str,
        /// Where it starts in the file.
        offset: u64,
    },
    /// Two metadata entries share a key.
    #[error("the metadata key {key:?} appears twice; the file is damaged")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A metadata value (or array element) has an unknown type.
    #[error("the value of {key:?} at offset {offset} has the unknown type id {id} (0 to 12 are known)")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type id found.
        id: u32,
        /// Where the id stands in the file.
        offset: u64,
    },
    /// A boolean is neither 0 nor 1.
    #[error("{key:?} has a boolean with the byte {found} at offset {offset}, only 0 and 1 are valid")]
    BadBool {
        /// The key.
        key: String,
        /// The byte found.
        found: u8,
        /// Where it stands in the file.
        offset: u64,
    },
    /// An array holds more elements than the bytes left could hold.
    #[error(
        "the array {key:?} announces {count} elements, the bytes left hold at most {limit}; the file is damaged or truncated"
    )]
    ArrayTooLong {
        /// The key.
        key: String,
        /// The number of elements announced.
        count: u64,
        /// The most that the bytes left could hold.
        limit: u64,
    },
    /// Arrays are nested deeper than [`super::MAX_ARRAY_DEPTH`].
    #[error("the arrays of {key:?} are nested more than {limit} deep; the file is damaged")]
    ArrayTooDeep {
        /// The key.
        key: String,
        /// The deepest nesting allowed.
        limit: u32,
    },
    /// `general.alignment` is no power of two of at least 8.
    #[error("general.alignment is {found}, it has to be a power of two and a multiple of 8")]
    BadAlignment {
        /// The value found.
        found: u64,
    },
    /// A metadata entry that the reader itself needs has the wrong type.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Two tensors share a name.
    #[error("the tensor {name:?} appears twice; the file is damaged")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// A tensor has a type id that GGML does not (or no longer) define.
    #[error("tensor {name:?} has type id {id}, which is unknown or retired; convert the model again")]
    UnknownTensorType {
        /// The tensor.
        name: String,
        /// The type id found.
        id: u32,
    },
    /// A tensor without dimensions.
    #[error("tensor {name:?} has no dimensions (1 to {limit} are valid); the file is damaged", limit = super::MAX_DIMENSIONS)]
    NoDimensions {
        /// The tensor.
        name: String,
    },
    /// A tensor with more dimensions than GGML knows.
    #[error("tensor {name:?} has {found} dimensions (1 to {limit} are valid); the file is damaged", limit = super::MAX_DIMENSIONS)]
    TooManyDimensions {
        /// The tensor.
        name: String,
        /// The number of dimensions.
        found: u32,
    },
    /// A dimension of length zero.
    #[error("dimension {axis} of tensor {name:?} is zero; the file is damaged")]
    ZeroDimension {
        /// The tensor.
        name: String,
        /// Index of the dimension, fastest first.
        axis: usize,
    },
    /// Elements or bytes of a tensor do not fit 64 bits.
    #[error("tensor {name:?} of shape {shape:?} has more elements than 63 bits can count; the file is damaged")]
    SizeOverflow {
        /// The tensor.
        name: String,
        /// Its shape, fastest dimension first.
        shape: Vec<u64>,
    },
    /// The fastest dimension is not a whole number of blocks.
    #[error("rows of tensor {name:?} have {row} elements, no multiple of the {ty} block of {block}")]
    RaggedRow {
        /// The tensor.
        name: String,
        /// Its type.
        ty: GgmlType,
        /// Elements per row found.
        row: u64,
        /// Elements per block.
        block: u64,
    },
    /// The offset of a tensor is no multiple of the alignment.
    #[error("tensor {name:?} lies at data offset {offset}, no multiple of the alignment {alignment}")]
    MisalignedTensor {
        /// The tensor.
        name: String,
        /// Offset relative to the data section.
        offset: u64,
        /// The alignment of the file.
        alignment: u64,
    },
    /// The data of a tensor does not lie inside the file.
    #[error(
        "tensor {name:?} needs {bytes} bytes at data offset {offset}, the data section has {available}; the file is truncated, fetch it again"
    )]
    TensorOutOfRange {
        /// The tensor.
        name: String,
        /// Offset relative to the data section.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
        /// Length of the data section in bytes.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap at data offset {offset}; the file is damaged")]
    OverlappingTensors {
        /// The tensor that starts first.
        first: String,
        /// The tensor that starts inside the first.
        second: String,
        /// Where the second starts, relative to the data section.
        offset: u64,
    },
}

/// Why a metadata entry could not be used as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file does not have the key.
    #[error("the metadata lacks {key:?} ({expected}); the model file is incomplete, or add it with --override-kv")]
    Missing {
        /// The key.
        key: String,
        /// The type that was asked for.
        expected: &'static str,
    },
    /// The value is of another type.
    #[error("the metadata value {key:?} is of type {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that was asked for.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// The number does not fit the type that was asked for.
    #[error("the metadata value {key:?} is {found}, out of range for {expected}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The type that was asked for.
        expected: &'static str,
        /// The number in the file.
        found: String,
    },
    /// The string is not UTF-8.
    #[error("the metadata value {key:?} is not UTF-8")]
    NotUtf8 {
        /// The key.
        key: String,
    },
}

//! Reader (and, in `write`, writer) for the GGUF container, versions 2 and 3, little-endian: typed metadata and a checked
//! tensor table.
//! Knows nothing of models, tokenizers or the insides of quantized blocks.
//!
//! Input is untrusted: every length is compared with the bytes left before anything is allocated, and every
//! defect has its own [`Error`]. Source: the GGUF specification (`docs/gguf.md` of ggml).
//!
//! ```text
//! "GGUF" | version u32 | tensor count u64 | metadata count u64 |
//!   metadata: key string, value type u32, value            (string = length u64, bytes)
//!   tensors:  name string, dimensions u32, shape u64 each, type u32, offset u64
//! | padding to the alignment | data section: each tensor at its offset, a multiple of the alignment
//! ```

mod error;
pub mod keys;
mod metadata;
mod parse;
mod reader;
pub mod split;
mod tensor;
mod types;
mod value;
pub mod write;

use std::collections::BTreeMap;

pub use error::{Error, KeyError};
pub use metadata::Metadata;
pub use tensor::TensorInfo;
pub use types::GgmlType;
pub use value::{Array, StringArray, Value, ValueType};

use crate::source::ByteSource;
use reader::Reader;

/// Most bytes before the tensor data; the largest vocabularies known take about 20 MB.
pub const MAX_HEADER_BYTES: u64 = 128 << 20;
/// Most metadata entries; real files have fewer than a hundred.
pub const MAX_METADATA_ENTRIES: u64 = 1 << 16;
/// Most tensors; the largest real files have some thousands.
pub const MAX_TENSORS: u64 = 1 << 16;
/// Most dimensions of a tensor, as in GGML.
pub const MAX_DIMENSIONS: u32 = 4;
/// Deepest nesting of arrays; no known key nests them at all.
pub const MAX_ARRAY_DEPTH: u32 = 4;
/// Longest key, by the specification.
pub const MAX_KEY_BYTES: u64 = u16::MAX as u64;
/// Longest tensor name, by the specification.
pub const MAX_TENSOR_NAME_BYTES: u64 = 64;
/// Alignment of the tensor data if the file does not say.
pub const DEFAULT_ALIGNMENT: u64 = 32;

pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Smallest metadata entry: an empty key, the type and one byte of value.
const MIN_METADATA_BYTES: u64 = 8 + 4 + 1;
/// Smallest tensor entry: an empty name, one dimension.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// The header of a model file: everything but the tensor data.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: BTreeMap<String, usize>,
}

impl File {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// One variant of [`Error`] for each way in which a file can be wrong.
    pub fn read(source: &dyn ByteSource) -> Result<File, Error> {
        let mut reader = Reader::new(source);
        let version = read_version(&mut reader)?;
        let tensor_count = reader.u64("the tensor count")?;
        let metadata_count = reader.u64("the metadata count")?;
        check_count("metadata entries", metadata_count, MAX_METADATA_ENTRIES, reader.left() / MIN_METADATA_BYTES)?;
        check_count("tensors", tensor_count, MAX_TENSORS, reader.left() / MIN_TENSOR_BYTES)?;

        let metadata = read_metadata(&mut reader, metadata_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = (0..tensor_count).map(|_| tensor::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let index = tensor::index(&tensors)?;
        // A file without tensors may end before the padding.
        let start = reader.position().next_multiple_of(alignment);
        tensor::DataSection { start, len: source.len().saturating_sub(start), alignment }.place(&mut tensors)?;
        Ok(File { version, metadata, tensors, index })
    }

    /// Version of the container: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Keys and values, to override some; what has been read from the file already (the alignment) stays.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }
}

/// Magic and version.
fn read_version(reader: &mut Reader<'_>) -> Result<u32, Error> {
    let magic = reader.array("the magic number")?;
    if magic != MAGIC {
        return Err(Error::BadMagic { found: magic });
    }
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        // The magic is the same in both byte orders, a small version number is not.
        1.. if version.trailing_zeros() >= 16 => Err(Error::WrongEndian { version }),
        _ => Err(Error::UnsupportedVersion { found: version }),
    }
}

/// Compares a count with what is sane and with what the bytes left could hold.
fn check_count(what: &'static str, count: u64, sane: u64, possible: u64) -> Result<(), Error> {
    let limit = sane.min(possible);
    if count > limit { Err(Error::AbsurdCount { what, count, limit }) } else { Ok(()) }
}

fn read_metadata(reader: &mut Reader<'_>, count: u64) -> Result<Metadata, Error> {
    let mut metadata = Metadata::default();
    for _ in 0..count {
        let key = reader.name("key", MAX_KEY_BYTES)?;
        let value = parse::value(reader, &key)?;
        metadata.push(key, value)?;
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    let found = metadata.opt_u64(keys::ALIGNMENT)?.unwrap_or(DEFAULT_ALIGNMENT);
    let valid = found.is_power_of_two() && found >= 8 && u32::try_from(found).is_ok();
    if valid { Ok(found) } else { Err(Error::BadAlignment { found }) }
}

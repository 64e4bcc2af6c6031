//! Models that are split into several files (`-00001-of-00003.gguf`): which part a file is, and where everything goes in
//! the one file that they are together. Knows nothing of paths.
//!
//! The keys are those of llama.cpp's `gguf-split`: metadata is in the first part, tensors are in any, and every part says
//! which of how many it is. The merged file has the metadata without these keys, and the tensors in the order of the parts:
//! it is the file that was split, byte for byte, where that was laid out without holes.

use super::write::{Extent, Layout, NewTensor};
use super::{Error, File, KeyError, Metadata, TensorInfo, keys};

/// Why files are not the parts of one model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// A part is another one than its place says.
    #[error("the file for part {expected} of {expected_count} says that it is {}; rename or fetch it again", said(*.found))]
    OtherPart {
        /// Its place among the parts, from 1.
        expected: u32,
        /// The number of parts given.
        expected_count: u32,
        /// What the file says; none if it says nothing.
        found: Option<PartOf>,
    },
    /// The parts have another number of tensors than announced.
    #[error("the parts have {found} tensors, {announced} are announced; fetch them again")]
    TensorCount {
        /// `split.tensors.count` of the first part.
        announced: u64,
        /// Tensors of all parts.
        found: u64,
    },
    /// A key of the split has the wrong type.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The parts together are no file.
    #[error(transparent)]
    Gguf(#[from] Error),
}

/// Which part of a split model a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartOf {
    /// From 1.
    pub number: u32,
    /// How many there are, at least 2.
    pub count: u32,
}

fn said(part: Option<PartOf>) -> String {
    part.map_or("whole".to_owned(), |PartOf { number, count }| format!("part {number} of {count}"))
}

impl File {
    /// Which part of a split model this is; none if it is whole.
    ///
    /// # Errors
    /// A key of another type.
    pub fn part(&self) -> Result<Option<PartOf>, KeyError> {
        let meta = self.metadata();
        let count = meta.opt_u32(keys::SPLIT_COUNT)?.filter(|&count| count > 1);
        let number = meta.opt_u32(keys::SPLIT_NUMBER)?.unwrap_or(0).saturating_add(1);
        Ok(count.map(|count| PartOf { number, count }))
    }
}

/// The one file that several are together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The file up to its tensor data, padding included.
    pub header: Vec<u8>,
    /// The tensor data, one piece after the other.
    pub pieces: Vec<Piece>,
}

/// The data of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which of the parts has it, from 0.
    pub part: usize,
    /// Where it begins in that part.
    pub offset: u64,
    /// Its length, and the zeros that follow it.
    pub extent: Extent,
}

/// Lays out the file that `parts`, in their order, are together.
///
/// # Errors
/// [`SplitError`]
pub fn merge(parts: &[File]) -> Result<Merged, SplitError> {
    let expected_count = parts.len() as u32;
    for (expected, file) in (1..).zip(parts) {
        let found = file.part()?;
        if found != Some(PartOf { number: expected, count: expected_count }) {
            return Err(SplitError::OtherPart { expected, expected_count, found });
        }
    }
    let all = || parts.iter().enumerate().flat_map(|(part, file)| file.tensors().iter().map(move |info| (part, info)));
    let mut metadata = Metadata::default();
    let first = parts.first().map(File::metadata).unwrap_or(&metadata).clone();
    let (announced, found) = (first.opt_u64(keys::SPLIT_TENSORS)?, all().count() as u64);
    if let Some(announced) = announced.filter(|&announced| announced != found) {
        return Err(SplitError::TensorCount { announced, found });
    }
    let own = |key: &str| ![keys::SPLIT_NUMBER, keys::SPLIT_COUNT, keys::SPLIT_TENSORS].contains(&key);
    for (key, value) in first.iter().filter(|(key, _)| own(key)) {
        metadata.insert(key, value.clone());
    }
    let tensors: Vec<_> = all().map(|(_, info)| new_tensor(info)).collect();
    let layout = Layout::new(&metadata, &tensors)?;
    let pieces = all().zip(layout.tensors).map(|((part, info), extent)| Piece { part, offset: info.offset, extent });
    Ok(Merged { header: layout.header, pieces: pieces.collect() })
}

fn new_tensor(info: &TensorInfo) -> NewTensor {
    NewTensor { name: info.name.clone(), shape: info.shape.clone(), ty: info.ty }
}

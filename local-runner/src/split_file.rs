//! A model that is split into several files, as the one file that they are together. Nothing is copied: the header is made
//! anew, tensor data is read where it lies.

use std::path::{Path, PathBuf};

use model_core::gguf::File;
use model_core::gguf::split::{self, Merged, PartOf};
use model_core::source::{ByteSource, SourceError};

use crate::model_file::{FileBytes, ModelFileError};

/// The names of all parts of a split model, given the name of one: `x-00002-of-00003.gguf`. None for other names.
pub fn part_names(name: &str) -> Option<Vec<String>> {
    let (stem, _, count) = split_name(name)?;
    Some((1..=count).map(|number| format!("{stem}-{number:05}-of-{count:05}.gguf")).collect())
}

/// The name of the file that the parts are together; other names stay.
pub fn merged_name(name: &str) -> String {
    split_name(name).map_or_else(|| name.to_owned(), |(stem, ..)| format!("{stem}.gguf"))
}

/// Stem, number and count.
fn split_name(name: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let number_of = |text: &str| {
        let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse().ok() } else { None }
    };
    Some((stem, number_of(number)?, number_of(count)?))
}

/// The parts of a model and the plan of the file that they are together.
#[derive(Debug)]
pub struct SplitFile {
    parts: Vec<FileBytes>,
    /// The merged file up to its tensor data.
    header: Vec<u8>,
    /// In the order of the merged file, without gaps.
    pieces: Vec<Placed>,
    len: u64,
}

/// A stretch of the merged file.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// First byte in the merged file.
    start: u64,
    /// Bytes of data; zeros follow up to the next piece.
    bytes: u64,
    part: usize,
    /// First byte in the part.
    offset: u64,
}

impl SplitFile {
    /// Opens all parts of the model that `path` is a part of; none if its name or its header says that it is whole.
    ///
    /// # Errors
    /// A part that is missing or no model file, or parts that do not fit together.
    pub fn open(path: &Path) -> Result<Option<Self>, ModelFileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(names) = part_names(&name).filter(|names| names.len() > 1) else { return Ok(None) };
        let header = |bytes: &FileBytes, path: &Path| {
            File::read(bytes).map_err(|reason| ModelFileError::Header { path: path.to_owned(), reason })
        };
        let named = FileBytes::open(path)?;
        if header(&named, path)?.part().is_ok_and(|part| part.is_none()) {
            return Ok(None);
        }
        let paths: Vec<PathBuf> = names.iter().map(|name| path.with_file_name(name)).collect();
        if let Some(missing) = paths.iter().position(|path| !path.exists()) {
            let part = PartOf { number: missing as u32 + 1, count: paths.len() as u32 };
            return Err(ModelFileError::MissingPart { path: paths[missing].clone(), part });
        }
        let parts = paths.iter().map(|path| FileBytes::open(path)).collect::<Result<Vec<_>, _>>()?;
        let headers = parts.iter().zip(&paths).map(|(part, path)| header(part, path)).collect::<Result<Vec<_>, _>>()?;
        let merged =
            split::merge(&headers).map_err(|reason| ModelFileError::Parts { path: path.to_owned(), reason })?;
        Ok(Some(Self::new(parts, merged)))
    }

    fn new(parts: Vec<FileBytes>, Merged { header, pieces }: Merged) -> Self {
        let mut len = header.len() as u64;
        let place = |piece: split::Piece| {
            let start = len;
            len += piece.extent.bytes + piece.extent.padding;
            Placed { start, bytes: piece.extent.bytes, part: piece.part, offset: piece.offset }
        };
        let pieces = pieces.into_iter().map(place).collect();
        Self { parts, header, pieces, len }
    }

    /// The stretches that have bytes of the range: place in the range, and the piece with what of it is meant.
    fn within(&self, offset: u64, len: u64) -> impl Iterator<Item = (Placed, std::ops::Range<u64>)> {
        let end = offset.saturating_add(len);
        let first = self.pieces.partition_point(|piece| piece.start + piece.bytes <= offset);
        let pieces = self.pieces.get(first..).unwrap_or_default().iter().take_while(move |piece| piece.start < end);
        pieces.map(move |&piece| (piece, offset.max(piece.start)..end.min(piece.start + piece.bytes)))
    }
}

impl ByteSource for SplitFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(SourceError::OutOfRange { offset, len, available: self.len });
        }
        buf.fill(0);
        if let Some(rest) = usize::try_from(offset).ok().and_then(|offset| self.header.get(offset..)) {
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
        }
        for (piece, range) in self.within(offset, len) {
            let target = &mut buf[(range.start - offset) as usize..(range.end - offset) as usize];
            self.parts[piece.part].read_at(piece.offset + (range.start - piece.start), target)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model_core::fixtures::TinyLlama;

    use super::*;

    #[test]
    fn names_of_parts_are_recognised() {
        assert_eq!(
            part_names("m-q4-00002-of-00002.gguf").unwrap(),
            ["m-q4-00001-of-00002.gguf", "m-q4-00002-of-00002.gguf"]
        );
        assert_eq!(merged_name("m-q4-00002-of-00002.gguf"), "m-q4.gguf");
        for name in ["m.gguf", "m-1-of-2.gguf", "m-00001-of-00002.bin", "00001-of-00002.gguf", "m-0000a-of-00002.gguf"]
        {
            assert_eq!((part_names(name), merged_name(name)), (None, name.to_owned()));
        }
    }

    #[test]
    fn the_parts_read_as_the_file_that_was_split() {
        let model = TinyLlama { layers: 3, alignment: Some(64), ..TinyLlama::default() };
        let (whole, folder) = (model.build(), tempfile::tempdir().unwrap());
        for (number, part) in (1..).zip(model.builder().split(3)) {
            std::fs::write(folder.path().join(format!("m-{number:05}-of-00003.gguf")), part).unwrap();
        }
        for number in 1..=3 {
            let path = folder.path().join(format!("m-{number:05}-of-00003.gguf"));
            let file = SplitFile::open(&path).unwrap().unwrap();
            let mut all = vec![1; whole.len()];
            file.read_at(0, &mut all).unwrap();
            assert!(all == whole, "the bytes differ");
            for (offset, len) in [(0, 0), (1, 4000), (whole.len() - 700, 700), (9_000, 9_000), (whole.len(), 0)] {
                let mut some = vec![1; len];
                file.read_at(offset as u64, &mut some).unwrap();
                assert!(some == whole[offset..offset + len], "{len} bytes at {offset} differ");
            }
            let beyond = file.read_at(whole.len() as u64, &mut [0]);
            assert!(matches!(beyond, Err(SourceError::OutOfRange { .. })));
        }
    }
}

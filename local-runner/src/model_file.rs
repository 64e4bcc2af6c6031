//! A model file as a `ByteSource`: mapped, or read into the heap; several files where the model is split.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use model_core::gguf::split::{PartOf, SplitError};
use model_core::source::{ByteSource, SourceError};

use crate::progress::Progress;
use crate::split_file::SplitFile;

/// How the file gets into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LoadMode {
    /// Map the file; pages are read as they are used.
    Mmap,
    /// Read the whole file first.
    Heap,
}

/// A file that could not be opened as a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// The system refused an operation.
    #[error("cannot {operation} {}: {reason}; check the path and its permissions", path.display())]
    Io {
        /// What was tried: open, read, map or measure.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Something else than a regular file.
    #[error("{} is not a regular file; give the path of a .gguf file", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// A part of a split model is not beside the others.
    #[error("part {} of {} of the model is missing: {}; fetch it to the same folder", part.number, part.count, path.display())]
    MissingPart {
        /// Where it should be.
        path: PathBuf,
        /// Which part it is.
        part: PartOf,
    },
    /// A part of a split model is no model file.
    #[error("cannot read {}: {reason}", path.display())]
    Header {
        /// The part.
        path: PathBuf,
        /// What is wrong with it.
        reason: model_core::gguf::Error,
    },
    /// The parts of a split model are not those of one model.
    #[error("the parts of {} do not fit together: {reason}", path.display())]
    Parts {
        /// The part that was asked for.
        path: PathBuf,
        /// What is wrong.
        reason: SplitError,
    },
    /// An empty file.
    #[error("{} is empty; fetch or copy the model again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A model, in one file or several.
#[derive(Debug)]
pub enum ModelFile {
    /// One file.
    Whole(FileBytes),
    /// The parts of a split model, which read as the one file that they are together.
    Split(SplitFile),
}

impl ModelFile {
    /// Opens `path` the way `mode` says, with the other parts if it is one of a split model.
    ///
    /// # Errors
    /// [`ModelFileError`] if it is no readable, regular, non-empty file, or parts are missing or do not fit together.
    pub fn open(path: &Path, mode: LoadMode) -> Result<Self, ModelFileError> {
        Ok(match SplitFile::open(path, mode)? {
            Some(split) => Self::Split(split),
            None => Self::Whole(FileBytes::open(path, mode)?),
        })
    }

    fn source(&self) -> &(dyn ByteSource + Sync) {
        match self {
            Self::Whole(file) => file,
            Self::Split(split) => split,
        }
    }
}

impl ByteSource for ModelFile {
    fn len(&self) -> u64 {
        self.source().len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.source().read_at(offset, buf)
    }

    fn as_slice(&self) -> Option<&[u8]> {
        self.source().as_slice()
    }

    fn release(&self, offset: u64, len: usize) {
        self.source().release(offset, len);
    }
}

/// The bytes of a file.
#[derive(Debug)]
pub enum FileBytes {
    /// A read-only map of the file.
    Mapped(Mmap),
    /// The file's bytes.
    Heap(Vec<u8>),
}

impl FileBytes {
    /// Opens `path` the way `mode` says.
    ///
    /// # Errors
    /// [`ModelFileError`] if it is no readable, regular, non-empty file.
    pub fn open(path: &Path, mode: LoadMode) -> Result<Self, ModelFileError> {
        let failed = |operation| move |reason| ModelFileError::Io { operation, path: path.to_owned(), reason };
        let file = File::open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("measure"))?;
        if !metadata.is_file() {
            return Err(ModelFileError::NotAFile { path: path.to_owned() });
        }
        if metadata.len() == 0 {
            return Err(ModelFileError::Empty { path: path.to_owned() });
        }
        match mode {
            LoadMode::Mmap => map(&file).map(Self::Mapped).map_err(failed("map")),
            LoadMode::Heap => read(file, metadata.len()).map(Self::Heap).map_err(failed("read")),
        }
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Heap(bytes) => bytes,
        }
    }
}

fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only, and only ever read as bytes. Should another process change the
    // file, the bytes change under us: every reader checks what it reads and none keeps pointers derived from
    // file contents. Should another process truncate the file, the system ends ours with SIGBUS, which loses
    // nothing; `--load heap` avoids even that.
    unsafe { Mmap::map(file) }
}

fn read(mut file: File, expected: u64) -> std::io::Result<Vec<u8>> {
    const BLOCK: u64 = 8 << 20;
    let progress = Progress::bytes("reading", expected);
    let mut bytes = Vec::new();
    let capacity = usize::try_from(expected).map_err(std::io::Error::other)?;
    bytes.try_reserve_exact(capacity).map_err(std::io::Error::other)?;
    while file.by_ref().take(BLOCK).read_to_end(&mut bytes)? > 0 {
        progress.set(bytes.len() as u64);
    }
    Ok(bytes)
}

impl ByteSource for FileBytes {
    fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.bytes().read_at(offset, buf)
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self.bytes())
    }

    fn release(&self, offset: u64, len: usize) {
        #[cfg(unix)]
        if let (Self::Mapped(map), Ok(offset)) = (self, usize::try_from(offset))
            && map.get(offset..).is_some_and(|rest| len <= rest.len())
        {
            // SAFETY: the range lies inside the map, which is private, read-only and backed by the file: pages that are
            // dropped come back with the same bytes when they are read again.
            let dropped = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
            // Advice that the system does not take costs memory and nothing else.
            let _ = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Pages of the mapping that count as this process's memory, by the system's own account.
    #[cfg(target_os = "linux")]
    fn resident_kib(file: &FileBytes) -> usize {
        let address = format!("{:x}-", file.bytes().as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mapping = maps.lines().skip_while(|line| !line.starts_with(&address));
        let resident = mapping.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn released_bytes_take_no_memory_and_can_be_read_again() {
        let bytes: Vec<u8> = (0..1usize << 20).map(|i| (i >> 12) as u8 ^ i as u8).collect();
        let file = FileBytes::open(file_with(&bytes).path(), LoadMode::Mmap).unwrap();
        assert_eq!(file.bytes(), bytes);
        assert!(resident_kib(&file) >= 1024);
        file.release(0, bytes.len());
        assert_eq!(resident_kib(&file), 0);
        assert_eq!(file.bytes(), bytes);
    }

    #[test]
    fn both_modes_serve_the_same_bytes_and_refuse_the_same_ranges() {
        let file = file_with(b"icllama model");
        for mode in [LoadMode::Mmap, LoadMode::Heap] {
            let source = ModelFile::open(file.path(), mode).unwrap();
            let mut buf = [0; 5];
            source.read_at(8, &mut buf).unwrap();
            assert_eq!((&buf, ByteSource::len(&source)), (b"model", 13));
            assert_eq!(source.as_slice(), Some(&b"icllama model"[..]));
            assert!(matches!(source.read_at(9, &mut buf), Err(SourceError::OutOfRange { available: 13, .. })));
        }
    }

    #[test]
    fn refuses_what_is_no_model_file_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| ModelFile::open(path, LoadMode::Mmap).unwrap_err();
        assert!(matches!(open(folder.path()), ModelFileError::NotAFile { .. }));
        assert!(matches!(open(&folder.path().join("absent.gguf")), ModelFileError::Io { operation: "open", .. }));
        assert!(matches!(open(file_with(b"").path()), ModelFileError::Empty { .. }));
    }
}

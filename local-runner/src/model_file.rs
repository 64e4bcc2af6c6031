//! A model file as a `ByteSource`; several files where the model is split.
//!
//! Bytes are read where and when they are needed, and never mapped: of a file that is truncated while it is mapped, touching
//! a page ends the program (SIGBUS). Each weight is read once, packed, and not needed again, so a map would save nothing.

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use model_core::gguf::split::{PartOf, SplitError};
use model_core::source::{ByteSource, SourceError};

use crate::split_file::SplitFile;

/// A file that could not be opened or read as a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// The system refused an operation.
    #[error("cannot {operation} {}: {reason}; check the path and its permissions", path.display())]
    Io {
        /// What was tried: open, read or measure.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
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
    /// Somebody writes to the file, or has cut it off.
    #[error("{} was changed while it was read; wait until it is written, then try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
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
    /// Opens `path`, with the other parts if it is one of a split model.
    ///
    /// # Errors
    /// [`ModelFileError`] if it is no readable, regular, non-empty file, or parts are missing or do not fit together.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        Ok(match SplitFile::open(path)? {
            Some(split) => Self::Split(split),
            None => Self::Whole(FileBytes::open(path)?),
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
}

/// The bytes of a file, as long as it does not change.
#[derive(Debug)]
pub struct FileBytes {
    file: File,
    path: PathBuf,
    state: State,
}

/// What of a file changes when it is written to. A file that takes its place under its name is another: the one that was
/// opened stays whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl FileBytes {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`ModelFileError`] if it is no readable, regular, non-empty file.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let failed = |operation| move |reason| ModelFileError::Io { operation, path: path.to_owned(), reason };
        let file = File::open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("measure"))?;
        if !metadata.is_file() {
            return Err(ModelFileError::NotAFile { path: path.to_owned() });
        }
        if metadata.len() == 0 {
            return Err(ModelFileError::Empty { path: path.to_owned() });
        }
        Ok(Self { file, path: path.to_owned(), state: State::of(&metadata) })
    }

    /// Reads, and makes sure that what was read is of the file that was opened.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), ModelFileError> {
        let failed = |operation| move |reason| ModelFileError::Io { operation, path: self.path.clone(), reason };
        let changed = || ModelFileError::Changed { path: self.path.clone() };
        self.file.read_exact_at(buf, offset).map_err(|reason| match reason.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => failed("read")(reason),
        })?;
        // Who writes changes the time before the bytes, so that bytes are the opened file's if it is the same after them.
        let now = State::of(&self.file.metadata().map_err(failed("measure"))?);
        if now == self.state { Ok(()) } else { Err(changed()) }
    }
}

impl ByteSource for FileBytes {
    fn len(&self) -> u64 {
        self.state.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let (len, available) = (buf.len() as u64, self.state.len);
        if offset.checked_add(len).is_none_or(|end| end > available) {
            return Err(SourceError::OutOfRange { offset, len, available });
        }
        let failed = |reason: &dyn Display| SourceError::Io { offset, len, reason: reason.to_string() };
        self.read(offset, buf).map_err(|reason| failed(&reason))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use model_core::fixtures::TinyLlama;
    use model_core::model::{LoadOptions, Model};

    use super::*;

    fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn serves_bytes_and_refuses_ranges_beyond_them() {
        let file = file_with(b"icllama model");
        let source = ModelFile::open(file.path()).unwrap();
        let mut buf = [0; 5];
        source.read_at(8, &mut buf).unwrap();
        assert_eq!((&buf, ByteSource::len(&source)), (b"model", 13));
        assert!(matches!(source.read_at(9, &mut buf), Err(SourceError::OutOfRange { available: 13, .. })));
        assert!(matches!(source.read_at(u64::MAX, &mut buf), Err(SourceError::OutOfRange { .. })));
    }

    #[test]
    fn refuses_what_is_no_model_file_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| ModelFile::open(path).unwrap_err();
        assert!(matches!(open(folder.path()), ModelFileError::NotAFile { .. }));
        assert!(matches!(open(&folder.path().join("absent.gguf")), ModelFileError::Io { operation: "open", .. }));
        assert!(matches!(open(file_with(b"").path()), ModelFileError::Empty { .. }));
    }

    #[test]
    fn a_file_that_is_cut_off_or_written_to_while_it_is_read_is_an_error_with_its_name() {
        let whole = TinyLlama::default().build();
        let half = whole.len() as u64 / 2;
        type Change = fn(&Path, u64);
        let changes: [(&str, Change); 4] = [
            ("truncated", |path, half| OpenOptions::new().write(true).open(path).unwrap().set_len(half).unwrap()),
            ("emptied", |path, _| drop(File::create(path).unwrap())),
            ("longer", |path, _| OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap()),
            ("overwritten", |path, half| {
                OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"xx", half).unwrap();
            }),
        ];
        for (name, change) in changes {
            let file = file_with(&whole);
            let source = ModelFile::open(file.path()).unwrap();
            Model::load(&source, &LoadOptions::default()).unwrap();
            // Times of files have the resolution of the system's ticks.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(file.path(), half);
            let told = Model::load(&source, &LoadOptions::default()).unwrap_err();
            let told = format!("{:#}", anyhow::Error::from(told));
            let expected = format!("{} was changed while it was read", file.path().display());
            assert!(told.contains(&expected), "{name}: {told}");
        }
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_changes_nothing() {
        let file = file_with(b"icllama model");
        let source = ModelFile::open(file.path()).unwrap();
        file_with(b"something else").persist(file.path()).unwrap();
        let mut buf = [0; 13];
        source.read_at(0, &mut buf).unwrap();
        assert_eq!(&buf, b"icllama model");
    }
}

//! A file that appears whole or not at all: written under another name beside its place, and moved there at the end. Knows
//! nothing of what is in it.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::output::byte_size;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum NewFileError {
    /// The medium has no room.
    #[error(
        "no space is left for {}: {} of its {} are missing; free as much, or write elsewhere",
        path.display(), byte_size(*missing), byte_size(*bytes)
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What it takes.
        bytes: u64,
        /// What of it could not be written.
        missing: u64,
    },
    /// The system refused an operation.
    #[error("cannot write {}: {reason}; check the folder and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// A file on its way. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    /// What it will take when it is whole.
    bytes: u64,
    /// What of it is written.
    written: u64,
    file: NamedTempFile,
}

impl NewFile {
    /// Begins a file of `bytes` bytes that is to be at `path`, in place of one that may be there.
    ///
    /// # Errors
    /// If the folder is not there or refuses new files.
    pub fn create(path: &Path, bytes: u64) -> Result<Self, NewFileError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".icllama-")
            .permissions(Permissions::from_mode(0o666)) // less what the umask takes, as for any new file
            .tempfile_in(folder)
            .map_err(|reason| failure(path, (bytes, 0), reason))?;
        Ok(Self { path: path.to_owned(), bytes, written: 0, file })
    }

    /// Writes a whole file, in place of one that may be there.
    ///
    /// # Errors
    /// As [`NewFile::create`] and [`NewFile::finish`], or if there is no room.
    pub fn write_all_of(path: &Path, bytes: &[u8]) -> Result<(), NewFileError> {
        let mut file = Self::create(path, bytes.len() as u64)?;
        file.write_all(bytes).map_err(|reason| file.failure(reason))?;
        file.finish()
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// If the system cannot keep its bytes or move it.
    pub fn finish(self) -> Result<(), NewFileError> {
        let Self { path, bytes, written, file } = self;
        file.as_file().sync_all().map_err(|reason| failure(&path, (bytes, written), reason))?;
        file.persist(&path).map_err(|refused| failure(&path, (bytes, written), refused.error))?;
        Ok(())
    }

    /// What a failure to write means for this file.
    pub fn failure(&self, reason: io::Error) -> NewFileError {
        failure(&self.path, (self.bytes, self.written), reason)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn failure(path: &Path, (bytes, written): (u64, u64), reason: io::Error) -> NewFileError {
    let path = path.to_owned();
    match reason.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            NewFileError::DiskFull { path, bytes, missing: bytes.saturating_sub(written) }
        }
        _ => NewFileError::Io { path, reason },
    }
}

/// Whether both paths lead to one file that is there, by whatever names.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn appears_whole_in_place_of_another_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "before").unwrap();
        for finished in [false, true] {
            let mut file = NewFile::create(&path, 5).unwrap();
            file.write_all(b"after").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"before");
            if finished {
                file.finish().unwrap();
            } else {
                drop(file);
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        assert_eq!(fs::read(&path).unwrap(), b"after");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        assert_eq!(path.metadata().unwrap().mode(), plain.metadata().unwrap().mode());
    }

    #[test]
    fn failures_say_what_is_the_matter() {
        let folder = tempfile::tempdir().unwrap();
        let absent = NewFile::create(&folder.path().join("no/out"), 1).unwrap_err();
        assert!(matches!(absent, NewFileError::Io { .. }));
        let mut file = NewFile::create(&folder.path().join("out"), 3 << 20).unwrap();
        file.write_all(&[0; 1 << 20]).unwrap();
        let full = file.failure(io::ErrorKind::StorageFull.into()).to_string();
        assert!(full.contains("/out: 2.0 MiB of its 3.0 MiB are missing"), "{full}");
    }

    #[test]
    fn one_file_has_many_names() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, hard, other] = ["file", "link", "hard", "other"].map(|name| folder.path().join(name));
        fs::write(&file, "x").unwrap();
        fs::write(&other, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::hard_link(&file, &hard).unwrap();
        assert!(is_same_file(&file, &link) && is_same_file(&hard, &folder.path().join("./file")));
        assert!(!is_same_file(&file, &other) && !is_same_file(&file, &folder.path().join("absent")));
    }
}

//! Where bytes of a model file come from: a file, a buffer, the canister's stable memory.
//! Knows nothing of what the bytes mean.

/// A read that the source could not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The range does not lie inside the source.
    #[error(
        "read of {len} bytes at offset {offset} goes beyond the {available} bytes of the source; the file is truncated"
    )]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        len: u64,
        /// Length of the source in bytes.
        available: u64,
    },
    /// The medium behind the source failed.
    #[error("reading {len} bytes at offset {offset} failed: {reason}")]
    Io {
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        len: u64,
        /// What the medium said.
        reason: String,
    },
}

/// Random access to the bytes of a model file.
pub trait ByteSource {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`SourceError::OutOfRange`] unless the whole range lies inside the source.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError>;

    /// The whole source as one slice, where it lies in memory anyway.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }
}

impl ByteSource for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(buf.len())?));
        let bytes = bytes.ok_or(SourceError::OutOfRange {
            offset,
            len: buf.len() as u64,
            available: <[u8]>::len(self) as u64,
        })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> u64 {
        ByteSource::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.as_slice().read_at(offset, buf)
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_reads_beyond_the_end_and_overflowing_ranges() {
        let bytes = vec![1u8, 2, 3];
        let mut buf = [0; 2];
        bytes.read_at(1, &mut buf).unwrap();
        assert_eq!(buf, [2, 3]);
        assert!(matches!(bytes.read_at(2, &mut buf), Err(SourceError::OutOfRange { offset: 2, len: 2, available: 3 })));
        assert!(bytes.read_at(u64::MAX, &mut buf).is_err());
    }
}

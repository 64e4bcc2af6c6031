//! Hashes of files, and of bytes as people see them. Knows nothing of what the files are.

use std::fmt::Write as _;

use anyhow::Result;
use model_core::source::ByteSource;
use sha2::{Digest, Sha256};

/// Bytes read at a time for the hash of a file.
const HASH_CHUNK_BYTES: u64 = 8 << 20;

/// The SHA-256 of all bytes; `passed` hears how many have been read.
///
/// # Errors
/// If the source cannot be read.
pub fn sha256(source: &dyn ByteSource, mut passed: impl FnMut(u64)) -> Result<Vec<u8>> {
    let mut hasher = Sha256::new();
    for_chunks(source, HASH_CHUNK_BYTES, &mut |offset, chunk| {
        hasher.update(chunk);
        passed(offset + chunk.len() as u64);
        Ok(())
    })?;
    Ok(hasher.finalize().to_vec())
}

/// Gives all bytes to `take`, at most `chunk_bytes` at a time, with their offsets.
///
/// # Errors
/// If the source cannot be read, or `take` fails.
pub fn for_chunks(
    source: &dyn ByteSource,
    chunk_bytes: u64,
    take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut chunk = Vec::new();
    for offset in (0..source.len()).step_by(usize::try_from(chunk_bytes.max(1))?) {
        let len = chunk_bytes.max(1).min(source.len() - offset);
        chunk.resize(usize::try_from(len)?, 0);
        source.read_at(offset, &mut chunk)?;
        take(offset, &chunk)?;
    }
    Ok(())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

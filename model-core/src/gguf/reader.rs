//! A bounded little-endian cursor over a [`ByteSource`]: reads ahead in chunks, and never allocates for more
//! bytes than the header can still have. Knows the primitive encodings, not what they mean.

use super::{Error, MAX_HEADER_BYTES};
use crate::source::ByteSource;

/// Read ahead; one stable-memory page on the IC, a few hundred reads for the largest vocabularies.
const CHUNK_BYTES: u64 = 64 * 1024;

pub(super) struct Reader<'a> {
    source: &'a dyn ByteSource,
    source_len: u64,
    /// Where the header has to end at the latest.
    limit: u64,
    chunk: Vec<u8>,
    /// Offset of `chunk` in the file.
    chunk_start: u64,
    /// Bytes of `chunk` already read.
    used: usize,
}

impl<'a> Reader<'a> {
    pub fn new(source: &'a dyn ByteSource) -> Self {
        let source_len = source.len();
        let limit = source_len.min(MAX_HEADER_BYTES);
        Self { source, source_len, limit, chunk: Vec::new(), chunk_start: 0, used: 0 }
    }

    /// Offset of the next byte in the file.
    pub fn position(&self) -> u64 {
        self.chunk_start + self.used as u64
    }

    /// Bytes that the header can still have.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.position())
    }

    /// Fails unless `needed` more bytes are there.
    fn need(&self, what: &'static str, needed: u64) -> Result<(), Error> {
        if needed <= self.left() {
            return Ok(());
        }
        let offset = self.position();
        let left = self.source_len.saturating_sub(offset);
        Err(match needed <= left {
            true => Error::HeaderTooLarge { what, offset, limit: MAX_HEADER_BYTES },
            false => Error::Truncated { what, offset, needed, left },
        })
    }

    /// The bytes read ahead.
    fn buffered(&self) -> &[u8] {
        self.chunk.get(self.used..).unwrap_or_default()
    }

    /// Replaces the used-up chunk by the next one, which ends within the limit.
    fn refill(&mut self) -> Result<(), Error> {
        let start = self.position();
        let len = CHUNK_BYTES.min(self.left());
        self.chunk.resize(len as usize, 0);
        self.source.read_at(start, &mut self.chunk)?;
        self.chunk_start = start;
        self.used = 0;
        Ok(())
    }

    /// Appends the next `len` bytes to `out`.
    pub fn append(&mut self, what: &'static str, len: u64, out: &mut Vec<u8>) -> Result<(), Error> {
        self.need(what, len)?;
        let mut missing = len as usize; // fits: at most MAX_HEADER_BYTES
        loop {
            let ready = self.buffered();
            let ready = ready.get(..missing).unwrap_or(ready);
            out.extend_from_slice(ready);
            missing -= ready.len();
            self.used += ready.len();
            if missing == 0 {
                return Ok(());
            }
            self.refill()?;
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        if let Some(bytes) = self.buffered().first_chunk::<N>() {
            let bytes = *bytes;
            self.used += N;
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(N);
        self.append(what, N as u64, &mut bytes)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// `count` numbers of `N` bytes each; the caller has compared the count with [`Self::left`].
    pub fn numbers<T, const N: usize>(&mut self, count: u64, from: fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
        const WHAT: &str = "the elements of an array";
        self.need(WHAT, count.saturating_mul(N as u64))?;
        let mut missing = count as usize;
        let mut out = Vec::with_capacity(missing);
        while missing > 0 {
            let (ready, _) = self.buffered().as_chunks::<N>();
            let ready = ready.get(..missing).unwrap_or(ready);
            out.extend(ready.iter().map(|bytes| from(*bytes)));
            let taken = ready.len();
            self.used += taken * N;
            missing -= taken;
            if missing > 0 {
                out.push(from(self.array(WHAT)?)); // the one across two chunks
                missing -= 1;
            }
        }
        Ok(out)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Error> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A name (key or tensor name): length-prefixed UTF-8 of at most `limit` bytes.
    pub fn name(&mut self, what: &'static str, limit: u64) -> Result<String, Error> {
        let offset = self.position();
        let len = self.u64(what)?;
        if len > limit {
            return Err(Error::NameTooLong { what, offset, len, limit });
        }
        let mut bytes = Vec::new();
        self.append(what, len, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| Error::NameNotUtf8 { what, offset })
    }

    /// A length-prefixed string, appended to `out`.
    pub fn string(&mut self, what: &'static str, out: &mut Vec<u8>) -> Result<(), Error> {
        let len = self.u64(what)?;
        self.append(what, len, out)
    }
}

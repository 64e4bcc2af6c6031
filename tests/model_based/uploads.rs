//! The model's files: an upload is a list of bytes of which some have arrived, and a model is loaded as a whole.

use canister::api::*;

use super::model::{Model, Reply};
use super::{File, files};

/// An upload that goes on.
pub struct Upload {
    pub id: u64,
    pub file: usize,
    pub arrived: Vec<Option<u8>>,
    pub mismatch: bool,
}

fn stored(file: usize) -> StoredModel {
    let File { name, bytes, sha256, .. } = &files()[file];
    StoredModel { name: (*name).into(), bytes: bytes.len() as u64, sha256: sha256.clone() }
}

impl Model {
    /// What is to be loaded and is not.
    pub fn target(&self) -> Option<usize> {
        let wanted = self.candidate.or(self.current)?;
        (self.candidate.is_some() || self.serving != Some(wanted)).then_some(wanted)
    }

    pub fn loading(&self) -> Error {
        let total_bytes = self.target().map_or(0, |file| stored(file).bytes);
        Error::ModelLoading { done_bytes: 0, total_bytes }
    }

    pub fn announce(&mut self, file: usize) -> Reply<UploadBeginOk> {
        let max_chunk_bytes = MAX_CHUNK_BYTES;
        if let Some(upload) = &self.upload {
            let StoredModel { name, bytes: total_bytes, sha256 } = stored(upload.file);
            if upload.file == file {
                return Ok(UploadBeginOk { upload_id: upload.id, received_bytes: upload.received(), max_chunk_bytes });
            }
            return Err(Error::UploadInProgress { upload_id: upload.id, name, total_bytes, sha256 });
        }
        if self.current.is_some() && self.candidate.is_some() {
            return Err(self.loading());
        }
        let upload_id = self.next_upload;
        self.next_upload += 1;
        let arrived = vec![None; files()[file].bytes.len()];
        self.upload = Some(Upload { id: upload_id, file, arrived, mismatch: false });
        Ok(UploadBeginOk { upload_id, received_bytes: 0, max_chunk_bytes })
    }

    fn upload(&mut self, upload_id: u64) -> Reply<&mut Upload> {
        self.upload.as_mut().filter(|upload| upload.id == upload_id).ok_or(Error::UploadNotFound { upload_id })
    }

    pub fn chunk(&mut self, upload_id: u64, offset: usize, bytes: &[u8]) -> Reply<UploadChunkOk> {
        let upload = self.upload(upload_id)?;
        for (at, byte) in (offset..).zip(bytes) {
            upload.arrived[at] = Some(*byte);
        }
        upload.mismatch = false;
        Ok(UploadChunkOk { received_bytes: upload.received(), total_bytes: upload.arrived.len() as u64 })
    }

    pub fn commit(&mut self, upload_id: u64) -> Reply<UploadCommitOk> {
        if self.last_committed == Some(upload_id) {
            let total_bytes = self.candidate.or(self.current).map_or(0, |file| stored(file).bytes);
            return Ok(UploadCommitOk { hashed_bytes: total_bytes, total_bytes, done: true, instructions: 0 });
        }
        let upload = self.upload(upload_id)?;
        let missing = upload.missing();
        if let Some(first_missing) = missing.first().copied() {
            let missing_bytes = missing.iter().map(|gap| gap.bytes).sum();
            return Err(Error::UploadIncomplete { missing_bytes, first_missing });
        }
        let bytes: Vec<u8> = upload.arrived.iter().flatten().copied().collect();
        let (expected, actual) = (stored(upload.file).sha256, super::sha256(&bytes));
        if actual != expected {
            upload.mismatch = true;
            return Err(Error::HashMismatch { expected, actual });
        }
        let total_bytes = bytes.len() as u64;
        self.candidate = self.upload.take().map(|upload| upload.file);
        self.last_committed = Some(upload_id);
        Ok(UploadCommitOk { hashed_bytes: total_bytes, total_bytes, done: true, instructions: 0 })
    }

    pub fn abort(&mut self, upload_id: u64) -> Reply<()> {
        self.upload(upload_id)?;
        self.upload = None;
        Ok(())
    }

    /// One step, which is all with a full budget.
    pub fn load(&mut self) -> Reply<bool> {
        let Some(file) = self.target() else {
            return if self.serving.is_some() { Ok(true) } else { Err(Error::ModelMissing) };
        };
        if files()[file].native.is_none() {
            (self.candidate, self.rejected) = (None, Some(file));
            return Err(Error::ModelRejected { message: String::new() });
        }
        if self.candidate.take().is_some() {
            self.current = Some(file);
        }
        if self.serving.replace(file) != Some(file) {
            self.sessions.iter_mut().for_each(|kept| kept.session.drop_cache());
        }
        Ok(true)
    }

    pub fn load_state(&self) -> LoadState {
        match self.target() {
            Some(file) => {
                let StoredModel { name, bytes: total_bytes, .. } = stored(file);
                LoadState::Loading { name, done_bytes: 0, total_bytes }
            }
            None if self.serving.is_some() => LoadState::Ready,
            None => LoadState::Empty,
        }
    }
}

impl Upload {
    pub fn received(&self) -> u64 {
        self.arrived.iter().flatten().count() as u64
    }

    /// Gaps, byte by byte.
    pub fn missing(&self) -> Vec<ByteRange> {
        let mut gaps: Vec<ByteRange> = Vec::new();
        for at in (0..self.arrived.len()).filter(|at| self.arrived[*at].is_none()) {
            match gaps.last_mut() {
                Some(gap) if gap.offset + gap.bytes == at as u64 => gap.bytes += 1,
                _ => gaps.push(ByteRange { offset: at as u64, bytes: 1 }),
            }
        }
        gaps
    }

    pub fn status(&self) -> UploadStatus {
        let StoredModel { name, bytes: total_bytes, sha256 } = stored(self.file);
        UploadStatus {
            upload_id: self.id,
            name,
            total_bytes,
            sha256,
            received_bytes: self.received(),
            state: if self.mismatch { UploadState::HashMismatch } else { UploadState::Receiving },
            missing: self.missing(),
            missing_next: None,
        }
    }
}

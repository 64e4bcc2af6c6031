//! The `upload_*` methods: access, ids and budgets around [`crate::upload::Uploader`].

use ic_stable_structures::Memory;

use super::Service;
use crate::api::{
    Error, Role, UploadBeginArg, UploadBeginOk, UploadChunk, UploadChunkOk, UploadCommitArg, UploadCommitOk,
    UploadIdArg, UploadStatus, UploadStatusArg,
};
use crate::budget::CallBudget;
use crate::env::Env;

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Announces a model file, or finds the upload of it that was interrupted.
    ///
    /// # Errors
    /// As [`crate::upload::Uploader::begin`]; [`Error::ModelLoading`] while the last upload is being loaded,
    /// because until then both slots are needed.
    pub fn upload_begin(&mut self, arg: UploadBeginArg) -> Result<UploadBeginOk, Error> {
        self.require(Role::Operator)?;
        let loading = self.models.loading_error(self.directory.get());
        self.uploader.begin(&mut self.directory, arg, || self.header.take_upload_id(), loading)
    }

    /// Stores some bytes of the file.
    ///
    /// # Errors
    /// As [`crate::upload::Uploader::chunk`].
    pub fn upload_chunk(&mut self, chunk: UploadChunk<'_>) -> Result<UploadChunkOk, Error> {
        self.require(Role::Operator)?;
        self.uploader.chunk(&mut self.directory, chunk)
    }

    /// The present upload and its gaps.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`] if there is none.
    pub fn upload_status(&self, arg: UploadStatusArg) -> Result<UploadStatus, Error> {
        let status = self.uploader.status(self.directory.get(), arg);
        status.ok_or(Error::UploadNotFound { upload_id: self.directory.get().last_committed.unwrap_or(0) })
    }

    /// Declares the upload complete and verifies as much as one call allows; the rest goes on by itself or
    /// by further calls.
    ///
    /// # Errors
    /// As [`crate::upload::Uploader::commit`] and [`crate::upload::Uploader::verify_step`].
    pub fn upload_commit(&mut self, arg: UploadCommitArg) -> Result<UploadCommitOk, Error> {
        self.require(Role::Operator)?;
        if self.directory.get().last_committed == Some(arg.upload_id) {
            return Ok(self.already_committed());
        }
        self.uploader.commit(&mut self.directory, arg.upload_id)?;
        let mut budget = CallBudget::new(&self.env, self.config.max_instructions, arg.max_instructions);
        let verified = self.uploader.verify_step(&mut self.directory, &mut budget)?;
        Ok(UploadCommitOk {
            hashed_bytes: verified.hashed_bytes,
            total_bytes: verified.total_bytes,
            done: verified.done,
            instructions: budget.used(),
        })
    }

    /// Gives the upload up.
    ///
    /// # Errors
    /// [`Error::UploadNotFound`].
    pub fn upload_abort(&mut self, arg: UploadIdArg) -> Result<(), Error> {
        self.require(Role::Operator)?;
        self.uploader.abort(&mut self.directory, arg.upload_id)
    }

    fn already_committed(&self) -> UploadCommitOk {
        let directory = self.directory.get();
        let placed = directory.candidate.as_ref().or(directory.current.as_ref());
        let total_bytes = placed.map_or(0, |placed| placed.file.bytes);
        UploadCommitOk { hashed_bytes: total_bytes, total_bytes, done: true, instructions: 0 }
    }

    pub(super) fn verify_in_background(&mut self) {
        let mut budget = CallBudget::new(&self.env, self.config.max_instructions, None);
        if let Err(error) = self.uploader.verify_step(&mut self.directory, &mut budget) {
            self.env.log(&format!("verifying the upload: {error}"));
        }
    }
}

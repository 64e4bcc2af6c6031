//! The `model_*` methods: access and budgets around [`crate::load::Models`].

use ic_stable_structures::Memory;

use super::Service;
use crate::api::{Error, ModelLoadStepArg, ModelLoadStepOk, ModelStatus, Role, UploadStatusArg};
use crate::budget::CallBudget;
use crate::env::Env;
use crate::load::{Loaded, Serving};

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// What answers, what is stored, what is on its way.
    pub fn model_status(&self) -> ModelStatus {
        let directory = self.directory.get();
        let no_gaps = UploadStatusArg { from: None, limit: Some(0) };
        ModelStatus {
            serving: self.models.info(&self.config),
            stored: directory.current.as_ref().map(|placed| placed.file.clone()),
            candidate: directory.candidate.as_ref().map(|placed| placed.file.clone()),
            rejected: directory.rejected.clone(),
            load: self.models.state(directory),
            upload: self.uploader.status(directory, no_gaps),
            heap_bytes: self.env.heap_bytes(),
            stable_bytes: self.stable.size() * 65536,
        }
    }

    /// Loads as much of the stored model as one call allows; a file that failed before is tried again.
    ///
    /// # Errors
    /// As [`crate::load::Models::step`].
    pub fn model_load_step(&mut self, arg: ModelLoadStepArg) -> Result<ModelLoadStepOk, Error> {
        self.require(Role::Operator)?;
        self.models.retry();
        let start = self.env.instructions();
        let loaded = self.load(arg.max_instructions)?;
        Ok(ModelLoadStepOk {
            done_bytes: loaded.done_bytes,
            total_bytes: loaded.total_bytes,
            ready: loaded.ready,
            instructions: self.env.instructions().saturating_sub(start),
        })
    }

    pub(super) fn load_in_background(&mut self) {
        match self.load(None) {
            Ok(loaded) if loaded.ready => self.env.log("the model is loaded"),
            Ok(_) => {}
            Err(error) => self.env.log(&format!("loading the model: {error}")),
        }
    }

    /// Loads on. The caches of sessions go with the model that they belong to.
    fn load(&mut self, max_instructions: Option<u64>) -> Result<Loaded, Error> {
        let before = self.models.serving().map(Serving::identity);
        let budget = CallBudget::new(&self.env, self.config.max_instructions, max_instructions);
        let loaded = self.models.step(&mut self.directory, &self.config, budget);
        if self.models.serving().map(Serving::identity) != before {
            self.sessions.forget_live();
        }
        loaded
    }
}

//! The loaded model: stable region to packed weights in bounded steps, and which file that is. At most one
//! packed model is in the heap, since two may not fit: the old one is dropped when the weights of the new one
//! begin to be packed, which is after its header, tensors and tokenizer were found good. If packing fails
//! all the same, the old file is loaded again. Knows nothing of callers and sessions.

use ic_stable_structures::Memory;
use model_core::Error as LoadError;
use model_core::budget::{Budget, CountDown};
use model_core::chat::ChatTemplate;
use model_core::model::{LoadOptions, LoadProgress, Loader, Model, Place};
use model_core::pack::{self, Precision};

use crate::api::{ActivationBits, Config, Error, LoadState, ModelInfo, RejectedModel, Residency};
use crate::budget::CallBudget;
use crate::directory::{Directory, DirectoryCell, Placed};
use crate::env::Env;
use crate::memory::{Memories, Region, RegionSource};

/// Heap besides weights and caches: the program, the tokenizer, buffers of a batch.
const WORKING_BYTES: u64 = 128 << 20;

/// How the settings ask for a model to be loaded.
fn load_options(config: &Config) -> LoadOptions {
    let residency = match config.residency {
        Residency::Auto => None,
        Residency::Wide => Some(pack::Residency::Wide),
        Residency::Compact => Some(pack::Residency::Compact),
    };
    let place = Place {
        weight_bytes: config.max_heap_bytes.saturating_sub(config.cache_heap_bytes + WORKING_BYTES),
        // A weight takes about one instruction for each token.
        call_weights: Some(config.max_instructions),
        preferred: pack::Residency::Wide,
    };
    let precision = match config.activation_bits {
        ActivationBits::Bits16 => Precision::Quantized,
        ActivationBits::Bits8 => Precision::Activations8,
    };
    LoadOptions { precision, residency, place, ..LoadOptions::default() }
}

/// A model in the heap.
pub struct Serving {
    /// The model.
    pub model: Model,
    /// Where it came from.
    pub placed: Placed,
    /// The chat template that the settings put in place of the model's own.
    chosen: Option<ChatTemplate>,
}

impl Serving {
    fn new(model: Model, placed: Placed, config: &Config) -> Self {
        let mut serving = Self { model, placed, chosen: None };
        serving.choose_chat(config);
        serving
    }

    /// Takes the chat template that the settings name. They were checked when they were set.
    fn choose_chat(&mut self, config: &Config) {
        let chosen = config.chat_template.as_deref().map(|text| ChatTemplate::chosen(text, &self.model.tokenizer));
        self.chosen = chosen.and_then(Result::ok);
    }

    /// By what chats are rendered.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`].
    pub fn chat(&self) -> Result<&ChatTemplate, Error> {
        self.chosen.as_ref().or(self.model.chat.as_ref()).ok_or(Error::NoChatTemplate)
    }

    /// What sessions remember of their model: SHA-256 of the file, and in its last byte the other bits of activations, since
    /// these decide bits of answers too.
    pub fn identity(&self) -> [u8; 32] {
        let mut identity: [u8; 32] = self.placed.file.sha256.as_slice().try_into().unwrap_or_default();
        identity[31] ^= self.model.precision().activation_bits() ^ Precision::default().activation_bits();
        identity
    }
}

/// A model on its way into the heap.
struct Loading<M: Memory> {
    placed: Placed,
    loader: Loader,
    source: RegionSource<M>,
    progress: LoadProgress,
}

/// What one step of loading did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do.
    pub total_bytes: u64,
    /// Whether the model answers.
    pub ready: bool,
}

/// The model side of the service's heap.
pub struct Models<M: Memory> {
    slots: [Region<M>; 2],
    serving: Option<Serving>,
    loading: Option<Loading<M>>,
    /// Why the current file cannot be loaded.
    failed: Option<String>,
}

impl<M: Memory + Clone> Models<M> {
    /// Nothing is loaded yet.
    pub fn open(memories: &Memories<M>) -> Self {
        Self { slots: [memories.slot(0), memories.slot(1)], serving: None, loading: None, failed: None }
    }

    /// Lets the model that answers go by changed settings, as far as that needs no loading.
    pub fn configure(&mut self, config: &Config) {
        self.serving.iter_mut().for_each(|serving| serving.choose_chat(config));
    }

    /// The model that answers, if one does.
    pub fn serving(&self) -> Option<&Serving> {
        self.serving.as_ref()
    }

    /// The model that answers.
    ///
    /// # Errors
    /// Why none does.
    pub fn ready(&self, directory: &Directory) -> Result<&Serving, Error> {
        self.serving.as_ref().ok_or_else(|| self.not_ready(directory))
    }

    fn not_ready(&self, directory: &Directory) -> Error {
        match (&self.failed, self.target(directory)) {
            (Some(message), None) => Error::ModelRejected { message: message.clone() },
            (None, None) => Error::ModelMissing,
            _ => self.loading_error(directory),
        }
    }

    /// [`Error::ModelLoading`] with the present progress.
    pub fn loading_error(&self, directory: &Directory) -> Error {
        let (done_bytes, total_bytes) = self.progress(directory);
        Error::ModelLoading { done_bytes, total_bytes }
    }

    fn progress(&self, directory: &Directory) -> (u64, u64) {
        let target = self.target(directory);
        match self.loading.as_ref().filter(|loading| Some(&loading.placed) == target) {
            Some(loading) => (loading.progress.done_bytes, loading.progress.total_bytes),
            None => (0, target.map_or(0, |placed| placed.file.bytes)),
        }
    }

    /// What should be in the heap and is not.
    fn target<'a>(&self, directory: &'a Directory) -> Option<&'a Placed> {
        let current = directory.current.as_ref().filter(|_| self.failed.is_none());
        let wanted = directory.candidate.as_ref().or(current)?;
        let serving = self.serving.as_ref().is_some_and(|serving| serving.placed == *wanted);
        if serving { None } else { Some(wanted) }
    }

    /// Whether there is something to load.
    pub fn load_pending(&self, directory: &Directory) -> bool {
        self.target(directory).is_some()
    }

    /// What the loader is doing.
    pub fn state(&self, directory: &Directory) -> LoadState {
        if let Some(target) = self.target(directory) {
            let (done_bytes, total_bytes) = self.progress(directory);
            return LoadState::Loading { name: target.file.name.clone(), done_bytes, total_bytes };
        }
        match (&self.failed, &self.serving) {
            (Some(message), _) => LoadState::Failed { message: message.clone() },
            (None, Some(_)) => LoadState::Ready,
            (None, None) => LoadState::Empty,
        }
    }

    /// Facts about the model that answers, under `settings`.
    pub fn info(&self, settings: &Config) -> Option<ModelInfo> {
        let serving = self.serving.as_ref()?;
        let Serving { model, placed, .. } = serving;
        let chat = serving.chat().ok();
        let config = &model.config;
        Some(ModelInfo {
            file: placed.file.clone(),
            architecture: config.architecture.clone(),
            context_length: config.context_length as u32,
            vocab_size: config.vocab as u32,
            layers: config.layers as u32,
            dim: config.dim as u32,
            weights_per_token: model.weights_per_token(),
            packed_bytes: model.packed_bytes(),
            kv_cache_bits: settings.default_kv_cache(model).bits(),
            residency: model.residency().name().into(),
            activation_bits: model.precision().activation_bits(),
            kernel: model.kernel().name().into(),
            has_chat_template: chat.is_some(),
            guessed_chat_template: chat.and_then(ChatTemplate::guessed).map(Into::into),
        })
    }

    /// Ends loading as if the file had been found unusable.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn give_up(&mut self, directory: &mut DirectoryCell<M>, reason: String) -> Result<(), Error> {
        self.loading = None;
        let Some(target) = self.target(directory.get()).cloned() else { return Ok(()) };
        match self.reject(directory, target, reason) {
            Error::ModelRejected { .. } => Ok(()),
            error => Err(error),
        }
    }

    /// Tries the current file again although it failed.
    pub fn retry(&mut self) {
        self.failed = None;
    }

    /// Loads on until the budget is exhausted. A load that begins goes by `config` to its end.
    ///
    /// # Errors
    /// [`Error::ModelRejected`] when the file turns out to be unusable, [`Error::ModelMissing`] without one.
    pub fn step<E: Env>(
        &mut self,
        directory: &mut DirectoryCell<M>,
        config: &Config,
        budget: CallBudget<'_, E>,
    ) -> Result<Loaded, Error> {
        let Some(target) = self.target(directory.get()).cloned() else {
            let total_bytes = self.ready(directory.get())?.placed.file.bytes;
            return Ok(Loaded { done_bytes: total_bytes, total_bytes, ready: true });
        };
        let loading = self.loading.take().filter(|loading| loading.placed == target);
        let mut loading = loading.unwrap_or_else(|| self.begin(target, config));
        if let Err(error) = self.load_on(&mut loading, budget) {
            return Err(self.reject(directory, loading.placed, error.to_string()));
        }
        let LoadProgress { done_bytes, total_bytes, ready } = loading.progress;
        if ready {
            self.finish(directory, loading, config)?;
        } else {
            self.loading = Some(loading);
        }
        Ok(Loaded { done_bytes, total_bytes, ready })
    }

    fn begin(&self, placed: Placed, config: &Config) -> Loading<M> {
        let [a, b] = &self.slots;
        let region = if placed.slot == 0 { a.clone() } else { b.clone() };
        let total_bytes = placed.file.bytes;
        let source = RegionSource::new(region, total_bytes);
        let progress = LoadProgress { done_bytes: 0, total_bytes, ready: false };
        Loading { placed, loader: Loader::new(load_options(config)), source, progress }
    }

    fn load_on<E: Env>(&mut self, loading: &mut Loading<M>, budget: CallBudget<'_, E>) -> Result<(), LoadError> {
        let read = loading.source.bytes_read();
        let mut budget = budget.watching_stable_reads(&read);
        // While the old model still answers, one unit at a time: it must go before much is packed.
        while self.serving.is_some() {
            loading.progress = loading.loader.step(&loading.source, &mut CountDown::new(1))?;
            if loading.progress.done_bytes > 0 {
                self.serving = None;
            }
            if loading.progress.ready || budget.exhausted() {
                return Ok(());
            }
        }
        loading.progress = loading.loader.step(&loading.source, &mut budget)?;
        Ok(())
    }

    fn reject(&mut self, directory: &mut DirectoryCell<M>, placed: Placed, message: String) -> Error {
        let rejected = RejectedModel { model: placed.file.clone(), message: message.clone() };
        if directory.get().candidate.as_ref() != Some(&placed) {
            self.failed = Some(message.clone());
            return Error::ModelRejected { message };
        }
        let stored = directory.change(|directory| {
            directory.candidate = None;
            directory.rejected = Some(rejected);
        });
        stored.err().unwrap_or(Error::ModelRejected { message })
    }

    fn finish(&mut self, directory: &mut DirectoryCell<M>, loading: Loading<M>, config: &Config) -> Result<(), Error> {
        let Loading { placed, loader, .. } = loading;
        let model = match loader.finish() {
            Ok(model) => model,
            Err(error) => return Err(self.reject(directory, placed, error.to_string())),
        };
        if directory.get().candidate.as_ref() == Some(&placed) {
            directory.change(|directory| directory.current = directory.candidate.take())?;
        }
        self.failed = None;
        self.serving = Some(Serving::new(model, placed, config));
        Ok(())
    }
}

//! From the bytes of a GGUF file to a [`Model`], in resumable steps. Knows nothing of where the bytes are.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::plan::{Kind, Planned, check_vector, plan, weights_per_token};
use super::residency::Place;
use super::weights::{Loaded, Weights};
use super::{Error as ModelError, Model};
use crate::Error;
use crate::budget::Budget;
use crate::chat::ChatTemplate;
use crate::config::Config;
use crate::gguf::split::PartOf;
use crate::gguf::{self, File, TensorInfo, Value};
use crate::kernels::Kernel;
use crate::math::Rope;
use crate::pack::{Error as PackError, Matrix, Packer, Precision, Residency};
use crate::quant;
use crate::source::ByteSource;
use crate::tokenizer::Tokenizer;

/// What may be chosen at load. The default takes everything from the file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The kernel path; the fastest of this machine if absent.
    pub kernel: Option<Kernel>,
    /// Metadata entries to replace or add.
    pub overrides: Vec<(String, Value)>,
    /// A Hugging Face `tokenizer.json` in place of the file's vocabulary.
    pub tokenizer_json: Option<Vec<u8>>,
    /// What becomes of quantised weights.
    pub precision: Precision,
    /// How their codes are kept in memory; chosen by `place` if absent.
    pub residency: Option<Residency>,
    /// Where the model is to live.
    pub place: Place,
    /// Called by [`Model::load`] with the memory of most weights before anything is written there, so that the system can be
    /// asked for large pages.
    pub advise: Option<fn(&mut [MaybeUninit<u8>])>,
}

/// How far a loader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadProgress {
    /// Bytes of tensors packed.
    pub done_bytes: u64,
    /// Bytes of tensors to pack; 0 while the header is unread.
    pub total_bytes: u64,
    /// Whether [`Loader::finish`] gives a model.
    pub ready: bool,
}

/// Loads a model step by step: the header, then the tokenizer, then the tensors in blocks of rows.
#[derive(Debug)]
pub struct Loader {
    options: LoadOptions,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Header,
    Tokenizer(Box<Described>),
    Tensors(Box<Tensors>),
}

/// The header has been read and checked.
#[derive(Debug)]
struct Described {
    file: File,
    config: Config,
    plan: Vec<Planned>,
    form: Form,
}

/// What becomes of all matrices.
#[derive(Debug, Clone, Copy)]
struct Form {
    precision: Precision,
    residency: Residency,
}

/// What turns text into tokens and messages into text.
#[derive(Debug)]
struct Language {
    tokenizer: Tokenizer,
    chat: Option<ChatTemplate>,
}

/// Everything but the tensors is there.
#[derive(Debug)]
struct Tensors {
    config: Config,
    language: Language,
    plan: Vec<Planned>,
    form: Form,
    loaded: BTreeMap<String, Loaded>,
    packer: Option<Packer>,
    /// Bytes of the tensors before the one that is being packed.
    done_bytes: u64,
    total_bytes: u64,
}

impl Loader {
    /// A loader that has read nothing yet.
    pub fn new(options: LoadOptions) -> Self {
        Self { options, stage: Stage::Header }
    }

    /// Works until everything is loaded or the budget ends; the budget is asked after each unit. All steps need the same
    /// bytes. A read that failed may be tried
    /// again.
    ///
    /// # Errors
    /// The file is malformed, not supported or damaged, or memory does not suffice.
    pub fn step(&mut self, source: &dyn ByteSource, budget: &mut dyn Budget) -> Result<LoadProgress, Error> {
        while !self.progress().ready {
            self.unit(source)?;
            if budget.exhausted() {
                break;
            }
        }
        Ok(self.progress())
    }

    /// How far the loader is.
    pub fn progress(&self) -> LoadProgress {
        match &self.stage {
            Stage::Header => LoadProgress::default(),
            Stage::Tokenizer(described) => {
                LoadProgress { total_bytes: total_bytes(&described.plan), ..LoadProgress::default() }
            }
            Stage::Tensors(tensors) => tensors.progress(),
        }
    }

    /// The model.
    ///
    /// # Errors
    /// [`ModelError::NotReady`] before [`Loader::step`] has said `ready`.
    pub fn finish(self) -> Result<Model, Error> {
        let LoadProgress { done_bytes, total_bytes, ready } = self.progress();
        match self.stage {
            Stage::Tensors(tensors) if ready => tensors.finish(self.options.kernel),
            _ => Err(ModelError::NotReady { done_bytes, total_bytes }.into()),
        }
    }

    fn unit(&mut self, source: &dyn ByteSource) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Header => {
                self.stage = Stage::Tokenizer(Box::new(Described::read(source, &self.options)?));
            }
            Stage::Tokenizer(described) => {
                let language = described.language(&self.options)?;
                self.stage = Stage::Tensors(Box::new(described.tensors(language)));
            }
            Stage::Tensors(tensors) => tensors.unit(source)?,
        }
        Ok(())
    }
}

impl Described {
    fn read(source: &dyn ByteSource, options: &LoadOptions) -> Result<Self, Error> {
        let mut file = File::read(source)?;
        if let Some(PartOf { number, count }) = file.part().map_err(gguf::Error::from)? {
            return Err(gguf::Error::PartOfModel { number, count }.into());
        }
        for (key, value) in &options.overrides {
            file.metadata_mut().insert(key, value.clone());
        }
        let config = Config::from_gguf(&file)?;
        let plan = plan(&config, &file)?;
        let precision = options.precision;
        let residency = options.place.choose(&plan, precision, options.residency, weights_per_token(&plan))?;
        Ok(Self { file, config, plan, form: Form { precision, residency } })
    }

    /// The tokenizer and the chat template.
    fn language(&self, options: &LoadOptions) -> Result<Language, Error> {
        let meta = self.file.metadata();
        let tokenizer = match &options.tokenizer_json {
            Some(json) => Tokenizer::from_json(json, meta)?,
            None => Tokenizer::from_gguf(meta)?,
        };
        let (tokens, rows) = (tokenizer.vocab_size(), self.config.vocab);
        if tokens > rows {
            return Err(ModelError::VocabularyMismatch { tokens, rows }.into());
        }
        let chat = ChatTemplate::from_gguf(meta, &tokenizer)?;
        Ok(Language { tokenizer, chat })
    }

    /// Goes on to the tensors, with which the plan moves.
    fn tensors(&mut self, language: Language) -> Tensors {
        let plan = std::mem::take(&mut self.plan);
        Tensors {
            config: self.config.clone(),
            language,
            total_bytes: total_bytes(&plan),
            plan,
            form: self.form,
            loaded: BTreeMap::new(),
            packer: None,
            done_bytes: 0,
        }
    }

    /// Packs all tensors, in parallel.
    fn pack_all(
        &self,
        source: &(dyn ByteSource + Sync),
        options: &LoadOptions,
    ) -> Result<BTreeMap<String, Loaded>, Error> {
        let Form { precision, residency } = self.form;
        let matrices = self.plan.iter().filter(|planned| planned.kind == Kind::Matrix).map(|planned| &planned.info);
        let region = Packer::region(matrices, precision, residency)?.map(|mut region| {
            if let Some(advise) = options.advise {
                advise(region.unwritten());
            }
            Arc::new(region)
        });
        let packer = |info: &TensorInfo| match &region {
            Some(region) => Packer::in_region(info, precision, residency, region),
            None => Packer::new(info, precision, residency),
        };
        pack_in_parallel(&self.plan, |planned| {
            let loaded = match planned.kind {
                Kind::Vector | Kind::Divisors => Loaded::Vector(read_vector(source, planned)?),
                Kind::Matrix => Loaded::Matrix(pack(source, &planned.info, packer(&planned.info)?)?),
            };
            Ok((planned.slot.clone(), loaded))
        })
    }
}

fn total_bytes(plan: &[Planned]) -> u64 {
    plan.iter().map(|planned| planned.info.bytes).sum()
}

impl Tensors {
    fn progress(&self) -> LoadProgress {
        let packing = self.packer.as_ref().map_or(0, Packer::source_bytes);
        LoadProgress {
            done_bytes: self.done_bytes + packing,
            total_bytes: self.total_bytes,
            ready: self.loaded.len() == self.plan.len(),
        }
    }

    /// Packs the next rows of the next tensor.
    fn unit(&mut self, source: &dyn ByteSource) -> Result<(), Error> {
        let Some(planned) = self.plan.get(self.loaded.len()) else { return Ok(()) };
        let (form, info) = (self.form, &planned.info);
        let loaded = match planned.kind {
            Kind::Vector | Kind::Divisors => Some(Loaded::Vector(read_vector(source, planned)?)),
            Kind::Matrix => {
                let packer = match &mut self.packer {
                    Some(packer) => packer,
                    none => none.insert(Packer::new(info, form.precision, form.residency)?),
                };
                let whole = packer.step(source)?;
                self.packer.take_if(|_| whole).and_then(Packer::finish).map(Loaded::Matrix)
            }
        };
        if let Some(loaded) = loaded {
            self.done_bytes += info.bytes;
            self.loaded.insert(planned.slot.clone(), loaded);
        }
        Ok(())
    }

    fn finish(self, kernel: Option<Kernel>) -> Result<Model, Error> {
        let weights = Weights::assemble(&self.config, self.loaded)?;
        let local = self.config.local.as_ref().and_then(|local| local.rotation.as_ref());
        Ok(Model {
            tokenizer: self.language.tokenizer,
            chat: self.language.chat,
            weights_per_token: weights_per_token(&self.plan),
            precision: self.form.precision,
            residency: self.form.residency,
            rope: Rope::new(&self.config.rotation, weights.rope_factors()),
            local_rope: local.map(|rotation| Rope::new(rotation, None)),
            kernel: kernel.unwrap_or_else(Kernel::detect),
            config: self.config,
            weights,
            token_order: Default::default(),
        })
    }
}

impl Model {
    /// Loads a model in one go, with the `rayon` feature on all threads of the current pool.
    ///
    /// # Errors
    /// As [`Loader::step`].
    pub fn load(source: &(dyn ByteSource + Sync), options: &LoadOptions) -> Result<Self, Error> {
        let mut described = Described::read(source, options)?;
        let (language, loaded) = both(|| described.language(options), || described.pack_all(source, options));
        let tensors = described.tensors(language?);
        Tensors { loaded: loaded?, ..tensors }.finish(options.kernel)
    }
}

/// Does two things, beside each other where there are threads for it.
fn both<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    #[cfg(feature = "rayon")]
    return rayon::join(first, second);
    #[cfg(not(feature = "rayon"))]
    (first(), second())
}

#[cfg(feature = "rayon")]
fn pack_in_parallel(
    plan: &[Planned],
    pack: impl Fn(&Planned) -> Result<(String, Loaded), Error> + Sync + Send,
) -> Result<BTreeMap<String, Loaded>, Error> {
    use rayon::prelude::*;
    plan.par_iter().map(pack).collect()
}

#[cfg(not(feature = "rayon"))]
fn pack_in_parallel(
    plan: &[Planned],
    pack: impl Fn(&Planned) -> Result<(String, Loaded), Error>,
) -> Result<BTreeMap<String, Loaded>, Error> {
    plan.iter().map(pack).collect()
}

fn pack(source: &dyn ByteSource, info: &TensorInfo, mut packer: Packer) -> Result<Matrix, Error> {
    while !packer.step(source)? {}
    packer.finish().ok_or_else(|| ModelError::MissingTensor { tensor: info.name.clone() }.into())
}

/// Reads a norm, a bias or rotary factors.
fn read_vector(source: &dyn ByteSource, planned: &Planned) -> Result<Vec<f32>, Error> {
    let info = &planned.info;
    let tensor = || info.name.clone();
    // The reader has checked that the tensor lies inside the file, the plan that it has at most 2^24 elements.
    let mut bytes = vec![0; info.bytes as usize];
    let mut values = vec![0.0; info.elements() as usize];
    source.read_at(info.offset, &mut bytes).map_err(|source| PackError::Source { tensor: tensor(), source })?;
    quant::dequantize(info.ty, &bytes, &mut values).map_err(|source| PackError::Format { tensor: tensor(), source })?;
    check_vector(planned, &values)?;
    Ok(values)
}

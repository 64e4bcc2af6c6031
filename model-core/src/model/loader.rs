//! From the bytes of a GGUF file to a [`Model`], in resumable steps. Knows nothing of where the bytes are.

use std::collections::BTreeMap;

use super::weights::{Kind, Loaded, Planned, Weights, check_vector, plan};
use super::{Error as ModelError, Model};
use crate::Error;
use crate::budget::Budget;
use crate::chat::ChatTemplate;
use crate::config::Config;
use crate::gguf::{File, TensorInfo, Value};
use crate::kernels::Kernel;
use crate::pack::{Error as PackError, Matrix, Packer, Precision};
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
}

/// Everything but the tensors is there.
#[derive(Debug)]
struct Tensors {
    config: Config,
    tokenizer: Tokenizer,
    chat: Option<ChatTemplate>,
    plan: Vec<Planned>,
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
                self.stage = Stage::Tensors(Box::new(described.tokenizer(&self.options)?));
            }
            Stage::Tensors(tensors) => tensors.unit(source, self.options.precision)?,
        }
        Ok(())
    }
}

impl Described {
    fn read(source: &dyn ByteSource, options: &LoadOptions) -> Result<Self, Error> {
        let mut file = File::read(source)?;
        for (key, value) in &options.overrides {
            file.metadata_mut().insert(key, value.clone());
        }
        let config = Config::from_gguf(&file)?;
        let plan = plan(&config, &file)?;
        Ok(Self { file, config, plan })
    }

    fn tokenizer(&mut self, options: &LoadOptions) -> Result<Tensors, Error> {
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
        let plan = std::mem::take(&mut self.plan);
        Ok(Tensors {
            config: self.config.clone(),
            tokenizer,
            chat,
            total_bytes: total_bytes(&plan),
            plan,
            loaded: BTreeMap::new(),
            packer: None,
            done_bytes: 0,
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
    fn unit(&mut self, source: &dyn ByteSource, precision: Precision) -> Result<(), Error> {
        let Some(Planned { info, kind }) = self.plan.get(self.loaded.len()) else { return Ok(()) };
        let loaded = match kind {
            Kind::Vector => Some(Loaded::Vector(read_vector(source, info)?)),
            Kind::Matrix => {
                let packer = match &mut self.packer {
                    Some(packer) => packer,
                    none => none.insert(Packer::new(info, precision)?),
                };
                let whole = packer.step(source)?;
                self.packer.take_if(|_| whole).and_then(Packer::finish).map(Loaded::Matrix)
            }
        };
        if let Some(loaded) = loaded {
            self.done_bytes += info.bytes;
            self.loaded.insert(info.name.clone(), loaded);
        }
        Ok(())
    }

    /// Packs everything that is left, tensors in parallel.
    fn pack_all(&mut self, source: &(dyn ByteSource + Sync), precision: Precision) -> Result<(), Error> {
        self.loaded = pack_in_parallel(&self.plan, |Planned { info, kind }| {
            let loaded = match kind {
                Kind::Vector => Loaded::Vector(read_vector(source, info)?),
                Kind::Matrix => Loaded::Matrix(pack(source, info, precision)?),
            };
            Ok((info.name.clone(), loaded))
        })?;
        self.done_bytes = self.total_bytes;
        Ok(())
    }

    fn finish(self, kernel: Option<Kernel>) -> Result<Model, Error> {
        let weights = Weights::assemble(&self.config, self.loaded)?;
        Ok(Model::new(self.config, self.tokenizer, self.chat, weights, kernel.unwrap_or_else(Kernel::detect)))
    }
}

impl Model {
    /// Loads a model in one go, with the `rayon` feature on all threads of the current pool.
    ///
    /// # Errors
    /// As [`Loader::step`].
    pub fn load(source: &(dyn ByteSource + Sync), options: &LoadOptions) -> Result<Self, Error> {
        let mut tensors = Described::read(source, options)?.tokenizer(options)?;
        tensors.pack_all(source, options.precision)?;
        tensors.finish(options.kernel)
    }
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

fn pack(source: &dyn ByteSource, info: &TensorInfo, precision: Precision) -> Result<Matrix, Error> {
    let mut packer = Packer::new(info, precision)?;
    while !packer.step(source)? {}
    packer.finish().ok_or_else(|| ModelError::MissingTensor { tensor: info.name.clone() }.into())
}

/// Reads a norm or rotary factors.
fn read_vector(source: &dyn ByteSource, info: &TensorInfo) -> Result<Vec<f32>, Error> {
    let tensor = || info.name.clone();
    // The reader has checked that the tensor lies inside the file, the plan that it has at most 2^20 elements.
    let mut bytes = vec![0; info.bytes as usize];
    let mut values = vec![0.0; info.elements() as usize];
    source.read_at(info.offset, &mut bytes).map_err(|source| PackError::Source { tensor: tensor(), source })?;
    quant::dequantize(info.ty, &bytes, &mut values).map_err(|source| PackError::Format { tensor: tensor(), source })?;
    check_vector(&info.name, &values)?;
    Ok(values)
}

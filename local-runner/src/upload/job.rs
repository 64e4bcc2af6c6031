//! One upload from announcement to answer. Every step may be interrupted, and done again from the beginning by another run:
//! what counts is in the canister.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use canister::api;
use model_core::source::ByteSource;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::chunks::Chunk;
use super::estimate::Estimate;
use super::meter::Meter;
use crate::digest::hex;
use crate::model_file::ModelFile;
use crate::network::Remote;
use crate::output::{Output, byte_size, counted, short};
use crate::progress::Progress;

/// How often the canister is asked at first and at last whether it is done.
const ASK: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// What is to be sent, and how.
pub struct Settings {
    /// Name of the file, for people.
    pub name: String,
    /// Its SHA-256.
    pub sha256: Vec<u8>,
    /// Chunks in flight.
    pub parallel: usize,
    /// Give up another file's upload.
    pub replace: bool,
    /// Wait until the model answers.
    pub wait: bool,
    /// Nodes of the subnet, for the price.
    pub nodes: u64,
}

/// How far the model has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It answers.
    Ready,
    /// It is verified and loads.
    Loading,
    /// Its hash is being computed.
    Verifying,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Name of the file.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, computed here.
    pub sha256: String,
    /// The SHA-256 of the file in the canister, once it has verified that.
    pub canister_sha256: Option<String>,
    /// Bytes that were there before.
    pub already_bytes: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Calls that brought them.
    pub chunks: u64,
    /// Calls and queries that had to be sent again.
    pub retries: u64,
    /// Time that sending took.
    pub seconds: f64,
    /// Cycles that the chunks cost, by the platform's prices.
    pub estimated_cycles: u128,
    /// How far the model has come.
    pub stage: Stage,
}

/// An upload.
pub struct Job {
    remote: Remote,
    source: Arc<ModelFile>,
    settings: Settings,
    output: Output,
    /// While chunks are sent.
    meter: RefCell<Option<Meter>>,
    already: Cell<u64>,
    seconds: Cell<f64>,
}

impl Job {
    /// Sends `source` to the canister.
    pub fn new(remote: Remote, source: ModelFile, settings: Settings, output: Output) -> Self {
        let (source, meter) = (Arc::new(source), RefCell::new(None));
        Self { remote, source, settings, output, meter, already: Cell::new(0), seconds: Cell::new(0.0) }
    }

    /// Does all that is left to be done.
    ///
    /// # Errors
    /// If the canister cannot be reached or refuses, or computes another hash, or cannot load the model.
    pub async fn run(&self) -> Result<Summary> {
        let status: api::ModelStatus = self.remote.reading("model_status").await?;
        let mut stage = Stage::Loading;
        if self.has_file(&status) {
            self.tell("The canister has this file already; there is nothing to send.")?;
        } else {
            let upload_id = self.send().await?;
            stage = self.verify(upload_id).await?;
        }
        let status =
            if self.settings.wait { self.loaded().await? } else { self.remote.reading("model_status").await? };
        if self.is_serving(&status) {
            stage = Stage::Ready;
        }
        self.summary(&status, stage)
    }

    /// Bytes that are in the canister as far as is known, once there is an upload.
    pub fn there(&self) -> Option<u64> {
        self.meter.borrow().as_ref().map(Meter::there)
    }

    fn tell(&self, text: &str) -> Result<()> {
        self.output.line(text)
    }

    fn is_ours(&self, file: &api::StoredModel) -> bool {
        file.sha256 == self.settings.sha256
    }

    fn is_serving(&self, status: &api::ModelStatus) -> bool {
        status.serving.as_ref().is_some_and(|model| self.is_ours(&model.file))
    }

    fn has_file(&self, status: &api::ModelStatus) -> bool {
        let files = [&status.candidate, &status.stored];
        self.is_serving(status) || files.into_iter().flatten().any(|file| self.is_ours(file))
    }

    /// Announces the file and sends what is missing of it.
    async fn send(&self) -> Result<u64> {
        let mut begun = self.begin().await?;
        let (mut status, mut gaps) = self.gaps().await?;
        if status.state == api::UploadState::HashMismatch {
            self.tell("The bytes that arrived before are not those of the file; they are sent again.")?;
            self.abort(begun.upload_id).await?;
            begun = self.begin().await?;
            (status, gaps) = self.gaps().await?;
        }
        let chunks = Chunk::filling(&gaps, begun.max_chunk_bytes);
        self.announce(&status, &chunks)?;
        self.already.set(status.received_bytes);
        *self.meter.borrow_mut() = Some(Meter::new(self.source.len(), status.received_bytes, self.settings.nodes));
        let start = Instant::now();
        self.send_chunks(begun.upload_id, chunks).await?;
        self.seconds.set(start.elapsed().as_secs_f64());
        self.sent()?;
        Ok(begun.upload_id)
    }

    async fn begin(&self) -> Result<api::UploadBeginOk> {
        let Settings { name, sha256, .. } = &self.settings;
        let arg = api::UploadBeginArg { name: name.clone(), total_bytes: self.source.len(), sha256: sha256.clone() };
        let mut waiting = false;
        loop {
            let refused = match self.remote.updating("upload_begin", &arg).await {
                Ok(begun) => return Ok(begun),
                Err(error) => error,
            };
            match refused.downcast_ref::<api::Error>() {
                Some(api::Error::UploadInProgress { upload_id, name, .. }) if self.settings.replace => {
                    self.tell(&format!("Giving up the upload of {name}."))?;
                    self.abort(*upload_id).await?;
                }
                Some(api::Error::UploadInProgress { .. }) => {
                    return Err(refused.context("with --replace the other upload is given up"));
                }
                Some(api::Error::ModelLoading { .. }) => {
                    if !std::mem::replace(&mut waiting, true) {
                        self.tell("The canister is loading a model; waiting until it has room for another.")?;
                    }
                    sleep(ASK[1]).await;
                }
                _ => return Err(refused),
            }
        }
    }

    async fn abort(&self, upload_id: u64) -> Result<()> {
        self.remote.updating("upload_abort", &api::UploadIdArg { upload_id }).await
    }

    /// The upload and all its gaps. Asked by calls: queries may be answered by a node that does not know of the upload yet.
    async fn gaps(&self) -> Result<(api::UploadStatus, Vec<api::ByteRange>)> {
        let (mut gaps, mut from) = (Vec::new(), None);
        loop {
            let arg = api::UploadStatusArg { from, limit: None };
            let status: api::UploadStatus = self.remote.updating("upload_status", &arg).await?;
            gaps.extend(&status.missing);
            from = status.missing_next;
            if from.is_none() {
                return Ok((status, gaps));
            }
        }
    }

    fn announce(&self, status: &api::UploadStatus, chunks: &[Chunk]) -> Result<()> {
        let missing = chunks.iter().map(|chunk| chunk.bytes).sum();
        let estimate = Estimate::new(self.source.len(), missing, chunks.len() as u64, self.settings.nodes);
        let already = match status.received_bytes {
            0 => String::new(),
            bytes => format!("{} of {} are there; ", byte_size(bytes), byte_size(status.total_bytes)),
        };
        self.tell(&format!(
            "Upload {}: {already}{} to send in {}, about {} cycles with verification and loading",
            status.upload_id,
            byte_size(missing),
            counted(chunks.len() as u64, "call"),
            short(estimate.cycles)
        ))
    }

    async fn send_chunks(&self, upload_id: u64, chunks: Vec<Chunk>) -> Result<()> {
        let mut waiting = chunks.into_iter();
        let mut flying = JoinSet::new();
        loop {
            while flying.len() < self.settings.parallel
                && let Some(chunk) = waiting.next()
            {
                flying.spawn(send_chunk(self.remote.clone(), Arc::clone(&self.source), upload_id, chunk));
            }
            let Some(landed) = flying.join_next().await else { return Ok(()) };
            let chunk = landed.context("a task that sends chunks ended")??;
            if let Some(meter) = &*self.meter.borrow() {
                meter.add(chunk.bytes);
            }
        }
    }

    fn sent(&self) -> Result<()> {
        let meter = self.meter.borrow();
        meter.iter().for_each(Meter::end);
        let Some(meter) = meter.as_ref().filter(|meter| meter.chunks() > 0) else { return Ok(()) };
        self.tell(&format!(
            "Sent {} in {} and {:.1} s ({}/s); {} had to be sent again",
            byte_size(meter.sent()),
            counted(meter.chunks(), "call"),
            self.seconds.get(),
            byte_size(meter.rate()),
            self.remote.connection().retries()
        ))
    }

    /// Has the canister compute the hash; only begins that unless it is to be waited for.
    async fn verify(&self, upload_id: u64) -> Result<Stage> {
        let progress = Progress::bytes("checking the hash", self.source.len());
        let arg = api::UploadCommitArg { upload_id, max_instructions: None };
        loop {
            let ok: api::UploadCommitOk =
                self.remote.updating("upload_commit", &arg).await.map_err(|error| match error.downcast_ref() {
                    Some(api::Error::HashMismatch { actual, .. }) => {
                        let context = format!("the canister computed sha256 {}", hex(actual));
                        error.context(context)
                    }
                    _ => error,
                })?;
            progress.set(ok.hashed_bytes);
            if ok.done {
                return Ok(Stage::Loading);
            }
            if !self.settings.wait {
                return Ok(Stage::Verifying);
            }
        }
    }

    /// Waits until the model answers.
    async fn loaded(&self) -> Result<api::ModelStatus> {
        let progress = Progress::bytes("loading", 0);
        let mut pause = ASK[0];
        loop {
            let status: api::ModelStatus = self.remote.reading("model_status").await?;
            if self.is_serving(&status) {
                return Ok(status);
            }
            if self.check_accepted(&status).is_err() {
                // The node that was asked may be behind; an answer that all nodes agree to is not.
                let status: api::ModelStatus = self.remote.reading_certified("model_status").await?;
                if self.is_serving(&status) {
                    return Ok(status);
                }
                self.check_accepted(&status)?;
            }
            if let api::LoadState::Loading { done_bytes, total_bytes, .. } = &status.load {
                progress.set_total(*total_bytes);
                progress.set(*done_bytes);
            }
            sleep(pause).await;
            pause = (pause * 2).min(ASK[1]);
        }
    }

    /// Refuses a status in which the model is not going to answer any more.
    fn check_accepted(&self, status: &api::ModelStatus) -> Result<()> {
        if self.has_file(status) {
            let api::LoadState::Failed { message } = &status.load else { return Ok(()) };
            bail!("the canister cannot load the model: {message}");
        }
        match &status.rejected {
            Some(rejected) if self.is_ours(&rejected.model) => {
                bail!("the canister cannot load the model: {}", rejected.message)
            }
            _ => bail!("the canister does not have the file any more; somebody else uploads to it"),
        }
    }

    fn summary(&self, status: &api::ModelStatus, stage: Stage) -> Result<Summary> {
        let meter = self.meter.borrow();
        let (sent_bytes, chunks) = meter.as_ref().map_or((0, 0), |meter| (meter.sent(), meter.chunks()));
        let serving = status.serving.as_ref().map(|model| &model.file);
        let files = [status.candidate.as_ref(), status.stored.as_ref(), serving];
        let verified = files.into_iter().flatten().find(|file| self.is_ours(file));
        Ok(Summary {
            name: self.settings.name.clone(),
            bytes: self.source.len(),
            sha256: hex(&self.settings.sha256),
            canister_sha256: verified.map(|file| hex(&file.sha256)),
            already_bytes: self.already.get(),
            sent_bytes,
            chunks,
            retries: self.remote.connection().retries(),
            seconds: self.seconds.get(),
            estimated_cycles: Estimate::of_chunks(chunks, sent_bytes, self.settings.nodes),
            stage,
        })
    }
}

async fn send_chunk(remote: Remote, source: Arc<ModelFile>, upload_id: u64, chunk: Chunk) -> Result<Chunk> {
    let len = usize::try_from(chunk.bytes).context("a chunk is too large")?;
    let mut bytes = vec![0; len];
    source.read_at(chunk.offset, &mut bytes)?;
    let arg = api::UploadChunk { upload_id, offset: chunk.offset, bytes: &bytes };
    let _: api::UploadChunkOk = remote.updating("upload_chunk", &arg).await?;
    Ok(chunk)
}

//! `icllama quantize`: a model file with smaller tensors.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use model_core::gguf::write::{Layout, NewTensor};
use model_core::gguf::{File, GgmlType};
use model_core::source::ByteSource;
use serde::Serialize;

use crate::interrupt::{Interrupts, Watched};
use crate::model_file::ModelFile;
use crate::new_file::{NewFile, is_same_file};
use crate::options::{ModelName, model_name};
use crate::output::{Output, byte_size};
use crate::progress::Progress;
use crate::quantize::plan::{self, Mix, Request, parse_mix, parse_type};
use crate::quantize::stream::{self, Watch};

/// Write a model file in another format.
///
/// Matrices get the type, in the mixes Q4_K_S, Q4_K_M and Q5_K_M some of them a better one, as llama-quantize chooses;
/// norms, biases and other tensors of one dimension stay as they are, and so does the metadata, but for general.file_type and
/// general.quantization_version. The output head (output.weight, or token_embd.weight where that is the head too) becomes
/// Q8_0 with Q4_0, Q4_1, Q5_0 and Q5_1, and Q6_K in the mixes. A matrix whose rows are no whole number of blocks gets a
/// similar type, at last F16. Blocks are those of GGML's reference quantizers, without an importance matrix. llama.cpp reads
/// the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model file (GGUF) with F32, F16 or BF16 tensors, or hf:OWNER/REPO/FILE.gguf to fetch it.
    #[arg(value_parser = model_name())]
    input: ModelName,
    /// File to write; it appears when it is whole.
    output: PathBuf,
    /// Type of the file: F32, F16, BF16, Q8_0, Q6_K, Q5_1, Q5_K_M, Q5_K_S, Q5_0, Q4_1, Q4_K_M, Q4_K_S or Q4_0.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_mix)]
    mix: Mix,
    /// Type of the output head, such as Q8_0, Q6_K or F16 [default: as above].
    #[arg(long, value_name = "TYPE", value_parser = parse_type, conflicts_with = "pure")]
    output_tensor_type: Option<GgmlType>,
    /// Type of the token embedding, where it is not the output head too [default: that of most matrices].
    #[arg(long, value_name = "TYPE", value_parser = parse_type, conflicts_with = "pure")]
    token_embedding_type: Option<GgmlType>,
    /// Give every matrix the same type.
    #[arg(long)]
    pure: bool,
    /// Accept tensors that are quantized already; what they lost stays lost.
    #[arg(long)]
    allow_requantize: bool,
    /// Threads [default: all cores]. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Report {
    input_bytes: u64,
    output_bytes: u64,
    tensors: Vec<Conversion>,
}

#[derive(Debug, Serialize)]
struct Conversion {
    name: String,
    from: &'static str,
    to: &'static str,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let input = self.input.path()?;
        if is_same_file(&input, &self.output) {
            bail!("{} is the input itself; give the output another name", self.output.display());
        }
        let source = ModelFile::open(&input)?;
        let file = File::read(&source).with_context(|| format!("cannot read {}", self.input))?;
        let new = plan::tensors(&file, &self.request())?;
        let layout = Layout::new(&plan::metadata(&file, self.mix), &new)?;
        self.write(&source, &file, &new, &layout)?;
        let report = report(&file, &new, ByteSource::len(&source), layout.file_bytes());
        output.document(&report, |out| {
            for Conversion { name, from, to } in &report.tensors {
                writeln!(out, "{name:<40} {from:>5} -> {to}")?;
            }
            let (before, after) = (byte_size(report.input_bytes), byte_size(report.output_bytes));
            writeln!(out, "{}: {before} -> {after}", self.output.display())
        })
    }

    fn request(&self) -> Request {
        Request {
            mix: self.mix,
            output: self.output_tensor_type,
            embedding: self.token_embedding_type,
            pure: self.pure,
            allow_requantize: self.allow_requantize,
        }
    }

    fn write(&self, source: &ModelFile, file: &File, new: &[NewTensor], layout: &Layout) -> Result<()> {
        let threads = self.threads.map_or(0, usize::from); // 0: all cores
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
        let interrupts = Interrupts::new().context("cannot watch for Ctrl-C")?;
        let watched = interrupts.watch();
        let mut out = NewFile::create(&self.output, layout.file_bytes())?;
        let mut bar = Bar { progress: Progress::bytes("quantizing", layout.file_bytes()), watched: &watched };
        let written = pool.install(|| stream::write(&mut out, source, (file.tensors(), new), layout, &mut bar));
        match written {
            Ok(()) => Ok(out.finish()?),
            Err(error) => match error.downcast::<io::Error>() {
                Ok(reason) => Err(out.failure(reason).into()),
                Err(error) => Err(error),
            },
        }
    }
}

struct Bar<'a> {
    progress: Progress,
    watched: &'a Watched<'a>,
}

impl Watch for Bar<'_> {
    fn written(&mut self, bytes: u64) {
        self.progress.set(bytes);
    }

    fn is_interrupted(&self) -> bool {
        self.watched.is_raised()
    }
}

fn report(file: &File, new: &[NewTensor], input_bytes: u64, output_bytes: u64) -> Report {
    let pairs = file.tensors().iter().zip(new);
    let tensors =
        pairs.map(|(old, new)| Conversion { name: old.name.clone(), from: old.ty.name(), to: new.ty.name() }).collect();
    Report { input_bytes, output_bytes, tensors }
}

//! `icllama inspect`: what a model file says about itself.

use anyhow::{Context, Result};
use model_core::gguf::{Array, File, TensorInfo, Value};
use model_core::source::ByteSource;
use serde::Serialize;
use serde_json::json;

use crate::options::FileArgs;
use crate::output::{Output, byte_size, grouped};

/// Elements of an array that are shown unless `--full` is given.
const SHOWN: usize = 8;

/// Show the metadata and the tensors of a model file.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: FileArgs,
    /// Show arrays in full.
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    file_bytes: u64,
    version: u32,
    parameters: u64,
    metadata: serde_json::Map<String, serde_json::Value>,
    tensors: Vec<TensorReport>,
}

#[derive(Debug, Serialize)]
struct TensorReport {
    name: String,
    r#type: &'static str,
    shape: Vec<u64>,
    offset: u64,
    bytes: u64,
}

impl Args {
    /// Runs the command.
    pub fn exec(self, output: Output) -> Result<()> {
        let source = self.model.open()?;
        let mut file = File::read(&source).with_context(|| format!("cannot read {}", self.model.model))?;
        for (key, value) in &self.model.reading.override_kv {
            file.metadata_mut().insert(key, value.clone());
        }
        let report = self.report(&file, ByteSource::len(&source));
        output.document(&report, |out| {
            writeln!(
                out,
                "GGUF version {}, {}, {} tensors, {} parameters\n",
                report.version,
                byte_size(report.file_bytes),
                report.tensors.len(),
                grouped(report.parameters.into()),
            )?;
            for (key, value) in &report.metadata {
                writeln!(out, "{key} = {value}")?;
            }
            writeln!(out)?;
            for tensor in &report.tensors {
                let shape: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
                writeln!(
                    out,
                    "{:<40} {:<6} {:>16} {:>12}",
                    tensor.name,
                    tensor.r#type,
                    shape.join(" x "),
                    byte_size(tensor.bytes)
                )?;
            }
            Ok(())
        })
    }

    fn report(&self, file: &File, file_bytes: u64) -> Report {
        let limit = if self.full { usize::MAX } else { SHOWN };
        Report {
            file_bytes,
            version: file.version(),
            parameters: file.tensors().iter().map(TensorInfo::elements).fold(0, u64::saturating_add),
            metadata: file.metadata().iter().map(|(key, value)| (key.to_owned(), to_json(value, limit))).collect(),
            tensors: file.tensors().iter().map(tensor).collect(),
        }
    }
}

fn tensor(info: &TensorInfo) -> TensorReport {
    TensorReport {
        name: info.name.clone(),
        r#type: info.ty.name(),
        shape: info.shape.clone(),
        offset: info.offset,
        bytes: info.bytes,
    }
}

/// A value as JSON; of an array the first `limit` elements, with its type and length if that is not all.
fn to_json(value: &Value, limit: usize) -> serde_json::Value {
    match value {
        Value::Array(array) => array_to_json(array, limit),
        Value::String(bytes) => json!(String::from_utf8_lossy(bytes)),
        Value::F32(value) => float_to_json(f64::from(*value), value.to_string()),
        Value::F64(value) => float_to_json(*value, value.to_string()),
        Value::Bool(value) => json!(value),
        _ => value.as_integer().map_or(serde_json::Value::Null, |value| json!(value)),
    }
}

/// The shortest decimal form of a float; JSON has no infinities, those become strings.
fn float_to_json(value: f64, text: String) -> serde_json::Value {
    if value.is_finite() { text.parse::<f64>().map_or(json!(text), |value| json!(value)) } else { json!(text) }
}

fn array_to_json(array: &Array, limit: usize) -> serde_json::Value {
    let shown = (0..array.len()).take(limit).filter_map(|index| array.get(index));
    let shown: serde_json::Value = shown.map(|value| to_json(&value, limit)).collect();
    if array.len() <= limit { shown } else { json!({ "count": array.len(), "first": shown }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_arrays_are_cut_and_counted() {
        let array = Value::Array(Array::I32(vec![1, 2, 3]));
        assert_eq!(to_json(&array, 2), json!({ "count": 3, "first": [1, 2] }));
        assert_eq!(to_json(&array, 3), json!([1, 2, 3]));
    }

    #[test]
    fn floats_keep_their_short_form_and_infinities_become_text() {
        assert_eq!(to_json(&Value::F32(0.1), 1).to_string(), "0.1");
        assert_eq!(to_json(&Value::F32(f32::INFINITY), 1), json!("inf"));
    }
}

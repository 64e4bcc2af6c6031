//! Weights in the form that the kernels read: decoded once at load, in steps of bounded size.

mod float;
pub(crate) mod layout;
pub(crate) mod matrix;
mod memory;
mod packer;
mod row_group;

mod plain;
#[cfg(test)]
mod tests;

pub use matrix::Matrix;
pub use packer::{Packer, Precision, Residency};

/// Why a tensor cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernels multiply matrices only.
    #[error("tensor `{tensor}` has {dimensions} dimensions; a matrix has 2")]
    NotAMatrix {
        /// Name of the tensor.
        tensor: String,
        /// Its number of dimensions.
        dimensions: usize,
    },
    /// The matrix cannot be addressed on this machine.
    #[error(
        "tensor `{tensor}` ({rows} x {columns}) is too large for this machine's address space; use a smaller model"
    )]
    TooLarge {
        /// Name of the tensor.
        tensor: String,
        /// Output dimension.
        rows: u64,
        /// Input dimension.
        columns: u64,
    },
    /// No memory is left for the packed form.
    #[error(
        "no memory for the {bytes} packed bytes of tensor `{tensor}`; use a smaller model or raise the memory limit"
    )]
    OutOfMemory {
        /// Name of the tensor.
        tensor: String,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The tensor's format has no decoder.
    #[error(
        "tensor `{tensor}` has the format {ty}, which is not supported; use a file with tensors of these formats: {known}",
        known = crate::quant::Operation::Decode.types()
    )]
    Unsupported {
        /// Name of the tensor.
        tensor: String,
        /// Its format.
        ty: crate::gguf::GgmlType,
    },
    /// The tensor's bytes do not decode.
    #[error("tensor `{tensor}`: {source}")]
    Format {
        /// Name of the tensor.
        tensor: String,
        /// What the decoder said.
        source: crate::quant::Error,
    },
    /// A scale, an offset or a float weight is infinite or not a number.
    #[error("tensor `{tensor}` holds a weight that is not finite near row {row}; the file is damaged")]
    NotFinite {
        /// Name of the tensor.
        tensor: String,
        /// First row of the block that was being packed.
        row: usize,
    },
    /// A code of a format with three values is a fourth one.
    #[error(
        "tensor `{tensor}` has a weight of 2 near row {row}, where its format has -1, 0 and 1; the file is damaged"
    )]
    NotTernary {
        /// Name of the tensor.
        tensor: String,
        /// First row of the block that was being packed.
        row: usize,
    },
    /// The file could not be read.
    #[error("tensor `{tensor}`: {source}")]
    Source {
        /// Name of the tensor.
        tensor: String,
        /// What the source said.
        source: crate::source::SourceError,
    },
}

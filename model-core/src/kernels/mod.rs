//! Integer and float matrix products with the same bits on every path.
//!
//! `isa` names the vector operations, `product` and `attention` write each product once over them, and
//! `scalar`, `x86_64` and `wasm32` hold nothing but instructions. `NUMERICS.md` has the contract.

mod activations;
mod attention;
mod dispatch;
mod float;
mod isa;
mod matmul;
mod product;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod parity;
#[cfg(any(test, feature = "fixtures"))]
pub mod probe;

pub(crate) use activations::quantize_into;
pub use activations::{Activations, Forms, NonFinite};
pub(crate) use attention::{Keys, SEGMENT, Values};
pub use dispatch::{Kernel, UnknownKernel};
pub use matmul::matmul;

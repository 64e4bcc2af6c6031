//! Integer and float matrix products with the same bits on every path.
//!
//! `isa` names the vector operations, `product` and `attention` write each product once over them, and
//! `scalar`, `x86_64`, `avx512`, `neon` and `wasm32` hold nothing but instructions. `rows_outer` and `columns_outer` are
//! the two orders in which a matrix product is walked, `source` and `nibbles` what is multiplied in them. Products with codes of
//! three values are looked up instead: `ternary` in `tables`. `NUMERICS.md` has the contract.

mod activations;
mod activations8;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bytes;
mod columns_outer;
mod dispatch;
mod fields;
mod float;
mod isa;
mod matmul;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod nibbles;
mod product;
mod rows_outer;
mod scalar;
mod source;
mod tables;
mod ternary;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod twice;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod parity;
// Always there, so that the canister and the modules of tests share one build of this crate; linking drops what is not called.
#[doc(hidden)]
pub mod probe;

pub(crate) use activations::quantize_into;
pub use activations::{Activations, Forms, NonFinite};
pub(crate) use attention::{Codes, Keys, QUERIES, SEGMENT, Values, Weights};
pub use dispatch::{Kernel, UnknownKernel};
pub use matmul::matmul;

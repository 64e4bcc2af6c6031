//! Float arithmetic between the products: only operations that IEEE 754 fixes to the bit, in an order that does not
//! depend on the target. Written over lanes of four, which are vectors in wasm and arrays elsewhere.

mod elementwise;
mod exp;
pub(crate) mod lanes;
mod rope;
pub(crate) mod softmax;
pub(crate) mod vectorize;

pub use elementwise::{add_assign, cap_softly, gelu_mul, rms_norm, rms_norm_into, scale, silu_mul};
pub(crate) use elementwise::{all_finite, max_abs};
pub use exp::exp;
pub use rope::{Angles, Pairing, Rope, Rotation};

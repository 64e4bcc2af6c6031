//! Float arithmetic between the products: only operations that IEEE 754 fixes to the bit, in an order that does not
//! depend on the target. Plain Rust; loops run over eight virtual lanes, which compilers turn into vectors.

mod elementwise;
mod exp;
mod rope;

pub use elementwise::{add_assign, rms_norm_into, silu_mul};
pub(crate) use elementwise::{all_finite, max_abs};
pub use exp::exp;
pub use rope::{Angles, Rope};

/// Virtual lanes of every reduction.
pub(crate) const LANES: usize = 8;

/// The fixed final order of a reduction by sum.
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

//! One projection: a matrix, and for some models a bias.

use crate::kernels::{Activations, Kernel, matmul};
use crate::math::add_assign;
use crate::pack::Matrix;

/// `y = weight * x + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[outputs, inputs]`
    pub weight: Matrix,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Writes the outputs for every row of `x` to `out`, `[tokens, outputs]`.
    pub fn multiply(&self, kernel: Kernel, x: &Activations, out: &mut [f32]) {
        matmul(kernel, &self.weight, x, out);
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| add_assign(row, bias));
        }
    }
}

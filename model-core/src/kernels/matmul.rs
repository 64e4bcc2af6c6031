//! The product of a packed matrix and a batch of activations, split over threads by rows.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::bytes;
use super::product::Product;
use super::{Activations, Kernel, float};
use crate::pack::Matrix;
use crate::pack::layout::{HALF_COLUMNS, Layout, ROWS, Width};
use crate::pack::matrix::View;
use crate::parallel;

/// Multiply-accumulates that are worth a thread of their own.
const THREAD_WORK: usize = 1 << 17;
/// Weights that one pass over a batch touches before the next tokens follow: they stay in the first-level cache.
const PASS_WEIGHTS: usize = 1 << 15;

/// Where the outputs go; threads write disjoint rows.
#[derive(Clone, Copy)]
struct Output {
    y: *mut f32,
    stride: usize,
}

// SAFETY: every thread writes only the rows of its own range.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// `y[t][row] = Σ_column w[row][column] * x[t][column]`, with `y` of shape `[tokens, rows]`.
///
/// # Panics
/// If the shapes do not fit; callers check them once at load.
pub fn matmul(kernel: Kernel, w: &Matrix, x: &Activations, y: &mut [f32]) {
    assert_eq!((w.columns(), x.tokens() * w.rows()), (x.columns(), y.len()), "shapes of a matrix product");
    let output = Output { y: y.as_mut_ptr(), stride: w.rows() };
    let row_groups = w.rows().div_ceil(ROWS);
    let least = (THREAD_WORK / (ROWS * w.columns() * x.tokens()).max(1)).max(1);
    parallel::ranges(row_groups, least, |range| match w.view() {
        View::Coded { bytes, layout } => coded(kernel, Coded { bytes, layout, w, x }, output, range),
        View::Float(weights) => float_rows(weights, w, x, output, range),
    });
}

#[derive(Clone, Copy)]
struct Coded<'a> {
    bytes: &'a [u8],
    layout: Layout,
    w: &'a Matrix,
    x: &'a Activations,
}

fn coded(kernel: Kernel, product: Coded<'_>, output: Output, range: Range<usize>) {
    let Coded { bytes, layout, w, x } = product;
    let product = product_of(product, output);
    let whole = w.rows() / ROWS;
    // Even, for kernels that take row groups two by two.
    let pass = (PASS_WEIGHTS / (ROWS * w.columns())).max(1).next_multiple_of(2);
    let pass = if x.tokens() == 1 || cfg!(target_arch = "wasm32") { whole.max(1) } else { pass };
    // SAFETY: `range` lies inside the row groups, the matrix's invariants give the blocks' lengths, the asserts in
    // `matmul` those of `x` and `y`; the last, partial row group goes through a buffer of its own.
    unsafe {
        let mut first = range.start;
        while first < range.end.min(whole) {
            let last = range.end.min(whole).min(first + pass);
            kernel.multiply(product, first, last);
            first = last;
        }
        if range.end > whole {
            let mut tail = vec![0.0; x.tokens() * ROWS];
            let row_groups = bytes[whole * layout.row_group_bytes()..].as_ptr();
            let part = Product { row_groups, y: tail.as_mut_ptr(), y_stride: ROWS, ..product };
            kernel.multiply(part, 0, 1);
            for (t, tail) in tail.chunks_exact(ROWS).enumerate() {
                write_rows(output, t, whole * ROWS, &tail[..w.rows() - whole * ROWS]);
            }
        }
    }
}

/// The product with the form of the activations that the weights need.
fn product_of(Coded { bytes, layout, w, x }: Coded<'_>, output: Output) -> Product {
    let width = layout.width;
    let sums = if layout.group_columns == HALF_COLUMNS { &x.half_sums } else { &x.sums };
    let are_there = match width {
        _ if width.is_fields() => x.eight.are_there && has_bytes(x, width) && (x.eight.has_sums || !layout.has_offsets),
        _ if width.is_ternary() => x.tables.are_there,
        _ => x.codes.len() == x.tokens() * w.columns() && (sums.are_there || w.summed_columns().is_none()),
    };
    assert!(are_there, "activations were not quantised, or not summed");
    let product = Product {
        row_groups: bytes.as_ptr(),
        layout,
        codes: x.codes.as_ptr(),
        codes_stride: w.columns(),
        tables: x.tables.bytes.as_ptr(),
        scales: x.scales.as_ptr(),
        block_scales: x.eight.scales.as_ptr(),
        sums: sums.sums.as_ptr(),
        sum_codes: sums.codes.as_ptr(),
        sum_scales: sums.scales.as_ptr(),
        tokens: x.tokens(),
        y: output.y,
        y_stride: output.stride,
    };
    match width {
        #[cfg(target_arch = "x86_64")]
        Width::PackedFields => Product {
            codes: x.eight.bytes.as_ptr().cast(),
            codes_stride: layout.groups * bytes::BLOCK_CODES,
            sum_codes: x.eight.sum_codes.as_ptr(),
            sum_scales: x.eight.sum_scales.as_ptr(),
            ..product
        },
        _ if width.is_fields() => Product {
            codes: x.eight.codes.as_ptr(),
            sums: x.eight.biases.as_ptr(),
            sum_codes: x.eight.sum_codes.as_ptr(),
            sum_scales: x.eight.sum_scales.as_ptr(),
            ..product
        },
        _ if width.is_ternary() => {
            Product { scales: x.tables.scales.as_ptr(), sums: x.tables.sums.as_ptr(), ..product }
        }
        _ => product,
    }
}

/// Whether the activations are there as bytes, if products with codes of this width read these.
#[cfg(target_arch = "x86_64")]
fn has_bytes(x: &Activations, width: Width) -> bool {
    width != Width::PackedFields || x.eight.bytes.len() == x.eight.scales.len()
}

/// Products with codes of any width do without bytes.
#[cfg(not(target_arch = "x86_64"))]
fn has_bytes(_x: &Activations, _width: Width) -> bool {
    true
}

fn float_rows(weights: &[f32], w: &Matrix, x: &Activations, output: Output, range: Range<usize>) {
    assert_eq!(x.values.len(), x.tokens() * w.columns(), "activations were not kept as floats");
    for row_group in range {
        let weights = &weights[row_group * ROWS * w.columns()..(row_group + 1) * ROWS * w.columns()];
        for (t, x) in x.values.chunks_exact(w.columns().max(1)).enumerate() {
            let rows = (w.rows() - row_group * ROWS).min(ROWS);
            // SAFETY: the rows lie in `range`, which no other thread has.
            unsafe { write_rows(output, t, row_group * ROWS, &float::row_group(weights, x)[..rows]) };
        }
    }
}

/// # Safety
/// Rows `first..first + values.len()` of token `t` lie inside the output and belong to the calling thread.
unsafe fn write_rows(output: Output, t: usize, first: usize, values: &[f32]) {
    // SAFETY: see above.
    unsafe { output.y.add(t * output.stride + first).copy_from_nonoverlapping(values.as_ptr(), values.len()) };
}

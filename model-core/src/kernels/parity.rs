//! Every kernel path equals the contract, bit for bit, evaluated naively row by row.

use proptest::prelude::*;

use super::{Activations, Forms, Kernel, matmul, probe};
use crate::pack::Matrix;
use crate::pack::layout::Width;

/// A matrix as the file would give it, and a batch.
#[derive(Debug, Clone)]
struct Case {
    columns: usize,
    /// Columns that share a scale.
    group: usize,
    tokens: usize,
    width: Width,
    codes: Vec<i8>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
    x: Vec<f32>,
}

/// How codes are held, and columns that share a scale.
const KINDS: [(Width, usize); 7] = [
    (Width::Nibble, 32),
    (Width::Byte, 32),
    (Width::Byte, 16),
    (Width::Fields, 32),
    (Width::PackedFields, 32),
    (Width::Trits, 256),
    (Width::PackedTrits, 256),
];

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..30, 1usize..70, 1usize..20, any::<bool>(), 0usize..KINDS.len(), any::<u64>(), 0usize..4);
    shape.prop_map(|(rows, blocks, tokens, affine, kind, seed, hostile)| {
        let mut state = seed | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let extreme = |value: i8, r: u64| match hostile {
            0 => value,
            1 => i8::MIN,
            2 => i8::MAX,
            _ if r.is_multiple_of(2) => i8::MIN,
            _ => i8::MAX,
        };
        let (width, group) = KINDS[kind];
        let columns = (blocks * 32).next_multiple_of(group);
        let (groups, affine) = (columns / group, affine && !width.is_ternary());
        let codes = (0..rows * columns).map(|_| width.code(extreme(next() as i8, next()))).collect();
        let mut float = |size: f32| (next() as u32 as f32 / u32::MAX as f32 - 0.5) * size;
        let scales = (0..rows * groups).map(|_| float(0.1)).collect();
        let offsets =
            (0..if affine { rows * groups } else { 0 }).map(|_| if hostile > 1 { -0.25 } else { float(0.5) }).collect();
        let x = (0..tokens * columns).map(|_| if hostile > 1 { 7.5 } else { float(20.0) }).collect();
        Case { columns, group, tokens, width, codes, scales, offsets, x }
    })
}

/// Codes with one scale, as activations, sums and offsets have them.
fn quantized(values: &[f32], limit: f32) -> (Vec<i64>, f32) {
    let max = values.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    if max == 0.0 {
        return (vec![0; values.len()], 0.0);
    }
    (values.iter().map(|value| (value * (limit / max)).round_ties_even() as i64).collect(), max / limit)
}

/// Codes of 8 bits with a scale for each 32, as products with codes in fields have them.
fn quantized_by_blocks(values: &[f32]) -> (Vec<i64>, Vec<f32>) {
    let magnitudes = |values: &[f32]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
    let sum_of_eight = |x: &[f32]| {
        let [a, b, c, d] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (a + c) + (b + d)
    };
    let scale = |block: &[f32]| {
        let x = magnitudes(block);
        let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0f32, f32::max);
        let sum = largest(&mut x.chunks_exact(8).map(sum_of_eight));
        (sum * (8.0 / 2015.0)).max(largest(&mut x.iter().copied()) * (1.0 / 127.0))
    };
    let scales: Vec<f32> = values.chunks_exact(32).map(scale).collect();
    let code = |(i, value): (usize, &f32)| (value * (1.0 / scales[i / 32])).round_ties_even() as i64;
    (values.iter().enumerate().map(code).collect(), scales)
}

fn dot(a: &[i64], b: &[i64]) -> i64 {
    let sum = a.iter().zip(b).map(|(a, b)| a * b).sum();
    assert!(i32::try_from(sum).is_ok(), "{sum} does not fit an i32");
    sum
}

/// The contract of `product.rs` and `ternary.rs` for one output, without any of its code.
fn expected(case: &Case, row: usize, x: &[f32]) -> f32 {
    let (group, groups) = (case.group, case.columns / case.group);
    if case.width.is_fields() {
        return expected_of_fields(case, row, x);
    }
    let (x, x_scale) = quantized(x, if case.width.is_ternary() { 8159.0 } else { 32767.0 });
    let mut acc = 0.0f32;
    if !case.offsets.is_empty() {
        let sums: Vec<f32> = x.chunks_exact(group).map(|x| x.iter().sum::<i64>() as f32).collect();
        acc = add_offsets(&case.offsets[row * groups..][..groups], &sums, acc);
    }
    for (i, x) in x.chunks_exact(group).enumerate() {
        let codes = &case.codes[row * case.columns + i * group..][..group];
        let codes: Vec<i64> = codes.iter().map(|code| i64::from(*code)).collect();
        acc += dot(&codes, x) as f32 * case.scales[row * groups + i];
    }
    acc * x_scale
}

/// The same with activations of 8 bits.
fn expected_of_fields(case: &Case, row: usize, x: &[f32]) -> f32 {
    let groups = case.columns / 32;
    let (x, x_scales) = quantized_by_blocks(x);
    let mut acc = 0.0f32;
    if !case.offsets.is_empty() {
        let sums: Vec<f32> =
            x.chunks_exact(32).zip(&x_scales).map(|(x, scale)| x.iter().sum::<i64>() as f32 * scale).collect();
        acc = add_offsets(&case.offsets[row * groups..][..groups], &sums, acc);
    }
    for (i, x) in x.chunks_exact(32).enumerate() {
        let codes = case.codes[row * case.columns + i * 32..][..32].iter().map(|code| i64::from(*code));
        acc += dot(&codes.collect::<Vec<_>>(), x) as f32 * case.scales[row * groups + i] * x_scales[i];
    }
    acc
}

fn add_offsets(offsets: &[f32], sums: &[f32], mut acc: f32) -> f32 {
    let (sums, sum_scale) = quantized(sums, 8191.0);
    for (offsets, sums) in offsets.chunks(32).zip(sums.chunks(32)) {
        let (offsets, offset_scale) = quantized(offsets, 8191.0);
        acc += dot(&offsets, sums) as f32 * (offset_scale * sum_scale);
    }
    acc
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #[test]
    fn coded_products_equal_the_contract_on_every_path(case in cases()) {
        let matrix = Matrix::from_codes(case.columns, case.width, &case.codes, &case.scales, &case.offsets);
        let mut x = Activations::default();
        x.quantize(&case.x, case.columns, Forms::of(&[&matrix])).unwrap();
        let tokens = case.x.chunks_exact(case.columns);
        let naive: Vec<f32> =
            tokens.flat_map(|x| (0..matrix.rows()).map(move |row| (row, x))).map(|(row, x)| expected(&case, row, x)).collect();
        for kernel in Kernel::available() {
            let mut y = vec![f32::NAN; case.tokens * matrix.rows()];
            matmul(kernel, &matrix, &x, &mut y);
            prop_assert_eq!(bits(&y), bits(&naive), "{}", kernel.name());
        }
    }

    #[test]
    fn float_products_equal_a_plain_loop(rows in 1usize..20, columns in 1usize..70, tokens in 1usize..6, seed in any::<u32>()) {
        let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8e6 - 1.0;
        let (w, x): (Vec<f32>, Vec<f32>) = ((0..rows * columns).map(value).collect(), (0..tokens * columns).map(|i| value(i + 7919)).collect());
        let matrix = Matrix::from_values(columns, &w);
        let mut batch = Activations::default();
        batch.quantize(&x, columns, Forms::of(&[&matrix])).unwrap();
        let mut y = vec![f32::NAN; tokens * rows];
        matmul(Kernel::detect(), &matrix, &batch, &mut y);
        for (t, x) in x.chunks_exact(columns).enumerate() {
            for (row, w) in w.chunks_exact(columns).enumerate() {
                let plain = w.iter().zip(x).fold(0.0f32, |acc, (w, x)| acc + w * x);
                prop_assert_eq!(y[t * rows + row].to_bits(), plain.to_bits());
            }
        }
    }

    #[test]
    fn rows_of_a_matrix_read_back(case in cases()) {
        let matrix = Matrix::from_codes(case.columns, case.width, &case.codes, &case.scales, &case.offsets);
        let groups = case.columns / case.group;
        let mut out = vec![0.0; case.columns];
        for row in 0..matrix.rows() {
            prop_assert!(matrix.row_into(row, &mut out));
            let offsets: Vec<f32> = case.offsets.iter().skip(row * groups).take(groups).copied().collect();
            let offsets: Vec<f32> = offsets.chunks(32).flat_map(|offsets| {
                let (codes, scale) = quantized(offsets, 8191.0);
                codes.into_iter().map(move |code| scale * code as f32)
            }).collect();
            for (column, out) in out.iter().enumerate() {
                let group = column / case.group;
                let product = case.scales[row * groups + group] * f32::from(case.codes[row * case.columns + column]);
                let value = offsets.get(group).map_or(product, |offset| product + offset);
                prop_assert_eq!(out.to_bits(), value.to_bits());
            }
        }
        prop_assert!(!matrix.row_into(matrix.rows(), &mut out));
    }
}

proptest! {
    #[test]
    fn nibbles_give_the_bits_of_bytes(case in cases().prop_filter("codes of four bits", |case| case.width == Width::Nibble)) {
        let [bytes, nibbles] = [Width::Byte, Width::Nibble].map(|width| {
            let matrix = Matrix::from_codes(case.columns, width, &case.codes, &case.scales, &case.offsets);
            let mut x = Activations::default();
            x.quantize(&case.x, case.columns, Forms::of(&[&matrix])).unwrap();
            let mut y = vec![f32::NAN; case.tokens * matrix.rows()];
            matmul(Kernel::detect(), &matrix, &x, &mut y);
            bits(&y)
        });
        prop_assert_eq!(bytes, nibbles);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (columns, rows, tokens) = (576, 1000, 5);
    let codes: Vec<i8> = (0..rows * columns).map(|i| (i * 37 % 251) as u8 as i8).collect();
    let scales: Vec<f32> = (0..rows * columns / 32).map(|i| (i % 17) as f32 * 0.01 - 0.05).collect();
    let matrix = Matrix::from_codes(columns, Width::Byte, &codes, &scales, &scales);
    let x: Vec<f32> = (0..tokens * columns).map(|i| (i * 31 % 100) as f32 * 0.1 - 4.0).collect();
    let mut batch = Activations::default();
    batch.quantize(&x, columns, Forms::of(&[&matrix])).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut y = vec![0.0; tokens * rows];
        pool.install(|| matmul(Kernel::detect(), &matrix, &batch, &mut y));
        bits(&y)
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(5));
}

#[test]
fn whole_cases_have_one_digest_on_every_path() {
    let digests: Vec<u64> = (0..200).map(|seed| probe::digest(Kernel::SCALAR, seed).unwrap()).collect();
    assert!(digests.windows(2).all(|pair| pair[0] != pair[1]));
    for kernel in Kernel::available() {
        for (seed, digest) in digests.iter().enumerate() {
            assert_eq!(probe::digest(kernel, seed as u64), Some(*digest), "{} seed {seed}", kernel.name());
        }
    }
}

#[test]
fn dispatch_picks_the_fastest_path_and_names_it() {
    assert_eq!(Kernel::by_name(Kernel::detect().name()), Ok(Kernel::detect()));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        let has_vnni = std::arch::is_x86_feature_detected!("avx512vnni");
        let has_rest =
            std::arch::is_x86_feature_detected!("avx512dq") && std::arch::is_x86_feature_detected!("avx512vl");
        assert_eq!(Kernel::detect().name(), if has_vnni && has_rest { "avx512" } else { "avx2" });
    }
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    assert_eq!(Kernel::detect().name(), "neon");
    let error = Kernel::by_name("avx9").unwrap_err();
    assert!(error.to_string().contains("avx9") && error.available.contains("scalar"));
}

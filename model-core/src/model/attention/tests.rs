use super::*;
use crate::model::kv_cache::CachePrecision;
use crate::profile::OFF;

/// Deterministic values around zero.
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| (((i + 131 * seed) * 7919 % 2003) as f32 / 1001.5 - 1.0) * 1.5).collect()
}

struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    positions: usize,
    window: usize,
    precision: CachePrecision,
}

/// Attention in `f64` without any cache.
fn expected(shape: &Shape, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let Shape { heads, kv_heads, head_dim, positions, window, .. } = *shape;
    let mut out = vec![0.0; positions * heads * head_dim];
    for (i, out) in out.chunks_exact_mut(head_dim).enumerate() {
        let (position, kv_head) = (i / heads, i % heads * kv_heads / heads);
        let row = |x: &[f32], p: usize| x[(p * kv_heads + kv_head) * head_dim..][..head_dim].to_vec();
        let query = &q[i * head_dim..][..head_dim];
        let dot = |key: Vec<f32>| query.iter().zip(key).map(|(&q, k)| f64::from(q) * f64::from(k)).sum::<f64>();
        let first = (position + 1).saturating_sub(window);
        let weights: Vec<f64> =
            (first..=position).map(|p| libm::exp(dot(row(k, p)) / libm::sqrt(head_dim as f64))).collect();
        let sum: f64 = weights.iter().sum();
        for (p, weight) in (first..).zip(&weights) {
            out.iter_mut().zip(row(v, p)).for_each(|(out, v)| *out += weight / sum * f64::from(v));
        }
    }
    out
}

fn run(shape: &Shape, kernel: Kernel, batch: usize, threads: usize, qkv: [&[f32]; 3]) -> Vec<f32> {
    let Shape { heads, kv_heads, head_dim, positions, window, precision } = *shape;
    let mut cache = KvCache::new(2, kv_heads, head_dim, precision);
    let mut out = vec![0.0; positions * heads * head_dim];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    for start in (0..positions).step_by(batch) {
        let tokens = batch.min(positions - start);
        let part = |x: usize| start * x * head_dim..(start + tokens) * x * head_dim;
        let [q, k, v] = [&qkv[0][part(heads)], &qkv[1][part(kv_heads)], &qkv[2][part(kv_heads)]];
        let scale = 1.0 / (head_dim as f32).sqrt();
        cache.reserve(start + tokens).unwrap();
        let input = AttentionInput { kernel, layer: 1, start, window, scale, q, k, v, profile: &OFF };
        pool.install(|| attend(&mut cache, input, &mut out[part(heads)])).unwrap();
        cache.set_len(start + tokens);
    }
    out
}

#[test]
fn is_close_to_exact_attention_and_equal_on_every_path_batch_and_thread_count() {
    // Windows that are wider than the text, that begin within a segment and at its edge, and of a single position.
    let shapes = [
        (9, 3, 64, usize::MAX),
        (4, 4, 20, 39),
        (2, 1, 128, 32),
        (3, 1, 6, 1),
        (4, 1, 256, 70),
        (8, 1, 16, usize::MAX),
        (5, 1, 72, usize::MAX),
    ];
    let precisions = [(CachePrecision::Bits16, 1e-3), (CachePrecision::Bits8, 2e-2)];
    for ((heads, kv_heads, head_dim, window), (precision, tolerance)) in
        shapes.into_iter().flat_map(|shape| precisions.map(|precision| (shape, precision)))
    {
        let shape = Shape { heads, kv_heads, head_dim, positions: 77, window, precision };
        let [q, k, v] = [heads, kv_heads, kv_heads].map(|n| values(n * head_dim * shape.positions, n + head_dim));
        let qkv = [q.as_slice(), &k, &v];
        let one = run(&shape, Kernel::SCALAR, 1, 1, qkv);
        for (out, exact) in one.iter().zip(expected(&shape, &q, &k, &v)) {
            assert!((f64::from(*out) - exact).abs() < tolerance, "{out} {exact}");
        }
        for kernel in Kernel::available() {
            for (batch, threads) in [(1, 1), (7, 2), (32, 1), (77, 3)] {
                let other = run(&shape, kernel, batch, threads, qkv);
                let same = one.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} batch {batch} threads {threads}", kernel.name());
            }
        }
    }
}

#[test]
fn a_dominant_position_does_not_swallow_the_others() {
    // One key takes 90 % of the probability; 319 others share the rest. Their values must still count.
    let precision = CachePrecision::default();
    let shape = Shape { heads: 1, kv_heads: 1, head_dim: 8, positions: 320, window: usize::MAX, precision };
    let mut k = vec![0.0; 320 * 8];
    k[0] = 22.6;
    let q: Vec<f32> = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0].repeat(320);
    let v: Vec<f32> = (0..320 * 8).map(|i| if i < 8 { 0.0 } else { 1.0 }).collect();
    let out = run(&shape, Kernel::detect(), 320, 1, [&q, &k, &v]);
    let exact = expected(&shape, &q, &k, &v);
    let (out, exact) = (f64::from(out[319 * 8]), exact[319 * 8]);
    assert!((out / exact - 1.0).abs() < 1e-3, "{out} {exact}");
}

#[test]
fn refuses_what_is_not_finite() {
    let mut cache = KvCache::new(1, 1, 8, CachePrecision::default());
    cache.reserve(1).unwrap();
    let (good, mut bad, mut out) = ([1.0; 8], [1.0; 8], [0.0; 8]);
    bad[3] = f32::NAN;
    let input = |q, k, v| AttentionInput {
        kernel: Kernel::SCALAR,
        layer: 0,
        start: 0,
        window: usize::MAX,
        scale: 1.0,
        q,
        k,
        v,
        profile: &OFF,
    };
    assert_eq!(attend(&mut cache, input(&good, &bad, &good), &mut out), Err(NonFinite));
    assert_eq!(attend(&mut cache, input(&good, &good, &bad), &mut out), Err(NonFinite));
    attend(&mut cache, input(&bad, &good, &good), &mut out).unwrap();
    assert!(out.iter().all(|out| out.is_nan()));
}

#[test]
fn truncation_gives_memory_back_and_old_positions_do_not_shine_through() {
    let precision = CachePrecision::default();
    let shape = Shape { heads: 1, kv_heads: 1, head_dim: 8, positions: 40, window: usize::MAX, precision };
    let [q, k, v] = [1, 2, 3].map(|seed| values(40 * 8, seed));
    let fresh = run(&shape, Kernel::detect(), 40, 1, [&q, &k, &v]);
    let mut cache = KvCache::new(1, 1, 8, CachePrecision::default());
    cache.reserve(70).unwrap();
    let garbage = [1e9; 70 * 8];
    let input = |q, k, v| AttentionInput {
        kernel: Kernel::detect(),
        layer: 0,
        start: 0,
        window: usize::MAX,
        scale: 1.0 / 8f32.sqrt(),
        q,
        k,
        v,
        profile: &OFF,
    };
    attend(&mut cache, input(&garbage, &garbage, &garbage), &mut [0.0; 70 * 8]).unwrap();
    cache.set_len(70);
    let before = cache.bytes();
    cache.truncate(1);
    assert_eq!((cache.len(), cache.bytes() * 3), (1, before));
    cache.reserve(40).unwrap();
    let mut out = vec![0.0; 40 * 8];
    attend(&mut cache, input(&q, &k, &v), &mut out).unwrap();
    assert!(out.iter().zip(&fresh).all(|(a, b)| a.to_bits() == b.to_bits()));
}

//! A digest over random cases of every float path: two builds of this crate (native, wasm) and two kernels agree on it
//! exactly if they agree on every bit. For tests only.

use super::{Activations, Forms, Kernel, matmul};
use crate::math::{
    Angles, Pairing, Rope, Rotation, add_assign, cap_softly, gelu_mul, rms_norm, rms_norm_into, scale, silu_mul,
};
use crate::model::attention::{AttentionInput, attend};
use crate::model::kv_cache::{CachePrecision, KvCache};
use crate::pack::Matrix;
use crate::pack::layout::Width;
use crate::profile;

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number in `low..=high`.
    fn number(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() >> 33) as usize % (high - low + 1)
    }

    /// Values between -1 and 1, one in 64 of them sixteen times larger, as activations are.
    fn floats(&mut self, count: usize) -> Vec<f32> {
        let one = |random: u64| {
            let value = (random >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            if random.is_multiple_of(64) { 16.0 * value } else { value }
        };
        (0..count).map(|_| one(self.next())).collect()
    }
}

/// FNV-1a over 32-bit words (Fowler, Noll, Vo).
fn hash(digest: u64, values: &[f32]) -> u64 {
    values.iter().fold(digest, |digest, value| (digest ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3))
}

/// Runs one random case of each part, chosen by `seed`, on `kernel`. `None` would mean that a case was not finite.
pub fn digest(kernel: Kernel, seed: u64) -> Option<u64> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut digest = 0xcbf2_9ce4_8422_2325;
    for (width, group) in [(Width::Byte, 32), (Width::Nibble, 32), (Width::Byte, 16)] {
        for affine in [false, true] {
            digest = hash(digest, &coded(kernel, &mut random, affine, width, group)?);
        }
    }
    for affine in [false, true] {
        for width in [Width::Fields, Width::PackedFields] {
            digest = hash(digest, &coded(kernel, &mut random, affine, width, 32)?);
        }
    }
    for width in [Width::Trits, Width::PackedTrits] {
        digest = hash(digest, &coded(kernel, &mut random, false, width, 256)?);
    }
    digest = hash(digest, &float(kernel, &mut random)?);
    digest = hash(digest, &attention(kernel, &mut random)?);
    Some(hash(digest, &elementwise(&mut random)))
}

fn coded(kernel: Kernel, random: &mut Random, affine: bool, width: Width, group: usize) -> Option<Vec<f32>> {
    let (rows, tokens) = (random.number(1, 40), random.number(1, 19));
    let columns = random.number(1, 70 * 32 / group.max(32)) * group.max(32);
    let groups = columns / group;
    let codes: Vec<i8> = (0..rows * columns).map(|_| width.code(random.next() as i8)).collect();
    let scales = random.floats(rows * groups);
    let offsets = random.floats(if affine { rows * groups } else { 0 });
    product(kernel, random, &Matrix::from_codes(columns, width, &codes, &scales, &offsets), tokens)
}

fn float(kernel: Kernel, random: &mut Random) -> Option<Vec<f32>> {
    let (rows, columns, tokens) = (random.number(1, 20), random.number(1, 70), random.number(1, 5));
    let values = random.floats(rows * columns);
    product(kernel, random, &Matrix::from_values(columns, &values), tokens)
}

fn product(kernel: Kernel, random: &mut Random, matrix: &Matrix, tokens: usize) -> Option<Vec<f32>> {
    let mut x = Activations::default();
    x.quantize(&random.floats(tokens * matrix.columns()), matrix.columns(), Forms::of(&[matrix])).ok()?;
    let mut y = vec![0.0; tokens * matrix.rows()];
    matmul(kernel, matrix, &x, &mut y);
    Some(y)
}

fn attention(kernel: Kernel, random: &mut Random) -> Option<Vec<f32>> {
    let (kv_heads, shared, head_dim) = (random.number(1, 2), random.number(1, 9), 2 * random.number(1, 40));
    let precision = if random.number(0, 1) == 0 { CachePrecision::Bits16 } else { CachePrecision::Bits8 };
    let positions = random.number(1, 100);
    let mut part = |heads: usize| random.floats(positions * heads * head_dim);
    let (mut q, mut k, v) = (part(kv_heads * shared), part(kv_heads), part(kv_heads));
    let pairing = if random.number(0, 1) == 0 { Pairing::Neighbours } else { Pairing::Halves };
    let rotation =
        Rotation { pairing, dim: head_dim, theta: 10_000.0, scale: 2.0, yarn_context: Some(64), magnitude: 1.0 };
    let mut angles = Angles::default();
    Rope::new(&rotation, None).angles_into(5, positions, &mut angles);
    angles.apply(&mut q, head_dim);
    angles.apply(&mut k, head_dim);
    let window = random.number(1, 100);
    let mut cache = KvCache::new(1, kv_heads, head_dim, precision);
    cache.reserve(positions).ok()?;
    let mut out = vec![0.0; q.len()];
    let scale = 1.0 / (head_dim as f32).sqrt();
    let input =
        AttentionInput { kernel, layer: 0, start: 0, window, scale, q: &q, k: &k, v: &v, profile: &profile::OFF };
    attend(&mut cache, input, &mut out).ok()?;
    Some(out)
}

fn elementwise(random: &mut Random) -> Vec<f32> {
    let count = random.number(1, 200);
    let [mut x, y, weight] = [0; 3].map(|_| random.floats(count));
    silu_mul(&mut x, &y);
    gelu_mul(&mut x, &y);
    scale(&mut x, 3.0);
    add_assign(&mut x, &y);
    let mut out = vec![0.0; count];
    rms_norm_into(&x, &weight, 1e-5, &mut out);
    rms_norm(&mut out, &weight, 1e-5);
    cap_softly(&mut out, 2.0);
    out
}

//! The AVX2 instance of [`Isa`]: instructions only.

use core::arch::asm;
use core::arch::x86_64::*;

use super::isa::{Isa, Rows};
use super::ternary::Lookup;

/// AVX2, with VNNI together with the instructions that machines with AVX-512 have for vectors of this width.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>;

// SAFETY of every block below: the callers of an `Isa` vouch for AVX2, and with VNNI for AVX-512 VL and VNNI (a `Kernel` that
// names them exists only after detection), and for the memory behind pointers; all loads and stores are the unaligned forms.
impl<const VNNI: bool> Isa for Avx2<VNNI> {
    const LANES: usize = 8;

    type Ints = __m256i;
    type Floats = __m256;
    type Pair = __m256i;
    type Codes = __m256i;

    const HOLDS_ACTIVATIONS: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.cast())) }
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(codes.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_next(rows: Rows, bytes: usize) {
        prefetch(rows.at.wrapping_add(rows.next), bytes);
    }

    #[inline(always)]
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        // SAFETY: see above.
        unsafe {
            if VNNI { multiply_add_pairs(sum, codes, x) } else { _mm256_add_epi32(sum, _mm256_madd_epi16(codes, x)) }
        }
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm256_and_si256(codes, _mm256_set1_epi16(0x0f)) }
    }

    #[inline(always)]
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe {
            let low = Self::low_nibbles(shared);
            let (high, low) = (_mm256_sub_epi16(shared, low), _mm256_sub_epi16(low, _mm256_set1_epi16(8)));
            interleave(low, high)
        }
    }

    #[inline(always)]
    unsafe fn row_quads(rows: Rows) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe {
            let half_bytes = _mm256_set1_epi8(0x0f);
            let low = _mm256_and_si256(Self::codes16(rows.at.cast()), half_bytes);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(Self::codes16(rows.at.add(1).cast())), half_bytes);
            interleave(low, _mm256_xor_si256(high, _mm256_set1_epi8(8)))
        }
    }

    #[inline(always)]
    unsafe fn dot_add_quads(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        // SAFETY: see above.
        unsafe {
            let pairs = _mm256_maddubs_epi16(codes, x);
            Self::dot_add(sum, pairs, _mm256_set1_epi16(1))
        }
    }

    #[inline(always)]
    unsafe fn ints(pair: Self::Pair) -> Self::Ints {
        pair
    }

    #[inline(always)]
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm256_and_si256(ints, _mm256_set1_epi32(0xfff)) }
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn sub_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm256_sub_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(a, b) }
    }
}

/// Of `low` and `high`, which have rows 0 to 3 and 4 to 7 of something and then of something else: all rows of the one, and all
/// rows of the other.
#[inline(always)]
unsafe fn interleave(low: __m256i, high: __m256i) -> [__m256i; 2] {
    // SAFETY: see above.
    unsafe { [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)] }
}

impl<const VNNI: bool> Lookup for Avx2<VNNI> {
    type Indices = __m256i;
    type Table = __m256i;
    type Shorts = __m256i;

    #[inline(always)]
    unsafe fn no_shorts() -> Self::Shorts {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn indices(at: *const u8) -> Self::Indices {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn packed_indices(at: *const u8) -> Self::Indices {
        // SAFETY: see above.
        unsafe {
            let both = _mm_loadu_si128(at.cast());
            _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(both), both), _mm256_set1_epi8(0x0f))
        }
    }

    #[inline(always)]
    unsafe fn table(at: *const u8) -> Self::Table {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(at.cast()) }
    }

    #[inline(always)]
    unsafe fn look_up_add(sums: Self::Shorts, table: Self::Table, indices: Self::Indices) -> Self::Shorts {
        // SAFETY: see above.
        unsafe {
            let found = _mm256_shuffle_epi8(table, indices);
            _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), found))
        }
    }

    #[inline(always)]
    unsafe fn total(low: Self::Shorts, high: Self::Shorts, _part: usize) -> Self::Ints {
        // SAFETY: see above.
        unsafe {
            let quads = |sums| _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let wide = |sums| _mm256_cvtepi16_epi32(quads(sums));
            _mm256_add_epi32(wide(low), _mm256_slli_epi32::<8>(wide(high)))
        }
    }
}

/// `vpdpwssd`, written out: the compiler takes the intrinsic apart into a multiplication and an addition.
#[inline]
#[target_feature(enable = "avx512vl,avx512vnni")]
unsafe fn multiply_add_pairs(mut sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the instruction reads and writes these registers only.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {codes}, {x}",
            sum = inout(ymm_reg) sum,
            codes = in(ymm_reg) codes,
            x = in(ymm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Asks for the cache lines of `bytes` bytes, which need not exist.
#[inline(always)]
pub(super) fn prefetch(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch of any address is harmless; SSE is part of the target.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
    }
}

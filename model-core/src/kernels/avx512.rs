//! The AVX-512 instance of [`Isa`]: two row groups side by side. Instructions only.

use core::arch::asm;
use core::arch::x86_64::*;

use super::isa::{Isa, Rows, TOKENS};
use super::x86_64::prefetch;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

// SAFETY of every block below: the callers of an `Isa` vouch for AVX-512 F, BW, DQ, VL and VNNI (a `Kernel` that names
// it exists only after detection) and for the memory behind pointers; all loads and stores are the unaligned forms.
impl Isa for Avx512 {
    const LANES: usize = 16;
    const BATCH: usize = TOKENS;

    type Ints = __m512i;
    type Floats = __m512;
    type Pair = __m512i;
    type Codes = __m512i;

    const HOLDS_ACTIVATIONS: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn row_codes8(codes: Rows) -> Self::Codes {
        // SAFETY: see above.
        unsafe {
            let first = _mm256_castsi128_si256(_mm_loadu_si128(codes.at.cast()));
            let second = _mm_loadu_si128(codes.add(codes.next).at.cast());
            _mm512_cvtepi8_epi16(_mm256_inserti128_si256::<1>(first, second))
        }
    }

    #[inline(always)]
    unsafe fn row_codes16(codes: Rows) -> Self::Codes {
        // SAFETY: see above.
        unsafe {
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(codes.at.cast()));
            _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(codes.add(codes.next).at.cast()))
        }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(codes.cast())) }
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(codes.cast()) }
    }

    #[inline(always)]
    unsafe fn prefetch_next(rows: Rows, bytes: usize) {
        prefetch(rows.at.wrapping_add(2 * rows.next), bytes);
        prefetch(rows.at.wrapping_add(3 * rows.next), bytes);
    }

    #[inline(always)]
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        // SAFETY: see above.
        unsafe { multiply_add_pairs(sum, codes, x) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(codes, _mm512_set1_epi16(0x0f)) }
    }

    #[inline(always)]
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe {
            let low = Self::low_nibbles(shared);
            let (high, low) = (_mm512_sub_epi16(shared, low), _mm512_sub_epi16(low, _mm512_set1_epi16(8)));
            interleave(low, high)
        }
    }

    #[inline(always)]
    unsafe fn row_quads(rows: Rows) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe {
            let half_bytes = _mm512_set1_epi8(0x0f);
            let low = _mm512_and_si512(Self::row_codes16(rows), half_bytes);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(Self::row_codes16(rows.add(1))), half_bytes);
            interleave(low, _mm512_xor_si512(high, _mm512_set1_epi8(8)))
        }
    }

    #[inline(always)]
    unsafe fn dot_add_quads(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        // SAFETY: see above.
        unsafe { multiply_add_quads(sum, codes, x) }
    }

    #[inline(always)]
    unsafe fn ints(pair: Self::Pair) -> Self::Ints {
        pair
    }

    #[inline(always)]
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(ints, _mm512_set1_epi32(0xfff)) }
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn sub_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn row_floats(from: Rows) -> Self::Floats {
        // SAFETY: see above.
        unsafe {
            let first = _mm512_castps256_ps512(_mm256_loadu_ps(from.at.cast()));
            _mm512_insertf32x8::<1>(first, _mm256_loadu_ps(from.add(from.next).at.cast()))
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }
}

/// Of `low` and `high`, which have rows 0 to 3 and 4 to 7 of something and then of something else in each row group: all rows of
/// the one, and all rows of the other.
#[inline(always)]
unsafe fn interleave(low: __m512i, high: __m512i) -> [__m512i; 2] {
    // SAFETY: see above.
    unsafe {
        let one = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
        let other = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
        [_mm512_permutex2var_epi64(low, one, high), _mm512_permutex2var_epi64(low, other, high)]
    }
}

/// `vpdpwssd`, written out: the compiler takes the intrinsic apart into a multiplication and an addition, which costs
/// a quarter of the speed of a product.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply_add_pairs(mut sum: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    // SAFETY: the instruction reads and writes these registers only.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {codes}, {x}",
            sum = inout(zmm_reg) sum,
            codes = in(zmm_reg) codes,
            x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// `vpdpbusd`, written out for the same reason.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply_add_quads(mut sum: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    // SAFETY: the instruction reads and writes these registers only.
    unsafe {
        asm!(
            "vpdpbusd {sum}, {codes}, {x}",
            sum = inout(zmm_reg) sum,
            codes = in(zmm_reg) codes,
            x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

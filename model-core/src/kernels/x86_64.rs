//! The AVX2 instance of [`Isa`]: intrinsics only.

use core::arch::x86_64::*;

use super::isa::{Isa, Rows};

#[derive(Clone, Copy)]
pub(super) struct Avx2;

// SAFETY of every block below: the callers of an `Isa` vouch for AVX2 (a `Kernel` that names it exists only after
// detection) and for the memory behind pointers; all loads and stores are the unaligned forms.
impl Isa for Avx2 {
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
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(codes, x)) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        // SAFETY: see above.
        unsafe { _mm256_and_si256(codes, _mm256_set1_epi16(0x0f)) }
    }

    #[inline(always)]
    unsafe fn unpack(bytes: Rows) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe {
            let bytes = Self::codes8(bytes.at.cast());
            let low = Self::low_nibbles(bytes);
            let (high, low) = (_mm256_sub_epi16(bytes, low), _mm256_sub_epi16(low, _mm256_set1_epi16(8)));
            [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
        }
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(value) }
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

/// Asks for the cache lines of `bytes` bytes, which need not exist.
#[inline(always)]
pub(super) fn prefetch(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch of any address is harmless; SSE is part of the target.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
    }
}

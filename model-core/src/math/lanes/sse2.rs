//! The sums across lanes, which compilers do not find by themselves, in the vectors of the least machine of x86-64.

use core::arch::x86_64::*;

use super::backend::{Floats, Ints};

#[inline(always)]
pub(super) fn totals(fours: [Floats; 4]) -> Floats {
    // SAFETY: four floats are read where there are four, and a vector has four.
    unsafe {
        let load = |i: usize| _mm_loadu_ps(fours[i].as_ptr());
        let halves = |a, b| _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let (ab, cd) = (halves(load(0), load(1)), halves(load(2), load(3)));
        core::mem::transmute(_mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab)))
    }
}

#[inline(always)]
pub(super) fn code_totals(eights: [&[i16; 8]; 4]) -> Ints {
    // SAFETY: eight codes are read where there are eight, and a vector has four integers.
    unsafe {
        let pairs = |i: usize| _mm_madd_epi16(_mm_loadu_si128(eights[i].as_ptr().cast()), _mm_set1_epi16(1));
        let halves = |a, b| _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (ab, cd) = (halves(pairs(0), pairs(1)), halves(pairs(2), pairs(3)));
        core::mem::transmute(_mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd)))
    }
}

//! The NEON instance of [`Isa`]: intrinsics only.

use core::arch::aarch64::*;

use super::isa::Isa;
use super::ternary::Lookup;

#[derive(Clone, Copy)]
pub(super) struct Neon;

/// Codes of eight outputs, one register for each column of a pair.
#[derive(Clone, Copy)]
pub(super) struct Columns(int16x8_t, int16x8_t);

// SAFETY of every block below: this module is compiled only where NEON is part of the target; the callers of an `Isa`
// vouch for the memory behind pointers, and no load or store needs alignment.
impl Isa for Neon {
    const LANES: usize = 8;

    type Ints = [int32x4_t; 2];
    type Floats = [float32x4_t; 2];
    type Pair = int16x4_t;
    type Codes = Columns;

    const HOLDS_ACTIVATIONS: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(0); 2] }
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: see above.
        unsafe { vreinterpret_s16_s32(vdup_n_s32(x.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: see above.
        unsafe {
            let pairs = vreinterpretq_s16_s8(vld1q_s8(codes));
            Columns(vshrq_n_s16::<8>(vshlq_n_s16::<8>(pairs)), vshrq_n_s16::<8>(pairs))
        }
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: see above.
        unsafe {
            let int16x8x2_t(first, second) = vld2q_s16(codes);
            Columns(first, second)
        }
    }

    #[inline(always)]
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        let (Columns(first, second), [low, high]) = (codes, sum);
        // SAFETY: see above.
        unsafe {
            let low = vmlal_lane_s16::<0>(low, vget_low_s16(first), x);
            let high = vmlal_high_lane_s16::<0>(high, first, x);
            [vmlal_lane_s16::<1>(low, vget_low_s16(second), x), vmlal_high_lane_s16::<1>(high, second, x)]
        }
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        // SAFETY: see above.
        unsafe {
            let mask = vdupq_n_s16(0x0f);
            Columns(vandq_s16(codes.0, mask), vandq_s16(codes.1, mask))
        }
    }

    #[inline(always)]
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe {
            let low = Self::low_nibbles(shared);
            let high = Columns(vsubq_s16(shared.0, low.0), vsubq_s16(shared.1, low.1));
            let low = Columns(vsubq_s16(low.0, vdupq_n_s16(8)), vsubq_s16(low.1, vdupq_n_s16(8)));
            let one = |low, high| vcombine_s16(vget_low_s16(low), vget_low_s16(high));
            let two = |low, high| vcombine_s16(vget_high_s16(low), vget_high_s16(high));
            [Columns(one(low.0, high.0), one(low.1, high.1)), Columns(two(low.0, high.0), two(low.1, high.1))]
        }
    }

    #[inline(always)]
    unsafe fn packed_fields(at: *const u8) -> Self::Codes {
        // SAFETY: see above.
        unsafe {
            let lanes = |at: *const u8| vbicq_s16(vreinterpretq_s16_u8(vld1q_u8(at)), vdupq_n_s16(0x0ff0));
            let (one, two) = (lanes(at), lanes(at.add(1)));
            Columns(vuzp1q_s16(one, two), vuzp2q_s16(one, two))
        }
    }

    #[inline(always)]
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { ints.map(|ints| vandq_s32(ints, vdupq_n_s32(0xfff))) }
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(value); 2] }
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn sub_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [vsubq_s32(a[0], b[0]), vsubq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [vcvtq_f32_s32(ints[0]), vcvtq_f32_s32(ints[1])] }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [vdupq_n_f32(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: see above.
        unsafe {
            vst1q_f32(to, floats[0]);
            vst1q_f32(to.add(4), floats[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }
}

impl Lookup for Neon {
    type Indices = [uint8x16_t; 2];
    type Table = [uint8x16_t; 2];
    type Shorts = int16x8_t;

    #[inline(always)]
    unsafe fn no_shorts() -> Self::Shorts {
        // SAFETY: see above.
        unsafe { vdupq_n_s16(0) }
    }

    #[inline(always)]
    unsafe fn indices(at: *const u8) -> Self::Indices {
        // SAFETY: see above.
        unsafe { [vld1q_u8(at), vld1q_u8(at.add(16))] }
    }

    #[inline(always)]
    unsafe fn packed_indices(at: *const u8) -> Self::Indices {
        // SAFETY: see above.
        unsafe {
            let both = vld1q_u8(at);
            [vandq_u8(both, vdupq_n_u8(0x0f)), vshrq_n_u8::<4>(both)]
        }
    }

    #[inline(always)]
    unsafe fn table(at: *const u8) -> Self::Table {
        // SAFETY: see above.
        unsafe { [vld1q_u8(at), vld1q_u8(at.add(16))] }
    }

    #[inline(always)]
    unsafe fn look_up_add(sums: Self::Shorts, table: Self::Table, indices: Self::Indices) -> Self::Shorts {
        // SAFETY: see above.
        unsafe {
            let found = |quad: usize| vreinterpretq_s8_u8(vqtbl1q_u8(table[quad], indices[quad]));
            vpadalq_s8(vpadalq_s8(sums, found(0)), found(1))
        }
    }

    #[inline(always)]
    unsafe fn total(low: Self::Shorts, high: Self::Shorts, _part: usize) -> Self::Ints {
        // SAFETY: see above.
        unsafe {
            let half = |low, high| vaddq_s32(vmovl_s16(low), vshll_n_s16::<8>(high));
            [half(vget_low_s16(low), vget_low_s16(high)), half(vget_high_s16(low), vget_high_s16(high))]
        }
    }
}

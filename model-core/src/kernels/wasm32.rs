//! The WebAssembly SIMD128 instance of [`Isa`]: intrinsics only. Outputs 0..4 lie in the first vector, 4..8 in the
//! second.

use core::arch::wasm32::*;

use super::isa::Isa;

#[derive(Clone, Copy)]
pub(super) struct Simd128;

/// Two vectors that stand for eight outputs.
type Two = [v128; 2];

// SAFETY of every block below: the callers of an `Isa` vouch for the memory behind pointers; wasm loads and stores
// accept any alignment.
impl Isa for Simd128 {
    type Ints = Two;
    type Floats = Two;
    type Pair = v128;
    type Codes = Two;

    const HOLDS_ACTIVATIONS: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        [i32x4_splat(0); 2]
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: see above.
        unsafe { v128_load32_splat(x.cast()) }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: see above.
        unsafe { [i16x8_load_extend_i8x8(codes), i16x8_load_extend_i8x8(codes.add(8))] }
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: see above.
        unsafe { [v128_load(codes.cast()), v128_load(codes.add(8).cast())] }
    }

    #[inline(always)]
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        [i32x4_add(sum[0], i32x4_dot_i16x8(codes[0], x)), i32x4_add(sum[1], i32x4_dot_i16x8(codes[1], x))]
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        [f32x4_convert_i32x4(ints[0]), f32x4_convert_i32x4(ints[1])]
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        [f32x4_splat(value); 2]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [v128_load(from.cast()), v128_load(from.add(4).cast())] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: see above.
        unsafe {
            v128_store(to.cast(), floats[0]);
            v128_store(to.add(4).cast(), floats[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        [f32x4_mul(a[0], b[0]), f32x4_mul(a[1], b[1])]
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        [f32x4_add(a[0], b[0]), f32x4_add(a[1], b[1])]
    }
}

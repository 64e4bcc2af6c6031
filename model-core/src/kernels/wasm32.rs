//! The WebAssembly SIMD128 instance of [`Isa`]: intrinsics only.

use core::arch::wasm32::*;

use super::isa::Isa;
use super::ternary::Lookup;

#[derive(Clone, Copy)]
pub(super) struct Simd128;

// SAFETY of every block below: the callers of an `Isa` vouch for the memory behind pointers; wasm loads and stores
// accept any alignment.
impl Isa for Simd128 {
    const LANES: usize = 4;

    type Ints = v128;
    type Floats = v128;
    type Pair = v128;
    type Codes = v128;

    const HOLDS_ACTIVATIONS: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        i32x4_splat(0)
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: see above.
        unsafe { v128_load32_splat(x.cast()) }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: see above.
        unsafe { i16x8_load_extend_i8x8(codes) }
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: see above.
        unsafe { v128_load(codes.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        i32x4_add(sum, i32x4_dot_i16x8(codes, x))
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        v128_and(codes, i16x8_splat(0x0f))
    }

    #[inline(always)]
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2] {
        // SAFETY: see above.
        let low = unsafe { Self::low_nibbles(shared) };
        [i16x8_sub(low, i16x8_splat(8)), i16x8_sub(shared, low)]
    }

    #[inline(always)]
    unsafe fn packed_fields(at: *const u8) -> Self::Codes {
        // SAFETY: see above.
        v128_and(unsafe { v128_load(at.cast()) }, i16x8_splat(0xf00fu16 as i16))
    }

    #[inline(always)]
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints {
        v128_and(ints, i32x4_splat(0xfff))
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        i32x4_splat(value)
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        i32x4_add(a, b)
    }

    #[inline(always)]
    unsafe fn sub_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        i32x4_sub(a, b)
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        f32x4_convert_i32x4(ints)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        f32x4_splat(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: see above.
        unsafe { v128_store(to.cast(), floats) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        f32x4_add(a, b)
    }
}

impl Lookup for Simd128 {
    type Indices = [v128; 2];
    type Table = [v128; 2];
    type Shorts = v128;

    #[inline(always)]
    unsafe fn no_shorts() -> Self::Shorts {
        i16x8_splat(0)
    }

    #[inline(always)]
    unsafe fn indices(at: *const u8) -> Self::Indices {
        // SAFETY: see above.
        unsafe { [v128_load(at.cast()), v128_load(at.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn packed_indices(at: *const u8) -> Self::Indices {
        // SAFETY: see above.
        let both = unsafe { v128_load(at.cast()) };
        [v128_and(both, u8x16_splat(0x0f)), u8x16_shr(both, 4)]
    }

    #[inline(always)]
    unsafe fn table(at: *const u8) -> Self::Table {
        // SAFETY: see above.
        unsafe { [v128_load(at.cast()), v128_load(at.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn look_up_add(sums: Self::Shorts, table: Self::Table, indices: Self::Indices) -> Self::Shorts {
        let found = |quad: usize| i16x8_extadd_pairwise_i8x16(u8x16_swizzle(table[quad], indices[quad]));
        i16x8_add(i16x8_add(sums, found(0)), found(1))
    }

    #[inline(always)]
    unsafe fn total(low: Self::Shorts, high: Self::Shorts, part: usize) -> Self::Ints {
        let wide = |sums| if part == 0 { i32x4_extend_low_i16x8(sums) } else { i32x4_extend_high_i16x8(sums) };
        i32x4_add(wide(low), i32x4_shl(wide(high), 8))
    }
}

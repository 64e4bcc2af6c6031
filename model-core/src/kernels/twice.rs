//! Eight lanes out of four, for products that compute whole row groups at once.

use core::marker::PhantomData;

use super::isa::Isa;

/// An `Isa` of four lanes, taken twice.
#[derive(Clone, Copy)]
pub(super) struct Twice<I>(PhantomData<I>);

// SAFETY of every block below: the conditions of the methods are those of the `Isa` that they use.
impl<I: Isa> Isa for Twice<I> {
    const LANES: usize = 2 * I::LANES;

    type Ints = [I::Ints; 2];
    type Floats = [I::Floats; 2];
    type Pair = I::Pair;
    type Codes = [I::Codes; 2];

    const HOLDS_ACTIVATIONS: bool = I::HOLDS_ACTIVATIONS;

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        // SAFETY: see above.
        unsafe { [I::zero(); 2] }
    }

    #[inline(always)]
    unsafe fn pair(x: *const i16) -> Self::Pair {
        // SAFETY: see above.
        unsafe { I::pair(x) }
    }

    #[inline(always)]
    unsafe fn codes8(codes: *const i8) -> Self::Codes {
        // SAFETY: see above.
        unsafe { [I::codes8(codes), I::codes8(codes.add(2 * I::LANES))] }
    }

    #[inline(always)]
    unsafe fn codes16(codes: *const i16) -> Self::Codes {
        // SAFETY: see above.
        unsafe { [I::codes16(codes), I::codes16(codes.add(2 * I::LANES))] }
    }

    #[inline(always)]
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [I::dot_add(sum[0], codes[0], x), I::dot_add(sum[1], codes[1], x)] }
    }

    #[inline(always)]
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes {
        // SAFETY: see above.
        unsafe { [I::low_nibbles(codes[0]), I::low_nibbles(codes[1])] }
    }

    #[inline(always)]
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2] {
        // SAFETY: see above.
        unsafe { shared.map(|shared| I::unpack(shared)) }
    }

    #[inline(always)]
    unsafe fn packed_fields(at: *const u8) -> Self::Codes {
        // SAFETY: see above.
        unsafe { [I::packed_fields(at), I::packed_fields(at.add(1))] }
    }

    #[inline(always)]
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [I::low_fields(ints[0]), I::low_fields(ints[1])] }
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [I::splat_int(value); 2] }
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [I::add_int(a[0], b[0]), I::add_int(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn sub_int(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: see above.
        unsafe { [I::sub_int(a[0], b[0]), I::sub_int(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [I::to_floats(ints[0]), I::to_floats(ints[1])] }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [I::splat(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [I::load(from), I::load(from.add(I::LANES))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, floats: Self::Floats) {
        // SAFETY: see above.
        unsafe {
            I::store(to, floats[0]);
            I::store(to.add(I::LANES), floats[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [I::mul(a[0], b[0]), I::mul(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: see above.
        unsafe { [I::add(a[0], b[0]), I::add(a[1], b[1])] }
    }
}

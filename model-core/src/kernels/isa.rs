//! The vector operations that the integer products are written in. A lane is always an output (a row, a position, a
//! head dimension) and never a partial sum of one, so the number of lanes cannot change a result.

use crate::pack::layout::ROWS;

/// A place in a row group, and the same place in the row groups whose outputs share a register with it.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// In the first row group.
    pub at: *const u8,
    /// Bytes from one row group to the next.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "one row group fills the registers there"))]
    pub next: usize,
}

impl Rows {
    /// The place `bytes` further on.
    #[inline(always)]
    pub(super) unsafe fn add(self, bytes: usize) -> Self {
        // SAFETY: the caller stays within the row group.
        unsafe { Self { at: self.at.add(bytes), ..self } }
    }
}

/// [`Isa::LANES`] outputs at a time.
///
/// # Safety
/// All methods of an implementation may only run where its instructions exist. Pointers must be valid for the sizes
/// given; no alignment is assumed.
pub(super) trait Isa: Copy {
    /// Outputs at a time: 8, 4, or 16, which are those of two row groups.
    const LANES: usize;
    /// Row groups that share a register.
    const ROW_GROUPS: usize = if Self::LANES > ROWS { Self::LANES / ROWS } else { 1 };
    /// Tokens that share each loaded weight: [`TOKENS`], half of them where registers are few, or 1.
    const BATCH: usize = if Self::HOLDS_ACTIVATIONS { TOKENS } else { TOKENS / 2 };

    /// `i32`, one per output.
    type Ints: Copy;
    /// `f32`, one per output.
    type Floats: Copy;
    /// Two neighbouring 16-bit activations, repeated for every output.
    type Pair: Copy;
    /// Two neighbouring codes of every output, as 16-bit integers: `[output][2]`.
    type Codes: Copy;

    /// Whether products keep the activations of some columns in registers while they walk the rows. If not, they come
    /// from memory again and again, which is best where a memory operand is free.
    const HOLDS_ACTIVATIONS: bool;

    /// Zeros.
    unsafe fn zero() -> Self::Ints;
    /// Broadcasts the two activations at `x`.
    unsafe fn pair(x: *const i16) -> Self::Pair;
    /// Widens the two codes per output at `codes`.
    unsafe fn codes8(codes: *const i8) -> Self::Codes;
    /// Loads the two codes per output at `codes`.
    unsafe fn codes16(codes: *const i16) -> Self::Codes;
    /// [`Isa::codes8`] of each row group.
    #[inline(always)]
    unsafe fn row_codes8(rows: Rows) -> Self::Codes {
        // SAFETY: the caller's promise; an instance with two row groups has its own.
        unsafe { Self::codes8(rows.at.cast()) }
    }
    /// [`Isa::codes16`] of each row group.
    #[inline(always)]
    unsafe fn row_codes16(rows: Rows) -> Self::Codes {
        // SAFETY: as above.
        unsafe { Self::codes16(rows.at.cast()) }
    }
    /// [`Isa::load`] of each row group.
    #[inline(always)]
    unsafe fn row_floats(rows: Rows) -> Self::Floats {
        // SAFETY: as above.
        unsafe { Self::load(rows.at.cast()) }
    }
    /// Asks for the `bytes` bytes at the same place of the row groups that come next, where that helps.
    #[inline(always)]
    unsafe fn prefetch_next(_rows: Rows, _bytes: usize) {}
    /// `sum[i] + codes[i][0] * x[0] + codes[i][1] * x[1]`; the caller guarantees that nothing overflows.
    unsafe fn dot_add(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints;
    /// The low four bits of each code, as a number from 0 to 15.
    unsafe fn low_nibbles(codes: Self::Codes) -> Self::Codes;
    /// The codes of two rows each that `shared` holds: `code + 8` in the low four bits, and in the others that of the fourth row
    /// after it, which stays where it is. With 8 lanes or more, `shared` has rows 0 to 3 of two column pairs, and the result one
    /// pair after the other; with 4, rows 0 to 3 of one pair, and the result rows 0 to 3 and rows 4 to 7.
    unsafe fn unpack(shared: Self::Codes) -> [Self::Codes; 2];
    /// The packed lanes (see [`super::fields`]) at `at`; with 8 lanes or more, then those of the byte after it.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn packed_fields(at: *const u8) -> Self::Codes;
    /// Of two neighbouring column quads of packed fields in each row group, the codes plus 8 of each: `[output][4]`, bytes.
    #[cfg(target_arch = "x86_64")]
    unsafe fn row_quads(rows: Rows) -> [Self::Codes; 2];
    /// `sum[i] + Σ codes[i][k] * x[k]` over four bytes, of which those of `codes` are below 16 and those of `x` have a sign.
    #[cfg(target_arch = "x86_64")]
    unsafe fn dot_add_quads(sum: Self::Ints, codes: Self::Codes, x: Self::Pair) -> Self::Ints;
    /// A pair as the number whose halves it is, the low one first.
    #[cfg(target_arch = "x86_64")]
    unsafe fn ints(pair: Self::Pair) -> Self::Ints;
    /// The low 12 bits.
    unsafe fn low_fields(ints: Self::Ints) -> Self::Ints;
    /// `value` for each output.
    unsafe fn splat_int(value: i32) -> Self::Ints;
    /// Lane by lane; the caller guarantees that nothing overflows.
    unsafe fn add_int(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Lane by lane; the caller guarantees that nothing overflows.
    unsafe fn sub_int(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Nearest `f32`, ties to even.
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats;
    /// A copy for each output.
    unsafe fn splat(value: f32) -> Self::Floats;
    /// Neighbouring values.
    unsafe fn load(from: *const f32) -> Self::Floats;
    /// Writes neighbouring values.
    unsafe fn store(to: *mut f32, floats: Self::Floats);
    /// Lane by lane.
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Lane by lane.
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
}

/// Tokens that share each loaded weight in the widest batch.
pub(super) const TOKENS: usize = 8;

/// Repeats a block for `$i` = 0, 1, … 15, so that every index is a constant and arrays become registers.
macro_rules! for_16 {
    ($i:ident, $body:block) => {
        for_16!(@ $i, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $body:block, $($n:literal)*) => { $({ const $i: usize = $n; $body })* };
}
pub(super) use for_16;

/// Repeats a block for each of up to 18 blocks of columns.
macro_rules! for_blocks {
    ($i:ident, $body:block) => {
        $crate::kernels::isa::for_16!(@ $i, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17)
    };
}
pub(super) use for_blocks;

/// Repeats a block for each of `$count` (at most [`TOKENS`]) tokens, for the same reason.
macro_rules! for_tokens {
    ($t:ident < $count:ident, $body:block) => {
        $crate::kernels::isa::for_16!(@ $t, { if $t < $count { $body } }, 0 1 2 3 4 5 6 7)
    };
}
pub(super) use for_tokens;

/// Repeats a block for each part of the eight rows of a row group that an `Isa` of fewer lanes takes in turn.
macro_rules! for_parts {
    ($isa:ident, $part:ident, $body:block) => {
        $crate::kernels::isa::for_16!(@ $part, { if $part < ROWS / $isa::LANES { $body } }, 0 1)
    };
}
pub(super) use for_parts;

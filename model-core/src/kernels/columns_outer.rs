//! A product column block by column block: the activations of a block stay in registers while all rows pass, and `y`
//! holds the accumulators between blocks.
//!
//! In WebAssembly every operator counts, also those that move a value to a local and back. A load moves to the place of
//! its first use, unless a store lies between. So each output is computed from beginning to end before the next one
//! begins, and what its successors share with it is kept by [`Source::Kept`].

use core::mem::MaybeUninit;

use super::isa::{Isa, TOKENS, for_16, for_blocks, for_parts, for_tokens};
use super::product::{Product, add_group};
use super::source::{PAIRS, Source, multiply_offsets_part};
use crate::pack::layout::{COLUMNS, OFFSET_PAIR_BYTES, ROWS, SCALES_BYTES, Section};

/// Rows of so many blocks (576 columns) are computed at once, with their offsets.
const WHOLE: usize = 18;
/// Half of the widest batch.
const HALF: usize = TOKENS / 2;
/// Instead of a number of section pairs: accumulators come from `y`.
const FROM_Y: usize = usize::MAX;

/// Computes row groups `first..last` for the first T tokens.
///
/// # Safety
/// As [`super::product::multiply`]; T tokens are left.
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa, S: Source, const T: usize>(product: Product, first: usize, last: usize) {
    let (blocks, has_offsets) = (product.layout.blocks(), product.layout.has_offsets);
    let is_halved = S::GROUPS > 1;
    // SAFETY: passed on.
    unsafe {
        match (T, blocks, has_offsets) {
            (1, WHOLE, true) if !is_halved => {
                return pass::<I, S, T, WHOLE, { WHOLE / 2 }, true>(product, 0, first, last);
            }
            (1, WHOLE, false) if !is_halved => return pass::<I, S, T, WHOLE, 0, true>(product, 0, first, last),
            (.., true) => strips::<I, T>(product, first, last),
            (.., false) => clear::<I, T>(product, first, last),
        }
        let mut at = 0;
        while at < blocks {
            at += column_block::<I, S, T>(product, at, width(T, blocks, blocks - at, is_halved), first, last);
        }
        if is_halved {
            scale::<I, T>(product, first, last);
        }
    }
}

/// Blocks of the next column block of rows of `blocks`, of which `left` are left. Wide blocks pass `y` less often, but
/// make large functions; these widths divide the rows of common models. Blocks of two groups are in super-blocks of 8; these
/// are the smaller part of most models, so that the size of the module counts for more than their last per cent.
const fn width(tokens: usize, blocks: usize, left: usize, is_halved: bool) -> usize {
    let widths: [usize; 3] = match tokens {
        1 if is_halved => [8, 1, 1],
        _ if is_halved => [2, 1, 1],
        1 if blocks.is_multiple_of(WHOLE) => [WHOLE, 4, 1],
        1 => [16, 4, 1],
        TOKENS => [6, 2, 1],
        _ => [4, 2, 1],
    };
    match widths {
        [wide, ..] if left >= wide => wide,
        [_, middle, _] if left >= middle => middle,
        [.., narrow] => narrow,
    }
}

/// The column block of `width` blocks at block `at`; returns the width.
#[inline(always)]
unsafe fn column_block<I: Isa, S: Source, const T: usize>(
    product: Product,
    at: usize,
    width: usize,
    first: usize,
    last: usize,
) -> usize {
    let is_halved = S::GROUPS > 1;
    // SAFETY: passed on.
    unsafe {
        match width {
            WHOLE if T == 1 && !is_halved => block::<I, S, T, WHOLE>(product, at, first, last),
            16 if T == 1 && !is_halved => block::<I, S, T, 16>(product, at, first, last),
            8 if T == 1 && is_halved => block::<I, S, T, 8>(product, at, first, last),
            6 if T == TOKENS && !is_halved => block::<I, S, T, 6>(product, at, first, last),
            4 if T < TOKENS && !is_halved => block::<I, S, T, 4>(product, at, first, last),
            2 if T > 1 => block::<I, S, T, 2>(product, at, first, last),
            _ => {
                block::<I, S, T, 1>(product, at, first, last);
                return 1;
            }
        }
    }
    width
}

/// Blocks `at..at + G` of the columns for all rows.
#[inline(always)]
unsafe fn block<I: Isa, S: Source, const T: usize, const G: usize>(
    product: Product,
    at: usize,
    first: usize,
    last: usize,
) {
    // SAFETY: passed on.
    unsafe {
        if S::GROUPS == 1 && at + G == product.layout.blocks() {
            pass::<I, S, T, G, FROM_Y, true>(product, at, first, last);
        } else {
            pass::<I, S, T, G, FROM_Y, false>(product, at, first, last);
        }
    }
}

/// Pairs of T tokens and G blocks in registers. What has not been loaded must not be read.
pub(super) struct Held<I: Isa, const T: usize, const G: usize>(MaybeUninit<[[[I::Pair; PAIRS]; G]; T]>);

impl<I: Isa, const T: usize, const G: usize> Held<I, T, G> {
    /// Loads `pairs` pairs of each block for every token from `codes`, where tokens stand at `stride`.
    #[inline(always)]
    unsafe fn load(pairs: usize, codes: *const i16, stride: usize) -> Self {
        let mut held = Self(MaybeUninit::uninit());
        let to = held.0.as_mut_ptr();
        // SAFETY: the caller vouches for the codes.
        unsafe {
            for_tokens!(TOKEN < T, {
                for_blocks!(GROUP, {
                    for_16!(PAIR, {
                        if GROUP < G && PAIR < pairs {
                            let from = codes.add(TOKEN * stride + GROUP * COLUMNS + 2 * PAIR);
                            (&raw mut (*to)[TOKEN][GROUP][PAIR]).write(I::pair(from));
                        }
                    });
                });
            });
        }
        held
    }

    /// A pair that has been loaded.
    #[inline(always)]
    unsafe fn pair(&self, token: usize, group: usize, pair: usize) -> I::Pair {
        // SAFETY: the caller names a pair that has been loaded.
        unsafe { (&raw const (*self.0.as_ptr())[token][group][pair]).read() }
    }
}

/// What tokens and parts of a row group share, see [`Source::Kept`], and its scales.
pub(super) struct Kept<I: Isa, S: Source, const G: usize> {
    codes: [[MaybeUninit<S::Kept<I>>; 2]; G],
    scales: [[[I::Floats; 2]; 2]; G],
}

impl<I: Isa, S: Source, const G: usize> Kept<I, S, G> {
    /// Nothing.
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: passed on.
        let zero = unsafe { I::splat(0.0) };
        Self { codes: [const { [const { MaybeUninit::uninit() }; 2] }; G], scales: [[[zero; 2]; 2]; G] }
    }
}

/// `acc`, the sums of a token and a part of the rows, with those of the G blocks of a row group at `blocks`.
///
/// # Safety
/// As [`Source::multiply_part`].
#[inline(always)]
pub(super) unsafe fn add_blocks<I: Isa, S: Source, const T: usize, const G: usize>(
    mut acc: I::Floats,
    blocks: *const u8,
    (held, groups): (&Held<I, T, G>, &Groups<I, S, T, G>),
    kept: &mut Kept<I, S, G>,
    token: usize,
    part: usize,
) -> I::Floats {
    // SAFETY: the caller names blocks that exist, in the order in which they can be kept.
    unsafe {
        for_blocks!(BLOCK, {
            for_16!(@ GROUP, {
                if BLOCK < G && GROUP < S::GROUPS {
                    let group = blocks.add(BLOCK * S::BLOCK_BYTES + GROUP * S::GROUP_BYTES);
                    let x = |pair| held.pair(token, BLOCK, GROUP * PAIRS / S::GROUPS + pair);
                    let inputs = groups.get(token, BLOCK);
                    let (first, codes) = (token == 0, kept.codes[BLOCK][GROUP].as_mut_ptr());
                    let scale = &mut kept.scales[BLOCK][GROUP][part];
                    let sums = S::multiply_part::<I>(group, part, first, codes, x, inputs);
                    if first {
                        *scale = I::load(group.add(S::CODE_BYTES + 4 * part * I::LANES).cast());
                    }
                    acc = add_group::<I, S>(acc, sums, *scale, inputs);
                }
            }, 0 1);
        });
    }
    acc
}

/// What the activations of T tokens and G groups have besides codes, in registers.
pub(super) struct Groups<I: Isa, S: Source, const T: usize, const G: usize>(MaybeUninit<[[S::Group<I>; G]; T]>);

impl<I: Isa, S: Source, const T: usize, const G: usize> Groups<I, S, T, G> {
    /// Loads it for the groups from `first` on.
    #[inline(always)]
    unsafe fn load(product: Product, first: usize) -> Self {
        let mut groups = Self(MaybeUninit::uninit());
        let to = groups.0.as_mut_ptr();
        // SAFETY: the caller names groups that exist.
        unsafe {
            for_tokens!(TOKEN < T, {
                for_blocks!(GROUP, {
                    if GROUP < G {
                        let group = S::group::<I>(product, TOKEN * product.layout.groups + first + GROUP);
                        (&raw mut (*to)[TOKEN][GROUP]).write(group);
                    }
                });
            });
        }
        groups
    }

    /// Of a group that has been loaded.
    #[inline(always)]
    unsafe fn get(&self, token: usize, group: usize) -> S::Group<I> {
        // SAFETY: the caller names a group that has been loaded.
        unsafe { (&raw const (*self.0.as_ptr())[token][group]).read() }
    }
}

/// A factor for each of T tokens, in registers.
#[inline(always)]
unsafe fn splats<I: Isa, const T: usize>(from: *const f32) -> [I::Floats; T] {
    // SAFETY: the caller vouches for T values.
    unsafe {
        let mut splats = [I::splat(0.0); T];
        for_tokens!(TOKEN < T, {
            splats[TOKEN] = I::splat(*from.add(TOKEN));
        });
        splats
    }
}

/// Where the walk over the rows stands: a part of the weights of a row group, and its outputs.
struct Walk {
    weights: *const u8,
    weights_stride: usize,
    y: *mut f32,
    y_end: *mut f32,
}

impl Walk {
    /// From row group `first` to `last`; `at` is the part's place in a row group.
    #[inline(always)]
    unsafe fn new(product: Product, at: usize, first: usize, last: usize) -> Self {
        let weights_stride = product.layout.row_group_bytes();
        // SAFETY: the caller names row groups that exist.
        unsafe {
            Self {
                weights: product.row_groups.add(first * weights_stride + at),
                weights_stride,
                y: product.y.add(first * ROWS),
                y_end: product.y.add(last * ROWS),
            }
        }
    }

    /// Goes on to the next row group; `false` after the last one.
    #[inline(always)]
    fn next(&mut self) -> bool {
        self.weights = self.weights.wrapping_add(self.weights_stride);
        self.y = self.y.wrapping_add(ROWS);
        self.y != self.y_end
    }
}

/// Zeros for all rows.
#[inline(never)]
unsafe fn clear<I: Isa, const T: usize>(product: Product, first: usize, last: usize) {
    // SAFETY: row groups lie inside `y`.
    unsafe {
        // Hidden, so that the loop does not become a `memory.fill`, which is charged by the byte.
        let zero = I::splat(core::hint::black_box(0.0));
        for token in 0..T {
            let mut y = product.y.add(token * product.y_stride + first * ROWS);
            let end = y.add((last - first) * ROWS);
            while y != end {
                for_parts!(I, PART, {
                    I::store(y.add(PART * I::LANES), zero);
                });
                y = y.add(ROWS);
            }
        }
    }
}

/// The last step of the contract for all rows, for blocks of two groups: that spares each of their functions a twin.
#[inline(never)]
unsafe fn scale<I: Isa, const T: usize>(product: Product, first: usize, last: usize) {
    // SAFETY: row groups lie inside `y`.
    unsafe {
        for token in 0..T {
            let x_scale = I::splat(*product.scales.add(token));
            let mut y = product.y.add(token * product.y_stride + first * ROWS);
            let end = y.add((last - first) * ROWS);
            while y != end {
                for_parts!(I, PART, {
                    let y = y.add(PART * I::LANES);
                    I::store(y, I::mul(I::load(y), x_scale));
                });
                y = y.add(ROWS);
            }
        }
    }
}

/// The offset strip for all rows. Wide batches take it in two halves, which costs little and saves large functions.
#[inline(always)]
unsafe fn strips<I: Isa, const T: usize>(product: Product, first: usize, last: usize) {
    // SAFETY: passed on.
    unsafe {
        for section in product.layout.sections() {
            if T == TOKENS {
                strip::<I, HALF>(product, section, first, last);
                strip::<I, HALF>(product.skip_tokens(HALF), section, first, last);
            } else {
                strip::<I, T>(product, section, first, last);
            }
        }
    }
}

/// A section of the offset strip for all rows.
#[inline(always)]
unsafe fn strip<I: Isa, const T: usize>(product: Product, section: Section, first: usize, last: usize) {
    // SAFETY: passed on; a section has 1 to 16 pairs.
    unsafe {
        for_16!(LESS, {
            const COUNT: usize = LESS + 1;
            if section.pairs == COUNT && section.first == 0 {
                section_pass::<I, T, COUNT, true>(product, section, first, last);
            } else if section.pairs == COUNT {
                section_pass::<I, T, COUNT, false>(product, section, first, last);
            }
        });
    }
}

/// The sums of one section of COUNT pairs in registers, and what its tokens and parts share.
struct Offsets<I: Isa, const T: usize, const COUNT: usize> {
    sums: Held<I, T, 1>,
    sum_scales: [I::Floats; T],
    codes: MaybeUninit<[[I::Codes; PAIRS]; 2]>,
    scales: [I::Floats; 2],
}

impl<I: Isa, const T: usize, const COUNT: usize> Offsets<I, T, COUNT> {
    /// Loads the sums of the groups from `first` on.
    #[inline(always)]
    unsafe fn load(product: Product, first: usize) -> Self {
        // SAFETY: the caller names a section of COUNT pairs.
        unsafe {
            Self {
                sums: Held::load(COUNT, product.sum_codes.wrapping_add(first), product.sums_stride()),
                sum_scales: if COUNT > 0 { splats::<I, T>(product.sum_scales) } else { [I::splat(0.0); T] },
                codes: MaybeUninit::uninit(),
                scales: [I::splat(0.0); 2],
            }
        }
    }

    /// The section's step of the contract, for one token and one part; nothing if COUNT is 0.
    #[inline(always)]
    unsafe fn step(&mut self, acc: I::Floats, section: *const u8, token: usize, part: usize) -> I::Floats {
        if COUNT == 0 {
            return acc;
        }
        // SAFETY: the caller's section has COUNT pairs, and comes in the order of `Source::multiply_part`.
        unsafe {
            let x = |pair| self.sums.pair(token, 0, pair);
            let sums = multiply_offsets_part::<I>(section, COUNT, part, token == 0, self.codes.as_mut_ptr(), x);
            if token == 0 {
                self.scales[part] = I::load(section.add(COUNT * OFFSET_PAIR_BYTES + 4 * part * I::LANES).cast());
            }
            let scale = I::mul(self.scales[part], self.sum_scales[token]);
            I::add(acc, I::mul(I::to_floats(sums), scale))
        }
    }
}

/// A section of COUNT pairs; BEGIN: the first one.
#[inline(never)]
unsafe fn section_pass<I: Isa, const T: usize, const COUNT: usize, const BEGIN: bool>(
    product: Product,
    section: Section,
    first: usize,
    last: usize,
) {
    if first == last {
        return;
    }
    // SAFETY: the section lies inside the row groups and the sums, row groups inside the matrix and `y`.
    unsafe {
        let mut offsets = Offsets::<I, T, COUNT>::load(product, section.first);
        let mut walk = Walk::new(product, section.at, first, last);
        loop {
            for_tokens!(TOKEN < T, {
                for_parts!(I, PART, {
                    let y = walk.y.add(TOKEN * product.y_stride + PART * I::LANES);
                    let acc = if BEGIN { I::splat(0.0) } else { I::load(y) };
                    I::store(y, offsets.step(acc, walk.weights, TOKEN, PART));
                });
            });
            if !walk.next() {
                return;
            }
        }
    }
}

/// Blocks `at..at + G` of the columns for all rows. STRIP: accumulators come from `y` ([`FROM_Y`]), or these are the
/// first blocks, and accumulators come from the only section of the strip, which has so many pairs (0: there is none).
/// END: these are the last blocks, and outputs are complete.
#[inline(never)]
unsafe fn pass<I: Isa, S: Source, const T: usize, const G: usize, const STRIP: usize, const END: bool>(
    product: Product,
    at: usize,
    first: usize,
    last: usize,
) {
    if first == last {
        return;
    }
    let strip_bytes = match STRIP {
        FROM_Y => product.layout.strip_bytes(),
        0 => 0,
        pairs => pairs * OFFSET_PAIR_BYTES + SCALES_BYTES,
    };
    // SAFETY: blocks and row groups lie inside the matrix and inside `y`; T tokens are left.
    unsafe {
        let held = Held::<I, T, G>::load(PAIRS, product.codes.add(at * COLUMNS), product.codes_stride);
        let groups = Groups::<I, S, T, G>::load(product, at);
        let x_scales = if S::SCALES_GROUPS { [I::splat(0.0); T] } else { splats::<I, T>(product.scales) };
        let mut offsets = Offsets::<I, T, STRIP>::load(product, 0);
        let place = if STRIP == FROM_Y { strip_bytes + at * S::BLOCK_BYTES } else { 0 };
        let mut walk = Walk::new(product, place, first, last);
        loop {
            let mut kept = Kept::<I, S, G>::new();
            let blocks = if STRIP == FROM_Y { walk.weights } else { walk.weights.add(strip_bytes) };
            for_tokens!(TOKEN < T, {
                for_parts!(I, PART, {
                    let y = walk.y.add(TOKEN * product.y_stride + PART * I::LANES);
                    let acc = if STRIP == FROM_Y {
                        I::load(y)
                    } else {
                        offsets.step(I::splat(0.0), walk.weights, TOKEN, PART)
                    };
                    let x = (&held, &groups);
                    let acc = S::add_blocks::<I, T, G>(acc, blocks, x, &mut kept, TOKEN, PART);
                    I::store(y, if END && !S::SCALES_GROUPS { I::mul(acc, x_scales[TOKEN]) } else { acc });
                });
            });
            if !walk.next() {
                return;
            }
        }
    }
}

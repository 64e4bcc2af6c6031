//! A product column block by column block: the activations of a block stay in registers while all rows pass, and `y`
//! holds the accumulators between blocks.

use core::mem::MaybeUninit;

use super::isa::{Isa, for_16, for_tokens};
use super::product::{Product, group_step, section_step};
use super::source::{Inputs, PAIRS, Source};
use crate::pack::layout::{COLUMNS, ROWS, Section};

/// Computes row groups `first..last` for the first T tokens.
///
/// # Safety
/// As [`super::product::multiply`]; T tokens are left.
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa, S: Source, const T: usize>(product: Product, first: usize, last: usize) {
    // SAFETY: passed on.
    unsafe {
        for section in product.layout.sections() {
            strip::<I, T>(product, section, first, last);
        }
        if T == 1 {
            single::<I, S>(product, first, last);
        } else {
            batch::<I, S, T>(product, first, last);
        }
    }
}

/// One token, in column blocks of 8 or 6 groups where the width allows, and smaller ones for the rest.
#[inline(always)]
unsafe fn single<I: Isa, S: Source>(product: Product, first: usize, last: usize) {
    let groups = product.layout.groups;
    let mut at = 0;
    // SAFETY: passed on.
    unsafe {
        while groups - at >= 8 && !groups.is_multiple_of(6) {
            block::<I, S, 1, 8>(product, at, first, last);
            at += 8;
        }
        while groups - at >= 6 {
            block::<I, S, 1, 6>(product, at, first, last);
            at += 6;
        }
        while groups - at >= 2 {
            block::<I, S, 1, 2>(product, at, first, last);
            at += 2;
        }
        if groups > at {
            block::<I, S, 1, 1>(product, at, first, last);
        }
    }
}

/// T tokens, in column blocks of 3 or 4 groups, and smaller ones for the rest.
#[inline(always)]
unsafe fn batch<I: Isa, S: Source, const T: usize>(product: Product, first: usize, last: usize) {
    let groups = product.layout.groups;
    let mut at = 0;
    // SAFETY: passed on.
    unsafe {
        while groups.is_multiple_of(3) && groups > at {
            block::<I, S, T, 3>(product, at, first, last);
            at += 3;
        }
        while groups - at >= 4 {
            block::<I, S, T, 4>(product, at, first, last);
            at += 4;
        }
        while groups - at >= 2 {
            block::<I, S, T, 2>(product, at, first, last);
            at += 2;
        }
        if groups > at {
            block::<I, S, T, 1>(product, at, first, last);
        }
    }
}

/// Pairs of T tokens and G groups in registers. What has not been loaded must not be read.
struct Held<I: Isa, const T: usize, const G: usize>([[[MaybeUninit<I::Pair>; PAIRS]; G]; T]);

impl<I: Isa, const T: usize, const G: usize> Held<I, T, G> {
    #[inline(always)]
    fn new() -> Self {
        Self([const { [const { [const { MaybeUninit::uninit() }; PAIRS] }; G] }; T])
    }

    /// Loads `pairs` pairs of a group for every token from `codes`, where tokens stand at `stride`.
    #[inline(always)]
    unsafe fn load(&mut self, group: usize, pairs: usize, codes: *const i16, stride: usize) {
        // SAFETY: the caller vouches for the codes.
        unsafe {
            for_tokens!(TOKEN < T, {
                let codes = codes.add(TOKEN * stride);
                for_16!(PAIR, {
                    if PAIR < pairs {
                        self.0[TOKEN][group][PAIR].write(I::pair(codes.add(2 * PAIR)));
                    }
                });
            });
        }
    }
}

/// One group of what is held.
struct HeldGroup<'a, I: Isa, const T: usize, const G: usize> {
    held: &'a Held<I, T, G>,
    group: usize,
}

impl<I: Isa, const T: usize, const G: usize> Clone for HeldGroup<'_, I, T, G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: Isa, const T: usize, const G: usize> Copy for HeldGroup<'_, I, T, G> {}

impl<I: Isa, const T: usize, const G: usize> Inputs<I> for HeldGroup<'_, I, T, G> {
    #[inline(always)]
    unsafe fn pair(self, token: usize, pair: usize) -> I::Pair {
        // SAFETY: the caller names a pair that has been loaded.
        unsafe { self.held.0[token][self.group][pair].assume_init() }
    }
}

/// Where the walk over the rows stands: a part of the weights of a row group, and its outputs.
struct Walk<const T: usize> {
    weights: *const u8,
    weights_stride: usize,
    y: *mut f32,
    y_stride: usize,
    left: usize,
}

impl<const T: usize> Walk<T> {
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
                y_stride: product.y_stride,
                left: last - first,
            }
        }
    }

    #[inline(always)]
    unsafe fn next(&mut self) {
        self.weights = self.weights.wrapping_add(self.weights_stride);
        self.y = self.y.wrapping_add(ROWS);
        self.left -= 1;
    }

    /// The accumulators so far.
    #[inline(always)]
    unsafe fn load<I: Isa>(&self) -> [I::Floats; T] {
        // SAFETY: the walk is inside the outputs.
        unsafe {
            let mut acc = [I::splat(0.0); T];
            for_tokens!(TOKEN < T, {
                acc[TOKEN] = I::load(self.y.add(TOKEN * self.y_stride));
            });
            acc
        }
    }

    #[inline(always)]
    unsafe fn store<I: Isa>(&self, acc: [I::Floats; T]) {
        // SAFETY: the walk is inside the outputs.
        unsafe {
            for_tokens!(TOKEN < T, {
                I::store(self.y.add(TOKEN * self.y_stride), acc[TOKEN]);
            });
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
            if section.pairs == COUNT {
                section_of::<I, T, COUNT>(product, section, first, last);
            }
        });
    }
}

/// A section of COUNT pairs.
#[inline(always)]
unsafe fn section_of<I: Isa, const T: usize, const COUNT: usize>(
    product: Product,
    section: Section,
    first: usize,
    last: usize,
) {
    // SAFETY: the section lies inside the row groups and the sums, row groups inside the matrix and `y`.
    unsafe {
        let mut held = Held::<I, T, 1>::new();
        held.load(0, COUNT, product.sum_codes.add(section.first), product.sums_stride());
        let x = HeldGroup { held: &held, group: 0 };
        let mut walk = Walk::<T>::new(product, section.at, first, last);
        while walk.left > 0 {
            let mut acc = if section.first == 0 { [I::splat(0.0); T] } else { walk.load::<I>() };
            section_step::<I, T>(&mut acc, walk.weights, COUNT, x, product.sum_scales);
            walk.store::<I>(acc);
            walk.next();
        }
    }
}

/// Groups `at..at + G` of the columns for all rows.
#[inline(always)]
unsafe fn block<I: Isa, S: Source, const T: usize, const G: usize>(
    product: Product,
    at: usize,
    first: usize,
    last: usize,
) {
    let layout = product.layout;
    let (begin, end) = (at == 0 && !layout.has_offsets, at + G == layout.groups);
    // SAFETY: groups and row groups lie inside the matrix and inside `y`; T tokens are left.
    unsafe {
        let mut held = Held::<I, T, G>::new();
        for_16!(GROUP, {
            if GROUP < G {
                held.load(GROUP, PAIRS, product.codes.add((at + GROUP) * COLUMNS), product.codes_stride());
            }
        });
        let mut walk = Walk::<T>::new(product, layout.strip_bytes() + at * S::BLOCK_BYTES, first, last);
        while walk.left > 0 {
            let mut acc = if begin { [I::splat(0.0); T] } else { walk.load::<I>() };
            for_16!(GROUP, {
                if GROUP < G {
                    let x = HeldGroup { held: &held, group: GROUP };
                    group_step::<I, S, T>(&mut acc, walk.weights.add(GROUP * S::BLOCK_BYTES), x);
                }
            });
            if end {
                for_tokens!(TOKEN < T, {
                    acc[TOKEN] = I::mul(acc[TOKEN], I::splat(*product.scales.add(TOKEN)));
                });
            }
            walk.store::<I>(acc);
            walk.next();
        }
    }
}

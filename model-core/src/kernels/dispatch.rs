//! Which instance of the kernels runs: chosen once per model, named in reports, never a matter of results.

use super::attention::{self, Keys, SEGMENT, Values, Weights};
#[cfg(target_arch = "x86_64")]
use super::bytes::Bytes as PackedFields;
#[cfg(not(target_arch = "x86_64"))]
use super::fields::PackedFields;
use super::fields::WideFields;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use super::neon::Neon;
use super::nibbles::Nibbles;
use super::product::{self, Product};
use super::scalar::Scalar;
use super::source::{Source, Wide};
use super::ternary;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::twice::Twice;
use crate::pack::layout::{COLUMNS, HALF_COLUMNS, Width};

/// Proof that the instructions of a kernel path exist on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Path);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    #[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), expect(dead_code, reason = "see `Portable`"))]
    Scalar(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
}

/// What names the scalar path: nothing can in a wasm module whose machine has vectors for certain. It is not to carry
/// along a megabyte that never runs.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
type Portable = ();
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
type Portable = core::convert::Infallible;

/// Every path of this target, the fastest last. The first runs on all of its machines.
const PATHS: &[Path] = &[
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    Path::Scalar(()),
    #[cfg(target_arch = "x86_64")]
    Path::Avx2,
    #[cfg(target_arch = "x86_64")]
    Path::Avx512,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Path::Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Path::Simd128,
];

impl Path {
    /// Whether this machine has the instructions.
    fn runs_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx2") && avx512::is_available(),
            _ => true,
        }
    }
}

/// No kernel of that name runs here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kernel `{name}` on this machine; available: {available}")]
pub struct UnknownKernel {
    /// The name asked for.
    pub name: String,
    /// Names that would do, separated by commas.
    pub available: String,
}

impl Kernel {
    /// The reference path, on every machine.
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    pub const SCALAR: Self = Self(Path::Scalar(()));

    /// The fastest path of this machine.
    pub fn detect() -> Self {
        Self::available().into_iter().last().unwrap_or(Self(PATHS[0]))
    }

    /// Every path of this machine, the fastest last.
    pub fn available() -> Vec<Self> {
        PATHS.iter().copied().filter(|path| path.runs_here()).map(Self).collect()
    }

    /// The path of that name.
    ///
    /// # Errors
    /// [`UnknownKernel`] names the paths there are.
    pub fn by_name(name: &str) -> Result<Self, UnknownKernel> {
        let available = Self::available();
        available.iter().copied().find(|kernel| kernel.name() == name).ok_or_else(|| UnknownKernel {
            name: name.to_owned(),
            available: available.iter().map(|kernel| kernel.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// `scalar`, `avx2`, `avx512`, `neon` or `simd128`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Path::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => "avx512",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Path::Neon => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Path::Simd128 => "simd128",
        }
    }

    /// See [`product::multiply`] and [`ternary::multiply`], whose conditions hold here too.
    pub(super) unsafe fn multiply(self, product: Product, first: usize, last: usize) {
        // SAFETY: passed on; the source is that of the layout.
        unsafe {
            match (product.layout.width, product.layout.group_columns) {
                (Width::Byte, HALF_COLUMNS) => self.multiply_from::<Wide<HALF_COLUMNS>>(product, first, last),
                (Width::Byte, _) => self.multiply_from::<Wide<COLUMNS>>(product, first, last),
                (Width::Nibble, _) => self.multiply_from::<Nibbles>(product, first, last),
                (Width::Fields, _) => self.multiply_from::<WideFields>(product, first, last),
                (Width::PackedFields, _) => self.multiply_from::<PackedFields>(product, first, last),
                (Width::Trits | Width::PackedTrits, _) => self.look_up(product, first, last),
            }
        }
    }

    unsafe fn look_up(self, product: Product, first: usize, last: usize) {
        // SAFETY: a `Kernel` exists only where its instructions do; the rest is the caller's promise.
        unsafe {
            match self.0 {
                Path::Scalar(_) => ternary::multiply::<Scalar>(product, first, last),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 | Path::Avx512 => avx2::look_up(product, first, last),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                Path::Neon => ternary::multiply::<Neon>(product, first, last),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Path::Simd128 => ternary::multiply::<super::wasm32::Simd128>(product, first, last),
            }
        }
    }

    unsafe fn multiply_from<S: Source>(self, product: Product, first: usize, last: usize) {
        // SAFETY: a `Kernel` exists only where its instructions do; the rest is the caller's promise.
        unsafe {
            match self.0 {
                Path::Scalar(_) => product::multiply::<Scalar, S>(product, first, last),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => avx2::multiply::<S>(product, first, last),
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => avx512::multiply::<S>(product, first, last),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                Path::Neon => product::multiply::<Neon, S>(product, first, last),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Path::Simd128 => product::multiply::<super::wasm32::Simd128, S>(product, first, last),
            }
        }
    }

    /// See [`attention::scores`].
    pub(crate) fn scores(self, keys: Keys<'_>, queries: &[i16], used: usize, scores: &mut [[f32; SEGMENT]]) {
        // SAFETY: a `Kernel` exists only where its instructions do; `Keys` and slices carry their lengths.
        unsafe {
            match self.0 {
                Path::Scalar(_) => attention::scores::<Scalar>(keys, queries, used, scores),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => avx2::scores(keys, queries, used, scores),
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => avx512::scores(keys, queries, used, scores),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                Path::Neon => attention::scores::<Neon>(keys, queries, used, scores),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Path::Simd128 => attention::scores::<Twice<super::wasm32::Simd128>>(keys, queries, used, scores),
            }
        }
    }

    /// See [`attention::mix`].
    pub(crate) fn mix(self, values: Values<'_>, weights: &[Weights], used: usize, out: &mut [f32]) {
        // SAFETY: a `Kernel` exists only where its instructions do; `Values` and slices carry their lengths.
        unsafe {
            match self.0 {
                Path::Scalar(_) => attention::mix::<Scalar>(values, weights, used, out),
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => avx2::mix(values, weights, used, out),
                #[cfg(target_arch = "x86_64")]
                Path::Avx512 => avx512::mix(values, weights, used, out),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                Path::Neon => attention::mix::<Neon>(values, weights, used, out),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Path::Simd128 => attention::mix::<Twice<super::wasm32::Simd128>>(values, weights, used, out),
            }
        }
    }
}

/// Entry points that switch the compiler's target feature on; everything below them is inlined.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::source::Source;
    use super::super::x86_64::Avx2;
    use super::{Keys, Product, SEGMENT, Values, Weights, attention, product, ternary};

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn multiply<S: Source>(product: Product, first: usize, last: usize) {
        // SAFETY: passed on from the caller.
        unsafe { product::multiply::<Avx2<false>, S>(product, first, last) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn look_up(product: Product, first: usize, last: usize) {
        // SAFETY: passed on from the caller.
        unsafe { ternary::multiply::<Avx2<false>>(product, first, last) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn scores(keys: Keys<'_>, queries: &[i16], used: usize, scores: &mut [[f32; SEGMENT]]) {
        // SAFETY: passed on from the caller.
        unsafe { attention::scores::<Avx2<false>>(keys, queries, used, scores) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn mix(values: Values<'_>, weights: &[Weights], used: usize, out: &mut [f32]) {
        // SAFETY: passed on from the caller.
        unsafe { attention::mix::<Avx2<false>>(values, weights, used, out) }
    }
}

/// As [`avx2`].
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::super::avx512::Avx512;
    use super::super::isa::Isa;
    use super::super::source::Source;
    use super::super::x86_64::Avx2;
    use super::{Keys, Product, SEGMENT, Values, Weights, attention, avx2, product};

    /// Whether this machine has every instruction of [`Avx512`].
    pub(super) fn is_available() -> bool {
        use std::arch::is_x86_feature_detected;
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
    }

    /// Row groups two by two; a last one alone takes the narrower path.
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn multiply<S: Source>(product: Product, first: usize, last: usize) {
        let paired = last - (last - first) % Avx512::ROW_GROUPS;
        // SAFETY: passed on from the caller.
        unsafe {
            product::multiply::<Avx512, S>(product, first, paired);
            avx2::multiply::<S>(product, paired, last);
        }
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn scores(keys: Keys<'_>, queries: &[i16], used: usize, scores: &mut [[f32; SEGMENT]]) {
        // SAFETY: passed on from the caller.
        unsafe { attention::scores::<Avx512>(keys, queries, used, scores) }
    }

    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn mix(values: Values<'_>, weights: &[Weights], used: usize, out: &mut [f32]) {
        // SAFETY: passed on from the caller.
        unsafe {
            if (out.len() / weights.len().max(1)).is_multiple_of(Avx512::LANES) {
                attention::mix::<Avx512>(values, weights, used, out);
            } else {
                attention::mix::<Avx2<true>>(values, weights, used, out);
            }
        }
    }
}

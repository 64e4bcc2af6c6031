//! Which residency the weights of a model are given: the one asked for, or the best one that there is memory for. Knows
//! nothing of where the memory and its costs come from.

use super::Error;
use super::plan::{Kind, Planned};
use crate::pack::{Packer, Precision, Residency};

/// Tokens from which on a call pays for wide weights. Where reading memory is charged once per call, as on the Internet
/// Computer, a wide four-bit weight costs about 0.6 instructions per call more than a compact one (0.5 bytes at 1.22)
/// and saves about 0.15 for every token.
const TOKENS_FOR_WIDE: u64 = 4;

/// What the choice goes by, besides the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Most bytes that the packed weights may take.
    pub weight_bytes: u64,
    /// Weights that one call can multiply, where each call is charged for the memory that it reads.
    pub call_weights: Option<u64>,
    /// What is best where there is memory for both, and calls are not short.
    pub preferred: Residency,
}

impl Default for Place {
    /// Any amount of memory, read without a charge. Generating goes at the memory's speed on a common processor, so half the
    /// bytes count for more than the instructions that take them apart.
    fn default() -> Self {
        Self { weight_bytes: u64::MAX, call_weights: None, preferred: Residency::Compact }
    }
}

impl Place {
    /// The residency of the tensors in `plan`, of which each token multiplies `per_token` weights; `wanted` if something
    /// is. Automatically, a model is wide unless a call has time for less than four of its tokens, or only a compact one
    /// fits.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if what was wanted, or either, does not fit.
    pub(super) fn choose(
        &self,
        plan: &[Planned],
        precision: Precision,
        wanted: Option<Residency>,
        per_token: u64,
    ) -> Result<Residency, crate::Error> {
        let wide_bytes = packed_bytes(plan, precision, Residency::Wide)?;
        let compact_bytes = packed_bytes(plan, precision, Residency::Compact)?;
        let fits = |residency: &Residency| {
            let bytes = if *residency == Residency::Wide { wide_bytes } else { compact_bytes };
            bytes <= self.weight_bytes
        };
        let is_short = self.call_weights.is_some_and(|weights| weights < TOKENS_FOR_WIDE * per_token);
        let best = if is_short { Residency::Compact } else { self.preferred };
        let candidates = wanted.map_or([best, Residency::Compact], |wanted| [wanted; 2]);
        let limit_bytes = self.weight_bytes;
        candidates.into_iter().find(fits).ok_or_else(|| {
            let wanted = wanted.map_or("either", Residency::name);
            Error::TooLarge { wanted, wide_bytes, compact_bytes, limit_bytes }.into()
        })
    }
}

fn packed_bytes(plan: &[Planned], precision: Precision, residency: Residency) -> Result<u64, crate::Error> {
    let mut bytes = 0u64;
    for Planned { info, kind, .. } in plan {
        let tensor = match kind {
            Kind::Matrix => Packer::packed_bytes(info, precision, residency)?,
            Kind::Vector | Kind::Divisors => 4 * info.elements(),
        };
        bytes = bytes.saturating_add(tensor);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgmlType, TensorInfo};

    /// 4096 weights in four bits and as many in eight.
    fn plan() -> Vec<Planned> {
        let tensor = |name: &str, ty: GgmlType| {
            let info = TensorInfo { name: name.into(), shape: vec![64, 64], ty, offset: 0, bytes: 0 };
            Planned { slot: info.name.clone(), info, kind: Kind::Matrix }
        };
        vec![tensor("a", GgmlType::Q4_0), tensor("b", GgmlType::Q8_0)]
    }

    const WIDE_BYTES: u64 = 2 * 16 * 288;
    const COMPACT_BYTES: u64 = 16 * (160 + 288);

    fn choose(place: Place, wanted: Option<Residency>) -> Result<Residency, crate::Error> {
        place.choose(&plan(), Precision::Quantized, wanted, 8192)
    }

    fn with(weight_bytes: u64, call_weights: Option<u64>) -> Place {
        Place { weight_bytes, call_weights, preferred: Residency::Wide }
    }

    #[test]
    fn what_is_preferred_is_taken_if_it_fits_and_else_what_fits() {
        assert_eq!(choose(Place::default(), None).unwrap(), Residency::Compact);
        assert_eq!(choose(with(WIDE_BYTES, None), None).unwrap(), Residency::Wide);
        assert_eq!(choose(with(WIDE_BYTES - 1, None), None).unwrap(), Residency::Compact);
        assert_eq!(choose(with(COMPACT_BYTES, None), None).unwrap(), Residency::Compact);
    }

    #[test]
    fn short_calls_are_for_compact_weights() {
        assert_eq!(choose(with(WIDE_BYTES, Some(4 * 8192)), None).unwrap(), Residency::Wide);
        assert_eq!(choose(with(WIDE_BYTES, Some(4 * 8192 - 1)), None).unwrap(), Residency::Compact);
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused_with_the_numbers() {
        assert_eq!(choose(Place::default(), Some(Residency::Wide)).unwrap(), Residency::Wide);
        assert_eq!(choose(with(COMPACT_BYTES, Some(1)), Some(Residency::Compact)).unwrap(), Residency::Compact);
        for (limit, wanted) in [(WIDE_BYTES - 1, Some(Residency::Wide)), (COMPACT_BYTES - 1, None)] {
            let message = choose(with(limit, None), wanted).unwrap_err().to_string();
            for number in [WIDE_BYTES, COMPACT_BYTES, limit] {
                assert!(message.contains(&number.to_string()), "{message}");
            }
        }
    }
}

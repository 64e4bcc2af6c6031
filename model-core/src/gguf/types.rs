//! The tensor types of GGML with their ids and block sizes. Knows nothing of how a block is decoded
//! (`quant` does) and lists types that this crate refuses to load, so that they can be refused by name.
//!
//! Source: `enum ggml_type` and `type_traits` of ggml, as mirrored by the PyPI package `gguf` 0.19.0.

macro_rules! ggml_types {
    ($($variant:ident = $id:literal: $elements:literal elements in $bytes:literal bytes;)*) => {
        /// Element type of a tensor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "these are the names that users know from file names")]
        pub enum GgmlType {
            $(#[doc = concat!("`", stringify!($variant), "`: ", stringify!($elements), " element(s) in ", stringify!($bytes), " bytes.")]
            $variant,)*
        }

        impl GgmlType {
            /// Every known type, by ascending id.
            pub const ALL: &[GgmlType] = &[$(GgmlType::$variant,)*];

            /// The type with this id in a GGUF tensor table; `None` if unknown or retired.
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(GgmlType::$variant),)*
                    _ => None,
                }
            }

            /// The id in a GGUF tensor table.
            pub fn id(self) -> u32 {
                match self {
                    $(GgmlType::$variant => $id,)*
                }
            }

            /// The usual spelling, such as `Q4_1`.
            pub fn name(self) -> &'static str {
                match self {
                    $(GgmlType::$variant => stringify!($variant),)*
                }
            }

            /// Elements per block: 1 for plain numbers. A row is a whole number of blocks.
            pub fn block_elements(self) -> usize {
                match self {
                    $(GgmlType::$variant => $elements,)*
                }
            }

            /// Bytes per block.
            pub fn block_bytes(self) -> usize {
                match self {
                    $(GgmlType::$variant => $bytes,)*
                }
            }
        }
    };
}

ggml_types! {
    F32 = 0: 1 elements in 4 bytes;
    F16 = 1: 1 elements in 2 bytes;
    Q4_0 = 2: 32 elements in 18 bytes;
    Q4_1 = 3: 32 elements in 20 bytes;
    Q5_0 = 6: 32 elements in 22 bytes;
    Q5_1 = 7: 32 elements in 24 bytes;
    Q8_0 = 8: 32 elements in 34 bytes;
    Q8_1 = 9: 32 elements in 40 bytes;
    Q2_K = 10: 256 elements in 84 bytes;
    Q3_K = 11: 256 elements in 110 bytes;
    Q4_K = 12: 256 elements in 144 bytes;
    Q5_K = 13: 256 elements in 176 bytes;
    Q6_K = 14: 256 elements in 210 bytes;
    Q8_K = 15: 256 elements in 292 bytes;
    IQ2_XXS = 16: 256 elements in 66 bytes;
    IQ2_XS = 17: 256 elements in 74 bytes;
    IQ3_XXS = 18: 256 elements in 98 bytes;
    IQ1_S = 19: 256 elements in 50 bytes;
    IQ4_NL = 20: 32 elements in 18 bytes;
    IQ3_S = 21: 256 elements in 110 bytes;
    IQ2_S = 22: 256 elements in 82 bytes;
    IQ4_XS = 23: 256 elements in 136 bytes;
    I8 = 24: 1 elements in 1 bytes;
    I16 = 25: 1 elements in 2 bytes;
    I32 = 26: 1 elements in 4 bytes;
    I64 = 27: 1 elements in 8 bytes;
    F64 = 28: 1 elements in 8 bytes;
    IQ1_M = 29: 256 elements in 56 bytes;
    BF16 = 30: 1 elements in 2 bytes;
    TQ1_0 = 34: 256 elements in 54 bytes;
    TQ2_0 = 35: 256 elements in 66 bytes;
    MXFP4 = 39: 32 elements in 17 bytes;
    NVFP4 = 40: 64 elements in 36 bytes;
    Q1_0 = 41: 128 elements in 18 bytes;
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back_to_their_types() {
        for &ty in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
        }
    }

    #[test]
    fn retired_and_future_ids_are_unknown() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 42, u32::MAX] {
            assert_eq!(GgmlType::from_id(id), None);
        }
    }
}

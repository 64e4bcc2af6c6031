//! Which tensor gets which type. The rules are those of llama-quantize without an importance matrix (`llama-quant.cpp`), but
//! that the output head becomes Q8_0, not Q6_K, where the matrices are of the simple types of four and five bits: such a
//! file has blocks of 32 only. Knows names, shapes and types, no bytes.

use anyhow::{Result, bail};
use model_core::gguf::write::NewTensor;
use model_core::gguf::{File, GgmlType, Metadata, TensorInfo, keys};
use model_core::quant::{Operation, supports};

/// Version of GGML's block formats (`GGML_QNT_VERSION`).
const QUANTIZATION_VERSION: u32 = 2;
const OUTPUT: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";

/// A type of file, under the name that llama-quantize gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    name: &'static str,
    /// The type of most matrices.
    ty: GgmlType,
    /// Which matrices get better types.
    better: Better,
    /// The number that `general.file_type` has for it (`llama_ftype`).
    file_type: u32,
}

/// Which matrices get better types than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    None,
    /// A few of the values and down projections.
    Small,
    /// Half of the values and down projections, and fused attention inputs.
    Medium,
}

const fn mix(name: &'static str, ty: GgmlType, better: Better, file_type: u32) -> Mix {
    Mix { name, ty, better, file_type }
}

/// From the largest to the smallest.
const MIXES: [Mix; 13] = [
    mix("F32", GgmlType::F32, Better::None, 0),
    mix("F16", GgmlType::F16, Better::None, 1),
    mix("BF16", GgmlType::BF16, Better::None, 32),
    mix("Q8_0", GgmlType::Q8_0, Better::None, 7),
    mix("Q6_K", GgmlType::Q6_K, Better::None, 18),
    mix("Q5_1", GgmlType::Q5_1, Better::None, 9),
    mix("Q5_K_M", GgmlType::Q5_K, Better::Medium, 17),
    mix("Q5_K_S", GgmlType::Q5_K, Better::None, 16),
    mix("Q5_0", GgmlType::Q5_0, Better::None, 8),
    mix("Q4_1", GgmlType::Q4_1, Better::None, 3),
    mix("Q4_K_M", GgmlType::Q4_K, Better::Medium, 15),
    mix("Q4_K_S", GgmlType::Q4_K, Better::Small, 14),
    mix("Q4_0", GgmlType::Q4_0, Better::None, 2),
];

/// What the user asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The type of the file.
    pub mix: Mix,
    /// The type of the output head, if not that of the mix.
    pub output: Option<GgmlType>,
    /// The type of the token embedding where it is not the output head too, if not that of the mix.
    pub embedding: Option<GgmlType>,
    /// Give every matrix the type of most of them.
    pub pure: bool,
    /// Accept tensors that are quantized already.
    pub allow_requantize: bool,
}

/// Reads the name of a file type, in any case.
pub fn parse_mix(name: &str) -> Result<Mix, String> {
    let known = MIXES.iter().find(|mix| mix.name.eq_ignore_ascii_case(name));
    known.copied().ok_or_else(|| format!("the types are {}", MIXES.map(|mix| mix.name).join(", ")))
}

/// Reads the type of a tensor, in any case.
pub fn parse_type(name: &str) -> Result<GgmlType, String> {
    let mut encoded = GgmlType::ALL.iter().filter(|ty| Operation::Encode.supports(**ty));
    let known = encoded.find(|ty| ty.name().eq_ignore_ascii_case(name));
    known.copied().ok_or_else(|| format!("the types are {}", Operation::Encode.types()))
}

/// The metadata of the new file: that of the old one, with what describes the types made true.
pub fn metadata(file: &File, mix: Mix) -> Metadata {
    let mut metadata = file.metadata().clone();
    metadata.insert(keys::FILE_TYPE, mix.file_type);
    metadata.insert(keys::QUANTIZATION_VERSION, QUANTIZATION_VERSION);
    metadata
}

/// The tensors of the new file, in the order of the old one.
///
/// # Errors
/// Names a tensor that is quantized already, unless that is accepted, or cannot be decoded.
pub fn tensors(file: &File, request: &Request) -> Result<Vec<NewTensor>> {
    let shape = Shape {
        is_tied: file.tensor(OUTPUT).is_none(),
        layers: file.tensors().iter().filter_map(|tensor| layer(&tensor.name)).max().map_or(0, |last| last + 1),
    };
    file.tensors()
        .iter()
        .map(|tensor| {
            let ty = if is_matrix(tensor) { fitting(tensor, chosen(&tensor.name, request, &shape)) } else { tensor.ty };
            check(tensor, ty, request.allow_requantize)?;
            Ok(NewTensor { name: tensor.name.clone(), shape: tensor.shape.clone(), ty })
        })
        .collect()
}

/// What the choice of types needs to know of the model.
struct Shape {
    /// Whether the embedding is the output head too.
    is_tied: bool,
    layers: u32,
}

/// The layer that a tensor belongs to.
fn layer(name: &str) -> Option<u32> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether a tensor is quantized at all: norms, biases and factors are small and stay as they are, and so does the choice
/// of experts.
fn is_matrix(tensor: &TensorInfo) -> bool {
    let name = tensor.name.as_str();
    tensor.shape.len() >= 2 && name.ends_with(".weight") && !name.contains("_norm.") && !name.contains("ffn_gate_inp.")
}

fn chosen(name: &str, request: &Request, shape: &Shape) -> GgmlType {
    let Request { mix, output, embedding, pure, .. } = *request;
    match name {
        _ if pure => mix.ty,
        OUTPUT => output.unwrap_or(mix.head()),
        EMBEDDING if shape.is_tied => output.or(embedding).unwrap_or(mix.head()),
        EMBEDDING => embedding.unwrap_or(mix.ty),
        _ => layer(name).map_or(mix.ty, |layer| mix.of_layer(name, layer, shape.layers)),
    }
}

impl Mix {
    /// The type of the output head, which decides between tokens: of four and five bits it would suffer most.
    fn head(self) -> GgmlType {
        match self.ty {
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 => GgmlType::Q8_0,
            GgmlType::Q4_K | GgmlType::Q5_K => GgmlType::Q6_K,
            other => other,
        }
    }

    /// The type of a matrix of one of the layers.
    fn of_layer(self, name: &str, layer: u32, layers: u32) -> GgmlType {
        let eighth = layers / 8;
        let is_outer = layer < eighth || layer >= 7 * layers / 8;
        let (is_value, is_down) = (name.ends_with("attn_v.weight"), name.ends_with("ffn_down.weight"));
        match self.better {
            Better::Medium if name.ends_with("attn_qkv.weight") => {
                if self.ty == GgmlType::Q4_K {
                    GgmlType::Q5_K
                } else {
                    GgmlType::Q6_K
                }
            }
            Better::Medium if (is_value || is_down) && (is_outer || (layer - eighth) % 3 == 2) => GgmlType::Q6_K,
            Better::Small if (is_value && layer < 4) || (is_down && layer < eighth) => GgmlType::Q5_K,
            _ => self.ty,
        }
    }
}

/// The type, or a similar one where a row is no whole number of its blocks.
fn fitting(tensor: &TensorInfo, ty: GgmlType) -> GgmlType {
    let row = tensor.shape.first().copied().unwrap_or_default();
    if row.is_multiple_of(ty.block_elements() as u64) {
        return ty;
    }
    match ty {
        GgmlType::Q4_K => fitting(tensor, GgmlType::Q5_0),
        GgmlType::Q5_K => fitting(tensor, GgmlType::Q5_1),
        GgmlType::Q6_K => fitting(tensor, GgmlType::Q8_0),
        _ => GgmlType::F16,
    }
}

fn check(tensor: &TensorInfo, ty: GgmlType, allow_requantize: bool) -> Result<()> {
    let (name, found) = (&tensor.name, tensor.ty);
    if found == ty {
        return Ok(());
    }
    if !supports(found) {
        bail!("tensor {name} has the type {found}, which cannot be decoded; these can: {}", Operation::Decode.types());
    }
    if !matches!(found, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16) && !allow_requantize {
        bail!(
            "tensor {name} is quantized already, to {found}; quantizing from F32, F16 or BF16 loses less, \
             --allow-requantize does it all the same"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model_core::fixtures::TinyLlama;

    use super::*;

    fn asked(name: &str) -> Request {
        let mix = parse_mix(name).unwrap();
        Request { mix, output: None, embedding: None, pure: false, allow_requantize: false }
    }

    fn types(model: &TinyLlama, request: &Request) -> impl Fn(&str) -> GgmlType + use<> {
        let file = File::read(&model.build()).unwrap();
        let planned = tensors(&file, request).unwrap();
        move |name| planned.iter().find(|tensor| tensor.name == name).unwrap().ty
    }

    #[test]
    fn matrices_are_quantized_and_norms_are_not() {
        let plain = TinyLlama { ty: GgmlType::F16, tied: false, ..TinyLlama::default() };
        let ty = types(&plain, &asked("Q4_0"));
        assert_eq!(ty("blk.1.ffn_down.weight"), GgmlType::Q4_0);
        assert_eq!(ty("token_embd.weight"), GgmlType::Q4_0);
        assert_eq!(ty("output.weight"), GgmlType::Q8_0);
        assert_eq!(ty("blk.1.attn_norm.weight"), GgmlType::F32);
        assert_eq!(ty("output_norm.weight"), GgmlType::F32);
    }

    #[test]
    fn the_head_has_its_own_type_unless_told_otherwise() {
        let plain = |tied| TinyLlama { ty: GgmlType::BF16, tied, ..TinyLlama::default() };
        let both = |request: &Request| {
            let (tied, untied) = (types(&plain(true), request), types(&plain(false), request));
            [tied(EMBEDDING), untied(EMBEDDING), untied(OUTPUT)]
        };
        let [q4, q5, q8, f16] = [GgmlType::Q4_0, GgmlType::Q5_1, GgmlType::Q8_0, GgmlType::F16];
        assert_eq!(both(&asked("Q4_0")), [q8, q4, q8]);
        assert_eq!(both(&asked("Q8_0")), [q8; 3]);
        assert_eq!(both(&asked("F16")), [f16; 3]);
        assert_eq!(both(&Request { pure: true, ..asked("Q4_0") }), [q4; 3]);
        assert_eq!(both(&Request { output: Some(q5), ..asked("Q4_0") }), [q5, q4, q5]);
        assert_eq!(both(&Request { embedding: Some(f16), ..asked("Q4_0") }), [f16, f16, q8]);
    }

    #[test]
    fn mixes_give_better_types_where_llama_quantize_does() {
        let wide =
            TinyLlama { ty: GgmlType::F16, dim: 256, hidden: 256, layers: 16, tied: false, ..TinyLlama::default() };
        let layers_with = |name: &str, better: GgmlType, matrix: &str| {
            let ty = types(&wide, &asked(name));
            (0..16).filter(|layer| ty(&format!("blk.{layer}.{matrix}.weight")) == better).collect::<Vec<u32>>()
        };
        for name in ["Q4_K_M", "Q5_K_M"] {
            for matrix in ["attn_v", "ffn_down"] {
                assert_eq!(layers_with(name, GgmlType::Q6_K, matrix), [0, 1, 4, 7, 10, 13, 14, 15], "{name} {matrix}");
            }
            assert!(layers_with(name, GgmlType::Q6_K, "ffn_up").is_empty());
        }
        assert_eq!(layers_with("Q4_K_S", GgmlType::Q5_K, "attn_v"), [0, 1, 2, 3]);
        assert_eq!(layers_with("Q4_K_S", GgmlType::Q5_K, "ffn_down"), [0, 1]);
        assert_eq!(layers_with("Q5_K_S", GgmlType::Q5_K, "ffn_down").len(), 16);
        let ty = types(&wide, &asked("Q4_K_M"));
        assert_eq!((ty(OUTPUT), ty(EMBEDDING)), (GgmlType::Q6_K, GgmlType::Q4_K));
        assert_eq!(asked("q5_k_m").mix.of_layer("blk.3.attn_qkv.weight", 3, 16), GgmlType::Q6_K);
    }

    #[test]
    fn a_row_that_is_no_whole_block_gets_a_similar_type() {
        let narrow = TinyLlama { ty: GgmlType::F32, hidden: 80, ..TinyLlama::default() };
        for (name, up) in [("Q4_0", GgmlType::Q4_0), ("Q4_K_S", GgmlType::Q5_0), ("Q6_K", GgmlType::Q8_0)] {
            let ty = types(&narrow, &asked(name));
            assert_eq!((ty("blk.0.ffn_down.weight"), ty("blk.0.ffn_up.weight")), (GgmlType::F16, up), "{name}");
        }
    }

    #[test]
    fn what_is_quantized_is_refused_by_name_unless_accepted_or_right_already() {
        let file = File::read(&TinyLlama::default().build()).unwrap();
        let error = tensors(&file, &asked("Q4_0")).unwrap_err().to_string();
        assert!(error.contains("blk.0.") && error.contains("Q8_0") && error.contains("--allow-requantize"), "{error}");
        assert!(tensors(&file, &Request { allow_requantize: true, ..asked("Q4_0") }).is_ok());
        assert!(tensors(&file, &asked("Q8_0")).is_ok());
    }

    #[test]
    fn names_are_read_in_any_case_and_wrong_ones_are_told_the_right_ones() {
        for mix in MIXES {
            assert_eq!(parse_mix(&mix.name.to_lowercase()), Ok(mix));
            assert!(Operation::Encode.supports(mix.ty) && Operation::Encode.supports(mix.head()));
        }
        assert_eq!(parse_type("q4_k"), Ok(GgmlType::Q4_K));
        assert!(parse_mix("Q4_K").unwrap_err().contains("Q4_K_M, Q4_K_S"));
        assert!(parse_type("Q3_K").unwrap_err().contains("Q4_K, Q5_K, Q6_K"));
    }
}

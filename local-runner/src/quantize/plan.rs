//! Which tensor gets which type. The rules are those of llama-quantize for its simple types, but for the output head, which
//! it would give Q6_K. Knows names, shapes and types, no bytes.

use anyhow::{Result, bail};
use model_core::gguf::write::NewTensor;
use model_core::gguf::{File, GgmlType, Metadata, TensorInfo, keys};
use model_core::quant::{Operation, supports};

/// Version of GGML's block formats (`GGML_QNT_VERSION`).
const QUANTIZATION_VERSION: u32 = 2;
const OUTPUT: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";

/// What the user asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The type of most matrices.
    pub ty: GgmlType,
    /// The type of the output head; by default Q8_0 for the types of four and five bits, else `ty`.
    pub output: Option<GgmlType>,
    /// The type of the token embedding where it is not the output head too; by default `ty`.
    pub embedding: Option<GgmlType>,
    /// Give every matrix `ty`, also those that have a default of their own.
    pub pure: bool,
    /// Accept tensors that are quantized already.
    pub allow_requantize: bool,
}

/// The type that `general.file_type` names by this number of llama.cpp's `llama_ftype`.
fn file_type(ty: GgmlType) -> Option<u32> {
    Some(match ty {
        GgmlType::F32 => 0,
        GgmlType::F16 => 1,
        GgmlType::Q4_0 => 2,
        GgmlType::Q4_1 => 3,
        GgmlType::Q8_0 => 7,
        GgmlType::Q5_0 => 8,
        GgmlType::Q5_1 => 9,
        GgmlType::BF16 => 32,
        _ => return None,
    })
}

/// Reads a type to quantize to, in any case.
pub fn parse_type(name: &str) -> Result<GgmlType, String> {
    let known = GgmlType::ALL.iter().find(|ty| ty.name().eq_ignore_ascii_case(name) && file_type(**ty).is_some());
    known.copied().ok_or_else(|| format!("the types are {}", Operation::Encode.types()))
}

/// The metadata of the new file: that of the old one, with what describes the types made true.
pub fn metadata(file: &File, ty: GgmlType) -> Metadata {
    let mut metadata = file.metadata().clone();
    if let Some(number) = file_type(ty) {
        metadata.insert(keys::FILE_TYPE, number);
    }
    metadata.insert(keys::QUANTIZATION_VERSION, QUANTIZATION_VERSION);
    metadata
}

/// The tensors of the new file, in the order of the old one.
///
/// # Errors
/// Names a tensor that is quantized already, unless that is accepted, or cannot be decoded.
pub fn tensors(file: &File, request: &Request) -> Result<Vec<NewTensor>> {
    let is_tied = file.tensor(OUTPUT).is_none();
    file.tensors()
        .iter()
        .map(|tensor| {
            let ty = if is_matrix(tensor) { chosen(tensor, request, is_tied) } else { tensor.ty };
            check(tensor, ty, request.allow_requantize)?;
            Ok(NewTensor { name: tensor.name.clone(), shape: tensor.shape.clone(), ty })
        })
        .collect()
}

/// Whether a tensor is quantized at all: norms, biases and factors are small and stay as they are, and so does the choice
/// of experts.
fn is_matrix(tensor: &TensorInfo) -> bool {
    let name = tensor.name.as_str();
    tensor.shape.len() >= 2 && name.ends_with(".weight") && !name.contains("_norm.") && !name.contains("ffn_gate_inp.")
}

fn chosen(tensor: &TensorInfo, request: &Request, is_tied: bool) -> GgmlType {
    let Request { ty, output, embedding, pure, .. } = *request;
    let own = match tensor.name.as_str() {
        _ if pure => ty,
        OUTPUT => output.unwrap_or(head(ty)),
        EMBEDDING if is_tied => output.or(embedding).unwrap_or(head(ty)),
        EMBEDDING => embedding.unwrap_or(ty),
        _ => ty,
    };
    let row = tensor.shape.first().copied().unwrap_or_default();
    // As llama-quantize does where a row is no whole number of blocks.
    if row.is_multiple_of(own.block_elements() as u64) { own } else { GgmlType::F16 }
}

/// The output head decides between tokens: of four and five bits it would suffer most.
fn head(ty: GgmlType) -> GgmlType {
    let is_small = matches!(ty, GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1);
    if is_small { GgmlType::Q8_0 } else { ty }
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

    const Q4_0: Request =
        Request { ty: GgmlType::Q4_0, output: None, embedding: None, pure: false, allow_requantize: false };

    fn types(model: &TinyLlama, request: &Request) -> impl Fn(&str) -> GgmlType + use<> {
        let file = File::read(&model.build()).unwrap();
        let planned = tensors(&file, request).unwrap();
        move |name| planned.iter().find(|tensor| tensor.name == name).unwrap().ty
    }

    #[test]
    fn matrices_are_quantized_and_norms_are_not() {
        let plain = TinyLlama { ty: GgmlType::F16, tied: false, ..TinyLlama::default() };
        let ty = types(&plain, &Q4_0);
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
        assert_eq!(both(&Q4_0), [q8, q4, q8]);
        assert_eq!(both(&Request { ty: q8, ..Q4_0 }), [q8; 3]);
        assert_eq!(both(&Request { ty: f16, ..Q4_0 }), [f16; 3]);
        assert_eq!(both(&Request { pure: true, output: None, ..Q4_0 }), [q4; 3]);
        assert_eq!(both(&Request { output: Some(q5), ..Q4_0 }), [q5, q4, q5]);
        assert_eq!(both(&Request { embedding: Some(f16), ..Q4_0 }), [f16, f16, q8]);
    }

    #[test]
    fn a_row_that_is_no_whole_block_becomes_half_precision() {
        let narrow = TinyLlama { ty: GgmlType::F32, hidden: 80, ..TinyLlama::default() };
        let ty = types(&narrow, &Q4_0);
        assert_eq!((ty("blk.0.ffn_down.weight"), ty("blk.0.ffn_up.weight")), (GgmlType::F16, GgmlType::Q4_0));
    }

    #[test]
    fn what_is_quantized_is_refused_by_name_unless_accepted_or_right_already() {
        let file = File::read(&TinyLlama::default().build()).unwrap();
        let error = tensors(&file, &Q4_0).unwrap_err().to_string();
        assert!(error.contains("blk.0.") && error.contains("Q8_0") && error.contains("--allow-requantize"), "{error}");
        assert!(tensors(&file, &Request { allow_requantize: true, ..Q4_0 }).is_ok());
        assert!(tensors(&file, &Request { ty: GgmlType::Q8_0, ..Q4_0 }).is_ok());
    }

    #[test]
    fn every_type_that_can_be_encoded_has_a_name_and_a_number() {
        for ty in GgmlType::ALL.iter().filter(|ty| Operation::Encode.supports(**ty)) {
            assert_eq!(parse_type(&ty.name().to_lowercase()), Ok(*ty));
        }
        assert!(parse_type("Q4_K").unwrap_err().contains("Q4_0, Q4_1"));
    }
}

use super::*;
use crate::fixtures::{SplitMix64, random_blocks};
use crate::gguf::{GgmlType, TensorInfo};
use crate::quant;
use crate::source::{ByteSource, SourceError};

/// A source that does not lie in memory.
struct Remote(Vec<u8>);

impl ByteSource for Remote {
    fn len(&self) -> u64 {
        ByteSource::len(&self.0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.0.read_at(offset, buf)
    }
}

/// Every type that there is a decoder for.
fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::ALL.iter().copied().filter(|ty| quant::supports(*ty))
}

/// A tensor of `rows` x 64 (256 for super-blocks) after 16 foreign bytes, and its exact values.
fn tensor(ty: GgmlType, rows: usize) -> (TensorInfo, Vec<u8>, Vec<f32>) {
    let columns = ty.block_elements().max(64);
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
    let bytes = match random_blocks(ty, values.len(), 0.5, &mut SplitMix64::new(7)) {
        Some(bytes) => bytes,
        None => quant::quantize(ty, &values).unwrap(),
    };
    let mut exact = vec![0.0; values.len()];
    quant::dequantize(ty, &bytes, &mut exact).unwrap();
    let shape = vec![columns as u64, rows as u64];
    let info = TensorInfo { name: "w".into(), shape, ty, offset: 16, bytes: bytes.len() as u64 };
    (info, [vec![0xff; 16], bytes].concat(), exact)
}

fn pack(info: &TensorInfo, precision: Precision, source: &dyn ByteSource) -> Result<Matrix, Error> {
    pack_as(info, precision, Residency::Wide, source)
}

fn pack_as(
    info: &TensorInfo,
    precision: Precision,
    residency: Residency,
    source: &dyn ByteSource,
) -> Result<Matrix, Error> {
    let mut packer = Packer::new(info, precision, residency)?;
    while !packer.step(source)? {}
    let matrix = packer.finish().unwrap();
    assert_eq!(matrix.bytes() as u64, Packer::packed_bytes(info, precision, residency)?);
    Ok(matrix)
}

fn values(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.columns()];
    for (row, out) in values.chunks_exact_mut(matrix.columns()).enumerate() {
        assert!(matrix.row_into(row, out));
    }
    values
}

/// Whether codes give the values of the file: exactly, but for offsets, which have 14 bits of the largest of their row.
fn agree(ty: GgmlType, found: &[f32], exact: &[f32]) -> bool {
    let bound = if quant::has_offset(ty) { 1e-4 } else { 0.0 };
    found.iter().zip(exact).all(|(found, exact)| (found - exact).abs() <= bound)
}

#[test]
fn every_format_keeps_its_values_in_both_precisions_and_from_any_source() {
    for ty in types() {
        for rows in [1, 8, 13, 1500] {
            let (info, bytes, exact) = tensor(ty, rows);
            for precision in [Precision::Quantized, Precision::Activations8, Precision::F32] {
                let matrix = pack(&info, precision, &bytes).unwrap();
                assert_eq!(matrix.is_coded(), quant::supports_codes(ty) && precision != Precision::F32);
                let found = values(&matrix);
                assert!(found == exact || matrix.is_coded() && agree(ty, &found, &exact), "{ty} {rows} {precision:?}");
                assert_eq!(values(&pack(&info, precision, &Remote(bytes.clone())).unwrap()), found);
                let compact = pack_as(&info, precision, Residency::Compact, &bytes).unwrap();
                assert_eq!(values(&compact), found, "{ty} {rows} {precision:?} compact");
                let is_smaller = matrix.is_coded() && (quant::has_four_bit_codes(ty) || quant::is_ternary(ty));
                assert_eq!(compact.bytes() < matrix.bytes(), is_smaller, "{ty}");
            }
        }
    }
}

#[test]
fn takes_no_more_memory_than_announced_and_works_in_steps() {
    let (info, bytes, _) = tensor(GgmlType::Q4_1, 16_384);
    let mut packer = Packer::new(&info, Precision::Quantized, Residency::Wide).unwrap();
    let mut steps = 1;
    while !packer.step(&bytes).unwrap() {
        steps += 1;
    }
    assert_eq!(packer.source_bytes(), info.bytes);
    assert!(steps > 3, "{steps}");
    assert_eq!(packer.finish().unwrap().bytes(), 16_384 / 8 * (2 * 288 + 64));
    assert!(Packer::new(&info, Precision::Quantized, Residency::Wide).unwrap().finish().is_none());
}

#[test]
fn refuses_what_it_cannot_pack_and_names_the_tensor() {
    let (info, mut bytes, _) = tensor(GgmlType::Q8_0, 9);
    let error = pack(&TensorInfo { shape: vec![64], ..info.clone() }, Precision::Quantized, &bytes).unwrap_err();
    assert_eq!(error, Error::NotAMatrix { tensor: "w".into(), dimensions: 1 });
    let unsupported = TensorInfo { ty: GgmlType::IQ2_S, ..info.clone() };
    let error = pack(&unsupported, Precision::Quantized, &bytes).unwrap_err();
    assert!(error.to_string().contains("IQ2_S"), "{error}");
    let huge = TensorInfo { shape: vec![1 << 40, 1 << 40], ..info.clone() };
    assert!(matches!(pack(&huge, Precision::Quantized, &bytes), Err(Error::TooLarge { .. })));
    let error = pack(&info, Precision::Quantized, &bytes[..100].to_vec()).unwrap_err();
    assert!(matches!(error, Error::Source { .. }));
    bytes[16..18].copy_from_slice(&0x7c00u16.to_le_bytes());
    let error = pack(&info, Precision::Quantized, &bytes).unwrap_err();
    assert_eq!(error, Error::NotFinite { tensor: "w".into(), row: 0 });
    let (info, mut bytes, _) = tensor(GgmlType::TQ2_0, 9);
    bytes[16 + 8 * 66 + 40] |= 0b11;
    let error = pack(&info, Precision::Quantized, &bytes).unwrap_err();
    assert_eq!(error, Error::NotTernary { tensor: "w".into(), row: 0 });
    assert!(pack(&info, Precision::F32, &bytes).is_ok());
}

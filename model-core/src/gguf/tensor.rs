//! The tensor table: name, shape, type and a checked byte range of each tensor. Knows nothing of what the
//! tensors are for.

use std::collections::BTreeMap;

use super::reader::Reader;
use super::{Error, GgmlType, MAX_DIMENSIONS, MAX_TENSOR_NAME_BYTES};

/// One entry of the tensor table, checked: every field is consistent with the others and with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// 1 to 4 dimensions, none zero, fastest first: a matrix of `rows` by `cols` has `[cols, rows]`.
    pub shape: Vec<u64>,
    /// Element type; a row (`shape[0]`) is a whole number of its blocks.
    pub ty: GgmlType,
    /// First byte, absolute in the file.
    pub offset: u64,
    /// Length in bytes; the range lies inside the file and is shared with no other tensor.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Reads one entry; its offset is still relative to the data section.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<TensorInfo, Error> {
    let name = reader.name("tensor name", MAX_TENSOR_NAME_BYTES)?;
    let dimensions = reader.u32("the number of dimensions of a tensor")?;
    if dimensions == 0 {
        return Err(Error::NoDimensions { name });
    }
    if dimensions > MAX_DIMENSIONS {
        return Err(Error::TooManyDimensions { name, found: dimensions });
    }
    let shape = (0..dimensions).map(|_| reader.u64("the shape of a tensor")).collect::<Result<Vec<_>, _>>()?;
    let id = reader.u32("the type of a tensor")?;
    let ty = GgmlType::from_id(id).ok_or_else(|| Error::UnknownTensorType { name: name.clone(), id })?;
    let offset = reader.u64("the offset of a tensor")?;
    let bytes = byte_len(&name, &shape, ty)?;
    Ok(TensorInfo { name, shape, ty, offset, bytes })
}

/// Length in bytes of a tensor of this shape.
pub(super) fn byte_len(name: &str, shape: &[u64], ty: GgmlType) -> Result<u64, Error> {
    let name = || name.to_owned();
    if let Some(axis) = shape.iter().position(|&len| len == 0) {
        return Err(Error::ZeroDimension { name: name(), axis });
    }
    let row = shape.first().copied().unwrap_or_default();
    let block = ty.block_elements() as u64;
    if !row.is_multiple_of(block) {
        return Err(Error::RaggedRow { name: name(), ty, row, block });
    }
    let elements = shape.iter().try_fold(1u64, |product, &len| product.checked_mul(len));
    elements
        .filter(|&elements| i64::try_from(elements).is_ok())
        .and_then(|elements| (elements / block).checked_mul(ty.block_bytes() as u64))
        .ok_or_else(|| Error::SizeOverflow { name: name(), shape: shape.to_vec() })
}

/// Where the tensor data lies in the file.
pub(super) struct DataSection {
    /// First byte, a multiple of `alignment`.
    pub start: u64,
    /// Length in bytes, to the end of the file.
    pub len: u64,
    /// `general.alignment`.
    pub alignment: u64,
}

impl DataSection {
    /// Checks the byte ranges of all tensors and makes their offsets absolute.
    pub fn place(&self, tensors: &mut [TensorInfo]) -> Result<(), Error> {
        for tensor in tensors.iter() {
            self.check_range(tensor)?;
        }
        check_overlaps(tensors)?;
        for tensor in tensors {
            tensor.offset += self.start; // fits: the range lies inside the file
        }
        Ok(())
    }

    fn check_range(&self, tensor: &TensorInfo) -> Result<(), Error> {
        let TensorInfo { offset, bytes, .. } = *tensor;
        if !offset.is_multiple_of(self.alignment) {
            return Err(Error::MisalignedTensor { name: tensor.name.clone(), offset, alignment: self.alignment });
        }
        match offset.checked_add(bytes) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::TensorOutOfRange { name: tensor.name.clone(), offset, bytes, available: self.len }),
        }
    }
}

fn check_overlaps(tensors: &[TensorInfo]) -> Result<(), Error> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    for (first, second) in order.iter().zip(order.iter().skip(1)) {
        if first.offset + first.bytes > second.offset {
            return Err(Error::OverlappingTensors {
                first: first.name.clone(),
                second: second.name.clone(),
                offset: second.offset,
            });
        }
    }
    Ok(())
}

/// Position of each tensor by its name.
pub(super) fn index(tensors: &[TensorInfo]) -> Result<BTreeMap<String, usize>, Error> {
    let mut index = BTreeMap::new();
    for (position, tensor) in tensors.iter().enumerate() {
        if index.insert(tensor.name.clone(), position).is_some() {
            return Err(Error::DuplicateTensor { name: tensor.name.clone() });
        }
    }
    Ok(index)
}

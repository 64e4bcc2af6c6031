//! Writes the GGUF container: the bytes of values and entries, and whole headers for files whose tensor data somebody else
//! streams. Knows nothing of models, files or what the data is.

use super::tensor::byte_len;
use super::{Array, Error, GgmlType, MAGIC, Metadata, Value, alignment};

/// Version of the files that are written.
pub const VERSION: u32 = 3;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, fastest first.
    pub shape: Vec<u64>,
    /// Type of its elements.
    pub ty: GgmlType,
}

/// Where everything of a new file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The file up to its tensor data, padding included.
    pub header: Vec<u8>,
    /// Length in bytes of each tensor's data, and of the zeros that follow it.
    pub tensors: Vec<Extent>,
}

/// What one tensor takes of the data section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of data.
    pub bytes: u64,
    /// Zeros up to the place of the next tensor.
    pub padding: u64,
}

impl Layout {
    /// Lays a file out: metadata in its order, tensors one after the other in theirs, each at a multiple of
    /// `general.alignment` (32 if the metadata has none).
    ///
    /// # Errors
    /// [`Error::BadAlignment`], a row that is no whole number of blocks, or a shape of absurd size.
    pub fn new(metadata: &Metadata, tensors: &[NewTensor]) -> Result<Self, Error> {
        let alignment = alignment(metadata)?;
        let mut header = header(MAGIC, VERSION, tensors.len() as u64, metadata.len() as u64);
        for (key, value) in metadata.iter() {
            put_entry(&mut header, key.as_bytes(), value);
        }
        let (mut place, mut extents) = (0u64, Vec::with_capacity(tensors.len()));
        for NewTensor { name, shape, ty } in tensors {
            let bytes = byte_len(name, shape, *ty)?;
            let overflow = || Error::SizeOverflow { name: name.clone(), shape: shape.clone() };
            let padded = bytes.checked_next_multiple_of(alignment).ok_or_else(overflow)?;
            put_tensor(&mut header, name.as_bytes(), shape, ty.id(), place);
            place = place.checked_add(padded).ok_or_else(overflow)?;
            extents.push(Extent { bytes, padding: padded - bytes });
        }
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        Ok(Self { header, tensors: extents })
    }

    /// Length of the whole file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.tensors.iter().fold(self.header.len() as u64, |sum, extent| sum + extent.bytes + extent.padding)
    }
}

/// Magic number, version and counts.
pub(crate) fn header(magic: [u8; 4], version: u32, tensors: u64, entries: u64) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(version.to_le_bytes());
    out.extend(tensors.to_le_bytes());
    out.extend(entries.to_le_bytes());
    out
}

/// A metadata entry: key, type and value.
pub(crate) fn put_entry(out: &mut Vec<u8>, key: &[u8], value: &Value) {
    put_string(out, key);
    out.extend(value.value_type().id().to_le_bytes());
    put_value(out, value);
}

/// An entry of the tensor table; `offset` counts from the start of the data section.
pub(crate) fn put_tensor(out: &mut Vec<u8>, name: &[u8], shape: &[u64], type_id: u32, offset: u64) {
    put_string(out, name);
    out.extend((shape.len() as u32).to_le_bytes());
    out.extend(shape.iter().flat_map(|len| len.to_le_bytes()));
    out.extend(type_id.to_le_bytes());
    out.extend(offset.to_le_bytes());
}

/// Length and bytes.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend(string);
}

/// The bytes of a value, without its type.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.extend(n.to_le_bytes()),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(truth) => out.push((*truth).into()),
        Value::String(bytes) => put_string(out, bytes),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.element_type().id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::Array(arrays) => arrays.iter().for_each(|array| put_array(out, array)),
        _ => (0..array.len()).filter_map(|i| array.get(i)).for_each(|element| put_value(out, &element)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{File, keys};
    use super::*;

    fn new_tensor(name: &str, shape: &[u64], ty: GgmlType) -> NewTensor {
        NewTensor { name: name.into(), shape: shape.into(), ty }
    }

    fn sample() -> Metadata {
        let mut metadata = Metadata::default();
        metadata.insert(keys::ARCHITECTURE, "llama");
        metadata.insert("nested", Array::Array(vec![Array::U8(vec![9]), Array::Bool(vec![])]));
        metadata.insert("raw", Value::String(vec![0xff]));
        metadata
    }

    #[test]
    fn what_is_written_is_read_back_and_lies_where_it_was_laid() {
        for aligned in [None, Some(8u32), Some(4096)] {
            let mut metadata = sample();
            if let Some(alignment) = aligned {
                metadata.insert(keys::ALIGNMENT, alignment);
            }
            let tensors = [new_tensor("a", &[3], GgmlType::F32), new_tensor("b", &[32, 2], GgmlType::Q4_0)];
            let layout = Layout::new(&metadata, &tensors).unwrap();
            let mut bytes = layout.header.clone();
            for (fill, extent) in (1u8..).zip(&layout.tensors) {
                bytes.extend(vec![fill; extent.bytes as usize]);
                bytes.extend(vec![0; extent.padding as usize]);
            }
            assert_eq!(bytes.len() as u64, layout.file_bytes());
            let file = File::read(&bytes).unwrap();
            assert_eq!((file.version(), file.metadata()), (3, &metadata));
            for (fill, (found, new)) in (1u8..).zip(file.tensors().iter().zip(&tensors)) {
                assert_eq!((&found.name, &found.shape, found.ty), (&new.name, &new.shape, new.ty));
                assert!(found.offset.is_multiple_of(aligned.unwrap_or(32).into()));
                let data = &bytes[found.offset as usize..(found.offset + found.bytes) as usize];
                assert!(data.iter().all(|&byte| byte == fill));
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_laid_out() {
        let ragged = Layout::new(&sample(), &[new_tensor("a", &[33], GgmlType::Q8_0)]);
        assert!(matches!(ragged, Err(Error::RaggedRow { row: 33, .. })));
        let huge = Layout::new(&sample(), &[new_tensor("a", &[1 << 62, 4], GgmlType::F32)]);
        assert!(matches!(huge, Err(Error::SizeOverflow { .. })));
        let mut metadata = sample();
        metadata.insert(keys::ALIGNMENT, 12u32);
        assert!(matches!(Layout::new(&metadata, &[]), Err(Error::BadAlignment { found: 12 })));
    }
}

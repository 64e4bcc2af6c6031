//! Metadata values from bytes. Knows the encodings of the value types, not what a key means.

use super::reader::Reader;
use super::value::{Array, StringArray, Value, ValueType};
use super::{Error, MAX_ARRAY_DEPTH};

const TYPE: &str = "the type of a metadata value";
const VALUE: &str = "a metadata value";
const ELEMENTS: &str = "the elements of an array";

/// The type and value that follow a key.
pub(super) fn value(reader: &mut Reader<'_>, key: &str) -> Result<Value, Error> {
    Ok(match value_type(reader, key)? {
        ValueType::U8 => Value::U8(reader.u8(VALUE)?),
        ValueType::I8 => Value::I8(i8::from_le_bytes(reader.array(VALUE)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(reader.array(VALUE)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(reader.array(VALUE)?)),
        ValueType::U32 => Value::U32(reader.u32(VALUE)?),
        ValueType::I32 => Value::I32(i32::from_le_bytes(reader.array(VALUE)?)),
        ValueType::U64 => Value::U64(reader.u64(VALUE)?),
        ValueType::I64 => Value::I64(i64::from_le_bytes(reader.array(VALUE)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(reader.array(VALUE)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(reader.array(VALUE)?)),
        ValueType::Bool => Value::Bool(boolean(reader, key)?),
        ValueType::String => {
            let mut bytes = Vec::new();
            reader.string(VALUE, &mut bytes)?;
            Value::String(bytes)
        }
        ValueType::Array => Value::Array(array(reader, key, 1)?),
    })
}

fn value_type(reader: &mut Reader<'_>, key: &str) -> Result<ValueType, Error> {
    let offset = reader.position();
    let id = reader.u32(TYPE)?;
    ValueType::from_id(id).ok_or_else(|| Error::UnknownValueType { key: key.to_owned(), id, offset })
}

fn boolean(reader: &mut Reader<'_>, key: &str) -> Result<bool, Error> {
    let offset = reader.position();
    match reader.u8(VALUE)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::BadBool { key: key.to_owned(), found, offset }),
    }
}

/// Element type, count and elements; `depth` is 1 for the array that is the value itself.
fn array(reader: &mut Reader<'_>, key: &str, depth: u32) -> Result<Array, Error> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(Error::ArrayTooDeep { key: key.to_owned(), limit: MAX_ARRAY_DEPTH });
    }
    let element = value_type(reader, key)?;
    let count = reader.u64("the length of an array")?;
    let limit = reader.left() / element.min_bytes();
    if count > limit {
        return Err(Error::ArrayTooLong { key: key.to_owned(), count, limit });
    }
    Ok(match element {
        ValueType::U8 => Array::U8(reader.numbers(count, u8::from_le_bytes)?),
        ValueType::I8 => Array::I8(reader.numbers(count, i8::from_le_bytes)?),
        ValueType::U16 => Array::U16(reader.numbers(count, u16::from_le_bytes)?),
        ValueType::I16 => Array::I16(reader.numbers(count, i16::from_le_bytes)?),
        ValueType::U32 => Array::U32(reader.numbers(count, u32::from_le_bytes)?),
        ValueType::I32 => Array::I32(reader.numbers(count, i32::from_le_bytes)?),
        ValueType::U64 => Array::U64(reader.numbers(count, u64::from_le_bytes)?),
        ValueType::I64 => Array::I64(reader.numbers(count, i64::from_le_bytes)?),
        ValueType::F32 => Array::F32(reader.numbers(count, f32::from_le_bytes)?),
        ValueType::F64 => Array::F64(reader.numbers(count, f64::from_le_bytes)?),
        ValueType::Bool => Array::Bool((0..count).map(|_| boolean(reader, key)).collect::<Result<_, _>>()?),
        ValueType::String => Array::String(strings(reader, count)?),
        ValueType::Array => Array::Array((0..count).map(|_| array(reader, key, depth + 1)).collect::<Result<_, _>>()?),
    })
}

fn strings(reader: &mut Reader<'_>, count: u64) -> Result<StringArray, Error> {
    let mut strings = StringArray::with_capacity(count as usize);
    for _ in 0..count {
        strings.push_with(|bytes| reader.string(ELEMENTS, bytes))?;
    }
    Ok(strings)
}

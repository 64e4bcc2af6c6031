//! How numbers and CBOR are written in state trees and messages.

use serde::Serialize;

/// An unsigned number in the shortest LEB128 form, as `nat` values of state trees are written.
pub fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// CBOR behind the tag that says it is CBOR, as the interface specification wants it.
///
/// # Errors
/// If the value has a part that CBOR cannot express.
pub fn cbor(value: &impl Serialize) -> Result<Vec<u8>, serde_cbor::Error> {
    let mut serializer = serde_cbor::Serializer::new(Vec::new());
    serializer.self_describe()?;
    value.serialize(&mut serializer)?;
    Ok(serializer.into_inner())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_can_be() {
        for (number, bytes) in [(0, &[0][..]), (127, &[127]), (128, &[128, 1]), (624_485, &[0xe5, 0x8e, 0x26])] {
            assert_eq!(leb128(number), bytes);
        }
        assert_eq!(leb128(u64::MAX).len(), 10);
    }

    #[test]
    fn cbor_describes_itself() {
        assert_eq!(cbor(&"a").unwrap(), [0xd9, 0xd9, 0xf7, 0x61, b'a']);
    }
}

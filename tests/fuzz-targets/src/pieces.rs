//! Inputs that get past the first check: values made of the fuzzer's bytes, with those that hurt more often than by chance.

use arbitrary::{Arbitrary, Result, Unstructured};

/// Numbers at which things break.
const EDGES: [u64; 14] = [0, 1, 2, 3, 7, 32, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 63, u64::MAX];

/// One of `choices`.
pub(crate) fn one_of<'c, T: ?Sized>(input: &mut Unstructured<'_>, choices: &[&'c T]) -> Result<&'c T> {
    input.choose(choices).copied()
}

/// A number, often an edge.
pub(crate) fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    if input.ratio(1, 2)? { Ok(*input.choose(&EDGES)?) } else { Ok(u64::from(u16::arbitrary(input)?)) }
}

/// A float, often one that is no number.
pub(crate) fn float(input: &mut Unstructured<'_>) -> Result<f32> {
    const EDGES: [f32; 8] = [0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE];
    if input.ratio(1, 2)? { Ok(*input.choose(&EDGES)?) } else { f32::arbitrary(input) }
}

/// At most `most` values.
pub(crate) fn several<T>(
    input: &mut Unstructured<'_>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = input.int_in_range(0..=most)?;
    (0..count).map(|_| one(input)).collect()
}

/// Text of at most `most` words, some of them whatever bytes come.
pub(crate) fn words(input: &mut Unstructured<'_>, most: usize, words: &[&str]) -> Result<String> {
    let parts = several(input, most, |input| {
        Ok(if input.ratio(1, 8)? { short_text(input)? } else { one_of(input, words)?.to_owned() })
    })?;
    Ok(parts.concat())
}

/// Up to 16 bytes of whatever comes, as text.
pub(crate) fn short_text(input: &mut Unstructured<'_>) -> Result<String> {
    let len = input.int_in_range(0..=16usize)?.min(input.len());
    Ok(String::from_utf8_lossy(input.bytes(len)?).into_owned())
}

/// All the bytes that are left, as text.
pub(crate) fn rest(input: &mut Unstructured<'_>) -> Result<String> {
    let len = input.len();
    Ok(String::from_utf8_lossy(input.bytes(len)?).into_owned())
}

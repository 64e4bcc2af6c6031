//! Codecs against vectors of the PyPI package `gguf` and of ggml (scripts/golden/quant_vectors.py), bit for bit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use model_core::gguf::GgmlType;
use model_core::quant::{self, Error, GROUP, Operation};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/quant_vectors.json")).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits: Vec<u32> = hex.as_str().unwrap().chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn floats(hex: &Value) -> Vec<f32> {
    bytes(hex).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Type and entry of each case of a section; every type that the operation is there for has one.
fn cases(section: &Value, operation: Operation) -> Vec<(GgmlType, &Value)> {
    let by_name = |name: &str| *GgmlType::ALL.iter().find(|ty| ty.name() == name).unwrap();
    let cases: Vec<_> =
        section.as_array().unwrap().iter().map(|case| (by_name(case["type"].as_str().unwrap()), case)).collect();
    for ty in GgmlType::ALL.iter().filter(|ty| operation.supports(**ty)) {
        assert_eq!(cases.iter().filter(|case| case.0 == *ty).count(), 1, "{ty}");
    }
    cases
}

#[test]
fn dequantized_values_are_those_of_ggml() {
    for (ty, case) in cases(&golden()["decode"], Operation::Decode) {
        let expected = floats(&case["values"]);
        let mut found = vec![f32::NAN; expected.len()];
        quant::dequantize(ty, &bytes(&case["bytes"]), &mut found).unwrap();
        assert_eq!(bits(&found), bits(&expected), "{ty}");
    }
}

#[test]
fn codes_scales_and_offsets_give_the_values_of_ggml() {
    let golden = golden();
    let coded = cases(&golden["decode"], Operation::Decode).into_iter().filter(|(ty, _)| quant::supports_codes(*ty));
    let mut types = 0;
    for (ty, case) in coded {
        let expected = floats(&case["values"]);
        let group = quant::group_len(ty);
        let groups = expected.len() / group;
        let (mut codes, mut scales) = (vec![0; expected.len()], vec![0.0; groups]);
        let mut offsets = vec![0.0; if quant::has_offset(ty) { groups } else { 0 }];
        quant::decode_codes(ty, &bytes(&case["bytes"]), &mut codes, &mut scales, &mut offsets).unwrap();
        for (i, (code, expected)) in codes.iter().zip(&expected).enumerate() {
            let product = scales[i / group] * f32::from(*code);
            // An offset is rounded once, and so is its sum with the product.
            let (value, bound) = offsets
                .get(i / group)
                .map_or((product, 0.0), |offset| (product + offset, (product.abs() + offset.abs()) * f32::EPSILON));
            assert!((value - expected).abs() <= bound, "{ty} weight {i}: {value} {expected}");
        }
        if ty.block_elements() == GROUP {
            assert_eq!(bits(&[scales[0]]), bits(&[1.0]));
            let offset = offsets.first().copied().unwrap_or(0.0);
            let first: Vec<f32> = codes[..GROUP].iter().map(|code| f32::from(*code) + offset).collect();
            assert_eq!(first, expected[..GROUP], "{ty}: with scale one, values are codes and the offset");
        }
        types += 1;
    }
    assert_eq!(types, 15);
}

#[test]
fn quantized_blocks_are_those_of_ggml() {
    let golden = golden();
    let values = floats(&golden["encode_values"]);
    for (ty, case) in cases(&golden["encode"], Operation::Encode) {
        let values = case.get("values").map_or_else(|| values.clone(), floats);
        let found = quant::quantize(ty, &values).unwrap();
        let block = ty.block_bytes() * if ty.block_elements() == 1 { GROUP } else { 1 };
        for (group, (found, expected)) in found.chunks(block).zip(bytes(&case["bytes"]).chunks(block)).enumerate() {
            assert_eq!(found, expected, "{ty} group {group}");
        }
        assert_eq!(found.len(), bytes(&case["bytes"]).len());
    }
}

#[test]
fn not_a_number_stays_one() {
    for (ty, nan) in [(GgmlType::F16, [0x01, 0x7e]), (GgmlType::BF16, [0xc0, 0xff])] {
        let mut value = [0.0];
        quant::dequantize(ty, &nan, &mut value).unwrap();
        assert!(value[0].is_nan(), "{ty}");
        let encoded = quant::quantize(ty, &value).unwrap();
        quant::dequantize(ty, &encoded, &mut value).unwrap();
        assert!(value[0].is_nan(), "{ty}");
    }
}

#[test]
fn unsupported_types_are_refused_by_name() {
    for &ty in GgmlType::ALL.iter().filter(|ty| !quant::supports(**ty)) {
        let error = quant::dequantize(ty, &[], &mut []).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(ty.name()), "{error}");
        assert!(matches!(quant::decode_codes(ty, &[], &mut [], &mut [], &mut []), Err(Error::Unsupported { .. })));
    }
    for &ty in GgmlType::ALL.iter().filter(|ty| !Operation::Encode.supports(**ty)) {
        let error = quant::quantize(ty, &[]).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("Q8_0, "), "{error}");
    }
    assert!(matches!(
        quant::decode_codes(GgmlType::F16, &[], &mut [], &mut [], &mut []),
        Err(Error::Unsupported { ty: GgmlType::F16, .. })
    ));
}

#[test]
fn lengths_that_do_not_match_are_errors() {
    let ty = GgmlType::Q4_1;
    let decode = |bytes, codes, scales, offsets| {
        quant::decode_codes(ty, &vec![0; bytes], &mut vec![0; codes], &mut vec![0.0; scales], &mut vec![0.0; offsets])
    };
    let buffer = |what, expected, found| Err(Error::BufferLength { what, expected, found });
    assert_eq!(decode(40, 64, 2, 2), Ok(()));
    assert_eq!(decode(39, 64, 2, 2), Err(Error::PartialBlock { ty, len: 39, block: 20, unit: "bytes" }));
    assert_eq!(decode(40, 63, 2, 2), buffer("codes", 64, 63));
    assert_eq!(decode(40, 64, 3, 2), buffer("scales", 2, 3));
    assert_eq!(decode(40, 64, 2, 0), buffer("offsets", 2, 0));
    assert_eq!(quant::dequantize(ty, &[0; 20], &mut [0.0; 31]), buffer("values", 32, 31));
    let half_groups =
        |scales: &mut [f32]| quant::decode_codes(GgmlType::Q6_K, &[0; 210], &mut [0; 256], scales, &mut []);
    assert_eq!(half_groups(&mut [0.0; 16]), Ok(()));
    assert_eq!(half_groups(&mut [0.0; 8]), buffer("scales", 16, 8));
    assert_eq!(quant::dequantize(GgmlType::F32, &[0; 8], &mut [0.0; 3]), buffer("values", 2, 3));
    assert_eq!(quant::quantize(ty, &[0.0; 33]), Err(Error::PartialBlock { ty, len: 33, block: 32, unit: "elements" }));
}

#[test]
fn infinite_values_are_not_quantized() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = [0.0; 64];
        x[40] = value;
        assert_eq!(quant::quantize(GgmlType::Q8_0, &x), Err(Error::NotFinite { ty: GgmlType::Q8_0, index: 40 }));
    }
}

//! Values of the canister's interface as JSON for programs: blobs as hexadecimal digits, principals as text, variants by name.
//! The names come from the types. Knows nothing of what the values mean.

use anyhow::{Context, Result};
use candid::CandidType;
use candid::types::internal::TypeContainer;
use candid::types::value::{IDLArgs, IDLField, IDLValue};
use serde_json::{Map, Number, Value};

use crate::digest::hex;

/// The value as JSON.
///
/// # Errors
/// If the value cannot be encoded.
pub fn json_of<T: CandidType>(value: &T) -> Result<Value> {
    let bytes = candid::encode_one(value).context("cannot encode an answer")?;
    let mut types = TypeContainer::new();
    let ty = types.add::<T>();
    let args = IDLArgs::from_bytes_with_types(&bytes, &types.env, &[ty]).context("cannot read an answer")?;
    Ok(args.args.first().map_or(Value::Null, json))
}

fn json(value: &IDLValue) -> Value {
    match value {
        IDLValue::Bool(value) => Value::Bool(*value),
        IDLValue::Text(text) => Value::String(text.clone()),
        IDLValue::Principal(principal) => Value::String(principal.to_text()),
        IDLValue::Opt(value) => json(value),
        IDLValue::Blob(bytes) => Value::String(hex(bytes)),
        IDLValue::Vec(values) => bytes(values).map_or_else(|| values.iter().map(json).collect(), Value::String),
        IDLValue::Record(fields) => Value::Object(fields.iter().map(field).collect()),
        IDLValue::Variant(chosen) => match &chosen.0.val {
            IDLValue::Null => Value::String(chosen.0.id.to_string()),
            _ => Value::Object(Map::from_iter([field(&chosen.0)])),
        },
        IDLValue::Nat8(number) => (*number).into(),
        IDLValue::Nat16(number) => (*number).into(),
        IDLValue::Nat32(number) => (*number).into(),
        IDLValue::Nat64(number) => (*number).into(),
        IDLValue::Int8(number) => (*number).into(),
        IDLValue::Int16(number) => (*number).into(),
        IDLValue::Int32(number) => (*number).into(),
        IDLValue::Int64(number) => (*number).into(),
        IDLValue::Float32(number) => Number::from_f64((*number).into()).map_or(Value::Null, Value::Number),
        IDLValue::Float64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        // Numbers without a limit are text, so that no reader rounds them.
        IDLValue::Nat(number) => Value::String(number.0.to_string()),
        IDLValue::Int(number) => Value::String(number.0.to_string()),
        IDLValue::Number(digits) => Value::String(digits.clone()),
        IDLValue::Null | IDLValue::None | IDLValue::Reserved | IDLValue::Service(_) | IDLValue::Func(..) => Value::Null,
    }
}

fn field(field: &IDLField) -> (String, Value) {
    (field.id.to_string(), json(&field.val))
}

/// The digits of a vector of bytes.
fn bytes(values: &[IDLValue]) -> Option<String> {
    let byte = |value: &IDLValue| if let IDLValue::Nat8(byte) = value { Some(*byte) } else { None };
    let bytes: Option<Vec<u8>> = values.iter().map(byte).collect();
    bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| hex(&bytes))
}

#[cfg(test)]
mod tests {
    use candid::Principal;
    use canister::api;
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_and_statuses_keep_names_and_forms() {
        let config = api::Config { users: vec![Principal::management_canister()], ..api::Config::default() };
        let value = json_of(&config).unwrap();
        assert_eq!(value["generate_access"], "Controllers");
        assert_eq!(value["users"], json!(["aaaaa-aa"]));
        assert_eq!(value["max_instructions"], 36_000_000_000u64);
        assert_eq!(value["chat_template"], Value::Null);
        let stored = api::StoredModel { name: "x".to_owned(), bytes: 3, sha256: vec![0, 255] };
        assert_eq!(json_of(&stored).unwrap(), json!({ "name": "x", "bytes": 3, "sha256": "00ff" }));
        let load = api::LoadState::Loading { name: "x".to_owned(), done_bytes: 1, total_bytes: 2 };
        let expected = json!({ "Loading": { "name": "x", "done_bytes": 1, "total_bytes": 2 } });
        assert_eq!(json_of(&load).unwrap(), expected);
        let finished = api::SessionState::Finished(api::FinishReason::Length);
        assert_eq!(json_of(&finished).unwrap(), json!({ "Finished": "Length" }));
    }
}

//! Settings of the canister as `FIELD=VALUE` on the command line. Which fields there are, and what their values look like,
//! comes from the type of the interface. Knows nothing of what the settings mean.

use std::fs;

use candid::Principal;
use candid::types::internal::TypeContainer;
use candid::types::value::{IDLArgs, IDLField, IDLValue, VariantValue};
use candid::types::{Field, Label, Type, TypeInner};
use canister::api::ConfigUpdate;

/// A field and its value, as the user wrote them; both are known to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    field: String,
    value: String,
}

/// The type of what `config_set` takes.
struct Shape {
    types: TypeContainer,
    ty: Type,
}

impl Shape {
    fn new() -> Self {
        let mut types = TypeContainer::new();
        let ty = types.add::<ConfigUpdate>();
        Self { types, ty }
    }

    /// The fields' names and the types of their values, without the option around them.
    fn fields(&self) -> Vec<(String, Type)> {
        let traced = self.types.env.trace_type(&self.ty);
        let Some(TypeInner::Record(fields)) = traced.as_ref().map(Type::as_ref).ok() else { return Vec::new() };
        fields.iter().map(|Field { id, ty }| (id.to_string(), self.inside(ty))).collect()
    }

    /// What is in an option; other types are themselves.
    fn inside(&self, ty: &Type) -> Type {
        let traced = self.types.env.trace_type(ty).unwrap_or_else(|_| ty.clone());
        match traced.as_ref() {
            TypeInner::Opt(inner) => self.types.env.trace_type(inner).unwrap_or_else(|_| inner.clone()),
            _ => traced,
        }
    }

    fn value(&self, ty: &Type, text: &str) -> Result<IDLValue, String> {
        match ty.as_ref() {
            TypeInner::Opt(_) if text == "none" => Ok(IDLValue::None),
            TypeInner::Opt(_) => Ok(IDLValue::Opt(Box::new(self.value(&self.inside(ty), text)?))),
            TypeInner::Text => Ok(IDLValue::Text(text.to_owned())),
            TypeInner::Bool => text.parse().map(IDLValue::Bool).map_err(|_| "it must be true or false".to_owned()),
            TypeInner::Principal => principal(text).map(IDLValue::Principal),
            TypeInner::Vec(inner) if *inner.as_ref() == TypeInner::Principal => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                Ok(IDLValue::Vec(texts.map(|text| principal(text).map(IDLValue::Principal)).collect::<Result<_, _>>()?))
            }
            TypeInner::Variant(choices) if choices.iter().all(|choice| *choice.ty.as_ref() == TypeInner::Null) => {
                choice(choices, text)
            }
            _ if is_count(ty) => count(text).map(|count| IDLValue::Number(count.to_string())),
            _ => candid_parser::parse_idl_value(text).map_err(|error| format!("it must be candid text: {error}")),
        }
    }
}

impl std::str::FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = text.split_once('=').ok_or("it must be FIELD=VALUE")?;
        let value = match value.strip_prefix('@') {
            Some(path) => fs::read_to_string(path).map_err(|reason| format!("cannot read {path}: {reason}"))?,
            None => value.to_owned(),
        };
        let assignment = Self { field: field.trim().to_owned(), value };
        update(std::slice::from_ref(&assignment))?;
        Ok(assignment)
    }
}

/// The change that some assignments are together.
///
/// # Errors
/// Says which fields there are, or what is wrong with a value.
pub fn update(assignments: &[Assignment]) -> Result<ConfigUpdate, String> {
    let shape = Shape::new();
    let known = shape.fields();
    let mut fields = Vec::new();
    for Assignment { field, value } in assignments {
        let Some((_, ty)) = known.iter().find(|(name, _)| name == field) else {
            let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("there is no setting {field}; there are {}", names.join(", ")));
        };
        let value = shape.value(ty, value).map_err(|reason| format!("{field}: {reason}"))?;
        fields.push(IDLField { id: Label::Named(field.clone()), val: IDLValue::Opt(Box::new(value)) });
    }
    let record = IDLArgs::new(&[IDLValue::Record(fields)]);
    let encoded = record.to_bytes_with_types(&shape.types.env, std::slice::from_ref(&shape.ty));
    let decoded = encoded.and_then(|bytes| candid::decode_one(&bytes));
    decoded.map_err(|error| format!("the value does not fit its type: {error}"))
}

/// The fields and what their values look like, a line each.
pub fn help() -> String {
    let shape = Shape::new();
    let lines = shape.fields().into_iter().map(|(name, ty)| format!("  {name:<28} {}", form(&ty)));
    let lines: Vec<_> = lines.collect();
    format!(
        "Settings and their values (docs/candid.md says what they mean):\n{}\n\nFIELD=@FILE takes the value from a file.",
        lines.join("\n")
    )
}

fn form(ty: &Type) -> String {
    match ty.as_ref() {
        TypeInner::Variant(choices) => {
            let names: Vec<_> = choices.iter().map(|choice| choice.id.to_string()).collect();
            names.join(" | ")
        }
        TypeInner::Vec(inner) if *inner.as_ref() == TypeInner::Principal => {
            "principals, separated by commas".to_owned()
        }
        TypeInner::Text => "text".to_owned(),
        TypeInner::Bool => "true | false".to_owned(),
        TypeInner::Opt(inner) => format!("{} | none", form(inner)),
        _ if is_count(ty) => "number, also as 512MiB or 3GiB".to_owned(),
        _ => ty.to_string(),
    }
}

fn is_count(ty: &Type) -> bool {
    matches!(ty.as_ref(), TypeInner::Nat | TypeInner::Nat8 | TypeInner::Nat16 | TypeInner::Nat32 | TypeInner::Nat64)
}

fn principal(text: &str) -> Result<Principal, String> {
    Principal::from_text(text).map_err(|error| format!("{text:?} is no principal: {error}"))
}

fn choice(choices: &[Field], text: &str) -> Result<IDLValue, String> {
    let found = choices.iter().position(|choice| choice.id.to_string().eq_ignore_ascii_case(text));
    let Some(index) = found else {
        let names: Vec<_> = choices.iter().map(|choice| choice.id.to_string()).collect();
        return Err(format!("it must be {}", names.join(" or ")));
    };
    let id = choices[index].id.as_ref().clone();
    Ok(IDLValue::Variant(VariantValue(Box::new(IDLField { id, val: IDLValue::Null }), index as u64)))
}

/// A number, with digits set apart or not, in bytes if it has a unit.
fn count(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number: Option<u64> = digits.trim().replace([',', '_'], "").parse().ok();
    let scaled = number.and_then(|number| number.checked_mul(1 << shift));
    scaled.ok_or_else(|| format!("{text:?} is no number, such as 1000, 36,000,000,000 or 512MiB"))
}

#[cfg(test)]
mod tests {
    use canister::api::{Config, GenerateAccess, Residency};

    use super::*;

    fn parsed(texts: &[&str]) -> Result<ConfigUpdate, String> {
        let assignments = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Assignment>, _>>()?;
        update(&assignments)
    }

    #[test]
    fn values_are_written_as_people_write_them() {
        let update = parsed(&[
            "generate_access=allowlist",
            "users=aaaaa-aa, 2vxsx-fae",
            "operators=",
            "max_instructions=36,000_000_000",
            "cache_heap_bytes=512MiB",
            "max_sessions=7",
            "residency=Compact",
            "chat_template=chatml = x",
        ]);
        let expected = ConfigUpdate {
            generate_access: Some(GenerateAccess::AllowList),
            users: Some(vec![Principal::management_canister(), Principal::anonymous()]),
            operators: Some(Vec::new()),
            max_instructions: Some(36_000_000_000),
            cache_heap_bytes: Some(512 << 20),
            max_sessions: Some(7),
            residency: Some(Residency::Compact),
            chat_template: Some("chatml = x".to_owned()),
            ..ConfigUpdate::default()
        };
        assert_eq!(update, Ok(expected));
        assert_eq!(parsed(&[]), Ok(ConfigUpdate::default()));
    }

    #[test]
    fn every_setting_can_be_written() {
        let shown = crate::candid_json::json_of(&Config::default()).unwrap();
        let names: Vec<_> = Shape::new().fields().into_iter().map(|(name, _)| name).collect();
        for name in shown.as_object().unwrap().keys() {
            assert!(names.contains(name) && help().contains(&format!("  {name} ")), "{name}");
        }
    }

    #[test]
    fn a_file_can_have_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template");
        std::fs::write(&path, "{{ messages }}").unwrap();
        let update = parsed(&[&format!("chat_template=@{}", path.display())]).unwrap();
        assert_eq!(update.chat_template.as_deref(), Some("{{ messages }}"));
        assert!(parsed(&["chat_template=@/nowhere"]).unwrap_err().contains("cannot read /nowhere"));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (text, expected) in [
            ("max_sessions", "FIELD=VALUE"),
            ("max_session=1", "max_sessions_per_principal"),
            ("max_sessions=many", "is no number"),
            ("max_sessions=5000000000", "does not fit"),
            ("max_heap_bytes=99999999999GiB", "is no number"),
            ("generate_access=nobody", "Controllers or AllowList"),
            ("users=me", "is no principal"),
        ] {
            let message = parsed(&[text]).unwrap_err();
            let fits = expected.split(" or ").all(|part| message.contains(part));
            assert!(fits, "{text}: {message}");
        }
    }
}

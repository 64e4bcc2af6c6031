//! Candid arguments and replies as text, with names and types where a canister's interface is known.
//!
//! The interface comes from the module's `candid:service` metadata, or from the text that its `get_candid_pointer`
//! export leads to, or from a `.did` file. Knows nothing of replicas.

use candid::types::value::IDLArgs;
use candid::types::{Function, Type, TypeInner};
use candid::{DecoderConfig, TypeEnv};
use candid_parser::{IDLProg, check_prog};

use super::module::{ModuleError, decode, validate};

/// Work that decoding one reply may cost; a reply of 3 MiB of single-byte values stays far below.
const DECODING_QUOTA: usize = 500_000_000;
/// Work for values that the expected type does not ask for.
const SKIPPING_QUOTA: usize = 10_000_000;
/// Longest interface text read from a heap.
const DID_BYTES: usize = 4 << 20;
/// Fuel for `get_candid_pointer`, which only returns a number, and for a start function.
const POINTER_FUEL: u64 = 1_000_000_000;

/// Why text and bytes could not be translated.
#[derive(Debug, thiserror::Error)]
pub enum CandidError {
    /// The interface itself cannot be read.
    #[error("the candid interface cannot be read: {0}; correct it or give none")]
    Interface(String),
    /// The module that should carry the interface is not one.
    #[error("this is not a valid canister module: {0}")]
    Module(#[from] ModuleError),
    /// The interface has no such method.
    #[error("the interface has no method {method}; it has {}", .known.join(", "))]
    NoMethod {
        /// What was asked for.
        method: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The text is not candid.
    #[error("{text} is not candid text, such as (1, \"two\"): {reason}")]
    Text {
        /// The text.
        text: String,
        /// What the parser says.
        reason: String,
    },
    /// The values do not have the types of the interface.
    #[error("{text} does not fit the types ({}): {reason}", .types.join(", "))]
    Types {
        /// The text.
        text: String,
        /// The types that are expected.
        types: Vec<String>,
        /// What does not fit.
        reason: String,
    },
    /// The bytes are not the candid they should be.
    #[error("these {bytes} bytes are not the candid that was expected: {reason}")]
    Bytes {
        /// Number of bytes.
        bytes: usize,
        /// What the decoder says.
        reason: String,
    },
}

/// What is known of a canister's methods; by default nothing, then types are guessed and names are hashes.
#[derive(Debug, Default)]
pub struct Interface {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    env: TypeEnv,
    init: Vec<Type>,
    service: Type,
}

impl Interface {
    /// Reads the text of a `.did` file.
    ///
    /// # Errors
    /// If it does not parse, or describes no service.
    pub fn parse(did: &str) -> Result<Self, CandidError> {
        let unreadable = |error: candid_parser::Error| CandidError::Interface(error.to_string());
        let program: IDLProg = did.parse().map_err(unreadable)?;
        let mut env = TypeEnv::new();
        let actor = check_prog(&mut env, &program).map_err(unreadable)?;
        let actor = actor.ok_or_else(|| CandidError::Interface("it describes no service".into()))?;
        let actor = env.trace_type(&actor).map_err(|error| CandidError::Interface(error.to_string()))?;
        let (init, service) = match actor.as_ref() {
            TypeInner::Class(init, service) => (init.clone(), service.clone()),
            _ => (Vec::new(), actor.clone()),
        };
        Ok(Self { known: Some(Known { env, init, service }) })
    }

    /// The interface that a module carries; nothing is known if it carries none.
    ///
    /// # Errors
    /// If the module is not valid or its interface cannot be read.
    pub fn of_module(module: &[u8]) -> Result<Self, CandidError> {
        let wasm = decode(module)?;
        let valid = validate(&wasm)?;
        let text = match valid.info.metadata.get("candid:service") {
            Some(section) => Some(String::from_utf8_lossy(&section.bytes).into_owned()),
            None => exported_text(&wasm),
        };
        text.map_or_else(|| Ok(Self::default()), |text| Self::parse(&text))
    }

    /// Whether types and names are known.
    pub fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Encodes the arguments of a method, written as candid text such as `(1, record { name = "x" })`.
    ///
    /// # Errors
    /// If the text does not parse or does not fit the method, or there is no such method.
    pub fn encode(&self, method: &str, text: &str) -> Result<Vec<u8>, CandidError> {
        match &self.known {
            Some(known) => encode(text, Some((&known.env, &known.method(method)?.args))),
            None => encode(text, None),
        }
    }

    /// Encodes the arguments of the installation.
    ///
    /// # Errors
    /// If the text does not parse or does not fit.
    pub fn encode_init(&self, text: &str) -> Result<Vec<u8>, CandidError> {
        encode(text, self.known.as_ref().map(|known| (&known.env, known.init.as_slice())))
    }

    /// Writes a reply as candid text.
    ///
    /// # Errors
    /// If the bytes are not what the method returns.
    pub fn decode(&self, method: &str, reply: &[u8]) -> Result<String, CandidError> {
        let mut quota = DecoderConfig::new();
        quota.set_decoding_quota(DECODING_QUOTA).set_skipping_quota(SKIPPING_QUOTA);
        let values = match &self.known {
            Some(known) => {
                let types = &known.method(method)?.rets;
                IDLArgs::from_bytes_with_types_with_config(reply, &known.env, types, &quota)
            }
            None => IDLArgs::from_bytes_with_config(reply, &quota),
        };
        let wrong = |error: candid::Error| CandidError::Bytes { bytes: reply.len(), reason: error.to_string() };
        Ok(values.map_err(wrong)?.to_string())
    }
}

impl Known {
    fn method(&self, name: &str) -> Result<&Function, CandidError> {
        let unreadable = |error: candid::Error| CandidError::Interface(error.to_string());
        let methods = self.env.as_service(&self.service).map_err(unreadable)?;
        let Some((_, ty)) = methods.iter().find(|(known, _)| known == name) else {
            let known = methods.iter().map(|(known, _)| known.clone()).collect();
            return Err(CandidError::NoMethod { method: name.to_owned(), known });
        };
        self.env.as_func(ty).map_err(unreadable)
    }
}

fn encode(text: &str, types: Option<(&TypeEnv, &[Type])>) -> Result<Vec<u8>, CandidError> {
    let args = candid_parser::parse_idl_args(text)
        .map_err(|error| CandidError::Text { text: text.to_owned(), reason: error.to_string() })?;
    let (encoded, types) = match types {
        Some((_, types)) if args.args.len() > types.len() => {
            (Err(candid::Error::msg(format!("{} values are too many", args.args.len()))), types)
        }
        Some((env, types)) => (args.to_bytes_with_types(env, given_types(env, types, args.args.len())), types),
        None => (args.to_bytes(), [].as_slice()),
    };
    encoded.map_err(|error| CandidError::Types {
        text: text.to_owned(),
        types: types.iter().map(ToString::to_string).collect(),
        reason: error.to_string(),
    })
}

/// The types of the arguments that are given: those at the end may be left out if all of them are optional.
fn given_types<'a>(env: &TypeEnv, types: &'a [Type], given: usize) -> &'a [Type] {
    let optional = |ty: &Type| {
        let traced = env.trace_type(ty);
        traced.is_ok_and(|ty| matches!(ty.as_ref(), TypeInner::Opt(_) | TypeInner::Null | TypeInner::Reserved))
    };
    let (given, left_out) = types.split_at(given.min(types.len()));
    if left_out.iter().all(optional) { given } else { types }
}

/// The zero-terminated text at the address that `get_candid_pointer` answers, with all system calls trapping.
fn exported_text(wasm: &[u8]) -> Option<String> {
    let mut config = wasmtime::Config::new();
    config.consume_fuel(true);
    let engine = wasmtime::Engine::new(&config).ok()?;
    let module = wasmtime::Module::new(&engine, wasm).ok()?;
    module.get_export("get_candid_pointer")?;
    let mut linker = wasmtime::Linker::new(&engine);
    linker.define_unknown_imports_as_traps(&module).ok()?;
    let mut store = wasmtime::Store::new(&engine, ());
    store.set_fuel(POINTER_FUEL).ok()?;
    let instance = linker.instantiate(&mut store, &module).ok()?;
    let pointer = instance.get_typed_func::<(), u32>(&mut store, "get_candid_pointer").ok()?;
    let start = pointer.call(&mut store, ()).ok()? as usize;
    let heap = instance.get_memory(&mut store, "memory")?.data(&store);
    let text = heap.get(start..)?;
    let text = &text[..text.len().min(DID_BYTES)];
    let end = text.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DID: &str = "type r = record { name : text; count : opt nat8 };
        service : (nat64) -> { put : (r) -> (r); get : () -> (r) query }";

    #[test]
    fn translates_text_with_names_and_types() {
        let interface = Interface::parse(DID).unwrap();
        let bytes = interface.encode("put", r#"(record { name = "x"; count = opt 3 })"#).unwrap();
        assert_eq!(interface.decode("put", &bytes).unwrap(), r#"(record { name = "x"; count = opt (3 : nat8) })"#);
        assert_eq!(interface.encode_init("(5)").unwrap(), candid::encode_one(5u64).unwrap());
    }

    #[test]
    fn lets_optional_arguments_at_the_end_be_left_out() {
        let interface = Interface::parse("type o = opt nat; service : { f : (nat8, o, null) -> () }").unwrap();
        assert_eq!(interface.encode("f", "(1)").unwrap(), candid::encode_one(1u8).unwrap());
        assert!(interface.encode("f", "()").is_err());
        assert!(interface.encode("f", "(1, null, null, 4)").is_err());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let interface = Interface::parse(DID).unwrap();
        assert!(matches!(interface.encode("put", "(5)"), Err(CandidError::Types { .. })));
        assert!(matches!(interface.encode("put", "("), Err(CandidError::Text { .. })));
        let error = interface.encode("drop", "()").unwrap_err().to_string();
        assert!(error.contains("has no method drop; it has get, put"), "{error}");
        assert!(matches!(interface.decode("get", b"DIDL"), Err(CandidError::Bytes { bytes: 4, .. })));
        assert!(matches!(Interface::parse("service"), Err(CandidError::Interface(_))));
        assert!(matches!(Interface::parse("type t = nat"), Err(CandidError::Interface(_))));
    }

    #[test]
    fn guesses_types_without_an_interface() {
        let interface = Interface::default();
        let bytes = interface.encode("any", "(1 : nat8, \"x\")").unwrap();
        assert_eq!(interface.decode("any", &bytes).unwrap(), "(1 : nat8, \"x\")");
    }

    #[test]
    fn survives_replies_that_claim_to_be_huge() {
        // A vector of 2^60 nulls takes 12 bytes.
        let bomb = b"DIDL\x01\x6d\x7f\x01\x00\x80\x80\x80\x80\x80\x80\x80\x80\x10";
        assert!(matches!(Interface::default().decode("any", bomb), Err(CandidError::Bytes { .. })));
    }

    #[test]
    fn finds_the_interface_in_the_metadata_or_behind_the_pointer() {
        let metadata = r#"(module (@custom "icp:public candid:service" "service : { a : () -> () }"))"#;
        let pointer = r#"(module
            (import "ic0" "msg_reply" (func))
            (memory (export "memory") 1)
            (data (i32.const 9) "service : { b : () -> () }")
            (func (export "get_candid_pointer") (result i32) (i32.const 9)))"#;
        for (text, method) in [(metadata, "a"), (pointer, "b")] {
            let interface = Interface::of_module(&wat::parse_str(text).unwrap()).unwrap();
            assert!(interface.encode(method, "()").is_ok());
        }
        let endless = r#"(module (memory (export "memory") 1)
            (func (export "get_candid_pointer") (result i32) (loop $l (br $l)) (i32.const 0)))"#;
        assert!(!Interface::of_module(&wat::parse_str(endless).unwrap()).unwrap().is_known());
        assert!(!Interface::of_module(&wat::parse_str("(module)").unwrap()).unwrap().is_known());
    }
}

//! Candid text in and out, by the interface that a canister's module carries or that a .did file gives. Without
//! either, arguments are encoded as they look and replies are shown with hashes for names.

use anyhow::{Context, Result, bail};
use candid::types::{Function, Type, TypeInner};
use candid::{IDLArgs, TypeEnv};
use candid_parser::utils::{CandidSource, instantiate_candid};

/// What is known of a canister's methods.
#[derive(Default)]
pub struct Interface {
    known: Option<Known>,
}

struct Known {
    env: TypeEnv,
    init: Vec<Type>,
    service: Type,
}

impl Interface {
    /// Reads the text of a .did file.
    ///
    /// # Errors
    /// If it does not parse, or describes no service.
    pub fn parse(did: &str) -> Result<Self> {
        let (init, (env, service)) = instantiate_candid(CandidSource::Text(did))?;
        Ok(Self { known: Some(Known { env, init, service }) })
    }

    /// Encodes the arguments of a method, written as candid text.
    ///
    /// # Errors
    /// If the text does not parse or does not fit the method, or there is no such method.
    pub fn encode(&self, method: &str, text: &str) -> Result<Vec<u8>> {
        match &self.known {
            Some(known) => encode(text, Some((&known.env, &known.method(method)?.args))),
            None => encode(text, None),
        }
    }

    /// Encodes the argument of the installation.
    ///
    /// # Errors
    /// If the text does not parse or does not fit.
    pub fn encode_init(&self, text: &str) -> Result<Vec<u8>> {
        encode(text, self.known.as_ref().map(|known| (&known.env, known.init.as_slice())))
    }

    /// Writes a reply as candid text.
    ///
    /// # Errors
    /// If the bytes are not what the method returns.
    pub fn decode(&self, method: &str, reply: &[u8]) -> Result<String> {
        let values = match &self.known {
            Some(known) => IDLArgs::from_bytes_with_types(reply, &known.env, &known.method(method)?.rets),
            None => IDLArgs::from_bytes(reply),
        };
        Ok(values.with_context(|| format!("the reply of {method} is not the candid it should be"))?.to_string())
    }
}

impl Known {
    fn method(&self, name: &str) -> Result<&Function> {
        let methods = self.env.as_service(&self.service)?;
        let Some((_, ty)) = methods.iter().find(|(known, _)| known == name) else {
            let names: Vec<_> = methods.iter().map(|(known, _)| known.as_str()).collect();
            bail!("the interface has no method {name}; it has {}", names.join(", "));
        };
        Ok(self.env.as_func(ty)?)
    }
}

fn encode(text: &str, types: Option<(&TypeEnv, &[Type])>) -> Result<Vec<u8>> {
    let args = candid_parser::parse_idl_args(text).with_context(|| format!("{text} is no candid text"))?;
    let Some((env, types)) = types else {
        return args.to_bytes().with_context(|| format!("{text} cannot be encoded"));
    };
    if args.args.len() > types.len() {
        bail!("{text} has {} arguments where {} are taken", args.args.len(), types.len());
    }
    // Arguments at the end that are optional may be left out.
    let (given, left_out) = types.split_at(args.args.len());
    let given = if left_out.iter().all(|ty| is_optional(env, ty)) { given } else { types };
    args.to_bytes_with_types(env, given).with_context(|| format!("{text} does not fit"))
}

fn is_optional(env: &TypeEnv, ty: &Type) -> bool {
    let traced = env.trace_type(ty);
    traced.is_ok_and(|ty| matches!(ty.as_ref(), TypeInner::Opt(_) | TypeInner::Null | TypeInner::Reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DID: &str = "type r = record { name : text; count : opt nat8 };
        service : (nat64) -> { put : (r) -> (r); get : () -> (r) query }";

    #[test]
    fn text_goes_in_and_out_with_names() {
        let interface = Interface::parse(DID).unwrap();
        let bytes = interface.encode("put", r#"(record { name = "x"; count = opt 3 })"#).unwrap();
        assert_eq!(interface.decode("put", &bytes).unwrap(), r#"(record { name = "x"; count = opt (3 : nat8) })"#);
        assert_eq!(interface.encode_init("(5)").unwrap(), candid::encode_one(5u64).unwrap());
    }

    #[test]
    fn optional_arguments_may_be_left_out() {
        let interface = Interface::parse("type o = opt nat; service : { f : (nat8, o, null) -> () }").unwrap();
        assert_eq!(interface.encode("f", "(1)").unwrap(), candid::encode_one(1u8).unwrap());
        assert!(interface.encode("f", "()").is_err());
        assert!(interface.encode("f", "(1, null, null, 4)").is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let interface = Interface::parse(DID).unwrap();
        assert!(interface.encode("put", "(5)").is_err());
        assert!(interface.encode("put", "(").is_err());
        assert!(interface.encode("drop", "()").unwrap_err().to_string().contains("put"));
        assert!(interface.decode("get", b"DIDL").is_err());
    }

    #[test]
    fn without_an_interface_types_are_guessed() {
        let interface = Interface::default();
        let bytes = interface.encode("any", "(1 : nat8, \"x\")").unwrap();
        assert_eq!(interface.decode("any", &bytes).unwrap(), "(1 : nat8, \"x\")");
    }
}

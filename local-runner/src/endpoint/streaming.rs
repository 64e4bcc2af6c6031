//! Answers that a canister gives out in parts: where the next part is, whatever the type of the token that names it.

use candid::Principal;
use candid::types::Label;
use candid::types::value::{IDLArgs, IDLValue};

/// Where the next part of an answer is.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// The canister that has it.
    pub canister: Principal,
    /// The query method that gives it out.
    pub method: String,
    /// The method's argument, encoded.
    pub token: Vec<u8>,
}

impl Stream {
    /// The strategy in an encoded answer to `http_request`, if it has one.
    ///
    /// # Errors
    /// If it is not of the form that gateways know.
    pub fn of_response(reply: &[u8]) -> Result<Option<Self>, String> {
        let Some(strategy) = optional(field(record(reply)?, "streaming_strategy")) else { return Ok(None) };
        let IDLValue::Variant(strategy) = strategy else { return Err("its streaming strategy is no variant".into()) };
        let mut callback = (strategy.0.id == Label::Named("Callback".into())).then_some(strategy.0.val);
        let (Some(IDLValue::Func(canister, method)), Some(token)) =
            (field(callback.clone(), "callback"), field(callback.take(), "token"))
        else {
            return Err("its streaming strategy is not a callback with a token".into());
        };
        Ok(Some(Self { canister, method, token: encode(token)? }))
    }

    /// The bytes of an encoded part, and the token of the next one.
    ///
    /// # Errors
    /// If it is no part.
    pub fn part(reply: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let part = record(reply)?;
        let bytes = match field(part.clone(), "body") {
            Some(IDLValue::Blob(bytes)) => bytes,
            Some(IDLValue::Vec(values)) if values.is_empty() => Vec::new(),
            _ => return Err("a part of its streamed body has no bytes".into()),
        };
        let token = optional(field(part, "token")).map(encode).transpose()?;
        Ok((bytes, token))
    }
}

fn record(reply: &[u8]) -> Result<Option<IDLValue>, String> {
    let values = IDLArgs::from_bytes(reply).map_err(|error| error.to_string())?;
    Ok(values.args.into_iter().next())
}

fn field(value: Option<IDLValue>, name: &str) -> Option<IDLValue> {
    let IDLValue::Record(fields) = value? else { return None };
    fields.into_iter().find(|field| field.id == Label::Named(name.into())).map(|field| field.val)
}

fn optional(value: Option<IDLValue>) -> Option<IDLValue> {
    match value? {
        IDLValue::Opt(value) => Some(*value),
        _ => None,
    }
}

fn encode(token: IDLValue) -> Result<Vec<u8>, String> {
    IDLArgs::new(&[token]).to_bytes().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use candid::{CandidType, Nat, define_function};
    use serde_bytes::ByteBuf;

    use super::*;

    #[derive(CandidType, candid::Deserialize, Debug, PartialEq)]
    struct Token {
        file: String,
        index: Nat,
        hash: Option<ByteBuf>,
    }

    define_function!(Next : (Token) -> (Part) query);

    #[derive(CandidType)]
    enum Strategy {
        Callback { callback: Next, token: Token },
    }

    #[derive(CandidType)]
    struct Reply {
        status_code: u16,
        streaming_strategy: Option<Strategy>,
    }

    #[derive(CandidType)]
    struct Part {
        body: ByteBuf,
        token: Option<Token>,
    }

    fn token(index: u8) -> Token {
        Token { file: "a".into(), index: index.into(), hash: None }
    }

    #[test]
    fn tokens_of_any_type_come_back_as_they_were() {
        let principal = Principal::from_slice(&[7]);
        let strategy = Some(Strategy::Callback { callback: Next::new(principal, "next".into()), token: token(0) });
        let reply = candid::encode_one(Reply { status_code: 200, streaming_strategy: strategy }).unwrap();
        let stream = Stream::of_response(&reply).unwrap().unwrap();
        assert_eq!((stream.canister, stream.method.as_str()), (principal, "next"));
        assert_eq!(candid::decode_one::<Token>(&stream.token).unwrap(), token(0));

        let part = candid::encode_one(Part { body: ByteBuf::from(*b"bytes"), token: Some(token(1)) }).unwrap();
        let (bytes, next) = Stream::part(&part).unwrap();
        assert_eq!(bytes, b"bytes");
        assert_eq!(candid::decode_one::<Token>(&next.unwrap()).unwrap(), token(1));
        let last = candid::encode_one(Part { body: ByteBuf::new(), token: None }).unwrap();
        assert_eq!(Stream::part(&last), Ok((Vec::new(), None)));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let none = candid::encode_one(Reply { status_code: 200, streaming_strategy: None }).unwrap();
        assert_eq!(Stream::of_response(&none), Ok(None));
        assert!(Stream::of_response(b"no candid").is_err());
        assert!(Stream::part(&none).is_err());
    }
}

//! Which path is answered how: the HTTPS interface of the platform under `/api/`, canisters' own pages elsewhere
//! (interface specification, "HTTPS Interface").

use candid::Principal;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_bytes::Bytes;

use super::effective::Effective;
use super::encoding::cbor;
use super::envelope::EnvelopeError;
use super::executor::Stopped;
use super::{Shared, call, gateway, query, read_state};
use crate::http::{Request, Response, text, with_type};

/// Why a request gets no answer to what it asks.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request does not pass the checks.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The request is of another kind than the path, or names another canister.
    #[error("{0}")]
    Bad(String),
    /// The sender may not read this.
    #[error("{0}")]
    Forbidden(String),
    /// There is nothing of this name.
    #[error("{0}")]
    NotFound(String),
    /// Too many calls wait.
    #[error("too many calls are open; wait until some are answered")]
    Busy,
    /// The end has come.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Envelope(_) | Refusal::Bad(_) => StatusCode::BAD_REQUEST,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Busy | Refusal::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(status, refusal.to_string())
    }
}

/// What `/api/v2/status` tells.
#[derive(Serialize)]
struct Status<'a> {
    ic_api_version: &'static str,
    impl_version: &'static str,
    replica_health_status: &'static str,
    root_key: &'a Bytes,
}

/// Answers a request.
pub async fn route(request: Request, shared: &Shared) -> Response {
    let path = request.uri.path().to_owned();
    match path.strip_prefix("/api/") {
        Some(rest) => api(&request, rest, shared).await.unwrap_or_else(Response::from),
        None => gateway::serve(request, shared).await,
    }
}

/// Encodes an answer.
pub fn cbor_response(value: &impl Serialize) -> Response {
    match cbor(value) {
        Ok(bytes) => with_type(StatusCode::OK, "application/cbor", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the answer: {error}")),
    }
}

async fn api(request: &Request, path: &str, shared: &Shared) -> Result<Response, Refusal> {
    let parts: Vec<_> = path.split('/').collect();
    if let ["v2", "status"] = parts[..] {
        return Ok(status(shared));
    }
    let [version, place, id, action] = parts[..] else { return Err(unknown(path)) };
    let effective = Effective::parse(place, id, &shared.state)?;
    let known = match action {
        "call" => matches!(version, "v2" | "v3" | "v4"),
        "query" | "read_state" => matches!(version, "v2" | "v3"),
        _ => false,
    };
    if !known {
        return Err(unknown(path));
    }
    if request.method != Method::POST {
        return Err(Refusal::Bad(format!("/api/{path} takes POST requests")));
    }
    let opened = super::envelope::Request::open(&request.body, shared.state.clock.now_ns())?;
    match action {
        "call" if version == "v2" => call::asynchronously(opened, effective, shared).await,
        "call" => call::synchronously(opened, effective, shared).await,
        "query" => query::answer(opened, effective, shared).await,
        _ => read_state::answer(&opened, effective, shared),
    }
}

fn unknown(path: &str) -> Refusal {
    Refusal::NotFound(format!("there is no /api/{path}"))
}

fn status(shared: &Shared) -> Response {
    cbor_response(&Status {
        ic_api_version: "0.18.0",
        impl_version: concat!("icllama ", env!("CARGO_PKG_VERSION")),
        replica_health_status: "healthy",
        root_key: Bytes::new(shared.state.keys.root_key_der()),
    })
}

/// Refuses a request whose kind is not that of the path.
pub fn other_kind(path: &str) -> Refusal {
    Refusal::Bad(format!("the request_type does not fit the path /{path}"))
}

/// A principal in its text form.
pub fn principal(text: &str) -> Result<Principal, Refusal> {
    Principal::from_text(text).map_err(|error| Refusal::Bad(format!("{text:?} is not a principal: {error}")))
}

//! Types of `http_request`, as HTTP gateways call it (HTTP Gateway Protocol Specification of the Internet Computer).

use candid::CandidType;
use serde::{Deserialize, Serialize};

/// A browser's request, passed on by a gateway.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What was sent along.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// The newest version of response verification that the gateway knows.
    pub certificate_version: Option<u16>,
}

/// The answer to a request.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// 200, 404, 405 or 503.
    pub status_code: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What is shown.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

//! Refusals in the form of OpenAI's API: an object `error` with message, type, parameter and code.

use canister::api;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use local_runner::http::{Response, with_type};
use model_core::session;
use serde_json::{Value as Json, json};

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field of the request is missing, wrong or not supported.
    #[error("{message}")]
    Field {
        /// Name of the field.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The request is not what the path takes.
    #[error("{0}")]
    Request(String),
    /// The prompt does not fit the model's context.
    #[error("{0}")]
    ContextLength(String),
    /// No key, or another one.
    #[error("the API key is missing or wrong; send it as \"Authorization: Bearer KEY\"")]
    Key,
    /// A web page from elsewhere.
    #[error("pages of {0} may not use this server; allow them with --cors-origin")]
    Origin(String),
    /// There is no such path.
    #[error("there is no {0} here")]
    Path(String),
    /// There is no such model.
    #[error("there is no model {0:?} here")]
    Model(String),
    /// The path takes other methods.
    #[error("{path} takes {allowed} requests")]
    Method {
        /// The path.
        path: String,
        /// The method that it takes.
        allowed: &'static str,
    },
    /// The request cannot be read.
    #[error("{message}")]
    Unreadable {
        /// The status to answer with.
        status: StatusCode,
        /// What is wrong.
        message: String,
    },
    /// Too many requests wait.
    #[error("{0} requests wait already; try again later")]
    Busy(usize),
    /// The server is being ended.
    #[error("the server is being stopped")]
    Stopped,
    /// The canister has no model that answers, or no room just now.
    #[error("{0}")]
    NotReady(String),
    /// What the identity may use of the canister is used up.
    #[error("{0}")]
    Quota(String),
    /// The model failed.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// A field that is wrong.
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        Self::Field { name: name.to_owned(), message: message.into() }
    }

    /// A field that has a meaning elsewhere and none here.
    pub fn unsupported(name: &str, hint: &str) -> Self {
        Self::field(name, format!("{name} is not supported here; {hint}"))
    }

    /// A session that could not be begun, or did not come to its end.
    pub fn of_backend(error: &anyhow::Error) -> Self {
        let message = crate::describe_error(error);
        if let Some(refusal) = error.chain().find_map(|cause| cause.downcast_ref::<api::Error>()) {
            return Self::of_canister(refusal, message);
        }
        let core = error.chain().find_map(|cause| cause.downcast_ref::<model_core::Error>());
        let session = match core {
            Some(model_core::Error::Session(session)) => Some(session),
            _ => error.chain().find_map(|cause| cause.downcast_ref::<session::Error>()),
        };
        let is_request = error.chain().any(|cause| cause.is::<model_core::prompt::Error>());
        match session {
            Some(session::Error::ContextTooShort { .. }) => Self::ContextLength(message),
            Some(session::Error::Grammar(_)) => Self::field("grammar", message),
            Some(session::Error::UnknownToken { .. } | session::Error::EmptyPrompt) => Self::field("prompt", message),
            Some(session::Error::OtherModel | session::Error::Record(_) | session::Error::StillGenerating) => {
                Self::Internal(message)
            }
            Some(_) => Self::Request(message),
            None if is_request => Self::Request(message),
            None => Self::Internal(message),
        }
    }

    fn of_canister(refusal: &api::Error, message: String) -> Self {
        match refusal {
            api::Error::LimitExceeded { limit, .. } if limit == "context_length" => Self::ContextLength(message),
            api::Error::InvalidArgument { field, .. } => {
                Self::field(if field == "input" { "prompt" } else { field }, message)
            }
            api::Error::LimitExceeded { .. } | api::Error::NoChatTemplate | api::Error::Model { .. } => {
                Self::Request(message)
            }
            api::Error::ModelMissing
            | api::Error::ModelLoading { .. }
            | api::Error::HeapBusy { .. }
            | api::Error::CyclesLow { .. } => Self::NotReady(message),
            api::Error::QuotaExceeded { .. } => Self::Quota(message),
            _ => Self::Internal(message),
        }
    }

    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Field { .. } | Self::Request(_) | Self::ContextLength(_) => StatusCode::BAD_REQUEST,
            Self::Key => StatusCode::UNAUTHORIZED,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Path(_) | Self::Model(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unreadable { status, .. } => *status,
            Self::Busy(_) | Self::Quota(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Stopped | Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The object that clients look into.
    pub fn json(&self) -> Json {
        let (kind, code) = match self {
            Self::Key => ("authentication_error", Some("invalid_api_key")),
            Self::Origin(_) => ("permission_error", None),
            Self::Model(_) => ("invalid_request_error", Some("model_not_found")),
            Self::ContextLength(_) => ("invalid_request_error", Some("context_length_exceeded")),
            Self::Busy(_) => ("rate_limit_error", Some("queue_full")),
            Self::Stopped => ("server_error", Some("stopped")),
            Self::Quota(_) => ("rate_limit_error", Some("insufficient_quota")),
            Self::NotReady(_) => ("server_error", Some("not_ready")),
            Self::Internal(_) => ("server_error", None),
            _ => ("invalid_request_error", None),
        };
        let param = match self {
            Self::Field { name, .. } => Some(name.as_str()),
            Self::Model(_) => Some("model"),
            _ => None,
        };
        json!({ "error": { "message": self.to_string(), "type": kind, "param": param, "code": code } })
    }
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Self {
        let mut response = with_type(error.status(), "application/json", error.json().to_string().into_bytes());
        let headers = response.headers_mut();
        match &error {
            ApiError::Busy(_) | ApiError::Stopped | ApiError::NotReady(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            ApiError::Key => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ApiError::Method { allowed, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_did_wrong_is_told_apart_from_what_failed() {
        let of = |error: session::Error| ApiError::of_backend(&model_core::Error::Session(error).into());
        let long = of(session::Error::ContextTooShort { positions: 9, context_length: 8 });
        assert_eq!((long.status().as_u16(), &long.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
        let token = of(session::Error::UnknownToken { index: 0, id: 9, vocab: 8 });
        assert_eq!(token.json()["error"]["param"], "prompt");
        assert_eq!(of(session::Error::OtherModel).status().as_u16(), 500);
        assert_eq!(ApiError::of_backend(&anyhow::anyhow!("no network")).status().as_u16(), 500);
    }

    #[test]
    fn what_a_canister_refuses_is_told_as_what_this_process_refuses() {
        let of = |refusal: api::Error| ApiError::of_backend(&anyhow::Error::from(refusal).context("session_create"));
        let limit = |limit: &str| api::Error::LimitExceeded { limit: limit.into(), max: 8, needed: 9 };
        assert_eq!(of(limit("context_length")).json()["error"]["code"], "context_length_exceeded");
        assert_eq!(of(limit("max_input_bytes")).status().as_u16(), 400);
        let argument = api::Error::InvalidArgument { field: "input".into(), reason: "empty".into() };
        assert_eq!(of(argument).json()["error"]["param"], "prompt");
        assert_eq!(of(api::Error::ModelMissing).status().as_u16(), 503);
        assert_eq!(of(api::Error::CyclesLow { available: 1, floor: 2 }).status().as_u16(), 503);
        let quota = api::Error::QuotaExceeded { quota: "tokens".into(), max: 1, used: 1, ends_ns: None };
        assert_eq!(of(quota).json()["error"]["code"], "insufficient_quota");
        assert_eq!(of(api::Error::NotAuthorized { role: api::Role::User }).status().as_u16(), 500);
    }
}

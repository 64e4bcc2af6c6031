//! The endpoint as an HTTP service: its limits, and who may ask.

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

use super::Shared;
use crate::http::{Request, Response, Service, text};

/// Largest body: an ingress message of 2 MiB with its envelope and room for what the platform refuses by itself.
const BODY_BYTES: usize = 4 << 20;

impl Service for Shared {
    fn body_limit(&self) -> usize {
        BODY_BYTES
    }

    fn admit(&self, head: &Parts) -> Option<Response> {
        (head.method == Method::OPTIONS).then(|| text(StatusCode::NO_CONTENT, ""))
    }

    async fn answer(&self, request: Request) -> Response {
        super::api::route(request, self).await
    }

    fn refuse(&self, status: StatusCode, message: String) -> Response {
        text(status, message)
    }

    /// Lets pages of any origin use the endpoint, as those of canisters do on the platform.
    fn complete(&self, _: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "*"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        for (name, value) in allowed {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
    }
}

//! The endpoint as an HTTP service: its limits, and who may ask.

use std::net::IpAddr;
use std::time::{Duration, Instant};

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

    fn admit(&self, client: IpAddr, head: &Parts) -> Option<Response> {
        let limit = self.rate_limit.as_ref();
        if let Some((limit, Err(wait))) = limit.map(|limit| (limit, limit.take(client, Instant::now()))) {
            return Some(too_many(limit.per_second(), wait));
        }
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

/// Tells a client when it may ask again.
fn too_many(per_second: u32, wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let message = format!(
        "more than {per_second} requests per second came from this address; try again in {seconds} s, or let the \
         replica take more (--requests-per-second)"
    );
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, message);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

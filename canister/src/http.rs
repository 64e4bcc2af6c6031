//! What the canister tells browsers and monitoring: a certified chat page at `/`; `/health` and `/metrics`, whose
//! figures change with every call and cannot be certified; certified refusals elsewhere. Knows nothing of the platform.

mod certification;
mod metrics;
mod page;
mod site;

use candid::Principal;

use crate::api::{HttpRequest, HttpResponse};
use certification::Place;
use site::Site;

pub use metrics::{Counters, Facts};

/// What has to be certified for gateways to believe the answers of canister `own_id`.
pub fn certified_root(own_id: &Principal) -> [u8; 32] {
    Site::new(own_id).root()
}

/// The answer to a request. `certificate` is the platform's for [`certified_root`], which there is in queries only;
/// `facts` are asked for only by answers that tell them.
pub fn respond(
    request: &HttpRequest,
    own_id: &Principal,
    certificate: Option<&[u8]>,
    facts: impl FnOnce() -> Facts,
) -> HttpResponse {
    let site = Site::new(own_id);
    let method = Method::of(&request.method);
    let (place, mut response) = match path(&request.url) {
        "/" => (Place::Page, site.page(method).clone()),
        "/health" => (Place::Health, figures(method, Place::Health, || metrics::health(&facts()))),
        "/metrics" => (Place::Metrics, figures(method, Place::Metrics, || metrics::text(&facts()))),
        _ => (Place::Rest, site.missing(method).clone()),
    };
    if let Some(certificate) = certificate {
        response.headers.push((certification::HEADER.into(), site.certificate_header(place, certificate)));
    }
    response
}

fn path(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// A method, as far as answers differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

/// An answer without certificate; its figures are made only for a method that reads.
fn figures(method: Method, place: Place, make: impl FnOnce() -> HttpResponse) -> HttpResponse {
    let response = match method {
        Method::Get => make(),
        Method::Head => HttpResponse { body: Vec::new(), ..make() },
        Method::Other => method_not_allowed(),
    };
    place.mark(response)
}

fn response(status_code: u16, content_type: &str, body: impl Into<Vec<u8>>) -> HttpResponse {
    let headers =
        [("Content-Type", content_type), ("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff")];
    HttpResponse {
        status_code,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: body.into(),
    }
}

fn method_not_allowed() -> HttpResponse {
    let mut refusal = response(405, "text/plain", "Only GET and HEAD are answered here.\n");
    refusal.headers.push(("Allow".into(), "GET, HEAD".into()));
    refusal
}

#[cfg(test)]
mod tests;

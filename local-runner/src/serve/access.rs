//! Who may use the server: those with a key if there are keys, and web pages only from this machine or from where it was
//! allowed. Browsers send a page's origin along, so that no page on the web can use the server behind its reader's back.

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use local_runner::http::{Response, text};
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Path that needs no key: monitors have none.
const OPEN_PATHS: [&str; 2] = ["/health", "/v1/health"];
const PRIVATE_NETWORK_ASKED: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_NETWORK_ALLOWED: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Keys and origins.
#[derive(Debug, Default)]
pub struct Access {
    /// Digests of the keys, so that comparing takes the same time however much of a key is right.
    keys: Vec<[u8; 32]>,
    /// Origins besides those of this machine; `*` for all.
    origins: Vec<String>,
}

impl Access {
    /// No keys let everybody in.
    pub fn new(keys: &[String], origins: Vec<String>) -> Self {
        Self { keys: keys.iter().map(|key| digest(key.as_bytes())).collect(), origins }
    }

    /// Answers what must not get further, and what browsers ask before they send a page's request.
    pub fn admit(&self, head: &Parts) -> Option<Response> {
        if let Some(origin) = head.headers.get(header::ORIGIN).filter(|origin| !self.allows(origin)) {
            return Some(ApiError::Origin(String::from_utf8_lossy(origin.as_bytes()).into_owned()).into());
        }
        if head.method == Method::OPTIONS {
            return Some(preflight(&head.headers));
        }
        let is_open = OPEN_PATHS.contains(&head.uri.path());
        (!is_open && !self.has_key(&head.headers)).then(|| ApiError::Key.into())
    }

    /// Lets a page of `origin` read the answer.
    pub fn complete(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        self.keys.is_empty() || sent.is_some_and(|key| self.keys.contains(&digest(key)))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let listed = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
        is_of_this_machine(origin) || self.origins.iter().any(listed)
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Whether a page was served by this machine. (Pages from files say `null`, and so do some of anybody's.)
fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let Some(host) = uri.as_ref().and_then(Uri::host) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Everything that the browser asks for is allowed to the origins that got here.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = text(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if asked.contains_key(PRIVATE_NETWORK_ASKED) {
        headers.insert(PRIVATE_NETWORK_ALLOWED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(access: &Access, head: &Parts) -> Option<u16> {
        access.admit(head).map(|response| response.status().as_u16())
    }

    #[test]
    fn keys_are_asked_for_everywhere_but_at_the_health_check() {
        let access = Access::new(&["secret".to_owned(), "other".to_owned()], Vec::new());
        let with = |value: &str| status(&access, &head("GET", "/v1/models", &[("authorization", value)]));
        assert_eq!((with("Bearer secret"), with("bearer other ")), (None, None));
        for wrong in ["Bearer secre", "Bearer secret2", "Bearer ", "secret", "Basic secret", ""] {
            assert_eq!(with(wrong), Some(401), "{wrong}");
        }
        assert_eq!(status(&access, &head("GET", "/v1/models", &[])), Some(401));
        assert_eq!(status(&access, &head("GET", "/health", &[])), None);
        assert_eq!(status(&Access::default(), &head("GET", "/v1/models", &[])), None);
    }

    #[test]
    fn pages_of_this_machine_are_let_in_and_others_only_if_listed() {
        let access = Access::new(&[], vec!["https://chat.example".to_owned()]);
        let from = |origin: &str| status(&access, &head("POST", "/v1/completions", &[("origin", origin)]));
        let local = ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:80", "http://a.localhost:1"];
        for origin in local.into_iter().chain(["https://chat.example"]) {
            assert_eq!(from(origin), None, "{origin}");
        }
        let foreign = ["https://example.org", "null", "http://localhost.example.org", "http://127.0.0.1.example.org"];
        for origin in foreign {
            assert_eq!(from(origin), Some(403), "{origin}");
        }
        let open = Access::new(&[], vec!["*".to_owned()]);
        assert_eq!(status(&open, &head("POST", "/", &[("origin", "https://example.org")])), None);
    }

    #[test]
    fn browsers_are_told_what_they_ask_before_a_request() {
        let access = Access::new(&["secret".to_owned()], Vec::new());
        let asked = [
            ("origin", "http://localhost:3000"),
            ("access-control-request-headers", "authorization,x-stainless-os"),
            ("access-control-request-private-network", "true"),
        ];
        let mut response = access.admit(&head("OPTIONS", "/v1/models", &asked)).unwrap();
        let origin = HeaderValue::from_static("http://localhost:3000");
        access.complete(Some(&origin), response.headers_mut());
        let headers = response.headers();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(headers["access-control-allow-headers"], "authorization,x-stainless-os");
        assert_eq!(headers["access-control-allow-origin"], "http://localhost:3000");
        assert_eq!(headers["access-control-allow-private-network"], "true");
        let mut other = HeaderMap::new();
        access.complete(Some(&HeaderValue::from_static("https://example.org")), &mut other);
        assert!(!other.contains_key("access-control-allow-origin"));
    }
}

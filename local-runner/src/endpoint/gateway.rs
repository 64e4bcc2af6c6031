//! The HTTP gateway: pages and other answers of canisters that have a method `http_request`.
//!
//! The canister is named by the host (`ID.localhost`, `ID.raw.localhost`), or by the query parameter `canisterId` of the
//! request or of the page it comes from. Certificates of answers are passed on and not checked.

use candid::{CandidType, Principal, Reserved};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode, Uri};
use ic_transport_types::RequestId;
use rand_core::{OsRng, RngCore};
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::Shared;
use super::api::Refusal;
use super::executor::Query;
use super::requests::{Call, Registered, Status};
use super::streaming::Stream;
use crate::http::{Request, Response, text, whole, with_type};
use crate::shim::Reject;

/// Largest answer that is put together from streamed parts.
const STREAMED_BYTES: usize = 256 << 20;

#[derive(CandidType)]
struct HttpRequest<'a> {
    method: &'a str,
    url: &'a str,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    certificate_version: Option<u16>,
}

/// What canisters answer; of the streaming strategy see [`Stream`].
#[derive(CandidType, Deserialize)]
struct HttpResponse {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    upgrade: Option<bool>,
    streaming_strategy: Option<Reserved>,
}

/// Why the canister's answer cannot be shown.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    /// The replica does not take part.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The canister did not answer.
    #[error("canister {0} did not answer the request: {1}")]
    Reject(Principal, Reject),
    /// The canister answered something else.
    #[error("canister {0} answered what is no HTTP response: {1}")]
    Answer(Principal, String),
}

impl From<GatewayError> for Response {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Refusal(refusal) => refusal.into(),
            other => text(StatusCode::BAD_GATEWAY, other.to_string()),
        }
    }
}

/// Asks the canister that the request names; without one, lists what there is.
pub async fn serve(request: Request, shared: &Shared) -> Response {
    match canister(&request.uri, &request.headers) {
        Some(canister) => ask(canister, &request, shared).await.unwrap_or_else(Response::from),
        None => directory(&request, shared),
    }
}

/// The canister that a request names.
fn canister(uri: &Uri, headers: &HeaderMap) -> Option<Principal> {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let from_host = |host: &str| Principal::from_text(host.split('.').next()?).ok();
    let from_query = |query: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("canisterId="))?;
        Principal::from_text(value).ok()
    };
    let from_page = || header(header::REFERER)?.parse::<Uri>().ok()?.query().and_then(from_query);
    // Of `localhost` and addresses the first part is no principal.
    let host = header(header::HOST).filter(|host| host.contains('.')).and_then(from_host);
    host.or_else(|| uri.query().and_then(from_query)).or_else(from_page)
}

async fn ask(canister: Principal, request: &Request, shared: &Shared) -> Result<Response, GatewayError> {
    let url = request.uri.path_and_query().map_or("/", |url| url.as_str());
    let header = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let question = HttpRequest {
        method: request.method.as_str(),
        url,
        headers: request.headers.iter().filter_map(header).collect(),
        body: ByteBuf::from(request.body.to_vec()),
        certificate_version: Some(2),
    };
    let no_answer = |error: candid::Error| GatewayError::Answer(canister, error.to_string());
    let arg = candid::encode_one(&question).map_err(no_answer)?;
    let mut reply = query(canister, "http_request", arg, shared).await?;
    let mut answer: HttpResponse = candid::decode_one(&reply).map_err(no_answer)?;
    if answer.upgrade == Some(true) {
        let question = HttpRequest { certificate_version: None, ..question };
        let arg = candid::encode_one(&question).map_err(no_answer)?;
        reply = update(canister, arg, shared).await?;
        answer = candid::decode_one(&reply).map_err(no_answer)?;
    }
    let mut body = answer.body.into_vec();
    if answer.streaming_strategy.is_some() {
        stream(canister, &reply, &mut body, shared).await?;
    }
    response(answer.status_code, &answer.headers, body)
        .ok_or_else(|| GatewayError::Answer(canister, "its status or a header is not one of HTTP".into()))
}

async fn query(canister: Principal, method: &str, arg: Vec<u8>, shared: &Shared) -> Result<Vec<u8>, GatewayError> {
    let query = Query { sender: Principal::anonymous(), canister, method: method.to_owned(), arg };
    let answer = shared.executor.query(query).await.map_err(Refusal::from)?;
    answer.map_err(|reject| GatewayError::Reject(canister, reject))
}

/// Asks again with an update call, for answers that change something.
async fn update(canister: Principal, arg: Vec<u8>, shared: &Shared) -> Result<Vec<u8>, GatewayError> {
    let mut id = [0; 32];
    OsRng.fill_bytes(&mut id);
    let id = RequestId::new(&id);
    let now_ns = shared.state.clock.now_ns();
    let sender = Principal::anonymous();
    let call = Call { sender, canister, method: "http_request_update".into(), arg, expiry_ns: now_ns };
    match shared.state.requests.register(id, &call) {
        Registered::Full => return Err(Refusal::Busy.into()),
        Registered::New | Registered::Known => shared.executor.call(id, call).map_err(Refusal::from)?,
    }
    match shared.state.requests.wait(&id, Status::is_final).await {
        Some(Status::Replied(reply)) => Ok(reply),
        Some(Status::Rejected(reject) | Status::Refused(reject)) => Err(GatewayError::Reject(canister, reject)),
        _ => Err(GatewayError::Answer(canister, "its answer was lost".into())),
    }
}

/// Appends the parts that the canister gives out one by one.
async fn stream(canister: Principal, reply: &[u8], body: &mut Vec<u8>, shared: &Shared) -> Result<(), GatewayError> {
    let unreadable = |reason: String| GatewayError::Answer(canister, reason);
    let mut next = Stream::of_response(reply).map_err(unreadable)?;
    while let Some(stream) = next {
        let part = query(stream.canister, &stream.method, stream.token, shared).await?;
        let (bytes, token) = Stream::part(&part).map_err(unreadable)?;
        body.extend_from_slice(&bytes);
        if body.len() > STREAMED_BYTES {
            return Err(unreadable(format!("its streamed body is longer than {STREAMED_BYTES} bytes")));
        }
        next = token.map(|token| Stream { token, ..stream });
    }
    Ok(())
}

/// The canister's answer; `None` if it cannot be expressed in HTTP.
fn response(status: u16, headers: &[(String, String)], body: Vec<u8>) -> Option<Response> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    for (name, value) in headers {
        let name: HeaderName = name.parse().ok()?;
        // The connection knows the length, and how it sends the body.
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING && name != header::CONNECTION {
            response.headers_mut().append(name, HeaderValue::from_str(value).ok()?);
        }
    }
    Some(response)
}

/// Says how to name a canister, with links to those that are there.
fn directory(request: &Request, shared: &Shared) -> Response {
    if request.uri.path() != "/" {
        let message = "no canister is named: use the host ID.localhost, or the query parameter canisterId=ID";
        return text(StatusCode::NOT_FOUND, message);
    }
    let port = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()?.rsplit_once(':'));
    let port = port.map_or(String::new(), |(_, port)| format!(":{}", port.replace(|c: char| !c.is_ascii_digit(), "")));
    let link = |id: &Principal| format!("<li><a href=\"http://{id}.localhost{port}/\">{id}</a></li>");
    let links: String = shared.state.canister_ids().iter().map(link).collect();
    let links = if links.is_empty() { "<li>none yet</li>".to_owned() } else { links };
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>icllama replica</title><h1>icllama replica</h1><p>Canisters here, each \
         at a host of its own (or at this one with <code>?canisterId=ID</code>):</p><ul>{links}</ul>"
    );
    with_type(StatusCode::OK, "text/html; charset=utf-8", page.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "rrkah-fqaaa-aaaaa-aaaaq-cai";

    fn found(url: &str, headers: &[(HeaderName, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        canister(&url.parse().unwrap(), &headers) == Some(Principal::from_text(ID).unwrap())
    }

    #[test]
    fn canisters_are_named_by_host_query_or_page() {
        for host in [format!("{ID}.localhost:4943"), format!("{ID}.raw.localhost"), format!("{ID}.example.org")] {
            assert!(found("/page", &[(header::HOST, &host)]), "{host}");
        }
        assert!(found(&format!("/a?x=1&canisterId={ID}"), &[(header::HOST, "127.0.0.1:80")]));
        let page = format!("http://localhost:4943/?canisterId={ID}");
        assert!(found("/style.css", &[(header::REFERER, &page)]));
        assert!(!found("/a?canisterId=what", &[(header::HOST, "localhost")]));
    }

    #[test]
    fn answers_that_http_cannot_express_are_refused() {
        let header = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
        assert!(response(200, &header("X-A", "b"), Vec::new()).is_some());
        assert!(response(99, &[], Vec::new()).is_none());
        assert!(response(200, &header("a b", "c"), Vec::new()).is_none());
        assert!(response(200, &header("a", "b\r\nc: d"), Vec::new()).is_none());
    }
}

//! HTTP/1.1 connections: accepts them, reads requests within limits of size and time, writes answers. Every connection is a
//! task of its own, so that a slow client keeps nobody waiting. Knows nothing of what is asked.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Shared;

/// Largest body: an ingress message of 2 MiB with its envelope and room for what the platform refuses by itself.
const BODY_BYTES: usize = 4 << 20;
/// How long a client may take for the head of a request, and how long a connection stays without one: longer than clients
/// keep idle connections, so that it is they who close them.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// How long a client may take for a body.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How long answers that are on their way may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Wait after a connection could not be accepted, which happens when there are too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer.
pub type Response = hyper::Response<Full<Bytes>>;

/// A request with its body.
pub struct Request {
    /// GET, POST and so on.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// A plain text.
pub fn text(status: StatusCode, message: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", message.into().into_bytes())
}

/// Bytes of a type.
pub fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Serves until `stop` changes; answers that are being made are still sent, as far as that does not take long.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut stopped = pin!(changed(stop.clone()));
    loop {
        let accepted = poll_fn(|context| {
            while let Poll::Ready(Some(_)) = connections.poll_join_next(context) {}
            match stopped.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => listener.poll_accept(context).map(Some),
            }
        });
        match accepted.await {
            Some(Ok((stream, _))) => {
                connections.spawn(connection(stream, Arc::clone(&shared), stop.clone()));
            }
            Some(Err(_)) => sleep(ACCEPT_PAUSE).await,
            None => break,
        }
    }
    drop(listener);
    let end = async { while connections.join_next().await.is_some() {} };
    // Connections that are still open then are cut.
    timeout(LAST_ANSWERS, end).await.ok();
}

async fn changed(mut stop: watch::Receiver<bool>) {
    // If nobody is left who could stop it, that is a reason to stop, too.
    stop.changed().await.ok();
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    // Answers are written at once; waiting for more to send would only delay them. What fails here fails below again.
    stream.set_nodelay(true).ok();
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let mut stopped = pin!(changed(stop));
    let mut stopping = false;
    let end = poll_fn(|context| {
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    });
    // A connection that breaks is the client's affair.
    end.await.ok();
}

async fn answer(request: hyper::Request<Incoming>, shared: &Shared) -> Response {
    let (head, body) = request.into_parts();
    let mut response = if head.method == Method::OPTIONS {
        text(StatusCode::NO_CONTENT, "")
    } else {
        match read(body).await {
            Ok(body) => {
                let request = Request { method: head.method, uri: head.uri, headers: head.headers, body };
                super::api::route(request, shared).await
            }
            Err(refusal) => refusal,
        }
    };
    allow_other_origins(response.headers_mut());
    response
}

async fn read(body: Incoming) -> Result<Bytes, Response> {
    match timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(text(StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {BODY_BYTES} bytes")))
        }
        Ok(Err(error)) => Err(text(StatusCode::BAD_REQUEST, format!("the request broke off: {error}"))),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive")),
    }
}

/// Lets pages of any origin use the endpoint, as those of canisters do on the platform.
fn allow_other_origins(headers: &mut HeaderMap) {
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

//! HTTP/1.1 connections: accepts them, reads requests within limits of size and time, writes answers. Every connection is a
//! task of its own, so that a slow client keeps nobody waiting. Knows nothing of what is asked.
//!
//! `connections` counts them and says who has to go, `patient` gives up clients that do not read, `rate` counts requests.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

mod connections;
mod patient;
mod rate;

pub use rate::RateLimit;

use connections::{Connections, Place};
use patient::Patient;

/// Connections at a time, unless told otherwise: fewer than most systems let a process have files.
pub const CONNECTIONS: u16 = 512;

/// Threads that read and write connections.
const CONNECTION_THREADS: usize = 2;
/// How long a client may take for the head of a request, and how long a connection stays without one: longer than clients
/// keep idle connections, so that it is they who close them.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// How long a client may take for a body.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// What those get for whom there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 45\r\n\r\n\
    too many connections are waiting for answers\n";
/// How long answers that are on their way may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Wait after a connection could not be accepted, which happens when there are too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an answer consists of, at once or bit by bit.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub type Response = hyper::Response<Body>;

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

/// What answers requests. If a client goes away, the future of its answer is dropped, and so is the body.
pub trait Service: Send + Sync + 'static {
    /// Largest body that is read, in bytes.
    fn body_limit(&self) -> usize;

    /// Sees a request, and where it comes from, before its body is read; what it answers is the answer.
    fn admit(&self, client: IpAddr, head: &Parts) -> Option<Response>;

    /// Answers a request.
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Words the answer to a request that could not be read.
    fn refuse(&self, status: StatusCode, message: String) -> Response;

    /// Adds the headers that every answer has; `origin` is where the page comes from that asks, if one does.
    fn complete(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap);
}

/// A plain text.
pub fn text(status: StatusCode, message: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", message.into().into_bytes())
}

/// Bytes of a type.
pub fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body that is there at once.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port is in use.
    #[error("port {} of {} is in use; stop what uses it, or choose another with --port (0 for any)", .0.port(), .0.ip())]
    PortTaken(SocketAddr),
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
}

/// A port that was taken and where nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes a port; 0 for any that is free.
    ///
    /// # Errors
    /// If it is taken, or the address is none of this machine's.
    pub fn bind(host: IpAddr, port: u16) -> Result<Self, ListenError> {
        let wanted = SocketAddr::new(host, port);
        let refused = |reason: io::Error| match reason.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken(wanted),
            _ => ListenError::Listen { address: wanted, reason },
        };
        let socket = std::net::TcpListener::bind(wanted).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A server that answers.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    runtime: Runtime,
    accepting: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Begins to answer, at most so many connections at a time: of more, those that ask nothing are cut.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(listener: Listener, service: Arc<impl Service>, connections: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONNECTION_THREADS)
            .thread_name("http")
            .enable_all()
            .build()?;
        let Listener { socket, address } = listener;
        let socket = {
            let _inside = runtime.enter();
            TcpListener::from_std(socket)?
        };
        let (stop, stopping) = watch::channel(false);
        let accepting = runtime.spawn(accept(socket, service, Connections::new(connections), stopping));
        Ok(Self { address, runtime, accepting, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests; answers that are being made are still sent, as far as that does not take long.
    pub fn stop(self) {
        let Self { runtime, accepting, stop, .. } = self;
        stop.send_replace(true);
        // It ends by itself, or has failed already.
        runtime.block_on(accepting).ok();
    }
}

async fn accept(
    listener: TcpListener,
    service: Arc<impl Service>,
    places: Arc<Connections>,
    stop: watch::Receiver<bool>,
) {
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
            Some(Ok((stream, client))) => match places.enter() {
                Some(place) => {
                    let place = Arc::new(place);
                    connections.spawn(connection((stream, client.ip()), place, Arc::clone(&service), stop.clone()));
                }
                None => {
                    connections.spawn(refuse(stream));
                }
            },
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

/// Tells a client that there is no place for it.
async fn refuse(mut stream: TcpStream) {
    let told = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        // Closing before the request is read would take the answer back.
        let mut request = [0; 4096];
        while stream.read(&mut request).await? > 0 {}
        io::Result::Ok(())
    };
    // Who does not take it in time has gone, or is not worth waiting for.
    timeout(LAST_ANSWERS, told).await.ok();
}

async fn connection(
    (stream, client): (TcpStream, IpAddr),
    place: Arc<Place>,
    service: Arc<impl Service>,
    stop: watch::Receiver<bool>,
) {
    // Answers are written at once; waiting for more to send would only delay them. What fails here fails below again.
    stream.set_nodelay(true).ok();
    let served = Arc::clone(&place);
    let service = service_fn(move |request| {
        let (service, place) = (Arc::clone(&service), Arc::clone(&served));
        async move { Ok::<_, Infallible>(respond(request, client, &place, service.as_ref()).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let stream = TokioIo::new(Patient::new(stream, ANSWER_TIME));
    let mut connection = pin!(server.serve_connection(stream, service));
    let (mut stopped, mut taken) = (pin!(changed(stop)), pin!(place.taken()));
    let mut stopping = false;
    let end = poll_fn(|context| {
        if taken.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        // A connection that breaks is the client's affair.
        connection.as_mut().poll(context).map(|_| ())
    });
    end.await;
}

async fn respond(
    request: hyper::Request<Incoming>,
    client: IpAddr,
    place: &Arc<Place>,
    service: &impl Service,
) -> Response {
    let (head, body) = request.into_parts();
    let origin = head.headers.get(header::ORIGIN).cloned();
    place.waiting();
    let body = match service.admit(client, &head) {
        Some(answer) => Err(answer),
        None => read(body, service.body_limit()).await.map_err(|(status, message)| service.refuse(status, message)),
    };
    let answering = place.answering();
    let mut response = match body {
        Ok(body) => service.answer(Request { method: head.method, uri: head.uri, headers: head.headers, body }).await,
        Err(answer) => answer,
    };
    service.complete(origin.as_ref(), response.headers_mut());
    answering.until_written(response)
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, (StatusCode, String)> {
    match timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {limit} bytes")))
        }
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("the request broke off: {error}"))),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive".to_owned())),
    }
}

//! A bad connection: passes requests on to an endpoint, slowly, and drops or fails some.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on and answered.
    Pass,
    /// The connection ends before it arrives.
    Lost,
    /// It arrives, but its answer does not.
    AnswerLost,
    /// It is answered with this status and does not arrive.
    Status(u16),
}

/// What the proxy does and has seen.
#[derive(Default)]
pub struct Log {
    /// Requests.
    pub requests: usize,
    /// Chunks that were passed on.
    pub chunks: usize,
}

pub struct Proxy {
    pub url: String,
    log: Arc<Mutex<Log>>,
}

/// Bodies of this size carry chunks.
const CHUNK: usize = 100_000;

impl Proxy {
    /// In front of `upstream`; `fate` decides by the number of the request, `delay` is before chunks. Ends with the process.
    pub fn before(upstream: SocketAddr, delay: Duration, fate: fn(usize) -> Fate) -> Self {
        Self::start(upstream, upstream, delay, fate)
    }

    /// In front of `upstream`, with the status, and so the root key, of `other`.
    pub fn pretending(upstream: SocketAddr, other: SocketAddr) -> Self {
        Self::start(upstream, other, Duration::ZERO, |_| Fate::Pass)
    }

    fn start(upstream: SocketAddr, status: SocketAddr, delay: Duration, fate: fn(usize) -> Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::<Mutex<Log>>::default();
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log) = (stream.unwrap(), Arc::clone(&shared));
                // A client that leaves in the middle of an answer is its own affair.
                std::thread::spawn(move || pass(stream, [upstream, status], &log, delay, fate).ok());
            }
        });
        Self { url, log }
    }

    pub fn chunks(&self) -> usize {
        self.log.lock().unwrap().chunks
    }

    pub fn requests(&self) -> usize {
        self.log.lock().unwrap().requests
    }
}

/// One request on a connection, which is then closed.
fn pass(
    mut client: TcpStream,
    [upstream, status]: [SocketAddr; 2],
    log: &Mutex<Log>,
    delay: Duration,
    fate: fn(usize) -> Fate,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let number = {
        let mut log = log.lock().unwrap();
        log.requests += 1;
        log.requests
    };
    let fate = if head.contains("/call ") { fate(number) } else { Fate::Pass };
    match fate {
        Fate::Lost => return Ok(()),
        Fate::Status(status) => {
            return write!(client, "HTTP/1.1 {status} Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
        Fate::Pass | Fate::AnswerLost => {}
    }
    if length > CHUNK {
        log.lock().unwrap().chunks += 1;
        std::thread::sleep(delay);
    }
    let mut server = TcpStream::connect(if head.contains("/status ") { status } else { upstream })?;
    server.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if fate == Fate::AnswerLost { Ok(()) } else { client.write_all(&answer) }
}

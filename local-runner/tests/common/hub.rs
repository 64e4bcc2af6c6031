//! A server that plays the Hugging Face hub: answers with redirects to a store of blobs, as the hub does for large files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// What the hub does wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defects {
    /// Close the connection after so many bytes of a body.
    pub break_after: Option<usize>,
    /// Send nothing more after so many bytes of a body, and keep the connection.
    pub stall_after: Option<usize>,
    /// Serve other bytes than those whose digest is announced.
    pub damage: bool,
    /// Answer everything with this status.
    pub status: Option<u16>,
}

#[derive(Default, Clone)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    token: Option<String>,
    requests: Vec<Request>,
    defects: Defects,
}

/// The hub; its thread ends with the test's process.
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

impl Hub {
    /// Serves `files` (`OWNER/REPO/FILE`); with a token, only to those who have it.
    pub fn serve(files: &[(&str, Vec<u8>)], token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let state = State { files, token: token.map(str::to_owned), ..State::default() };
        let (state, base) = (Arc::new(Mutex::new(state)), endpoint.clone());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that leaves in the middle of an answer is its own affair.
                let _ = answer(stream.unwrap(), &shared, &base);
            }
        });
        Self { endpoint, state }
    }

    pub fn set_defects(&self, defects: Defects) {
        self.state.lock().unwrap().defects = defects;
    }

    /// The requests since the last look.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    Ok(Request { path, headers })
}

fn answer(stream: TcpStream, state: &Mutex<State>, base: &str) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    let state = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        state.clone()
    };
    if let Some(status) = state.defects.status {
        return send(&stream, status, &[], &[]);
    }
    if let Some(name) = request.path.strip_prefix("/blobs/") {
        return send_blob(&stream, &state, &request, name);
    }
    if let Some(moved) = request.path.strip_prefix("/old/") {
        return send(&stream, 307, &[("Location", &format!("/me/{moved}"))], &[]);
    }
    let expected = state.token.as_ref().map(|token| format!("Bearer {token}"));
    if expected.is_some() && request.headers.get("authorization") != expected.as_ref() {
        return send(&stream, 401, &[], &[]);
    }
    let name = request.path.trim_start_matches('/').replace("resolve/main/", "");
    match state.files.get(&name) {
        None => send(&stream, 404, &[], &[]),
        Some(bytes) => {
            let (location, etag) = (format!("{base}/blobs/{name}"), format!("\"{}\"", sha256(bytes)));
            let headers = [("Location", location.as_str()), ("X-Linked-Etag", &etag), ("X-Repo-Commit", "c0ffee")];
            send(&stream, 302, &headers, &[])
        }
    }
}

/// The bytes that the request's range asks for.
fn send_blob(stream: &TcpStream, state: &State, request: &Request, name: &str) -> std::io::Result<()> {
    let mut bytes = state.files[name].clone();
    if state.defects.damage {
        bytes[0] ^= 1;
    }
    let (from, to) = request.headers["range"].strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
    let range = format!("bytes {from}-{}/{}", to - 1, bytes.len());
    let headers = [("Content-Range", range.as_str()), ("ETag", "\"of the store\"")];
    let body = &bytes[from..to];
    if let Some(most) = state.defects.stall_after.filter(|most| body.len() > *most) {
        head(stream, 206, &headers, body.len())?;
        (&mut &*stream).write_all(&body[..most])?;
        // Nothing comes, until the client goes.
        return (&mut &*stream).read(&mut [0]).map(|_| ());
    }
    match state.defects.break_after {
        Some(most) if body.len() > most => {
            head(stream, 206, &headers, body.len())?;
            (&mut &*stream).write_all(&body[..most])
        }
        _ => send(stream, 206, &headers, body),
    }
}

fn send(stream: &TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    head(stream, status, headers, body.len())?;
    (&mut &*stream).write_all(body)
}

fn head(mut stream: &TcpStream, status: u16, headers: &[(&str, &str)], length: usize) -> std::io::Result<()> {
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    write!(stream, "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")
}

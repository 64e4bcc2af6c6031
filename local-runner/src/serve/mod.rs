//! A local server with OpenAI's API, as llama.cpp's has it: `docs/serve.md`.
//!
//! - `access` says who may ask; `chat` and `completion` take requests apart, with `request` and `fields` for what they
//!   share;
//! - `slots` is the line and the workers, which own the backends;
//! - `reply` words the answers, `stream` writes them as they come, `logprobs`, `catalog` and `error` are parts of them.

mod access;
mod catalog;
mod chat;
mod completion;
mod error;
mod fields;
mod logprobs;
mod reply;
mod request;
mod slots;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use local_runner::http::{Request, Response, Service, with_type};
use serde_json::{Value as Json, json};

pub use access::Access;
pub use catalog::Catalog;
pub use request::Defaults;
pub use slots::{Slots, Worker};

use crate::clock;
use error::ApiError;
use reply::{Kind, Reply};
use request::Asked;
use slots::News;

/// Largest request: many times the text that fits the longest contexts.
const BODY_BYTES: usize = 8 << 20;

/// What the server knows and is made of.
pub struct Site {
    /// The model.
    pub catalog: Arc<Catalog>,
    /// What holds where a request says nothing else.
    pub defaults: Defaults,
    /// Who may ask.
    pub access: Access,
    /// Who answers.
    pub slots: Arc<Slots>,
    /// Why there are no chats, if there are none.
    pub no_chat: Option<String>,
    /// Whether the chat template shows tools to the model; none if that is not known.
    pub shows_tools: Option<bool>,
}

impl Service for Site {
    fn body_limit(&self) -> usize {
        BODY_BYTES
    }

    fn admit(&self, _: IpAddr, head: &Parts) -> Option<Response> {
        self.access.admit(head)
    }

    async fn answer(&self, request: Request) -> Response {
        let path = request.uri.path().trim_end_matches('/');
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let answered = match (path, path.strip_prefix("/models/")) {
            ("/health", _) => get(&request).map(|()| json_response(&json!({ "status": "ok" }))),
            ("/models", _) => get(&request).map(|()| json_response(&self.catalog.list())),
            (_, Some(id)) => get(&request).and_then(|()| self.model(id)),
            ("/chat/completions", _) => self.complete_request(Kind::Chat, &request).await,
            ("/completions", _) => self.complete_request(Kind::Completion, &request).await,
            _ => Err(ApiError::Path(request.uri.path().to_owned())),
        };
        answered.unwrap_or_else(Response::from)
    }

    fn refuse(&self, status: StatusCode, message: String) -> Response {
        ApiError::Unreadable { status, message }.into()
    }

    fn complete(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        self.access.complete(origin, headers);
    }
}

impl Site {
    fn model(&self, id: &str) -> Result<Response, ApiError> {
        let id = decoded(id);
        if id == self.catalog.id { Ok(json_response(&self.catalog.entry())) } else { Err(ApiError::Model(id)) }
    }

    async fn complete_request(&self, kind: Kind, request: &Request) -> Result<Response, ApiError> {
        takes(request, &Method::POST, "POST")?;
        let asked = match kind {
            Kind::Chat => chat::read(&request.body, &self.defaults)?,
            Kind::Completion => completion::read(&request.body, &self.defaults, self.catalog.tokenizer())?,
        };
        self.check(kind, &asked)?;
        clock::renew();
        let reply = Reply::new(kind, &asked, Arc::clone(&self.catalog));
        let is_streamed = asked.form.stream;
        let mut news = self.slots.submit(asked.asks)?;
        if is_streamed {
            return match news.recv().await.ok_or(ApiError::Stopped)? {
                News::Failed(error) => Err(error),
                first => Ok(stream::respond(first, news, reply)),
            };
        }
        let mut reply = reply;
        while !reply.is_complete() {
            match news.recv().await.ok_or(ApiError::Stopped)? {
                News::Began | News::Piece { .. } => {}
                News::Ended(generation) => reply.collect(&generation),
                News::Failed(error) => return Err(error),
            }
        }
        Ok(json_response(&reply.whole()))
    }

    /// Refuses what this model cannot do.
    fn check(&self, kind: Kind, asked: &Asked) -> Result<(), ApiError> {
        let uses = |test: fn(&slots::Ask) -> bool| asked.asks.iter().any(test);
        if kind == Kind::Chat {
            if let Some(reason) = &self.no_chat {
                return Err(ApiError::Request(reason.clone()));
            }
            if self.shows_tools == Some(false) && uses(|ask| !ask.options.input.tools.is_empty()) {
                return Err(ApiError::unsupported(
                    "tools",
                    "the model's chat template does not show them to the model",
                ));
            }
        }
        if self.catalog.tokenizer().is_none() && uses(|ask| ask.options.logprobs.is_some()) {
            return Err(ApiError::unsupported(
                "logprobs",
                "the server has no vocabulary to name tokens with; --vocabulary gives it one",
            ));
        }
        Ok(())
    }
}

fn get(request: &Request) -> Result<(), ApiError> {
    takes(request, &Method::GET, "GET")
}

fn takes(request: &Request, method: &Method, allowed: &'static str) -> Result<(), ApiError> {
    let path = request.uri.path().to_owned();
    if request.method == *method { Ok(()) } else { Err(ApiError::Method { path, allowed }) }
}

fn json_response(value: &Json) -> Response {
    with_type(StatusCode::OK, "application/json", value.to_string().into_bytes())
}

/// A part of a path with `%XX` as the bytes that they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_are_decoded() {
        for (path, name) in [("a%20b", "a b"), ("org%2Fmodel", "org/model"), ("50%", "50%"), ("%zz%C3%A9", "%zzé")] {
            assert_eq!(decoded(path), name);
        }
    }
}

//! A reply as server-sent events: a body that is written as its answers come. If the client goes away the body is dropped,
//! with it the receiver of the news, and so the answer ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{self, HeaderValue};
use local_runner::http::Response;
use tokio::sync::mpsc::UnboundedReceiver;

use super::error::ApiError;
use super::reply::Reply;
use super::slots::News;

/// What is still to be told.
struct Events {
    /// What came before the answer was known to be streamed.
    first: Option<News>,
    news: UnboundedReceiver<News>,
    reply: Reply,
    has_failed: bool,
}

/// The answer of a request whose first answer has begun.
pub fn respond(first: News, news: UnboundedReceiver<News>, reply: Reply) -> Response {
    let events = Events { first: Some(first), news, reply, has_failed: false };
    let mut response = Response::new(events.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Events {
    /// The next events; nothing yet if they are empty.
    fn next(&mut self, news: Option<News>) -> String {
        let news = news.unwrap_or(News::Failed(ApiError::Stopped));
        self.has_failed = matches!(news, News::Failed(_));
        self.reply.events(news)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while !self.has_failed && !self.reply.is_complete() {
            let news = match self.first.take() {
                Some(first) => Some(first),
                None => match self.news.poll_recv(context) {
                    Poll::Ready(news) => news,
                    Poll::Pending => return Poll::Pending,
                },
            };
            let events = self.next(news);
            if !events.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(events.into()))));
            }
        }
        Poll::Ready(None)
    }
}

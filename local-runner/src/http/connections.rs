//! How many connections there are, and which has to go when there are too many: the one that has kept us waiting longest for
//! a request. So clients that are slow, or send half a request, or none, take no place from those who ask something.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::Notify;

use super::{Body, Response};

/// All connections.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    places: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Since when we wait for the client; none while it waits for us.
    waiting: Option<Instant>,
    cut: Arc<Notify>,
}

impl Connections {
    /// At most so many at a time.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, entries: Mutex::default() })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; none if all that are there wait for answers.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut entries = self.entries();
        if entries.places.len() >= self.most {
            let waiting = entries.places.iter().filter_map(|(id, entry)| entry.waiting.map(|since| (since, *id)));
            let (_, longest) = waiting.min()?;
            if let Some(entry) = entries.places.remove(&longest) {
                entry.cut.notify_one();
            }
        }
        let (id, cut) = (entries.next, Arc::new(Notify::new()));
        entries.next += 1;
        entries.places.insert(id, Entry { waiting: Some(Instant::now()), cut: Arc::clone(&cut) });
        Some(Place { connections: Arc::clone(self), id, cut })
    }
}

/// The place of a connection, which is free when this is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    id: u64,
    cut: Arc<Notify>,
}

impl Place {
    /// Ends when another connection needs the place.
    pub async fn taken(&self) {
        self.cut.notified().await;
    }

    /// A request has begun to arrive.
    pub fn waiting(&self) {
        self.set(Some(Instant::now()));
    }

    /// A request has arrived: the place is kept until the answer is written.
    pub fn answering(self: &Arc<Self>) -> Answering {
        self.set(None);
        Answering(Arc::clone(self))
    }

    fn set(&self, waiting: Option<Instant>) {
        if let Some(entry) = self.connections.entries().places.get_mut(&self.id) {
            entry.waiting = waiting;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.entries().places.remove(&self.id);
    }
}

/// An answer is on its way.
#[derive(Debug)]
pub struct Answering(Arc<Place>);

impl Answering {
    /// The same answer, on its way until its body is written or given up.
    pub fn until_written(self, response: Response) -> Response {
        response.map(|body| Body::new(Written { body, _answering: self }))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.waiting();
    }
}

struct Written {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Written {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(place: &Place) -> bool {
        let mut taken = std::pin::pin!(place.taken());
        taken.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn who_is_waited_for_longest_makes_room() {
        let connections = Connections::new(2);
        let [first, second] = [(); 2].map(|()| Arc::new(connections.enter().unwrap()));
        let answer = first.answering();
        let third = Arc::new(connections.enter().unwrap());
        assert_eq!([&first, &second, &third].map(|place| is_cut(place)), [false, true, false]);
        drop(second);
        let other = third.answering();
        assert!(connections.enter().is_none(), "both wait for us");
        drop(answer);
        drop(connections.enter().unwrap());
        assert!(is_cut(&first));
        drop((first, other, third));
        assert!(connections.entries().places.is_empty());
    }
}

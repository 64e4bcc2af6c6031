//! `http_request`: the service's figures for [`crate::http`].

use ic_stable_structures::Memory;

use super::Service;
use crate::api::{Error, HttpRequest, HttpResponse};
use crate::env::Env;
use crate::http::{self, Facts};

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Answers a browser or a monitor: everybody, and nothing about anybody.
    pub fn http_request(&self, request: &HttpRequest) -> HttpResponse {
        let certificate = self.env.certificate();
        http::respond(request, &self.env.own_id(), certificate.as_deref(), || self.facts())
    }

    /// Counts an update call. To be called at its end.
    pub fn count_call<T>(&mut self, answer: &Result<T, Error>) {
        match answer {
            Ok(_) => self.counters.calls += 1,
            Err(_) => self.counters.refusals += 1,
        }
        self.counters.instructions += self.env.instructions();
    }

    pub(super) fn count_background(&mut self) {
        self.counters.background += 1;
        self.counters.instructions += self.env.instructions();
    }

    fn facts(&self) -> Facts {
        Facts {
            counters: self.counters,
            model: self.model_status(),
            sessions: self.sessions.store().len(),
            running: self.sessions.queue().runs() as u64,
            cache_bytes: self.sessions.cache_bytes(),
            cycles: self.env.cycles(),
            access: self.config.generate_access,
        }
    }
}

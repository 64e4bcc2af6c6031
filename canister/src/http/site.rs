//! The answers that never change, and the tree that certifies them.

use candid::Principal;

use super::certification::{Place, Tree};
use super::{Method, method_not_allowed, page, response};
use crate::api::HttpResponse;

/// All of them. Made anew for each request: that costs a query a few million instructions and keeps the heap clean.
pub struct Site {
    page: HttpResponse,
    page_head: HttpResponse,
    page_refusal: HttpResponse,
    missing: HttpResponse,
    missing_head: HttpResponse,
    tree: Tree,
}

impl Site {
    /// The site of canister `own_id`.
    pub fn new(own_id: &Principal) -> Self {
        let page = Place::Page.mark(page::page(own_id));
        let missing = response(404, "text/plain", "There is nothing here. The chat is at /, figures at /metrics.\n");
        let missing = Place::Rest.mark(missing);
        let without_body = |response: &HttpResponse| HttpResponse { body: Vec::new(), ..response.clone() };
        let mut site = Self {
            page_head: without_body(&page),
            page_refusal: Place::Page.mark(method_not_allowed()),
            missing_head: without_body(&missing),
            page,
            missing,
            tree: Tree::default(),
        };
        for response in [&site.page, &site.page_head, &site.page_refusal] {
            site.tree.certify(Place::Page, response);
        }
        for response in [&site.missing, &site.missing_head] {
            site.tree.certify(Place::Rest, response);
        }
        site.tree.exempt(Place::Health);
        site.tree.exempt(Place::Metrics);
        site
    }

    /// What the platform has to certify.
    pub fn root(&self) -> [u8; 32] {
        self.tree.digest()
    }

    /// The answer at `/`.
    pub fn page(&self, method: Method) -> &HttpResponse {
        match method {
            Method::Get => &self.page,
            Method::Head => &self.page_head,
            Method::Other => &self.page_refusal,
        }
    }

    /// The answer where there is nothing, whatever the method.
    pub fn missing(&self, method: Method) -> &HttpResponse {
        if method == Method::Head { &self.missing_head } else { &self.missing }
    }

    /// The value of the header that proves an answer at `place`.
    pub fn certificate_header(&self, place: Place, certificate: &[u8]) -> String {
        self.tree.header(place, certificate)
    }
}

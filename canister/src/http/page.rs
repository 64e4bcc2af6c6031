//! The chat page. One file, `chat.html`, that loads nothing from anywhere and talks to the canister through the
//! interface that every client uses, so it can do no more than its visitor may.

use candid::Principal;

use super::certification::{base64, sha256};
use super::response;
use crate::api::HttpResponse;

const TEMPLATE: &str = include_str!("chat.html");
/// Where the template wants the canister's own id, which an address does not always show.
const CANISTER: &str = "{{canister}}";
/// Where the platform's interface can be reached if the gateway that served the page does not offer it.
const API: &str = "https://icp-api.io";

/// The page of canister `own_id`.
pub fn page(own_id: &Principal) -> HttpResponse {
    let html = TEMPLATE.replacen(CANISTER, &own_id.to_text(), 1);
    let policy = security_policy(&html);
    let mut page = response(200, "text/html; charset=utf-8", html);
    let headers = [("Content-Security-Policy", policy.as_str()), ("Referrer-Policy", "no-referrer")];
    page.headers.extend(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
    page
}

/// The page runs its own script and style, and nothing that text could smuggle into it.
fn security_policy(html: &str) -> String {
    let [script, style] = ["script", "style"].map(|tag| base64(&sha256(inline(html, tag).as_bytes())));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
         connect-src 'self' {API}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// What stands in the only element `tag` of the page.
fn inline<'a>(html: &'a str, tag: &str) -> &'a str {
    let rest = html.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("</{tag}>")).map_or("", |(inside, _)| inside)
}

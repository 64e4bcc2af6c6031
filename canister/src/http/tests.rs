//! Answers as a gateway sees them, checked with the code that gateways check them with, under a real signature.

use candid::Principal;
use ic_certification::{fork, labeled, leaf};
use ic_http_certification as gateway;
use ic_response_verification::types::VerificationInfo;
use ic_response_verification::{ResponseVerificationError, verify_request_response_pair};
use ic_verify_bls_signature::PrivateKey;

use super::certification::base64;
use crate::api::{HttpRequest, HttpResponse};
use crate::testing::{Canister, OWN_ID, USER, model, options, text};

const NOW_NS: u128 = 1_700_000_000_000_000_000;
const MINUTE_NS: u128 = 60_000_000_000;

/// A subnet's key, and the certificate that it gives a canister for `data`.
struct Subnet(PrivateKey);

impl Subnet {
    fn new() -> Self {
        Self(PrivateKey::deserialize(&[7; 32]).unwrap())
    }

    fn root_key(&self) -> Vec<u8> {
        let header = [
            0x30, 0x81, 0x82, 0x30, 0x1d, 0x06, 0x0d, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x01,
            0x02, 0x01, 0x06, 0x0c, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x02, 0x01, 0x03, 0x61,
            0x00,
        ];
        [header.as_slice(), &self.0.public_key().serialize()].concat()
    }

    fn certificate(&self, canister: Principal, data: &[u8]) -> Vec<u8> {
        let mut time = Vec::new();
        let mut rest = NOW_NS;
        while rest >= 0x80 {
            time.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        time.push(rest as u8);
        let canister = labeled(canister.as_slice(), labeled("certified_data", leaf(data)));
        let tree = fork(labeled("canister", canister), labeled("time", leaf(time)));
        let signed = [b"\x0dic-state-root".as_slice(), &tree.digest()].concat();
        let signature = self.0.sign(&signed).serialize().to_vec();
        serde_cbor::to_vec(&ic_certification::Certificate { tree, signature, delegation: None }).unwrap()
    }
}

/// A canister that is asked over a gateway.
struct Site {
    canister: Canister,
    subnet: Subnet,
}

impl Site {
    fn of(canister: Canister) -> Self {
        let subnet = Subnet::new();
        canister.env.set_certificate(Some(subnet.certificate(OWN_ID, &canister.env.certified())));
        Self { canister, subnet }
    }

    fn empty() -> Self {
        Self::of(Canister::new())
    }

    fn ask(&mut self, method: &str, url: &str) -> HttpResponse {
        let request = HttpRequest { method: method.into(), url: url.into(), ..HttpRequest::default() };
        self.canister.call(Principal::anonymous(), |service| service.http_request(&request))
    }

    /// What a gateway finds out about an answer.
    fn verify(
        &self,
        method: &str,
        url: &str,
        response: &HttpResponse,
    ) -> Result<VerificationInfo, ResponseVerificationError> {
        let request = gateway::HttpRequest::builder()
            .with_method(method.parse().unwrap())
            .with_url(url)
            .with_certificate_version(2)
            .build();
        let response = gateway::HttpResponse::builder()
            .with_status_code(response.status_code.try_into().unwrap())
            .with_headers(response.headers.clone())
            .with_body(response.body.clone())
            .build();
        let key = self.subnet.root_key();
        verify_request_response_pair(request, response, OWN_ID.as_slice(), NOW_NS, 5 * MINUTE_NS, &key, 2)
    }

    /// Asks and verifies; also whether status, headers and body are certified.
    fn believe(&mut self, method: &str, url: &str) -> (HttpResponse, bool) {
        let response = self.ask(method, url);
        let info = self.verify(method, url, &response).unwrap();
        assert_eq!(info.verification_version, 2);
        (response, info.response.is_some_and(|verified| verified.status_code.is_some()))
    }
}

fn header<'a>(response: &'a HttpResponse, name: &str) -> &'a str {
    response.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

fn body(response: &HttpResponse) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

#[test]
fn what_never_changes_is_certified_whole() {
    let mut site = Site::empty();
    let asked = [("GET", "/", 200), ("HEAD", "/", 200), ("POST", "/", 405), ("GET", "/?canisterId=x", 200)];
    let missing =
        [("GET", "/nothing", 404), ("HEAD", "/nothing", 404), ("PUT", "/a/b?c", 404), ("GET", "/metrics/x", 404)];
    for (method, url, status) in asked.into_iter().chain(missing) {
        let (response, certified) = site.believe(method, url);
        assert_eq!((response.status_code, certified), (status, true), "{method} {url}");
        assert_eq!(response.body.is_empty(), method == "HEAD", "{method} {url}");
    }
}

#[test]
fn figures_are_told_to_be_uncertified() {
    let mut site = Site::empty();
    for url in ["/health", "/metrics", "/metrics?x=1"] {
        for method in ["GET", "HEAD", "POST"] {
            let (response, certified) = site.believe(method, url);
            assert!(!certified, "{method} {url}");
            assert_eq!(response.body.is_empty(), method == "HEAD");
            assert_eq!(response.status_code == 405, method == "POST");
        }
    }
}

#[test]
fn a_gateway_refuses_what_was_changed_on_the_way() {
    let mut site = Site::empty();
    let page = site.ask("GET", "/");
    let mut changed = page.clone();
    changed.body.push(b' ');
    assert!(site.verify("GET", "/", &changed).is_err(), "body");
    let mut changed = page.clone();
    changed.status_code = 201;
    assert!(site.verify("GET", "/", &changed).is_err(), "status");
    let mut changed = page.clone();
    changed.headers.push(("Set-Cookie".into(), "a=b".into()));
    assert!(site.verify("GET", "/", &changed).is_err(), "headers");
    assert!(site.verify("GET", "/nothing", &page).is_err(), "another path's answer");
    let metrics = site.ask("GET", "/metrics");
    assert!(site.verify("GET", "/", &metrics).is_err(), "an uncertified answer at a certified path");
    let missing = site.ask("GET", "/nothing");
    assert!(site.verify("GET", "/", &missing).is_err(), "the answer of no path at one that is");
    let other = Principal::from_slice(&[9]);
    site.canister.env.set_certificate(Some(site.subnet.certificate(other, &site.canister.env.certified())));
    let foreign = site.ask("GET", "/");
    assert!(site.verify("GET", "/", &foreign).is_err(), "another canister's certificate");
}

#[test]
fn certification_survives_an_upgrade_and_is_absent_in_updates() {
    let mut site = Site::empty();
    let before = site.canister.env.certified();
    site.canister.upgrade();
    assert_eq!(site.canister.env.certified(), before);
    site.canister.env.set_certificate(None);
    let page = site.ask("GET", "/");
    assert_eq!((page.status_code, header(&page, "IC-Certificate")), (200, ""));
}

#[test]
fn the_page_knows_its_canister_and_runs_only_its_own_code() {
    let page = Site::empty().ask("GET", "/");
    let html = body(&page);
    assert!(html.contains(&format!("<meta name=\"canister\" content=\"{OWN_ID}\">")) && !html.contains("{{"));
    for foreign in ["<script src", "<link rel=\"stylesheet\"", "@import", "eval(", " style=", " onclick=", "innerHTML"]
    {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert_eq!(html.matches("<script").count(), 1);
    let policy = header(&page, "Content-Security-Policy");
    let inside =
        |tag: &str| html.split(&format!("<{tag}>")).nth(1).unwrap().split(&format!("</{tag}>")).next().unwrap();
    for tag in ["script", "style"] {
        let hash = base64(&super::certification::sha256(inside(tag).as_bytes()));
        assert!(inside(tag).len() > 1000 && policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{policy}");
    }
}

#[test]
fn health_is_good_only_while_a_model_answers() {
    let mut site = Site::empty();
    let health = site.ask("GET", "/health");
    let version = env!("CARGO_PKG_VERSION");
    let told = |status: &str, model: &str| {
        format!(r#"{{"status":"{status}","model":{model},"access":"AllowList","version":"{version}"}}"#)
    };
    assert_eq!((health.status_code, body(&health)), (503, told("empty", "null").as_str()));
    assert_eq!(header(&health, "Content-Type"), "application/json");
    let mut site = Site::of(Canister::serving(&model(1)));
    let health = site.ask("GET", "/health");
    assert_eq!((health.status_code, body(&health)), (200, told("ready", "\"tiny\"").as_str()));
    site.canister.upgrade();
    let health = site.ask("GET", "/health");
    assert_eq!(health.status_code, 503);
    assert!(
        body(&health).contains("\"status\":\"loading\"") && body(&health).contains("\"loading\":["),
        "{}",
        body(&health)
    );
}

/// The value of a metric without labels.
fn value(metrics: &HttpResponse, name: &str) -> u64 {
    let line = body(metrics).lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[test]
fn metrics_count_what_was_done_and_tell_nothing_of_users() {
    let mut site = Site::of(Canister::serving(&model(1)));
    let at_first = site.ask("GET", "/metrics");
    assert_eq!(value(&at_first, "icllama_generated_tokens_total"), 0);
    let id = site.canister.create(USER, text("a secret"), options(1)).unwrap();
    site.canister.finish(USER, id);
    let metrics = site.ask("GET", "/metrics");
    let told = |name: &str| value(&metrics, name);
    assert_eq!((told("icllama_ready"), told("icllama_sessions"), told("icllama_sessions_running")), (1, 1, 0));
    assert_eq!((told("icllama_generated_tokens_total"), told("icllama_cycles")), (24, 3_000_000_000_000));
    assert!(told("icllama_prompt_tokens_total") > 0 && told("icllama_cache_bytes") > 0);
    assert!(told("icllama_background_total") > 0 && told("icllama_stable_bytes") > 100_000);
    assert!(body(&metrics).contains("icllama_model_info{name=\"tiny\",architecture=\"llama\",sha256=\""));
    assert!(!body(&metrics).contains("secret") && !body(&metrics).contains(&USER.to_text()));
    for line in body(&metrics).lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("icllama_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn base64_is_that_of_the_standard() {
    let cases = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("\u{3ff}\u{fff}", "z7/gv78="),
    ];
    for (plain, encoded) in cases {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
}

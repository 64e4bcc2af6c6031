//! Version 2 of response verification, as the Internet Computer's HTTP Gateway Protocol Specification describes it: the
//! hash of a response, the tree that holds the hashes by path, and the header that shows both to a gateway. The tree is
//! so small that it is always shown whole.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::api::HttpResponse;

/// Name of the header that shows certificate and tree.
pub const HEADER: &str = "IC-Certificate";
/// Name of the header that says what of an answer is certified.
const EXPRESSION_HEADER: &str = "IC-CertificateExpression";
/// Status, all headers and the body are certified, whatever the request was.
const CERTIFIED: &str = "default_certification(ValidationArgs{certification:Certification{\
    no_request_certification:Empty{},response_certification:ResponseCertification{\
    response_header_exclusions:ResponseHeaderList{headers:[]}}}})";
/// Nothing is certified.
const EXEMPT: &str = "default_certification(ValidationArgs{no_certification:Empty{}})";
/// Self-described CBOR.
const CBOR_TAG: [u8; 3] = [0xd9, 0xd9, 0xf7];

type Hash = [u8; 32];

/// A part of the site with its own certification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `/`
    Page,
    /// `/health`
    Health,
    /// `/metrics`
    Metrics,
    /// Every other path.
    Rest,
}

impl Place {
    /// Where the tree has it: `<$>` ends one path, `<*>` stands for all that begin so.
    fn segments(self) -> &'static [&'static str] {
        match self {
            Self::Page => &["http_expr", "", "<$>"],
            Self::Health => &["http_expr", "health", "<$>"],
            Self::Metrics => &["http_expr", "metrics", "<$>"],
            Self::Rest => &["http_expr", "<*>"],
        }
    }

    fn expression(self) -> &'static str {
        match self {
            Self::Page | Self::Rest => CERTIFIED,
            Self::Health | Self::Metrics => EXEMPT,
        }
    }

    /// The response with the header that says how it is certified.
    pub fn mark(self, mut response: HttpResponse) -> HttpResponse {
        response.headers.push((EXPRESSION_HEADER.into(), self.expression().into()));
        response
    }
}

/// A hash tree as the platform's certificates have it, without pruned parts. A node without children is a leaf
/// without content.
#[derive(Debug, Default)]
pub struct Tree {
    children: BTreeMap<Vec<u8>, Tree>,
}

impl Tree {
    /// Admits `response`, which is marked, as an answer at `place`.
    pub fn certify(&mut self, place: Place, response: &HttpResponse) {
        self.at(place).child(b"").child(&response_hash(response));
    }

    /// Admits any answer at `place`.
    pub fn exempt(&mut self, place: Place) {
        self.at(place);
    }

    fn at(&mut self, place: Place) -> &mut Self {
        let path = place.segments().iter().fold(self, |node, segment| node.child(segment.as_bytes()));
        path.child(&sha256(place.expression().as_bytes()))
    }

    fn child(&mut self, label: &[u8]) -> &mut Self {
        self.children.entry(label.into()).or_default()
    }

    /// The root hash.
    pub fn digest(&self) -> Hash {
        let labeled = |(label, child): (&Vec<u8>, &Self)| node_hash("labeled", &[label, &child.digest()]);
        let hashes = self.children.iter().map(labeled);
        hashes.rev().reduce(|right, left| node_hash("fork", &[&left, &right])).unwrap_or_else(|| node_hash("leaf", &[]))
    }

    /// The tree as in a certificate, in CBOR: forks lean to the right, as in [`Self::digest`].
    fn cbor(&self, out: &mut Vec<u8>) {
        let count = self.children.len();
        if count == 0 {
            out.extend([0x82, 0x03, 0x40]);
        }
        for (index, (label, child)) in self.children.iter().enumerate() {
            if index + 1 < count {
                out.extend([0x83, 0x01]);
            }
            out.extend([0x83, 0x02]);
            cbor_string(0x40, label, out);
            child.cbor(out);
        }
    }

    /// The value of [`HEADER`] for an answer at `place`.
    pub fn header(&self, place: Place, certificate: &[u8]) -> String {
        let mut tree = CBOR_TAG.to_vec();
        self.cbor(&mut tree);
        let mut path = CBOR_TAG.to_vec();
        path.push(0x80 | place.segments().len() as u8);
        place.segments().iter().for_each(|segment| cbor_string(0x60, segment.as_bytes(), &mut path));
        let [certificate, tree, path] = [certificate, &tree, &path].map(base64);
        format!("certificate=:{certificate}:, tree=:{tree}:, expr_path=:{path}:, version=2")
    }
}

/// A byte string (`major` 0x40) or text (0x60) of less than 256 bytes.
fn cbor_string(major: u8, string: &[u8], out: &mut Vec<u8>) {
    let len = string.len() as u8;
    if len < 24 {
        out.push(major | len)
    } else {
        out.extend([major | 24, len])
    }
    out.extend(string);
}

/// What the tree says of a response: its status and headers by the platform's hash of maps, then its body.
fn response_hash(response: &HttpResponse) -> Hash {
    let mut status = Vec::new();
    let mut rest = response.status_code;
    while rest >= 0x80 {
        status.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    status.push(rest as u8);
    let pair = |name: &str, value: &[u8]| [sha256(name.as_bytes()), sha256(value)].concat();
    let headers = response.headers.iter().map(|(name, value)| pair(&name.to_ascii_lowercase(), value.as_bytes()));
    let mut pairs: Vec<Vec<u8>> = headers.chain([pair(":ic-cert-status", &status)]).collect();
    pairs.sort_unstable();
    sha256(&[sha256(&pairs.concat()), sha256(&response.body)].concat())
}

fn node_hash(kind: &str, parts: &[&[u8]]) -> Hash {
    let domain = format!("ic-hashtree-{kind}");
    let hasher = Sha256::new().chain_update([domain.len() as u8]).chain_update(&domain);
    parts.iter().fold(hasher, |hasher, part| hasher.chain_update(part)).finalize().into()
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit > group.len() {
                '='
            } else {
                ALPHABET.get(value).map_or('=', |digit| char::from(*digit))
            });
        }
    }
    text
}

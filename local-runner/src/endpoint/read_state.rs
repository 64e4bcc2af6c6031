//! Certificates of the parts of the state tree that a sender may read (interface specification, "Request: Read state").

use candid::Principal;
use ic_transport_types::{EnvelopeContent, ReadStateResponse, RequestId};

use super::Shared;
use super::api::{Refusal, cbor_response, other_kind};
use super::effective::Effective;
use super::envelope::Request;
use crate::http::Response;

/// Most paths of a request, and most labels of a path.
const PATHS: usize = 1_000;
const LABELS: usize = 127;

/// Answers with a certificate of the paths.
pub fn answer(request: &Request, effective: Effective, shared: &Shared) -> Result<Response, Refusal> {
    let EnvelopeContent::ReadState { paths, sender, .. } = &request.content else {
        return Err(other_kind("read_state"));
    };
    if paths.len() > PATHS || paths.iter().any(|path| path.len() > LABELS) {
        return Err(Refusal::Bad(format!("at most {PATHS} paths of at most {LABELS} labels can be read")));
    }
    let labels = |path: &Vec<ic_certification::Label>| path.iter().map(|label| label.as_bytes().to_vec()).collect();
    let paths: Vec<Vec<Vec<u8>>> = paths.iter().map(labels).collect();
    let reader = Reader { sender: *sender, request, effective, shared };
    paths.iter().try_for_each(|path| reader.check(path))?;
    let paths: Vec<_> = paths.iter().map(Vec::as_slice).collect();
    Ok(cbor_response(&ReadStateResponse { certificate: shared.state.certificate(&paths) }))
}

/// Who reads, and where.
struct Reader<'a> {
    sender: Principal,
    request: &'a Request,
    effective: Effective,
    shared: &'a Shared,
}

impl Reader<'_> {
    /// Refuses a path that the sender may not read.
    fn check(&self, path: &[Vec<u8>]) -> Result<(), Refusal> {
        let labels: Vec<_> = path.iter().map(Vec::as_slice).collect();
        match labels[..] {
            [b"time"] | [b"subnet" | b"canister_ranges" | b"api_boundary_nodes", ..] => Ok(()),
            [b"request_status", id] | [b"request_status", id, _] => self.check_request(id),
            [b"canister", id, b"module_hash" | b"controllers"] => self.check_canister(id).map(|_| ()),
            [b"canister", id, b"metadata", section] => {
                let canister = self.check_canister(id)?;
                if self.shared.state.may_read_metadata(canister, section, self.sender) {
                    return Ok(());
                }
                Err(Refusal::Forbidden("only controllers may read this metadata section".into()))
            }
            _ => Err(Refusal::NotFound(format!("the path {} cannot be read", described(path)))),
        }
    }

    /// Only the canister of the path can be read.
    fn check_canister(&self, id: &[u8]) -> Result<Principal, Refusal> {
        match self.effective {
            Effective::Canister(canister) if canister.as_slice() == id => Ok(canister),
            _ => Err(Refusal::Bad("only the canister in the URL can be read".into())),
        }
    }

    /// Only who sent a call may read what became of it.
    fn check_request(&self, id: &[u8]) -> Result<(), Refusal> {
        let id: &[u8; 32] = id.try_into().map_err(|_| Refusal::Bad("a request id has 32 bytes".into()))?;
        let Some((sender, canister)) = self.shared.state.requests.parties(&RequestId::new(id)) else { return Ok(()) };
        if sender != self.sender {
            return Err(Refusal::Forbidden("only its sender may read what became of a call".into()));
        }
        Ok(self.request.check_target(canister)?)
    }
}

/// A path for people: labels as text where they are.
fn described(path: &[Vec<u8>]) -> String {
    let label = |label: &Vec<u8>| match std::str::from_utf8(label) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => text.to_owned(),
        _ => super::encoding::hex(label),
    };
    path.iter().map(|part| format!("/{}", label(part))).collect()
}

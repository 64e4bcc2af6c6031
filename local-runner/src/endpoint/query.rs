//! Queries, answered with the node's signature.

use ic_transport_types::{EnvelopeContent, NodeSignature, QueryResponse, ReplyResponse};

use super::Shared;
use super::api::{Refusal, cbor_response, other_kind};
use super::call::reject_response;
use super::effective::Effective;
use super::envelope::Request;
use super::executor::Query;
use crate::http::Response;

/// Executes a query and signs its answer.
pub async fn answer(request: Request, effective: Effective, shared: &Shared) -> Result<Response, Refusal> {
    let id = request.id;
    let EnvelopeContent::Query { sender, canister_id, method_name, arg, .. } = request.content else {
        return Err(other_kind("query"));
    };
    effective.check(canister_id, &method_name, &arg)?;
    let query = Query { sender, canister: canister_id, method: method_name, arg };
    let mut response = match shared.executor.query(query).await? {
        Ok(arg) => QueryResponse::Replied { reply: ReplyResponse { arg }, signatures: Vec::new() },
        Err(reject) => QueryResponse::Rejected { reject: reject_response(&reject), signatures: Vec::new() },
    };
    let timestamp = shared.state.clock.now_ns();
    let keys = &shared.state.keys;
    let signature = keys.sign_as_node(&response.signable(id, timestamp)).to_vec();
    let (QueryResponse::Replied { signatures, .. } | QueryResponse::Rejected { signatures, .. }) = &mut response;
    signatures.push(NodeSignature { timestamp, signature, identity: keys.node_id() });
    Ok(cbor_response(&response))
}

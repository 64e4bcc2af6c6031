//! Calls to update methods: registered, executed once, and answered when they end in time.

use std::time::Duration;

use hyper::StatusCode;
use ic_transport_types::{EnvelopeContent, RejectCode, RejectResponse, RequestId, TransportCallResponse};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::api::{Refusal, cbor_response, other_kind};
use super::effective::Effective;
use super::envelope::Request;
use super::requests::{Call, Registered, Status};
use crate::http::{Response, text};
use crate::shim::Reject;

/// How long a call may wait for the canister to accept it before that is left to polling, too.
const ACCEPT_TIME: Duration = Duration::from_secs(10);

/// Answers when the call has ended, or after a while that it has not.
pub async fn synchronously(request: Request, effective: Effective, shared: &Shared) -> Result<Response, Refusal> {
    let arrived = Instant::now();
    let id = submit(request, effective, shared)?;
    let accepted = accept(&id, shared).await;
    if let Some(Status::Refused(reject)) = accepted {
        return Ok(refused(&reject));
    }
    let ended = shared.state.requests.wait(&id, Status::is_final);
    Ok(match timeout_at(arrived + shared.sync, ended).await {
        Ok(Some(Status::Refused(reject))) => refused(&reject),
        Ok(Some(status)) if status.is_final() => {
            let path = [b"request_status".to_vec(), id.to_vec()];
            let certificate = shared.state.certificate(&[&path]);
            cbor_response(&TransportCallResponse::Replied { certificate })
        }
        _ => text(StatusCode::ACCEPTED, ""),
    })
}

/// Answers when the canister has accepted or refused the call.
pub async fn asynchronously(request: Request, effective: Effective, shared: &Shared) -> Result<Response, Refusal> {
    let id = submit(request, effective, shared)?;
    Ok(match accept(&id, shared).await {
        Some(Status::Refused(reject)) => refused(&reject),
        _ => text(StatusCode::ACCEPTED, ""),
    })
}

/// Waits until the call was looked at.
async fn accept(id: &RequestId, shared: &Shared) -> Option<Status> {
    let looked_at = shared.state.requests.wait(id, |status| *status != Status::Pending);
    timeout_at(Instant::now() + ACCEPT_TIME, looked_at).await.ok().flatten()
}

/// Has the call executed, unless it came before.
fn submit(request: Request, effective: Effective, shared: &Shared) -> Result<RequestId, Refusal> {
    let id = request.id;
    let EnvelopeContent::Call { ingress_expiry, sender, canister_id, method_name, arg, .. } = request.content else {
        return Err(other_kind("call"));
    };
    effective.check(canister_id, &method_name, &arg)?;
    let call = Call { sender, canister: canister_id, method: method_name, arg, expiry_ns: ingress_expiry };
    match shared.state.requests.register(id, &call) {
        Registered::New => shared.executor.call(id, call)?,
        Registered::Known => {}
        Registered::Full => return Err(Refusal::Busy),
    }
    Ok(id)
}

fn refused(reject: &Reject) -> Response {
    cbor_response(&TransportCallResponse::NonReplicatedRejection(reject_response(reject)))
}

/// A reject in the form of the interface.
pub fn reject_response(reject: &Reject) -> RejectResponse {
    // Code 6 is for calls with a deadline, which users do not make.
    let code = RejectCode::try_from(u64::from(reject.code.number())).unwrap_or(RejectCode::SysTransient);
    RejectResponse {
        reject_code: code,
        reject_message: reject.message.clone(),
        error_code: Some(reject.error_code_name()),
    }
}

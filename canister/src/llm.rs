//! `v0_chat` and `v1_chat` answer in one call, however many messages the answer takes: the caller's call stays open
//! while the canister calls itself, step by step. Each step is a message with its own limits, and other callers' messages
//! come in between.

use std::time::Duration;

use ic_cdk::api::{
    CanisterStatusCode, canister_self, canister_status, msg_caller, msg_deadline, msg_reject, msg_reply, time,
};
use ic_cdk::call::{Call, CallFailed, RejectCode};

use crate::access::CHAT_STEP;
use crate::api::{ChatMessage, Error};
use crate::{by_itself, with, with_mut};

/// Time that the answer itself has to reach a caller who waits for a limited time.
const MARGIN: Duration = Duration::from_secs(15);

/// Answers the present call with what `reply` makes of the model's answer, or rejects it with the reason.
pub async fn answer(messages: Result<Vec<ChatMessage>, Error>, reply: impl FnOnce(String) -> Vec<u8>) {
    match generate(messages).await {
        Ok(text) => msg_reply(reply(text)),
        Err(reason) => msg_reject(reason),
    }
}

async fn generate(messages: Result<Vec<ChatMessage>, Error>) -> Result<String, String> {
    let deadline = msg_deadline().map(|deadline| deadline.get());
    let chat = Chat(with_mut(|service| service.chat_begin(messages?)).map_err(|error| error.to_string())?);
    let mut begun = time();
    while !chat.step().await? {
        let now = time();
        if deadline.is_some_and(|deadline| is_close(deadline, begun, now)) {
            break;
        }
        begun = now;
    }
    with(|service| service.chat_text(chat.0)).map_err(|error| error.to_string())
}

/// Whether another step like the last, which took from `begun` to `now`, could end too late for a caller who waits until
/// `deadline`. All in nanoseconds since 1970.
fn is_close(deadline: u64, begun: u64, now: u64) -> bool {
    now.saturating_add(now.saturating_sub(begun)).saturating_add(MARGIN.as_nanos() as u64) > deadline
}

/// An answer in the making. It is forgotten when dropped, which happens too when a callback traps.
struct Chat(u64);

impl Chat {
    /// One message's worth of somebody's answer; whether this one is over.
    async fn step(&self) -> Result<bool, String> {
        // Waits for as long as it takes: the callee is this canister, which always answers.
        match Call::unbounded_wait(canister_self(), CHAT_STEP).with_arg(self.0).await {
            Ok(stepped) => stepped.candid::<Result<bool, String>>().map_err(|error| error.to_string())?,
            // It trapped, maybe over another's session. A canister that is being stopped rejects its own calls alike, and would
            // never come to its end if it went on calling.
            Err(CallFailed::CallRejected(rejection))
                if rejection.reject_code() == Ok(RejectCode::CanisterError)
                    && canister_status() == CanisterStatusCode::Running =>
            {
                let lost = by_itself(|service| service.chat_step_lost(rejection.reject_message()));
                lost.map(|()| false).map_err(|error| error.to_string())
            }
            Err(CallFailed::CallRejected(rejection)) => Err(rejection.reject_message().to_owned()),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        by_itself(|service| service.chat_end(self.0));
    }
}

/// The method [`CHAT_STEP`].
pub fn step(session_id: u64) -> Result<bool, String> {
    if msg_caller() != canister_self() {
        return Err("only the canister itself calls this; call v1_chat".into());
    }
    with_mut(|service| service.chat_step(session_id)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_begun_only_if_one_like_the_last_leaves_time_for_the_answer() {
        let second = 1_000_000_000;
        assert!(!is_close(300 * second, 100 * second, 130 * second));
        assert!(!is_close(300 * second, 230 * second, 257 * second), "257 + 27 + 15 fit");
        assert!(is_close(300 * second, 230 * second, 258 * second), "258 + 28 + 15 do not");
        assert!(is_close(300 * second, 299 * second, 301 * second), "it is too late already");
        assert!(is_close(second, 0, u64::MAX));
    }
}

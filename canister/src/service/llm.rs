//! `v0_chat` and `v1_chat`: a conversation that is answered at once, as a session that lives as long as the call.

use ic_stable_structures::Memory;

use super::Service;
use crate::api::{
    ChatMessage, Error, LlmMessage, LlmMessageV0, LlmRequest, LlmRole, MessageText, SessionCreateArg, SessionInput,
    SessionOptions,
};
use crate::env::Env;
use crate::session_head::Driver;

/// Tokens of an answer. The interface has no limit of its own, and the caller waits.
pub const MAX_ANSWER_TOKENS: u32 = 512;

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Begins an answer: a session of the caller's, which waits for its turns.
    ///
    /// # Errors
    /// As `session_create`.
    pub fn chat_begin(&mut self, messages: Vec<ChatMessage>) -> Result<u64, Error> {
        let options = SessionOptions { max_tokens: Some(MAX_ANSWER_TOKENS), ..SessionOptions::default() };
        let arg = SessionCreateArg { input: SessionInput::Messages(messages), options };
        Ok(self.create(arg, Driver::Call)?.session_id)
    }

    /// Gives the session whose turn it is its turn, be it that of the answer or another's, for the canister itself, which
    /// admitted the caller when the answer began; whether the answer is over. So every call that waits gets its share of the
    /// canister, and those who make many calls at once get no more than others.
    ///
    /// # Errors
    /// What ended the answer.
    pub fn chat_step(&mut self, session_id: u64) -> Result<bool, Error> {
        if self.chat_is_over(session_id)? {
            return Ok(true);
        }
        self.models.ready(self.directory.get())?;
        self.run_in_background();
        self.chat_is_over(session_id)
    }

    /// Notes that a step trapped, which left no trace: the session whose turn it was gets no more.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn chat_step_lost(&mut self, reason: &str) -> Result<(), Error> {
        self.stop_session_in_turn(format!("the canister trapped: {reason}"))
    }

    fn chat_is_over(&self, session_id: u64) -> Result<bool, Error> {
        let head = self.stored(session_id)?;
        match head.error {
            Some(error) => Err(error),
            None => Ok(head.finish.is_some()),
        }
    }

    /// The text of an answer so far.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn chat_text(&self, session_id: u64) -> Result<String, Error> {
        Ok(self.sessions.store().record(session_id)?.full_text().to_owned())
    }

    /// Forgets an answer.
    pub fn chat_end(&mut self, session_id: u64) {
        if let Ok(head) = self.stored(session_id) {
            self.sessions.delete(session_id, &head, self.env.time_ns());
        }
    }
}

/// The conversation of a `v0_chat`.
pub fn messages_v0(messages: Vec<LlmMessageV0>) -> Vec<ChatMessage> {
    let message = |LlmMessageV0 { role, content }| match role {
        LlmRole::System => ChatMessage::System(MessageText { content }),
        LlmRole::User => ChatMessage::User(MessageText { content }),
        LlmRole::Assistant => ChatMessage::Assistant(MessageText { content }),
    };
    messages.into_iter().map(message).collect()
}

/// The conversation of a `v1_chat`.
///
/// # Errors
/// [`Error::InvalidArgument`] for tools and what comes of them.
pub fn messages_v1(request: LlmRequest) -> Result<Vec<ChatMessage>, Error> {
    if request.tools.is_some_and(|tools| !tools.is_empty()) {
        return Err(no_tools("tools"));
    }
    let message = |message| match message {
        LlmMessage::System { content } => Ok(ChatMessage::System(MessageText { content })),
        LlmMessage::User { content } => Ok(ChatMessage::User(MessageText { content })),
        LlmMessage::Assistant(said) if said.tool_calls.is_empty() => {
            Ok(ChatMessage::Assistant(MessageText { content: said.content.unwrap_or_default() }))
        }
        LlmMessage::Assistant(_) => Err(no_tools("tool_calls")),
        LlmMessage::Tool { .. } => Err(no_tools("messages")),
    };
    request.messages.into_iter().map(message).collect()
}

fn no_tools(field: &str) -> Error {
    let reason = "this canister passes no tools to its model; send the conversation without them";
    Error::InvalidArgument { field: field.into(), reason: reason.into() }
}

//! `v0_chat` and `v1_chat`: a conversation that is answered at once, as a session that lives as long as the call.

use ic_stable_structures::Memory;

use super::Service;
use crate::api::{
    ChatMessage, Error, LlmMessage, LlmMessageV0, LlmRequest, LlmRole, MessageText, SessionAdvanceArg,
    SessionCreateArg, SessionInput, SessionOptions, SessionState,
};
use crate::env::Env;

/// Tokens of an answer. The interface has no limit of its own, and the caller waits.
pub const MAX_ANSWER_TOKENS: u32 = 512;

impl<M: Memory + Clone, E: Env> Service<M, E> {
    /// Begins an answer: a session of the caller's.
    ///
    /// # Errors
    /// As `session_create`.
    pub fn chat_begin(&mut self, messages: Vec<ChatMessage>) -> Result<u64, Error> {
        let options = SessionOptions { max_tokens: Some(MAX_ANSWER_TOKENS), ..SessionOptions::default() };
        let created = self.session_create(SessionCreateArg { input: SessionInput::Messages(messages), options })?;
        Ok(created.session_id)
    }

    /// Goes on with an answer, for the canister itself, which admitted the caller when the answer began; whether it is
    /// over.
    ///
    /// # Errors
    /// As `session_advance`.
    pub fn chat_step(&mut self, session_id: u64) -> Result<bool, Error> {
        let head = self.sessions.store().head(session_id)?.ok_or(Error::SessionNotFound { session_id })?;
        if head.finish.is_none() {
            self.check_heap(session_id, &head)?;
            let arg = SessionAdvanceArg { session_id, max_instructions: None, max_tokens: None, profile: None };
            let advanced = self.advance(head, arg)?;
            let state = self.status_of(session_id, &advanced.head).state;
            return Ok(matches!(state, SessionState::Finished(_)));
        }
        Ok(true)
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
        if let Ok(Some(head)) = self.sessions.store().head(session_id) {
            self.sessions.delete(session_id, &head.owner);
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

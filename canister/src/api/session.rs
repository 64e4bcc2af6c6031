//! Types of the `session_*` methods.

use candid::{CandidType, Principal};
use serde::{Deserialize, Serialize};

use super::Error;

/// The words of a chat message.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct MessageText {
    /// Plain text.
    pub content: String,
}

/// One message of a chat.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum ChatMessage {
    /// Instructions for the whole chat; the first message if present.
    System(MessageText),
    /// What the user says.
    User(MessageText),
    /// What the model said earlier.
    Assistant(MessageText),
    /// Calls of tools that the model made earlier, with what it said.
    AssistantToolCalls(ToolCalls),
    /// What a tool answered.
    Tool(ToolAnswer),
}

/// Calls of tools.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ToolCalls {
    /// What was said besides; often nothing.
    pub content: String,
    /// The calls, a JSON array in the form that the model's template knows: usually
    /// `[{"type": "function", "function": {"name": ..., "arguments": {...}}}]`.
    pub tool_calls: String,
}

/// The answer of a tool.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ToolAnswer {
    /// Its words.
    pub content: String,
    /// Which call it answers, for templates that tell.
    pub tool_call_id: Option<String>,
    /// Name of the tool, for templates that tell.
    pub name: Option<String>,
}

/// What the model shall continue.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum SessionInput {
    /// Text as it is; control tokens spelled in it stay text unless the option `parse_special` is set.
    Text(String),
    /// A chat, rendered by the template that `model_status` tells of; control tokens spelled in it stay text.
    Messages(Vec<ChatMessage>),
    /// Token ids as they are; nothing is added.
    Tokens(Vec<u32>),
}

/// A form that every answer of a session has.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Grammar {
    /// What a grammar in llama.cpp's notation (GBNF) describes, at most 64 KiB.
    Gbnf(String),
    /// One JSON object.
    Json,
}

/// How to generate. Everything absent has the default that is named.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct SessionOptions {
    /// Tokens to generate at most; 128.
    pub max_tokens: Option<u32>,
    /// 0 picks the likeliest token; 0.8.
    pub temperature: Option<f32>,
    /// Only the k likeliest tokens, 0 for all; 40.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability; 0.95.
    pub top_p: Option<f32>,
    /// Only tokens at least this likely relative to the likeliest; 0.05.
    pub min_p: Option<f32>,
    /// Divides the logits of recent tokens, 1 for none; 1.
    pub repeat_penalty: Option<f32>,
    /// How many tokens count as recent; 64.
    pub repeat_last_n: Option<u32>,
    /// Subtracted per recent occurrence; 0.
    pub frequency_penalty: Option<f32>,
    /// Subtracted once if recent; 0.
    pub presence_penalty: Option<f32>,
    /// Seed of the random numbers; 0.
    pub seed: Option<u64>,
    /// Generation ends before any of these strings; none.
    pub stop: Option<Vec<String>>,
    /// Go on after an end-of-generation token; false.
    pub ignore_eos: Option<bool>,
    /// Keep a 64-bit digest of all logits per generated token, for `session_digests`; false.
    pub audit: Option<bool>,
    /// Bits of keys and values, 16 or 8: decides heap and bits of the answer; as the canister's settings say.
    pub kv_cache_bits: Option<u8>,
    /// Prompt tokens per batch; changes cost, never results.
    pub prefill_batch: Option<u32>,
    /// What every answer has to look like; anything.
    pub grammar: Option<Grammar>,
    /// Keep the log probability of every generated token, and of so many (0 to 20) that were likeliest in its place,
    /// for `session_logprobs`; none.
    pub logprobs: Option<u32>,
    /// Obey control tokens spelled in input that is `Text`; false.
    pub parse_special: Option<bool>,
    /// Functions that the model may call, for the chat template: a JSON array; none.
    pub tools: Option<String>,
    /// Whether the model shall think before it answers, for chat templates that ask; as the template has it.
    pub enable_thinking: Option<bool>,
    /// More variables for the chat template: a JSON object; none.
    pub chat_template_kwargs: Option<String>,
    /// What the chat template takes for now, in seconds since 1970 in the client's time zone; the canister's time, UTC.
    pub now_seconds: Option<i64>,
}

/// Makes a session.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionCreateArg {
    /// What to continue.
    pub input: SessionInput,
    /// How.
    pub options: SessionOptions,
}

/// A session was made; nothing is computed yet.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCreateOk {
    /// Names the session in the other calls.
    pub session_id: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
}

/// Names a session.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionIdArg {
    /// From `session_create`.
    pub session_id: u64,
}

/// Computes as much as one call allows.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionAdvanceArg {
    /// From `session_create`.
    pub session_id: u64,
    /// Stop after about this many instructions; the canister's own ceiling if absent.
    pub max_instructions: Option<u64>,
    /// Stop after this many new tokens.
    pub max_tokens: Option<u32>,
    /// Tell where the instructions went; false.
    pub profile: Option<bool>,
}

/// Why generation ended.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said that it is done.
    EndOfGeneration,
    /// A stop string appeared.
    StopString,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// `session_cancel` was called.
    Cancelled,
    /// No token follows the grammar, or finding one takes too much; the call that found so was refused with the reason.
    GrammarFailed,
}

/// What a session is doing.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Tokens wait to be computed before the next one can be generated: the prompt, or the whole
    /// history after an upgrade or an eviction.
    Prefill,
    /// The next step generates a token.
    Generating,
    /// Over, until something is appended.
    Finished(FinishReason),
}

/// Counts and state of a session.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionStatus {
    /// The session.
    pub session_id: u64,
    /// What it is doing.
    pub state: SessionState,
    /// Whether the canister advances it by itself (`session_run`).
    pub running: bool,
    /// Tokens that were given: the prompt and what was appended.
    pub prompt_tokens: u32,
    /// Tokens whose keys and values are in the heap.
    pub cached_tokens: u32,
    /// Tokens generated since creation.
    pub generated_tokens: u32,
    /// Tokens that may still be generated.
    pub remaining_tokens: u32,
    /// Bytes of text generated since creation.
    pub text_bytes: u64,
    /// Bits of its keys and values, 16 or 8.
    pub kv_cache_bits: u8,
    /// What stopped `session_run`, if something did.
    pub error: Option<Error>,
}

/// What one `session_advance` did.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionProgress {
    /// Where the session is now.
    pub status: SessionStatus,
    /// The new text, whole characters only.
    pub text: String,
    /// Byte index of `text` in all generated text.
    pub text_from: u64,
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Instructions this call used.
    pub instructions: u64,
    /// Where they went, if that was asked for and something was computed.
    pub profile: Option<Vec<ProfilePart>>,
}

/// Instructions of one part of a call, those for pages that it was the first to touch included.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ProfilePart {
    /// Name of the part.
    pub part: String,
    /// What it used, those for reading the counter included.
    pub instructions: u64,
    /// How often the counter was read in it.
    pub reads: u64,
}

/// Asks for generated text.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOutputArg {
    /// From `session_create`.
    pub session_id: u64,
    /// Byte index in all generated text: 0 at first, then `next` of the last answer.
    pub from: u64,
}

/// Generated text.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionOutputOk {
    /// Where the session is now.
    pub status: SessionStatus,
    /// Text from `from` on, at most 500,000 bytes.
    pub text: String,
    /// Where to ask from next; equal to `text_bytes` if this was all.
    pub next: u64,
}

/// Goes on with a session: a new turn of a chat, or more text.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionAppendArg {
    /// From `session_create`.
    pub session_id: u64,
    /// What to append. Messages close the model's turn first, as its template does.
    pub input: SessionInput,
    /// Tokens to generate at most from here on; as at creation if absent.
    pub max_tokens: Option<u32>,
}

/// What was appended.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionAppendOk {
    /// Where the session is now.
    pub status: SessionStatus,
    /// Tokens that were appended.
    pub appended_tokens: u32,
}

/// Begins a finished session anew with other input, keeping what was computed of the tokens that both begin with.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionRestartArg {
    /// From `session_create`.
    pub session_id: u64,
    /// What to continue: of a chat all messages, the new one included.
    pub input: SessionInput,
    /// How; nothing is taken over from before.
    pub options: SessionOptions,
}

/// What is left to be computed.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionRestartOk {
    /// Where the session is now.
    pub status: SessionStatus,
    /// Tokens of the new prompt of which keys and values were kept.
    pub kept_tokens: u32,
}

/// The logits behind the last generated token.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SessionLogitsOk {
    /// One f32 per vocabulary entry, little endian.
    #[serde(with = "serde_bytes")]
    pub logits: Vec<u8>,
}

/// Asks for a part of a list of the session.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPageArg {
    /// From `session_create`.
    pub session_id: u64,
    /// First index; 0 if absent.
    pub from: Option<u32>,
    /// At most this many; 10,000 if absent, never more than 50,000.
    pub limit: Option<u32>,
}

/// Token ids in order: prompt, generated, appended, generated and so on.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SessionTokensOk {
    /// The tokens asked for.
    pub tokens: Vec<u32>,
    /// How many there are in all.
    pub total: u32,
}

/// Digests of logits, one per sampled position, in order. Empty unless the option `audit` was set.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SessionDigestsOk {
    /// The digests asked for.
    pub digests: Vec<u64>,
    /// How many there are in all.
    pub total: u32,
}

/// A token and how probable it was.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability under the model's own logits.
    pub logprob: f32,
}

/// A generated token, and the likeliest ones in its place.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was chosen.
    pub chosen: TokenLogprob,
    /// As many as the option `logprobs` says, the likeliest first.
    pub likeliest: Vec<TokenLogprob>,
}

/// Log probabilities, one entry per generated token, in order. Empty unless the option `logprobs` was set.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionLogprobsOk {
    /// Those asked for, at most 10,000.
    pub logprobs: Vec<TokenLogprobs>,
    /// How many there are in all.
    pub total: u32,
}

/// Lists the caller's sessions.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionListArg {
    /// Only sessions after this id: `next` of the last answer.
    pub after: Option<u64>,
    /// At most this many; 100 if absent, never more than 1,000.
    pub limit: Option<u32>,
    /// Everybody's sessions; for controllers only.
    pub all: Option<bool>,
}

/// One session in a list.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionSummary {
    /// Who made it.
    pub owner: Principal,
    /// Creation, nanoseconds since 1970.
    pub created_ns: u64,
    /// Last change, nanoseconds since 1970.
    pub updated_ns: u64,
    /// Counts and state.
    pub status: SessionStatus,
}

/// Sessions by ascending id.
#[derive(CandidType, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SessionListOk {
    /// The sessions.
    pub sessions: Vec<SessionSummary>,
    /// Ask for more after this id; absent if these were the last.
    pub next: Option<u64>,
}

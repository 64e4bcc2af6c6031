//! Arguments of the right type and any content, as candid.

use ::candid::{CandidType, Principal, encode_one};
use arbitrary::{Arbitrary, Result, Unstructured};
use canister::api::*;
use sha2::{Digest, Sha256};

use super::FILE;
use crate::pieces::{float, number, one_of, several, short_text, words};

const TEXTS: [&str; 10] = ["hello", " world", "<|im_end|>", "<|im_start|>", "\u{FDD0}", "日本", "\0", "{}", "[]", "\n"];
const GRAMMARS: [&str; 5] = ["root ::= \"a\"*", "root ::= [a-z]+ \" \"?", "root ::= root", "root ::= \"\"", "("];

type Input<'i, 'u> = &'i mut Unstructured<'u>;

/// What arguments may tell of: sessions and an upload that there are.
pub(super) struct Known {
    pub(super) sessions: Vec<u64>,
    pub(super) upload: Option<u64>,
}

/// An argument of `method`.
pub(super) fn message(input: Input<'_, '_>, method: &str, known: &Known) -> Result<Vec<u8>> {
    Ok(match method {
        "upload_begin" => encoded(&upload_begin(input)?),
        "upload_chunk" => encoded(&upload_chunk(input, known)?),
        "upload_commit" => {
            let upload_id = upload_id(input, known)?;
            encoded(&UploadCommitArg { upload_id, max_instructions: maybe(input, number)? })
        }
        "upload_abort" => encoded(&UploadIdArg { upload_id: upload_id(input, known)? }),
        "upload_status" => encoded(&UploadStatusArg { from: maybe(input, number)?, limit: maybe(input, small)? }),
        "model_load_step" => encoded(&ModelLoadStepArg { max_instructions: maybe(input, number)? }),
        "session_create" => encoded(&SessionCreateArg { input: session_input(input)?, options: options(input)? }),
        "session_restart" => {
            let session_id = session_id(input, known)?;
            encoded(&SessionRestartArg { session_id, input: session_input(input)?, options: options(input)? })
        }
        "session_append" => {
            let (session_id, max_tokens) = (session_id(input, known)?, maybe(input, small)?);
            encoded(&SessionAppendArg { session_id, input: session_input(input)?, max_tokens })
        }
        "session_advance" => encoded(&SessionAdvanceArg {
            session_id: session_id(input, known)?,
            max_instructions: maybe(input, number)?,
            max_tokens: maybe(input, small)?,
            profile: maybe(input, bool::arbitrary)?,
        }),
        "session_output" => encoded(&SessionOutputArg { session_id: session_id(input, known)?, from: number(input)? }),
        "session_tokens" | "session_digests" | "session_logprobs" => encoded(&SessionPageArg {
            session_id: session_id(input, known)?,
            from: maybe(input, small)?,
            limit: maybe(input, small)?,
        }),
        "session_list" => encoded(&SessionListArg {
            after: maybe(input, number)?,
            limit: maybe(input, small)?,
            all: maybe(input, bool::arbitrary)?,
        }),
        "http_request" => encoded(&http_request(input)?),
        "v1_chat" => encoded(&LlmRequest {
            model: short_text(input)?,
            messages: several(input, 3, |input| Ok(LlmMessage::User { content: text(input)? }))?,
            tools: None,
        }),
        _ => encoded(&SessionIdArg { session_id: session_id(input, known)? }),
    })
}

fn encoded<T: CandidType>(argument: &T) -> Vec<u8> {
    encode_one(argument).unwrap()
}

fn maybe<'u, T>(input: Input<'_, 'u>, one: impl FnOnce(&mut Unstructured<'u>) -> Result<T>) -> Result<Option<T>> {
    if input.ratio(1, 3)? { Ok(None) } else { one(input).map(Some) }
}

/// A number of 32 bits, often a small one.
fn small(input: Input<'_, '_>) -> Result<u32> {
    if input.ratio(1, 2)? { Ok(u32::from(u8::arbitrary(input)? % 20)) } else { Ok(number(input)? as u32) }
}

fn text(input: Input<'_, '_>) -> Result<String> {
    let text = words(input, 6, &TEXTS)?;
    if input.ratio(1, 16)? { Ok(text.repeat(4_000)) } else { Ok(text) }
}

fn session_id(input: Input<'_, '_>, known: &Known) -> Result<u64> {
    if known.sessions.is_empty() || input.ratio(1, 8)? { number(input) } else { Ok(*input.choose(&known.sessions)?) }
}

fn upload_id(input: Input<'_, '_>, known: &Known) -> Result<u64> {
    match known.upload {
        Some(id) if input.ratio(7, 8)? => Ok(id),
        _ => number(input),
    }
}

/// A file of a few bytes, or one that cannot be.
fn upload_begin(input: Input<'_, '_>) -> Result<UploadBeginArg> {
    let (name, good) = (short_text(input)?, input.ratio(3, 4)?);
    let total_bytes = if good { FILE.len() as u64 } else { number(input)? };
    let sha256 = if good { Sha256::digest(FILE).to_vec() } else { short_text(input)?.into_bytes() };
    Ok(UploadBeginArg { name, total_bytes, sha256 })
}

/// A part of that file, or bytes of any other.
fn upload_chunk(input: Input<'_, '_>, known: &Known) -> Result<UploadChunkArg> {
    let upload_id = upload_id(input, known)?;
    let start = input.int_in_range(0..=FILE.len())?;
    let end = input.int_in_range(start..=FILE.len())?;
    if input.ratio(3, 4)? {
        return Ok(UploadChunkArg { upload_id, offset: start as u64, bytes: FILE[start..end].to_vec() });
    }
    Ok(UploadChunkArg { upload_id, offset: number(input)?, bytes: vec![7; end - start] })
}

fn session_input(input: Input<'_, '_>) -> Result<SessionInput> {
    Ok(match input.int_in_range(0..=2u8)? {
        0 => SessionInput::Text(text(input)?),
        1 => SessionInput::Messages(several(input, 3, chat_message)?),
        _ => SessionInput::Tokens(several(input, 12, small)?),
    })
}

fn chat_message(input: Input<'_, '_>) -> Result<ChatMessage> {
    let content = text(input)?;
    Ok(match input.int_in_range(0..=4u8)? {
        0 => ChatMessage::System(MessageText { content }),
        1 => ChatMessage::Assistant(MessageText { content }),
        2 => ChatMessage::AssistantToolCalls(ToolCalls { content, tool_calls: json(input)? }),
        3 => ChatMessage::Tool(ToolAnswer {
            content,
            tool_call_id: maybe(input, short_text)?,
            name: maybe(input, short_text)?,
        }),
        _ => ChatMessage::User(MessageText { content }),
    })
}

fn json(input: Input<'_, '_>) -> Result<String> {
    words(input, 6, &["[", "]", "{", "}", "\"a\"", ":", ",", "1e999", "null", "{\"type\":\"function\"}"])
}

fn options(input: Input<'_, '_>) -> Result<SessionOptions> {
    if input.ratio(1, 3)? {
        return Ok(SessionOptions { max_tokens: Some(4), ..SessionOptions::default() });
    }
    let grammar = |input: &mut Unstructured<'_>| {
        if input.ratio(1, 4)? { Ok(Grammar::Json) } else { Ok(Grammar::Gbnf(one_of(input, &GRAMMARS)?.into())) }
    };
    Ok(SessionOptions {
        max_tokens: maybe(input, small)?,
        temperature: maybe(input, sane)?,
        top_k: maybe(input, small)?,
        top_p: maybe(input, sane)?,
        min_p: maybe(input, sane)?,
        repeat_penalty: maybe(input, sane)?,
        repeat_last_n: maybe(input, small)?,
        frequency_penalty: maybe(input, sane)?,
        presence_penalty: maybe(input, sane)?,
        seed: maybe(input, number)?,
        stop: maybe(input, |input| several(input, 3, short_text))?,
        ignore_eos: maybe(input, bool::arbitrary)?,
        audit: maybe(input, bool::arbitrary)?,
        kv_cache_bits: maybe(input, |input| Ok(*input.choose(&[8, 16, 0, 255])?))?,
        prefill_batch: maybe(input, small)?,
        grammar: if input.ratio(1, 4)? { Some(grammar(input)?) } else { None },
        logprobs: maybe(input, small)?,
        parse_special: maybe(input, bool::arbitrary)?,
        tools: if input.ratio(1, 4)? { Some(json(input)?) } else { None },
        enable_thinking: maybe(input, bool::arbitrary)?,
        chat_template_kwargs: if input.ratio(1, 4)? { Some(json(input)?) } else { None },
        now_seconds: maybe(input, |input| Ok(number(input)? as i64))?,
    })
}

/// A float that is in range more often than not, so that options are looked at together.
fn sane(input: Input<'_, '_>) -> Result<f32> {
    if input.ratio(7, 8)? { Ok(f32::from(u8::arbitrary(input)?) / 255.0) } else { float(input) }
}

fn http_request(input: Input<'_, '_>) -> Result<HttpRequest> {
    Ok(HttpRequest {
        method: one_of(input, &["GET", "HEAD", "POST", "get", ""])?.into(),
        url: words(input, 3, &["/", "/metrics", "/health", "?a=b", "%2e", "..", "//"])?,
        headers: several(input, 2, |input| Ok((short_text(input)?, short_text(input)?)))?,
        body: short_text(input)?.into_bytes(),
        certificate_version: maybe(input, u16::arbitrary)?,
    })
}

/// Settings, most of them in range.
pub(super) fn config_update(input: Input<'_, '_>) -> Result<ConfigUpdate> {
    let access =
        [GenerateAccess::Controllers, GenerateAccess::AllowList, GenerateAccess::Authenticated, GenerateAccess::Anyone];
    let principals = |input: &mut Unstructured<'_>| {
        several(input, 2, |input| Ok(Principal::from_slice(&[3, u8::arbitrary(input)? % 4])))
    };
    Ok(ConfigUpdate {
        generate_access: if input.ratio(1, 4)? { Some(*input.choose(&access)?) } else { None },
        operators: if input.ratio(1, 8)? { Some(principals(input)?) } else { None },
        users: if input.ratio(1, 8)? { Some(principals(input)?) } else { None },
        max_instructions: if input.ratio(1, 4)? { Some(number(input)?) } else { None },
        cache_heap_bytes: if input.ratio(1, 4)? { Some(number(input)?) } else { None },
        max_heap_bytes: if input.ratio(1, 4)? { Some(number(input)?) } else { None },
        max_sessions: if input.ratio(1, 4)? { Some(small(input)?) } else { None },
        max_sessions_per_principal: if input.ratio(1, 4)? { Some(small(input)?) } else { None },
        max_tokens_per_day: if input.ratio(1, 4)? { Some(number(input)?) } else { None },
        session_ttl_seconds: if input.ratio(1, 4)? { Some(number(input)?) } else { None },
        max_input_bytes: if input.ratio(1, 4)? { Some(small(input)?) } else { None },
        max_session_tokens: if input.ratio(1, 4)? { Some(small(input)?) } else { None },
        chat_template: if input.ratio(1, 4)? {
            Some(words(input, 3, &["{{ 1 }}", "chatml", "{% if %}", "{{"])?)
        } else {
            None
        },
        ..ConfigUpdate::default()
    })
}

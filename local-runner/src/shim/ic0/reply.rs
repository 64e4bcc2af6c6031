//! Answering the call: at most once, by a reply built up in pieces or by a reject.

use super::super::trap::Trap;
use super::context::Context;

fn check_unanswered(c: &Context<'_>) -> Result<(), Trap> {
    if c.input.answered || c.effects.answer.is_some() {
        return Err(c.violation("the call is already replied"));
    }
    Ok(())
}

fn check_size(c: &Context<'_>, bytes: u64) -> Result<(), Trap> {
    let max = c.ceilings.reply_bytes;
    if bytes > max {
        return Err(c.violation(format_args!("application payload size ({bytes}) cannot be larger than {max}.")));
    }
    Ok(())
}

pub(super) fn msg_reply_data_append(c: &mut Context<'_>, src: u32, len: u32) -> Result<(), Trap> {
    check_unanswered(c)?;
    check_size(c, c.effects.reply_data.len() as u64 + u64::from(len))?;
    c.with_bytes(src, len, |bytes, exec| exec.effects.reply_data.extend_from_slice(bytes))
}

pub(super) fn msg_reply(c: &mut Context<'_>) -> Result<(), Trap> {
    check_unanswered(c)?;
    let data = std::mem::take(&mut c.effects.reply_data);
    c.effects.answer = Some(Ok(data));
    Ok(())
}

pub(super) fn msg_reject(c: &mut Context<'_>, src: u32, len: u32) -> Result<(), Trap> {
    check_unanswered(c)?;
    check_size(c, len.into())?;
    let text = c.read_text(src, len)?;
    c.effects.answer = Some(Err(text));
    Ok(())
}

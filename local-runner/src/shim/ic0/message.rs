//! What the message brought: argument, caller, method name, reject, deadline.

use super::super::execution::Execution;
use super::super::trap::Trap;
use super::context::{Context, size};

fn reject_text(exec: &Execution) -> &[u8] {
    exec.input.reject.as_ref().map_or(&[], |(_, text)| text.as_bytes())
}

pub(super) fn msg_arg_data_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(&c.input.arg))
}

pub(super) fn msg_arg_data_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |exec| &exec.input.arg)
}

pub(super) fn msg_caller_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(c.input.caller.as_slice()))
}

pub(super) fn msg_caller_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |exec| exec.input.caller.as_slice())
}

/// Callers of the shim attach no caller info, so its data and signer are empty.
pub(super) fn msg_caller_info_size(_: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(0)
}

pub(super) fn msg_caller_info_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |_| &[])
}

pub(super) fn msg_method_name_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(c.input.method.as_bytes()))
}

pub(super) fn msg_method_name_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |exec| exec.input.method.as_bytes())
}

pub(super) fn msg_reject_code(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(c.input.reject.as_ref().map_or(0, |(code, _)| code.number()))
}

pub(super) fn msg_reject_msg_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(reject_text(c)))
}

pub(super) fn msg_reject_msg_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), reject_text)
}

pub(super) fn msg_deadline(c: &mut Context<'_>) -> Result<u64, Trap> {
    Ok(c.input.deadline_ns)
}

pub(super) fn accept_message(c: &mut Context<'_>) -> Result<(), Trap> {
    if c.effects.accepted_message {
        return Err(c.violation("the function was already called"));
    }
    c.effects.accepted_message = true;
    Ok(())
}

//! What a canister may ask about itself, its environment and the replica.

use candid::Principal;

use super::super::trap::Trap;
use super::context::{Context, size};

pub(super) fn canister_self_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(c.facts.canister.as_slice()))
}

pub(super) fn canister_self_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |exec| exec.facts.canister.as_slice())
}

pub(super) fn subnet_self_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(c.facts.subnet.as_slice()))
}

pub(super) fn subnet_self_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |exec| exec.facts.subnet.as_slice())
}

pub(super) fn canister_status(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(c.facts.status)
}

pub(super) fn canister_version(c: &mut Context<'_>) -> Result<u64, Trap> {
    Ok(c.facts.version)
}

pub(super) fn in_replicated_execution(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(c.mode.is_replicated().into())
}

pub(super) fn is_controller(c: &mut Context<'_>, src: u32, len: u32) -> Result<u32, Trap> {
    let bytes = c.read_bytes(src, len)?;
    let principal = Principal::try_from_slice(&bytes)
        .map_err(|error| c.violation(format_args!("the argument is not a principal: {error}")))?;
    Ok(c.facts.controllers.contains(&principal).into())
}

pub(super) fn root_key_size(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(size(&c.facts.root_key))
}

pub(super) fn root_key_copy(c: &mut Context<'_>, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    c.copy_out((dst, offset, len), |exec| &exec.facts.root_key)
}

pub(super) fn env_var_count(c: &mut Context<'_>) -> Result<u32, Trap> {
    Ok(u32::try_from(c.facts.environment.len()).unwrap_or(u32::MAX))
}

/// Name of the environment variable at `index`, in alphabetical order.
fn variable_name(c: &Context<'_>, index: u32) -> Result<String, Trap> {
    let count = c.facts.environment.len();
    let name = c.facts.environment.keys().nth(index as usize).cloned();
    name.ok_or_else(|| c.violation(format_args!("index {index} is out of bounds, there are {count} variables")))
}

fn variable_value(c: &mut Context<'_>, src: u32, len: u32) -> Result<String, Trap> {
    let name = c.read_text(src, len)?;
    let value = c.facts.environment.get(&name).cloned();
    value.ok_or_else(|| c.violation(format_args!("environment variable '{name}' not found")))
}

pub(super) fn env_var_name_size(c: &mut Context<'_>, index: u32) -> Result<u32, Trap> {
    Ok(size(variable_name(c, index)?.as_bytes()))
}

pub(super) fn env_var_name_copy(c: &mut Context<'_>, index: u32, dst: u32, offset: u32, len: u32) -> Result<(), Trap> {
    let name = variable_name(c, index)?;
    copy_text(c, &name, (dst, offset, len))
}

pub(super) fn env_var_name_exists(c: &mut Context<'_>, src: u32, len: u32) -> Result<u32, Trap> {
    let name = c.read_text(src, len)?;
    Ok(c.facts.environment.contains_key(&name).into())
}

pub(super) fn env_var_value_size(c: &mut Context<'_>, src: u32, len: u32) -> Result<u32, Trap> {
    Ok(size(variable_value(c, src, len)?.as_bytes()))
}

pub(super) fn env_var_value_copy(
    c: &mut Context<'_>,
    (src, name_len): (u32, u32),
    range: (u32, u32, u32),
) -> Result<(), Trap> {
    let value = variable_value(c, src, name_len)?;
    copy_text(c, &value, range)
}

fn copy_text(c: &mut Context<'_>, text: &str, (dst, offset, len): (u32, u32, u32)) -> Result<(), Trap> {
    let end = (offset as usize).checked_add(len as usize);
    let Some(part) = end.and_then(|end| text.as_bytes().get(offset as usize..end)) else {
        let size = text.len();
        return Err(c.violation(format_args!("src={offset} + length={len} exceeds the slice size={size}")));
    };
    c.write_bytes(dst, part)
}

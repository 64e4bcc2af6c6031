//! The system API: every `ic0` function of a 32-bit module, as a host function of the engine.
//!
//! A call is charged first (`costs::SYSTEM_FUNCTIONS`), then checked against the mode (`mode::allowed_modes`), then
//! executed. The functions read and change only the [`Execution`] and the caller's heap.

use super::costs::system_function;
use super::engine::Context as EngineContext;
use super::execution::Execution;
use super::mode::allowed_modes;

mod call;
mod canister;
mod context;
mod control;
mod cost;
mod cycles;
mod message;
mod reply;
mod stable;

use context::{Caller, Context};

/// A function that the price list does not contain; tests hold that there is none.
#[derive(Debug, thiserror::Error)]
#[error("the price list has no ic0.{0}; add it to SYSTEM_FUNCTIONS")]
struct Unpriced(&'static str);

/// Defines host functions: `name(parameters) [bytes that are charged] -> result = body`.
macro_rules! define {
    ($linker:expr; $($name:ident ($($arg:ident: $ty:ty),*) [$bytes:expr] $(-> $result:ty)? = $body:expr;)*) => {$({
        let name = stringify!($name);
        let function = system_function(name).ok_or(Unpriced(name)).map_err(wasmtime::Error::new)?;
        let modes = allowed_modes(name);
        $linker.func_wrap("ic0", name, move |caller: Caller<'_>, $($arg: $ty),*| {
            #[allow(unused_mut, reason = "not every function changes something")]
            let mut context = Context::enter(function, modes, caller, u64::from($bytes))?;
            let body: fn(&mut Context<'_>, $($ty),*) -> _ = $body;
            let result = body(&mut context, $($arg),*);
            result.map_err(wasmtime::Error::new) as wasmtime::Result<define!(@result $($result)?)>
        })?;
    })*};
    (@result) => { () };
    (@result $result:ty) => { $result };
}

/// Defines all functions.
///
/// # Errors
/// If the linker already has one of them.
pub fn link(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    link_message(linker)?;
    link_call(linker)?;
    link_cycles(linker)?;
    link_canister(linker)?;
    link_stable(linker)?;
    link_control(linker)
}

fn link_message(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    use message::*;
    define! { linker;
        msg_arg_data_size() [0u32] -> u32 = msg_arg_data_size;
        msg_arg_data_copy(dst: u32, offset: u32, len: u32) [len] = msg_arg_data_copy;
        msg_caller_size() [0u32] -> u32 = msg_caller_size;
        msg_caller_copy(dst: u32, offset: u32, len: u32) [len] = msg_caller_copy;
        msg_caller_info_data_size() [0u32] -> u32 = msg_caller_info_size;
        msg_caller_info_data_copy(dst: u32, offset: u32, len: u32) [len] = msg_caller_info_copy;
        msg_caller_info_signer_size() [0u32] -> u32 = msg_caller_info_size;
        msg_caller_info_signer_copy(dst: u32, offset: u32, len: u32) [len] = msg_caller_info_copy;
        msg_method_name_size() [0u32] -> u32 = msg_method_name_size;
        msg_method_name_copy(dst: u32, offset: u32, len: u32) [len] = msg_method_name_copy;
        msg_reject_code() [0u32] -> u32 = msg_reject_code;
        msg_reject_msg_size() [0u32] -> u32 = msg_reject_msg_size;
        msg_reject_msg_copy(dst: u32, offset: u32, len: u32) [len] = msg_reject_msg_copy;
        msg_deadline() [0u32] -> u64 = msg_deadline;
        accept_message() [0u32] = accept_message;
        msg_reply_data_append(src: u32, len: u32) [len] = reply::msg_reply_data_append;
        msg_reply() [0u32] = reply::msg_reply;
        msg_reject(src: u32, len: u32) [len] = reply::msg_reject;
    }
    Ok(())
}

fn link_call(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    use call::*;
    define! { linker;
        call_new(
            callee: u32, callee_len: u32, name: u32, name_len: u32,
            reply: u32, reply_env: u32, reject: u32, reject_env: u32
        ) [u64::from(callee_len) + u64::from(name_len)] = |c, callee, callee_len, name, name_len, a, b, d, e| {
            call_new(c, (callee, callee_len), (name, name_len), [a, b, d, e])
        };
        call_on_cleanup(function: u32, environment: u32) [0u32] = call_on_cleanup;
        call_data_append(src: u32, len: u32) [len] = call_data_append;
        call_with_best_effort_response(seconds: u32) [0u32] = call_with_best_effort_response;
        call_cycles_add(amount: u64) [0u32] = call_cycles_add;
        call_cycles_add128(high: u64, low: u64) [0u32] = call_cycles_add128;
        call_perform() [0u32] -> u32 = call_perform;
    }
    Ok(())
}

fn link_cycles(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    use cycles::*;
    define! { linker;
        msg_cycles_available() [0u32] -> u64 = msg_cycles_available;
        msg_cycles_available128(dst: u32) [0u32] = msg_cycles_available128;
        msg_cycles_refunded() [0u32] -> u64 = msg_cycles_refunded;
        msg_cycles_refunded128(dst: u32) [0u32] = msg_cycles_refunded128;
        msg_cycles_accept(most: u64) [0u32] -> u64 = msg_cycles_accept;
        msg_cycles_accept128(high: u64, low: u64, dst: u32) [0u32] = msg_cycles_accept128;
        cycles_burn128(high: u64, low: u64, dst: u32) [0u32] = cycles_burn128;
        canister_cycle_balance() [0u32] -> u64 = canister_cycle_balance;
        canister_cycle_balance128(dst: u32) [0u32] = canister_cycle_balance128;
        canister_liquid_cycle_balance128(dst: u32) [0u32] = canister_liquid_cycle_balance128;
        cost_call(name_len: u64, arg_len: u64, dst: u32) [0u32] = cost::cost_call;
        cost_create_canister(dst: u32) [0u32] = cost::cost_create_canister;
        cost_http_request(request: u64, response: u64, dst: u32) [0u32] = cost::cost_http_request;
        cost_http_request_v2(src: u32, len: u32, dst: u32) [0u32] = cost::cost_http_request_v2;
        cost_sign_with_ecdsa(src: u32, len: u32, kind: u32, dst: u32) [len] -> u32 = cost::cost_one_curve;
        cost_sign_with_schnorr(src: u32, len: u32, kind: u32, dst: u32) [len] -> u32 = cost::cost_schnorr;
        cost_vetkd_derive_key(src: u32, len: u32, kind: u32, dst: u32) [len] -> u32 = cost::cost_one_curve;
    }
    Ok(())
}

fn link_canister(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    use canister::*;
    define! { linker;
        canister_self_size() [0u32] -> u32 = canister_self_size;
        canister_self_copy(dst: u32, offset: u32, len: u32) [len] = canister_self_copy;
        subnet_self_size() [0u32] -> u32 = subnet_self_size;
        subnet_self_copy(dst: u32, offset: u32, len: u32) [len] = subnet_self_copy;
        canister_status() [0u32] -> u32 = canister_status;
        canister_version() [0u32] -> u64 = canister_version;
        in_replicated_execution() [0u32] -> u32 = in_replicated_execution;
        is_controller(src: u32, len: u32) [len] -> u32 = is_controller;
        root_key_size() [0u32] -> u32 = root_key_size;
        root_key_copy(dst: u32, offset: u32, len: u32) [len] = root_key_copy;
        env_var_count() [0u32] -> u32 = env_var_count;
        env_var_name_size(index: u32) [0u32] -> u32 = env_var_name_size;
        env_var_name_copy(index: u32, dst: u32, offset: u32, len: u32) [len] = env_var_name_copy;
        env_var_name_exists(src: u32, len: u32) [0u32] -> u32 = env_var_name_exists;
        env_var_value_size(src: u32, len: u32) [0u32] -> u32 = env_var_value_size;
        env_var_value_copy(src: u32, name_len: u32, dst: u32, offset: u32, len: u32) [len] =
            |c, src, name_len, dst, offset, len| env_var_value_copy(c, (src, name_len), (dst, offset, len));
    }
    Ok(())
}

fn link_stable(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    use stable::*;
    define! { linker;
        stable64_size() [0u32] -> u64 = stable64_size;
        stable64_grow(more: u64) [0u32] -> u64 = stable64_grow;
        stable64_read(dst: u64, offset: u64, len: u64) [len] = stable64_read;
        stable64_write(offset: u64, src: u64, len: u64) [len] = stable64_write;
        stable_size() [0u32] -> u32 = stable_size;
        stable_grow(more: u32) [0u32] -> u32 = stable_grow;
        stable_read(dst: u32, offset: u32, len: u32) [len] = stable_read;
        stable_write(offset: u32, src: u32, len: u32) [len] = stable_write;
    }
    Ok(())
}

fn link_control(linker: &mut wasmtime::Linker<EngineContext<Execution>>) -> wasmtime::Result<()> {
    use control::*;
    define! { linker;
        time() [0u32] -> u64 = time;
        global_timer_set(deadline: u64) [0u32] -> u64 = global_timer_set;
        performance_counter(kind: u32) [0u32] -> u64 = performance_counter;
        certified_data_set(src: u32, len: u32) [len] = certified_data_set;
        data_certificate_present() [0u32] -> u32 = data_certificate_present;
        data_certificate_size() [0u32] -> u32 = data_certificate_size;
        data_certificate_copy(dst: u32, offset: u32, len: u32) [len] = data_certificate_copy;
        debug_print(src: u32, len: u32) [0u32] = debug_print;
        trap(src: u32, len: u32) [len] = trap;
    }
    Ok(())
}

//! The management canister `aaaaa-aa`: creating, installing, inspecting and deleting canisters, chunks, randomness.
//!
//! Calls are executed at once when they are delivered; only `stop_canister` may answer later. A method that is not
//! provided is rejected by name.

use candid::utils::{ArgumentDecoder, ArgumentEncoder, decode_args_with_config};
use candid::{DecoderConfig, Nat, Principal};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::call_context::Origin;
use super::canister::{Canister, Settings};
use super::history::{Author, Change};
use super::queue::Request;
use super::reject::{Reject, error_code};
use super::replica::Replica;

mod code;
mod settings;
mod status;
mod types;

use types::{CanisterArg, CreateArg, LogRecord, LogsResult, ProvisionalCreateArg, TopUpArg, UpdateSettingsArg};

/// Methods of the platform that need what a replica on one machine does not have.
const NOT_PROVIDED: &[&str] = &[
    "bitcoin_get_balance",
    "bitcoin_get_block_headers",
    "bitcoin_get_current_fee_percentiles",
    "bitcoin_get_utxos",
    "bitcoin_send_transaction",
    "delete_canister_snapshot",
    "ecdsa_public_key",
    "http_request",
    "list_canister_snapshots",
    "load_canister_snapshot",
    "node_metrics_history",
    "read_canister_snapshot_data",
    "read_canister_snapshot_metadata",
    "schnorr_public_key",
    "sign_with_ecdsa",
    "sign_with_schnorr",
    "subnet_info",
    "take_canister_snapshot",
    "upload_canister_snapshot_data",
    "upload_canister_snapshot_metadata",
    "vetkd_derive_key",
    "vetkd_public_key",
];

/// Work that decoding an argument may cost; a module of 10 MiB stays below.
const DECODING_QUOTA: usize = 100_000_000;
/// Work for fields that a method does not know.
const SKIPPING_QUOTA: usize = 100_000;

/// A call that is being executed.
struct Call<'a> {
    method: &'a str,
    caller: Principal,
    arg: &'a [u8],
    from_canister: bool,
    /// Cycles of the call that are left to return.
    cycles: u128,
}

impl Call<'_> {
    /// Who is noted as the author of changes.
    fn author(&self) -> Author {
        if self.from_canister { Author::Canister(self.caller) } else { Author::User(self.caller) }
    }
}

type Reply = Result<Vec<u8>, Reject>;

fn decode<'a, T: ArgumentDecoder<'a>>(call: &Call<'a>) -> Result<T, Reject> {
    let mut quota = DecoderConfig::new();
    quota.set_decoding_quota(DECODING_QUOTA).set_skipping_quota(SKIPPING_QUOTA);
    decode_args_with_config(call.arg, &quota).map_err(|error| {
        let text = format!("Error decoding candid of {}: {error}", call.method);
        Reject::new(error_code::INVALID_MANAGEMENT_PAYLOAD, text)
    })
}

fn encode(values: impl ArgumentEncoder) -> Reply {
    candid::encode_args(values)
        .map_err(|error| Reject::new(error_code::INVALID_MANAGEMENT_PAYLOAD, format!("cannot encode reply: {error}")))
}

/// A `nat` that has to fit a machine word; the platform bounds these settings far below.
fn to_u128(value: &Nat) -> Result<u128, Reject> {
    u128::try_from(value.0.clone()).map_err(|_| {
        Reject::new(error_code::INVALID_MANAGEMENT_PAYLOAD, format!("the number {value} is larger than 128 bits"))
    })
}

impl Replica {
    /// Executes a call to the management canister.
    pub(super) fn management_call(&mut self, request: Request) {
        let Request { origin, caller, method, arg, cycles, .. } = request;
        let from_canister = matches!(origin, Origin::Canister { .. });
        let mut call = Call { method: &method, caller, arg: &arg, from_canister, cycles };
        if method == "stop_canister" {
            return match self.may_control(&call) {
                Ok(id) => self.stop_canister(id, origin, cycles),
                Err(reject) => self.respond(origin, Err(reject), cycles),
            };
        }
        let result = self.management_method(&mut call);
        let refund = if result.is_ok() { call.cycles } else { cycles };
        self.respond(origin, result, refund);
    }

    fn management_method(&mut self, call: &mut Call<'_>) -> Reply {
        match call.method {
            "create_canister" => self.create_from_canister(call),
            "provisional_create_canister_with_cycles" => self.create_provisionally(call),
            "provisional_top_up_canister" => self.top_up(call),
            "deposit_cycles" => self.deposit(call),
            "update_settings" => self.update_settings(call),
            "install_code" => self.install_from_call(call),
            "install_chunked_code" => self.install_chunked(call),
            "upload_chunk" => self.upload_chunk(call),
            "clear_chunk_store" => self.clear_chunks(call),
            "stored_chunks" => self.stored_chunks(call),
            "canister_status" => self.canister_status(call),
            "canister_info" => self.canister_info(call),
            "uninstall_code" => {
                self.may_control(call).map(|id| self.uninstall(id, call.author())).and_then(encode_unit)
            }
            "start_canister" => self.may_control(call).map(|id| self.start_canister(id)).and_then(encode_unit),
            "delete_canister" => self.may_control(call).and_then(|id| self.delete_canister(id)).and_then(encode_unit),
            "raw_rand" => self.raw_rand(),
            method => Err(unknown(method)),
        }
    }

    /// Executes a query of the management canister.
    pub(super) fn management_query(&mut self, sender: Principal, method: &str, arg: &[u8]) -> Reply {
        let mut call = Call { method, caller: sender, arg, from_canister: false, cycles: 0 };
        match method {
            "fetch_canister_logs" => self.fetch_logs(&call),
            "canister_status" => self.canister_status(&mut call),
            method => Err(unknown(method)),
        }
    }

    /// The canister named by the argument, if the caller controls it.
    fn may_control(&self, call: &Call<'_>) -> Result<Principal, Reject> {
        let (CanisterArg { canister_id },) = decode(call)?;
        self.managed(canister_id)?.check_controller(call.caller)?;
        Ok(canister_id)
    }

    fn managed(&self, id: Principal) -> Result<&Canister, Reject> {
        self.canisters.get(&id).ok_or_else(|| Reject::not_found(id))
    }

    fn managed_mut(&mut self, id: Principal) -> Result<&mut Canister, Reject> {
        self.canisters.get_mut(&id).ok_or_else(|| Reject::not_found(id))
    }

    /// Settings of a canister that `creator` creates.
    fn initial_settings(
        &self,
        creator: Principal,
        wanted: Option<types::CanisterSettings>,
    ) -> Result<Settings, Reject> {
        let mut new = Settings::new([creator].into(), &self.world.config);
        settings::change(&mut new, wanted.unwrap_or_default())?;
        Ok(new)
    }

    fn create_from_canister(&mut self, call: &mut Call<'_>) -> Reply {
        let (arg,) = decode::<(Option<CreateArg>,)>(call)?;
        if !call.from_canister {
            let text = "create_canister can only be called by canisters; users call \
                        provisional_create_canister_with_cycles";
            return Err(Reject::new(error_code::CANISTER_METHOD_NOT_PROVIDED, text));
        }
        let fee = self.world.tariff().create_canister();
        let Some(balance) = call.cycles.checked_sub(fee) else {
            let text = format!(
                "Creating a canister requires a fee of {fee} that is deducted from the canister's initial balance but \
                 only {} cycles were received with the create_canister request.",
                call.cycles
            );
            return Err(Reject::new(error_code::INSUFFICIENT_CYCLES_IN_CALL, text));
        };
        let settings = self.initial_settings(call.caller, arg.and_then(|arg| arg.settings))?;
        call.cycles = 0;
        let canister_id = self.add_canister(settings, balance, call.author());
        encode((CanisterArg { canister_id },))
    }

    fn create_provisionally(&mut self, call: &Call<'_>) -> Reply {
        let (arg,) = decode::<(ProvisionalCreateArg,)>(call)?;
        let balance = arg.amount.as_ref().map(to_u128).transpose()?.unwrap_or(self.world.config.initial_cycles);
        let settings = self.initial_settings(call.caller, arg.settings)?;
        let canister_id = match arg.specified_id {
            None => self.add_canister(settings, balance, call.author()),
            Some(id) => self.add_canister_with_id(id, settings, balance, call.author())?,
        };
        encode((CanisterArg { canister_id },))
    }

    fn top_up(&mut self, call: &Call<'_>) -> Reply {
        let (arg,) = decode::<(TopUpArg,)>(call)?;
        let amount = to_u128(&arg.amount)?;
        let canister = self.managed_mut(arg.canister_id)?;
        canister.balance = canister.balance.saturating_add(amount);
        encode(())
    }

    fn deposit(&mut self, call: &mut Call<'_>) -> Reply {
        let (CanisterArg { canister_id },) = decode(call)?;
        let cycles = call.cycles;
        let canister = self.managed_mut(canister_id)?;
        canister.balance = canister.balance.saturating_add(cycles);
        call.cycles = 0;
        encode(())
    }

    fn update_settings(&mut self, call: &Call<'_>) -> Reply {
        let (arg,) = decode::<(UpdateSettingsArg,)>(call)?;
        let time_ns = self.world.time_ns;
        let canister = self.managed_mut(arg.canister_id)?;
        canister.check_controller(call.caller)?;
        let mut settings = canister.settings.clone();
        settings::change(&mut settings, arg.settings)?;
        canister.log.set_capacity(settings.log_memory_limit);
        canister.version += 1;
        if settings.controllers != canister.settings.controllers {
            let controllers = settings.controllers.iter().copied().collect();
            canister.record(time_ns, call.author(), Change::Controllers { controllers });
        }
        canister.settings = settings;
        encode(())
    }

    /// 32 bytes that follow from the configured seed and the number of earlier calls.
    fn raw_rand(&mut self) -> Reply {
        self.random_blocks += 1;
        let seed = self.world.config.seed.to_le_bytes();
        let block = self.random_blocks.to_le_bytes();
        let bytes = Sha256::digest([b"icllama raw_rand ".as_slice(), &seed, &block].concat());
        encode((ByteBuf::from(bytes.to_vec()),))
    }

    fn fetch_logs(&self, call: &Call<'_>) -> Reply {
        let (CanisterArg { canister_id },) = decode(call)?;
        let canister = self.managed(canister_id)?;
        canister.check_may_read_log(call.caller)?;
        let record = |record: &super::log::LogRecord| LogRecord {
            idx: record.index,
            timestamp_nanos: record.time_ns,
            content: ByteBuf::from(record.content.clone()),
        };
        encode((LogsResult { canister_log_records: canister.log().map(record).collect() },))
    }
}

fn encode_unit((): ()) -> Reply {
    encode(())
}

fn unknown(method: &str) -> Reject {
    let text = if NOT_PROVIDED.contains(&method) {
        format!("the management method {method} is not provided by the shim")
    } else {
        format!("Management canister has no method '{method}'")
    };
    Reject::new(error_code::CANISTER_METHOD_NOT_PROVIDED, text)
}

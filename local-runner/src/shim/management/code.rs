//! Installing code by calls: in one piece, or from chunks uploaded before.

use candid::Principal;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::super::reject::{Reject, error_code};
use super::super::replica::{InstallMode, Replica};
use super::types::{
    CanisterArg, ChunkHash, CodeMode, InstallArg, InstallChunkedArg, UpgradeFlags, UploadChunkArg,
    WasmMemoryPersistence,
};
use super::{Call, Reply, decode, encode};

fn refuse(text: impl Into<String>) -> Reject {
    Reject::new(error_code::INVALID_MANAGEMENT_PAYLOAD, text)
}

fn install_mode(mode: CodeMode) -> Result<InstallMode, Reject> {
    match mode {
        CodeMode::Install => Ok(InstallMode::Install),
        CodeMode::Reinstall => Ok(InstallMode::Reinstall),
        CodeMode::Upgrade(None) => Ok(InstallMode::UPGRADE),
        CodeMode::Upgrade(Some(UpgradeFlags { skip_pre_upgrade, wasm_memory_persistence })) => {
            if wasm_memory_persistence == Some(WasmMemoryPersistence::Keep) {
                return Err(refuse("wasm_memory_persistence = keep is not provided by the shim"));
            }
            Ok(InstallMode::Upgrade { skip_pre_upgrade: skip_pre_upgrade.unwrap_or(false) })
        }
    }
}

impl Replica {
    pub(super) fn install_from_call(&mut self, call: &Call<'_>) -> Reply {
        let (arg,) = decode::<(InstallArg,)>(call)?;
        self.install_code(arg.canister_id, install_mode(arg.mode)?, &arg.wasm_module, &arg.arg, call.author())?;
        encode(())
    }

    pub(super) fn install_chunked(&mut self, call: &Call<'_>) -> Reply {
        let (arg,) = decode::<(InstallChunkedArg,)>(call)?;
        let store = arg.store_canister.unwrap_or(arg.target_canister);
        self.check_chunk_access(store, call.caller)?;
        let chunks = &self.managed(store)?.chunks;
        let mut module = Vec::new();
        for ChunkHash { hash } in &arg.chunk_hashes_list {
            let chunk = <[u8; 32]>::try_from(hash.as_slice()).ok().and_then(|hash| chunks.get(&hash));
            let chunk = chunk.ok_or_else(|| refuse(format!("Chunk hash {} is not in the store", hex(hash))))?;
            module.extend_from_slice(chunk);
        }
        let found = Sha256::digest(&module);
        if found.as_slice() != arg.wasm_module_hash.as_slice() {
            return Err(refuse(format!(
                "Wasm module hash {} does not match given hash {}",
                hex(&found),
                hex(&arg.wasm_module_hash)
            )));
        }
        self.install_code(arg.target_canister, install_mode(arg.mode)?, &module, &arg.arg, call.author())?;
        encode(())
    }

    pub(super) fn upload_chunk(&mut self, call: &Call<'_>) -> Reply {
        let (arg,) = decode::<(UploadChunkArg,)>(call)?;
        self.check_chunk_access(arg.canister_id, call.caller)?;
        let memory = self.world.config.limits.memory.clone();
        let world = self.world.clone();
        let canister = self.managed_mut(arg.canister_id)?;
        let bytes = arg.chunk.len() as u64;
        if bytes > memory.chunk_bytes {
            return Err(refuse(format!("a chunk of {bytes} bytes is larger than {}", memory.chunk_bytes)));
        }
        // The platform counts whole chunks, whatever their size.
        if (canister.chunks.len() as u64 + 1) * memory.chunk_bytes > memory.chunk_store_bytes {
            return Err(refuse(format!("the chunk store is full at {} bytes", memory.chunk_store_bytes)));
        }
        let hash = canister.store_chunk(arg.chunk.into_vec());
        canister.charge_cycles(&world, world.tariff().upload_chunk());
        encode((ChunkHash { hash: ByteBuf::from(hash) },))
    }

    pub(super) fn clear_chunks(&mut self, call: &Call<'_>) -> Reply {
        let (CanisterArg { canister_id },) = decode(call)?;
        self.check_chunk_access(canister_id, call.caller)?;
        self.managed_mut(canister_id)?.chunks.clear();
        encode(())
    }

    pub(super) fn stored_chunks(&mut self, call: &Call<'_>) -> Reply {
        let (CanisterArg { canister_id },) = decode(call)?;
        self.check_chunk_access(canister_id, call.caller)?;
        let chunks = self.managed(canister_id)?.chunks.keys();
        let hashes: Vec<_> = chunks.map(|hash| ChunkHash { hash: ByteBuf::from(*hash) }).collect();
        encode((hashes,))
    }

    /// Controllers and the canister itself use its chunk store.
    fn check_chunk_access(&self, id: Principal, caller: Principal) -> Result<(), Reject> {
        let canister = self.managed(id)?;
        if caller == id { Ok(()) } else { canister.check_controller(caller) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

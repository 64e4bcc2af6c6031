//! Faults that a user of the replica brings about: going on from one state in several ways, canisters that run dry.

use candid::Principal;

use super::super::canister::{Canister, Code};
use super::super::costs::WASM_PAGE_BYTES;
use super::super::engine::WasmState;
use super::super::queue::Message;
use super::{Replica, RestoreError};

impl Replica {
    /// Another replica in the same state, open calls and queued messages included, that goes on from here by itself: to try
    /// several continuations of one past. Stable memory is shared until one of both writes to it; of heaps what is filled is
    /// copied.
    ///
    /// The fork has no [certifier](Replica::set_certifier) and has not been [saved](Replica::mark_saved).
    ///
    /// # Errors
    /// If the system does not give memory for a heap.
    pub fn fork(&mut self) -> Result<Self, RestoreError> {
        let canisters = self.canisters.iter_mut().map(|(id, canister)| Ok((*id, canister.fork()?)));
        let canisters = canisters.collect::<Result<_, RestoreError>>()?;
        Ok(Self {
            world: self.world.clone(),
            engine: self.engine.clone(),
            linker: self.linker.clone(),
            canisters,
            queue: self.queue.clone(),
            answers: self.answers.clone(),
            ingress_usage: self.ingress_usage.clone(),
            reports: self.reports.clone(),
            compile_instructions: self.compile_instructions,
            next_call: self.next_call,
            next_canister: self.next_canister,
            random_blocks: self.random_blocks,
            certifier: None,
        })
    }

    /// Gives a canister this balance, whatever it had: to let it run dry at once instead of after months. Has an effect on
    /// what it can do only if fees are taken ([`Config::enforce_cycles`](super::super::Config::enforce_cycles)).
    ///
    /// Answers the balance that it had; none if there is no such canister.
    pub fn set_balance(&mut self, canister: Principal, cycles: u128) -> Option<u128> {
        let canister = self.canisters.get_mut(&canister)?;
        canister.version += 1;
        Some(std::mem::replace(&mut canister.balance, cycles))
    }

    /// Has the message that was queued last overtake all others.
    pub fn hurry_last(&mut self) {
        if let Some(last) = self.queue.pop_back() {
            self.queue.push_front(last);
        }
    }

    /// The message that the next step executes.
    pub fn next_message(&self) -> Option<&Message> {
        self.queue.front()
    }
}

impl Canister {
    fn fork(&mut self) -> Result<Self, RestoreError> {
        Ok(Self {
            id: self.id,
            settings: self.settings.clone(),
            status: self.status.clone(),
            version: self.version,
            balance: self.balance,
            code: self.code.as_mut().map(Code::fork).transpose()?,
            stable: self.stable.fork(),
            certified_data: self.certified_data.clone(),
            timer_ns: self.timer_ns,
            log: self.log.clone(),
            chunks: self.chunks.clone(),
            calls: self.calls.clone(),
            history: self.history.clone(),
            low_memory_reported: self.low_memory_reported,
        })
    }
}

impl Code {
    fn fork(&mut self) -> Result<Self, RestoreError> {
        let globals = self.wasm.globals().map(<[_]>::to_vec);
        let mut wasm = WasmState::restored(&self.module, self.wasm.heap_bytes(), globals)?;
        let mut bytes = vec![0; WASM_PAGE_BYTES as usize];
        for page in self.wasm.pages_to_save(true) {
            let offset = u64::from(page) * WASM_PAGE_BYTES;
            let copied = self.wasm.heap().read(offset, &mut bytes).and_then(|()| wasm.heap().write(offset, &bytes));
            copied.map_err(|range| RestoreError::Page { page: page.into(), bytes: range.size })?;
        }
        wasm.commit()?;
        let (module, prepared) = (self.module.clone(), self.prepared.clone());
        Ok(Self { hash: self.hash, uploaded: self.uploaded.clone(), module, prepared, wasm })
    }
}

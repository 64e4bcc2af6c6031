//! Runs small modules: charges computed by hand, limits, page faults, rollback, globals, tables, start, SIMD, NaN.

use super::*;
use crate::shim::costs::PageCharges;
use crate::shim::trap::{Trap, WasmTrap};

/// What the test host functions keep.
#[derive(Debug, Default)]
struct Notes {
    values: Vec<u64>,
}

struct Canister {
    prepared: Prepared<Notes>,
    wasm: WasmState,
    options: RunOptions,
}

const OPTIONS: RunOptions =
    RunOptions { instructions: 1_000_000, query: false, charges: PageCharges::NONE, wasm_memory_limit: None };

/// `performance_counter` notes the instructions used, `msg_reply_data_append` notes the first eight bytes of its
/// range, `trap` traps with its text, `msg_arg_data_copy` fills its range with the byte given as offset.
fn linker(engine: &Engine) -> Linker<Notes> {
    let mut linker = engine.linker::<Notes>();
    linker
        .func_wrap("ic0", "performance_counter", |mut caller: Caller<'_, Notes>, kind: u32| -> wasmtime::Result<u64> {
            caller.charge(200)?;
            let used = caller.instructions_used();
            caller.data_mut().state.values.push(used);
            Ok(used + u64::from(kind))
        })
        .unwrap();
    linker
        .func_wrap("ic0", "msg_reply_data_append", |mut caller: Caller<'_, Notes>, src: u32, size: u32| {
            let note = |bytes: &[u8], notes: &mut Notes| {
                notes.values.push(u64::from_le_bytes(bytes.try_into().unwrap()));
            };
            caller.with_heap(src.into(), size.into(), note).map_err(wasmtime::Error::from)
        })
        .unwrap();
    linker
        .func_wrap("ic0", "msg_arg_data_copy", |mut caller: Caller<'_, Notes>, dst: u32, byte: u32, size: u32| {
            caller.with_heap_mut(dst.into(), size.into(), |out, _| out.fill(byte as u8)).map_err(wasmtime::Error::from)
        })
        .unwrap();
    linker
        .func_wrap("ic0", "trap", |caller: Caller<'_, Notes>, src: u32, size: u32| -> wasmtime::Result<()> {
            let text = caller.heap_read(src.into(), size.into())?;
            Err(Trap::Called(String::from_utf8(text).unwrap()).into())
        })
        .unwrap();
    linker
}

impl Canister {
    fn new(wat: &str) -> Self {
        let engine = Engine::new(None).unwrap();
        let module = engine.load(&wat::parse_str(wat).unwrap()).unwrap();
        let wasm = WasmState::new(&module).unwrap();
        Self { prepared: module.prepare(&linker(&engine)).unwrap(), wasm, options: OPTIONS }
    }

    fn with(mut self, change: impl FnOnce(&mut RunOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn run(&mut self, entry: Entry<'_>) -> Execution<Notes> {
        self.prepared.run(&mut self.wasm, Notes::default(), entry, &self.options)
    }

    fn call(&mut self, method: &str) -> Execution<Notes> {
        self.run(Entry::Export(&format!("canister_update {method}")))
    }

    /// Calls a method that must succeed and commits.
    fn commit(&mut self, method: &str) -> Execution<Notes> {
        let execution = self.call(method);
        assert_eq!(execution.result, Ok(()), "{method}");
        self.wasm.commit().unwrap();
        execution
    }

    fn heap(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.wasm.heap_bytes() as usize];
        self.wasm.heap().read(0, &mut bytes).unwrap();
        bytes
    }
}

/// Instructions of a single method with this body.
fn cost(body: &str) -> u64 {
    let mut canister = Canister::new(&format!(
        r#"(module (memory 1) (table 1 funcref) (elem (i32.const 0) $empty)
             (type $void (func))
             (func $empty)
             (func (export "canister_update m") {body}))"#
    ));
    canister.commit("m").instructions
}

mod charges;
mod isolation;

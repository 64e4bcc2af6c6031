//! The wasm kernels give the bits of the native ones, on random cases of every part of the forward pass.

use end_to_end::artifact;
use model_core::kernels::{Kernel, probe};
use wasmtime::{Engine, Instance, Module, Store};

#[test]
fn wasm_kernels_equal_native_ones_bit_for_bit() {
    let path =
        artifact("wasm32-unknown-unknown/canister/kernel_probe.wasm", "`scripts/build-wasm.sh kernel-probe`").unwrap();
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let module = Module::from_file(&engine, path).unwrap();
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let digest = instance.get_typed_func::<u64, u64>(&mut store, "digest").unwrap();
    for seed in 0..400 {
        let native = probe::digest(Kernel::SCALAR, seed).unwrap();
        assert_eq!(digest.call(&mut store, seed).unwrap(), native, "seed {seed}");
    }
}

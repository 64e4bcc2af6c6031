//! The wasm kernels give the bits of the native ones, on random cases of every part of the forward pass.

use end_to_end::artifact;
use model_core::kernels::{Kernel, probe};
use wasmtime::{Engine, Instance, Module, Store};

#[test]
fn wasm_kernels_equal_native_ones_bit_for_bit() {
    let path = artifact(
        "wasm32-unknown-unknown/canister/kernel_probe.wasm",
        "`scripts/cargo-wasm.sh build -p kernel-probe --profile canister`",
    )
    .unwrap();
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let module = Module::from_file(&engine, path).unwrap();
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let digest = instance.get_typed_func::<(u32, u64), u64>(&mut store, "digest").unwrap();
    // The module has the scalar kernel and SIMD128, and no third one.
    assert_eq!(digest.call(&mut store, (2, 0)).unwrap(), 0);
    for seed in 0..400 {
        let native = probe::digest(Kernel::detect(), seed).unwrap();
        for index in [0, 1] {
            assert_eq!(digest.call(&mut store, (index, seed)).unwrap(), native, "kernel {index} seed {seed}");
        }
    }
}

//! Exports [`digest`] to whoever instantiates the module. Knows nothing of the Internet Computer.

use model_core::kernels::{Kernel, probe};

/// The digest of the case `seed` on the kernel that canisters have; 0 if the case is not finite.
#[unsafe(no_mangle)]
pub extern "C" fn digest(seed: u64) -> u64 {
    probe::digest(Kernel::detect(), seed).unwrap_or(0)
}

/// Hash maps of dependencies ask for entropy when the module links them; nothing here runs them.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(_dest: *mut u8, _len: usize) -> Result<(), getrandom_03::Error> {
    Err(getrandom_03::Error::UNSUPPORTED)
}

//! Exports [`digest`] to whoever instantiates the module. Knows nothing of the Internet Computer.

use model_core::kernels::{Kernel, probe};

/// The digest of the case `seed` on the kernel at `index` of this build's list; 0 where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn digest(index: u32, seed: u64) -> u64 {
    let kernel = Kernel::available().into_iter().nth(index as usize);
    kernel.and_then(|kernel| probe::digest(kernel, seed)).unwrap_or(0)
}

/// Hash maps of dependencies ask for entropy when the module links them; nothing here runs them.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(_dest: *mut u8, _len: usize) -> Result<(), getrandom_03::Error> {
    Err(getrandom_03::Error::UNSUPPORTED)
}

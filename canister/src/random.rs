//! The source of random bytes that the hash maps of dependencies ask for. It must be the same on every
//! replica, and nothing secret or sampled depends on it: sampling has its own seeded generator.

/// Fills `dest[..len]` with a fixed sequence.
///
/// # Safety
/// `dest` is valid for writes of `len` bytes, as getrandom promises.
// SAFETY: the name and the signature are those that getrandom documents for custom backends.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom_03::Error> {
    // SAFETY: the caller promises that `dest` is valid for `len` bytes; they may be uninitialised, so
    // they are written before a reference is made.
    let bytes = unsafe {
        dest.write_bytes(0, len);
        core::slice::from_raw_parts_mut(dest, len)
    };
    // The sequence of splitmix64 with seed 0; its high byte is enough here.
    let mut state = 0u64;
    for byte in bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *byte = (mixed >> 56) as u8;
    }
    Ok(())
}

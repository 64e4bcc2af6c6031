//! Loops that the compiler turns into vector instructions, compiled for more than the least machine of their target. They
//! have no instructions of their own, so that their results do not depend on the machine.

/// A loop over bytes or numbers. [`Work::run`] and what it calls are `#[inline(always)]`, else it stays as slow as it was.
pub(crate) trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run(self) -> Self::Output;
}

/// Does the work with the widest vectors of this machine that help there: AVX2 on x86-64, whose least machine has vectors of
/// 16 bytes and no shuffles of bytes. Other targets have what helps anyway.
#[inline(always)]
pub(crate) fn vectorize<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 has just been found.
        return unsafe { with_avx2(work) };
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

//! Ctrl-C where the program must not simply end: the signal only raises a flag while somebody looks at it. Knows nothing of
//! what is interrupted.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// The user, or the system, asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Makes a write beyond the limit of file sizes (`ulimit -f`) fail like one to a full disk, instead of ending the program
/// in the middle of it.
pub fn survive_file_size_limits() {
    // Where this cannot be had, the program ends as it would anyway.
    flag::register(SIGXFSZ, Arc::default()).ok();
}

/// Signals can be taken over once in a program.
static SHARED: OnceLock<Interrupts> = OnceLock::new();

/// Handles SIGINT and SIGTERM for the rest of the program.
#[derive(Debug, Clone)]
pub struct Interrupts {
    raised: Arc<AtomicBool>,
    /// Whether signals end the program, as they do by default.
    deadly: Arc<AtomicBool>,
}

impl Interrupts {
    /// Takes the signals over, unless that is done. They go on ending the program except under a [`Watched`].
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn new() -> io::Result<Self> {
        if let Some(shared) = SHARED.get() {
            return Ok(shared.clone());
        }
        let (raised, deadly) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&deadly))?;
            flag::register(signal, Arc::clone(&raised))?;
        }
        Ok(SHARED.get_or_init(|| Self { raised, deadly }).clone())
    }

    /// From now on, until the guard is dropped, a signal only raises the guard's flag.
    pub fn watch(&self) -> Watched<'_> {
        self.raised.store(false, SeqCst);
        self.deadly.store(false, SeqCst);
        Watched(self)
    }
}

/// While it lives, signals do not end the program.
#[derive(Debug)]
pub struct Watched<'a>(&'a Interrupts);

impl Watched<'_> {
    /// Whether a signal came.
    pub fn is_raised(&self) -> bool {
        self.0.raised.load(SeqCst)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.deadly.store(true, SeqCst);
    }
}

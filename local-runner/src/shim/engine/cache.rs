//! Compiled modules on disk, so that a module is compiled once per machine and not once per process.
//!
//! A file is named by the SHA-256 of the instrumented module, the engine's version and its settings. The directory is
//! as trusted as the program itself, since compiled code is mapped from it: it is created readable and writable for
//! its owner only. A cache that cannot be read or written is no error; the module is then compiled.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// Modules kept; older ones are removed when a new one is written.
const KEPT: usize = 32;

/// Changes whenever the instrumentation or the engine's settings change in a way that the module does not show.
const SETTINGS: &str = concat!("wasmtime 48, settings 1, ", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: Option<PathBuf>,
}

/// Where compiled modules are kept unless told otherwise: `icllama/modules` under the user's cache directory.
pub fn default_cache_directory() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")))?;
    Some(base.join("icllama").join("modules"))
}

impl Cache {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    fn path(&self, wasm: &[u8]) -> Option<PathBuf> {
        let digest = Sha256::new().chain_update(SETTINGS).chain_update([0]).chain_update(wasm).finalize();
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.directory.as_ref()?.join(name + ".cwasm"))
    }

    /// The compiled form of `wasm`, if it is there and fits this engine.
    pub(super) fn load(&self, engine: &wasmtime::Engine, wasm: &[u8]) -> Option<wasmtime::Module> {
        let path = self.path(wasm)?;
        let bytes = fs::read(&path).ok()?;
        // SAFETY: the file was written by `store` of a program of the same user, into a directory only that user can
        // write; wasmtime refuses files of another version, configuration or processor.
        let module = unsafe { wasmtime::Module::deserialize(engine, bytes) }.ok()?;
        // The time of last use decides which files stay.
        fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now())).ok();
        Some(module)
    }

    /// Keeps the compiled form of `wasm`; does nothing if that is not possible.
    pub(super) fn store(&self, wasm: &[u8], module: &wasmtime::Module) {
        if let (Some(path), Ok(bytes)) = (self.path(wasm), module.serialize())
            && write(&path, &bytes).is_ok()
            && let Some(directory) = &self.directory
        {
            prune(directory);
        }
    }
}

/// Writes under another name first, so that no reader sees half a file.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written =
        fs::File::create(&part).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written
}

fn prune(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut modules: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    modules.sort();
    let excess = modules.len().saturating_sub(KEPT);
    for (_, path) in &modules[..excess] {
        fs::remove_file(path).ok();
    }
}

//! Where built and fetched files lie.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Path of a file below the build's target folder.
///
/// # Errors
/// Names the command that makes the file if it is not there.
pub fn artifact(name: &str, made_by: &str) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let path = target.join(name);
    anyhow::ensure!(path.exists(), "{} is missing; run {made_by}", path.display());
    Ok(path)
}

fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The canister's module as it is deployed (gzipped), read once.
pub fn canister_module() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| read(&artifact("icllama.wasm.gz", "scripts/build-canister.sh").unwrap()))
}

/// SmolLM2-135M-Instruct in Q4_1, read once.
pub fn real_model() -> &'static [u8] {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let named = std::env::var_os("ICLLAMA_MODEL").map(PathBuf::from);
        read(&named.unwrap_or_else(|| workspace().join("models/SmolLM2-135M-Instruct.Q4_1.gguf")))
    })
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}; run scripts/fetch-model.sh", path.display()))
}

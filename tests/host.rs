//! What the end-to-end tests share: where the built modules lie.

use std::path::PathBuf;

/// Path of a file below the build's target folder.
///
/// # Errors
/// Names the command that makes the file if it is not there.
pub fn artifact(name: &str, made_by: &str) -> anyhow::Result<PathBuf> {
    let workspace = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let path = target.join(name);
    anyhow::ensure!(path.exists(), "{} is missing; run {made_by}", path.display());
    Ok(path)
}

//! The keys of a replica in a file that only its owner can read.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{StoreError, damaged, io_error, replace};
use crate::endpoint::encoding::hex;
use crate::endpoint::keys::{Secrets, SubnetKeys};

/// The keys as they are kept.
#[derive(Serialize, Deserialize)]
struct KeysFile {
    root_secret: String,
    node_secret: String,
}

/// The keys in a file, or new ones, which are put there.
///
/// # Errors
/// If the file holds no keys, or cannot be read or written.
pub(super) fn keys(path: &Path) -> Result<SubnetKeys, StoreError> {
    match fs::read(path) {
        Ok(text) => {
            let file: KeysFile = serde_json::from_slice(&text).map_err(|error| damaged(path, error))?;
            let secrets = secret(&file.root_secret).zip(secret(&file.node_secret));
            let keys = secrets.and_then(|(root, node)| SubnetKeys::from_secrets(&Secrets { root, node }));
            keys.ok_or_else(|| damaged(path, "its secrets are no keys"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = SubnetKeys::random();
            let Secrets { root, node } = keys.secrets();
            let file = KeysFile { root_secret: hex(&root), node_secret: hex(&node) };
            let text = serde_json::to_vec(&file).map_err(|error| damaged(path, error))?;
            replace(path, &text)?;
            Ok(keys)
        }
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn secret(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = digits.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

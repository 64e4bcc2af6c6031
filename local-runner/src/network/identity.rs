//! Who signs calls: nobody, or a key from a PEM file as dfx, icp-cli and OpenSSL write them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candid::Principal;
use ic_agent::Identity;
use ic_agent::identity::{AnonymousIdentity, BasicIdentity, Prime256v1Identity, Secp256k1Identity};

/// What the user calls an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityName {
    /// Nobody.
    Anonymous,
    /// A PEM file.
    File(PathBuf),
    /// An identity of dfx.
    Dfx(String),
}

impl From<&str> for IdentityName {
    /// What has the form of a path, or is a file, is one.
    fn from(text: &str) -> Self {
        let is_path = text.contains(['/', '\\']) || text.ends_with(".pem") || Path::new(text).is_file();
        match text {
            _ if is_path => Self::File(text.into()),
            "anonymous" => Self::Anonymous,
            _ => Self::Dfx(text.to_owned()),
        }
    }
}

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the identity {}: {reason}; give the path of a PEM file or the name of a dfx identity", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// dfx has no identity of that name.
    #[error(
        "there is no file and no dfx identity {name} (looked for {}); `dfx identity list` shows the names, and icp-cli writes a \
         PEM file with `icp identity export {name}`",
        path.display()
    )]
    NoSuchIdentity {
        /// The name.
        name: String,
        /// Where its key would be.
        path: PathBuf,
    },
    /// dfx keeps the key under a password, or in the system's keyring.
    #[error(
        "the key of the dfx identity {name} is not a plain file; write one with `dfx identity export {name} > {name}.pem`"
    )]
    NotPlain {
        /// The name.
        name: String,
    },
    /// The key is under a password.
    #[error(
        "the key in {} is encrypted; decrypt it with `openssl pkey -in {} -out plain.pem`, or export it from its tool",
        path.display(),
        path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// No key that can sign calls.
    #[error("{} has no private key in PEM form for Ed25519, secp256k1 or P-256", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key cannot say who it is.
    #[error("the key cannot be used: {0}")]
    Unusable(String),
}

/// Signs calls.
#[derive(Clone)]
pub struct Signer {
    /// The key.
    pub identity: Arc<dyn Identity>,
    /// Who that is.
    pub principal: Principal,
}

impl Signer {
    fn new(identity: Arc<dyn Identity>) -> Result<Self, IdentityError> {
        let principal = identity.sender().map_err(IdentityError::Unusable)?;
        Ok(Self { identity, principal })
    }
}

impl IdentityName {
    /// Reads the key.
    ///
    /// # Errors
    /// [`IdentityError`] if there is none that can be used.
    pub fn load(&self) -> Result<Signer, IdentityError> {
        match self {
            Self::Anonymous => Signer::new(Arc::new(AnonymousIdentity)),
            Self::File(path) => read(path),
            Self::Dfx(name) => read(&dfx_key(name)?),
        }
    }
}

/// Where dfx keeps the key of an identity.
fn dfx_key(name: &str) -> Result<PathBuf, IdentityError> {
    let home = env::var_os("DFX_CONFIG_ROOT").or_else(|| env::var_os("HOME")).unwrap_or_default();
    let folder = PathBuf::from(home).join(".config/dfx/identity").join(name);
    let path = folder.join("identity.pem");
    match () {
        () if path.is_file() => Ok(path),
        () if folder.is_dir() => Err(IdentityError::NotPlain { name: name.to_owned() }),
        () => Err(IdentityError::NoSuchIdentity { name: name.to_owned(), path }),
    }
}

fn read(path: &Path) -> Result<Signer, IdentityError> {
    let text = fs::read(path).map_err(|reason| IdentityError::Unreadable { path: path.to_owned(), reason })?;
    let contains = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    if contains(b"ENCRYPTED") {
        return Err(IdentityError::Encrypted { path: path.to_owned() });
    }
    Signer::new(parse(&text).ok_or_else(|| IdentityError::NoKey { path: path.to_owned() })?)
}

/// The key is of the first kind that it parses as: each parser refuses the others' curves where the file names them, and keys
/// that do not belong to the public key beside them. A bare key without either is taken for what dfx writes, secp256k1.
fn parse(pem: &[u8]) -> Option<Arc<dyn Identity>> {
    fn some<I: Identity + 'static, E>(parsed: Result<I, E>) -> Option<Arc<dyn Identity>> {
        parsed.ok().map(|identity| Arc::new(identity) as Arc<dyn Identity>)
    }
    let ed25519 = some(BasicIdentity::from_pem(pem));
    ed25519.or_else(|| some(Secp256k1Identity::from_pem(pem))).or_else(|| some(Prime256v1Identity::from_pem(pem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that OpenSSL made for this test, and the principals that follow from their public keys.
    const ED25519: &str = "a4nsa-vnana-5gz3s-j2oqi-3fl3p-wpked-ficke-cpav4-3hled-zfjtd-kqe";
    const SECP256K1: &str = "jpdw5-mmitr-l2eeg-juuds-22ihj-djnrf-s4qnx-s2i2v-sybua-cuo7c-wae";
    const P256: &str = "g2smv-vm5dw-jpoyx-tkgfa-dk3ks-nmqry-rdois-2c3xo-zbng4-x46e5-rae";

    fn pem(label: &str, base64: &str) -> String {
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    }

    /// Ed25519 in PKCS#8 of version 1, of version 2 (icp-cli) and as old versions of dfx wrote it; the curves in SEC1 and PKCS#8.
    const KEYS: [(&str, &str, &str); 7] = [
        ("PRIVATE KEY", ED25519, "MC4CAQAwBQYDK2VwBCIEIOnaJqEDieOpIh8zcuMr9hpFGJ2aOSHlgz1HYqcXvTPW"),
        (
            "PRIVATE KEY",
            ED25519,
            concat!(
                "MFECAQEwBQYDK2VwBCIEIOnaJqEDieOpIh8zcuMr9hpFGJ2aOSHlgz1HYqcXvTPWgSEAezGMNWMr",
                "xflEd/QBo9w93w2xvKLZwVjlKRO1KyFwLYk="
            ),
        ),
        (
            "PRIVATE KEY",
            ED25519,
            concat!(
                "MFMCAQEwBQYDK2VwBCIEIOnaJqEDieOpIh8zcuMr9hpFGJ2aOSHlgz1HYqcXvTPWoSMDIQB7MYw1",
                "YyvF+UR39AGj3D3fDbG8otnBWOUpE7UrIXAtiQ=="
            ),
        ),
        (
            "EC PRIVATE KEY",
            SECP256K1,
            concat!(
                "MHQCAQEEICNDkFwCe2QgYIWFmvTEC4pKFbbusjdPHy4X2MnvWLCVoAcGBSuBBAAKoUQDQgAEk5HM",
                "H2hNFqeKS/SfJyyKYgLiT3p1zxYNXZwfH3sbvLMz9mIcLEP68VqRWA5d3rHBwUEiZNlqUD1fiDxe",
                "bTHjxA=="
            ),
        ),
        (
            "PRIVATE KEY",
            SECP256K1,
            concat!(
                "MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgI0OQXAJ7ZCBghYWa9MQLikoVtu6yN08f",
                "LhfYye9YsJWhRANCAASTkcwfaE0Wp4pL9J8nLIpiAuJPenXPFg1dnB8fexu8szP2YhwsQ/rxWpFY",
                "Dl3escHBQSJk2WpQPV+IPF5tMePE"
            ),
        ),
        (
            "EC PRIVATE KEY",
            P256,
            concat!(
                "MHcCAQEEILeMxELCZVta/d9cUTWaWWdMLwaMtC8e6fzcuN91ExfyoAoGCCqGSM49AwEHoUQDQgAE",
                "mXP+N9PXC9NV/VJGkj8KmU58Be4aecz4DRooGAQXdR8QaqlIiAvNCA7mjmutVUDBRQXoO0XfWYtp",
                "1t0zvI8B5w=="
            ),
        ),
        (
            "PRIVATE KEY",
            P256,
            concat!(
                "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgt4zEQsJlW1r931xRNZpZZ0wvBoy0",
                "Lx7p/Ny433UTF/KhRANCAASZc/4309cL01X9UkaSPwqZTnwF7hp5zPgNGigYBBd1HxBqqUiIC80I",
                "DuaOa61VQMFFBeg7Rd9Zi2nW3TO8jwHn"
            ),
        ),
    ];

    fn loaded(text: &str) -> Result<Signer, IdentityError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        fs::write(&path, text).unwrap();
        IdentityName::from(path.to_str().unwrap()).load()
    }

    #[test]
    fn every_kind_of_key_is_read_and_is_who_it_should_be() {
        for (label, expected, key) in KEYS {
            assert_eq!(loaded(&pem(label, key)).unwrap().principal.to_text(), expected, "{label}");
        }
        // OpenSSL writes the curve's name before keys.
        let [.., (label, _, secp256k1)] = &KEYS[..4] else { panic!("four keys") };
        let named = format!("{}{}", pem("EC PARAMETERS", "BgUrgQQACg=="), pem(label, secp256k1));
        assert_eq!(loaded(&named).unwrap().principal.to_text(), SECP256K1);
        assert_eq!(IdentityName::from("anonymous").load().unwrap().principal, Principal::anonymous());
    }

    #[test]
    fn what_cannot_sign_is_refused_with_what_to_do() {
        let encrypted = loaded(&pem("ENCRYPTED PRIVATE KEY", "MIHsMFcG")).err().unwrap().to_string();
        assert!(encrypted.contains("openssl pkey"), "{encrypted}");
        for text in ["", "no key", &pem("PUBLIC KEY", "MCowBQYDK2VwAyEA"), &pem("PRIVATE KEY", "MC4CAQAwBQYDK2Vw")] {
            assert!(matches!(loaded(text), Err(IdentityError::NoKey { .. })), "{text}");
        }
        let absent = IdentityName::from("/nowhere/x.pem").load();
        assert!(matches!(absent, Err(IdentityError::Unreadable { .. })));
        let unknown = IdentityName::from("no-such-identity-of-dfx").load().err().unwrap().to_string();
        assert!(unknown.contains("dfx identity list") && unknown.contains("icp identity export"), "{unknown}");
    }

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(IdentityName::from("default"), IdentityName::Dfx("default".to_owned()));
        assert_eq!(IdentityName::from("x.pem"), IdentityName::File("x.pem".into()));
        assert_eq!(IdentityName::from("./default"), IdentityName::File("./default".into()));
    }
}

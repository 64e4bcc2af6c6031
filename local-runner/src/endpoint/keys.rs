//! The two keys of the endpoint: the subnet's, which signs certificates, and its only node's, which signs answers to
//! queries. Knows nothing of what is signed.

use candid::Principal;
use ed25519_dalek::{Signer, SigningKey};
use ic_verify_bls_signature::PrivateKey;
use rand_core::OsRng;
use sha2::{Digest, Sha256};

use crate::shim::config::root_key_der;

/// DER header of an Ed25519 public key of 32 bytes (RFC 8410).
pub(super) const ED25519_DER_HEADER: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Keys of a subnet that is its own root, with one node.
pub struct SubnetKeys {
    root: PrivateKey,
    node: SigningKey,
    root_key_der: Vec<u8>,
}

/// Both secrets, to be kept.
pub struct Secrets {
    /// Scalar of the subnet's BLS12-381 key, big-endian.
    pub root: [u8; 32],
    /// Seed of the node's Ed25519 key.
    pub node: [u8; 32],
}

impl SubnetKeys {
    /// New keys from the system's randomness.
    pub fn random() -> Self {
        Self::new(PrivateKey::random(&mut OsRng), SigningKey::generate(&mut OsRng))
    }

    /// Keys that were kept; `None` if the root's is not a key.
    pub fn from_secrets(secrets: &Secrets) -> Option<Self> {
        let root = PrivateKey::deserialize(&secrets.root).ok()?;
        Some(Self::new(root, SigningKey::from_bytes(&secrets.node)))
    }

    fn new(root: PrivateKey, node: SigningKey) -> Self {
        let root_key_der = root_key_der(&root.public_key().serialize());
        Self { root, node, root_key_der }
    }

    /// What has to be kept.
    pub fn secrets(&self) -> Secrets {
        Secrets { root: self.root.serialize(), node: self.node.to_bytes() }
    }

    /// A number that only the owner of the keys can tell: the source of the canisters' randomness.
    pub fn random_seed(&self) -> u64 {
        let digest: [u8; 32] =
            Sha256::digest([b"icllama randomness ".as_slice(), self.node.as_bytes()].concat()).into();
        u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|index| digest[index]))
    }

    /// The subnet's public key in DER, which clients know as the root key.
    pub fn root_key_der(&self) -> &[u8] {
        &self.root_key_der
    }

    /// The subnet's id, which follows from its key.
    pub fn subnet_id(&self) -> Principal {
        Principal::self_authenticating(&self.root_key_der)
    }

    /// The node's public key in DER.
    pub fn node_key_der(&self) -> Vec<u8> {
        [ED25519_DER_HEADER.as_slice(), self.node.verifying_key().as_bytes()].concat()
    }

    /// The node's id, which follows from its key.
    pub fn node_id(&self) -> Principal {
        Principal::self_authenticating(self.node_key_der())
    }

    /// The subnet's signature of the root hash of a state tree (interface specification, "Certificate").
    pub fn sign_root_hash(&self, root_hash: &[u8; 32]) -> [u8; 48] {
        self.root.sign(&[b"\x0Dic-state-root".as_slice(), root_hash].concat()).serialize()
    }

    /// The node's signature of a message.
    pub fn sign_as_node(&self, message: &[u8]) -> [u8; 64] {
        self.node.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_after_they_were_kept() {
        let keys = SubnetKeys::random();
        let again = SubnetKeys::from_secrets(&keys.secrets()).unwrap();
        assert_eq!((keys.root_key_der(), keys.node_key_der()), (again.root_key_der(), again.node_key_der()));
        assert_eq!(keys.root_key_der().len(), 133);
        assert!(SubnetKeys::from_secrets(&Secrets { root: [0xff; 32], node: [0; 32] }).is_none());
        assert_ne!(keys.root_key_der(), SubnetKeys::random().root_key_der());
    }
}

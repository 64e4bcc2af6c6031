//! Signatures of users: which kind of key it is, and whether it signed.

use k256::ecdsa::signature::Verifier;
use p256::pkcs8::DecodePublicKey;

use super::keys::ED25519_DER_HEADER;

/// DER of keys that hold a COSE key, as WebAuthn devices have (object identifier 1.3.6.1.4.1.56387.1.1).
const COSE_OID: [u8; 12] = [0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x01];
/// DER of keys that stand for a canister's signatures (object identifier 1.3.6.1.4.1.56387.1.2).
const CANISTER_OID: [u8; 12] = [0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x02];

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Keys of WebAuthn devices.
    #[error("WebAuthn keys are not supported here; use an Ed25519, P-256 or secp256k1 key")]
    WebAuthn,
    /// Signatures that a canister makes, as Internet Identity does.
    #[error("canister signatures are not supported here; use an Ed25519, P-256 or secp256k1 key")]
    Canister,
    /// No key that is known.
    #[error("the public key is not an Ed25519, P-256 or secp256k1 key in DER")]
    Key,
    /// Another key or another message was signed.
    #[error("the signature does not fit the public key and the message")]
    Mismatch,
}

/// Checks that the owner of `key` (DER, SubjectPublicKeyInfo) signed `message`. ECDSA signatures are r and s, of SHA-256.
///
/// # Errors
/// If it is not so, or the key is of a kind that cannot be checked.
pub fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    if let Some(raw) = key.strip_prefix(&ED25519_DER_HEADER) {
        return verify_ed25519(raw, message, signature);
    }
    if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(key) {
        let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
        return key.verify(message, &signature).map_err(|_| SignatureError::Mismatch);
    }
    if let Ok(key) = k256::ecdsa::VerifyingKey::from_public_key_der(key) {
        let signature = k256::ecdsa::Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
        // The crate takes only the smaller of two equivalent signatures; not all clients make that one.
        let signature = signature.normalize_s().unwrap_or(signature);
        return key.verify(message, &signature).map_err(|_| SignatureError::Mismatch);
    }
    let has = |oid: &[u8]| key.windows(oid.len()).any(|window| window == oid);
    Err(match () {
        () if has(&COSE_OID) => SignatureError::WebAuthn,
        () if has(&CANISTER_OID) => SignatureError::Canister,
        () => SignatureError::Key,
    })
}

fn verify_ed25519(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    let key = <[u8; 32]>::try_from(key).map_err(|_| SignatureError::Key)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| SignatureError::Key)?;
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
    key.verify_strict(message, &signature).map_err(|_| SignatureError::Mismatch)
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::signature::Signer;
    use p256::pkcs8::EncodePublicKey;
    use rand_core::OsRng;

    use super::*;

    #[test]
    fn ecdsa_keys_of_both_curves_are_checked() {
        let p256 = p256::ecdsa::SigningKey::random(&mut OsRng);
        let signature: p256::ecdsa::Signature = p256.sign(b"yes");
        let key = p256.verifying_key().to_public_key_der().unwrap();
        assert_eq!(verify(key.as_bytes(), b"yes", &signature.to_bytes()), Ok(()));
        assert_eq!(verify(key.as_bytes(), b"no", &signature.to_bytes()), Err(SignatureError::Mismatch));

        let k256 = k256::ecdsa::SigningKey::random(&mut OsRng);
        let signature: k256::ecdsa::Signature = k256.sign(b"yes");
        let key = k256.verifying_key().to_public_key_der().unwrap();
        let (r, s) = signature.split_scalars();
        let high = k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-s).to_bytes()).unwrap();
        for signature in [signature, high] {
            assert_eq!(verify(key.as_bytes(), b"yes", &signature.to_bytes()), Ok(()));
            assert_eq!(verify(key.as_bytes(), b"no", &signature.to_bytes()), Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn other_keys_are_refused_by_name() {
        let wrapped = |oid: [u8; 12]| [&[0x30, 0x0e, 0x30, 0x0c][..], &oid, &[0x03, 0x00]].concat();
        assert_eq!(verify(&wrapped(COSE_OID), b"", b""), Err(SignatureError::WebAuthn));
        assert_eq!(verify(&wrapped(CANISTER_OID), b"", b""), Err(SignatureError::Canister));
        assert_eq!(verify(b"what", b"", b""), Err(SignatureError::Key));
    }
}

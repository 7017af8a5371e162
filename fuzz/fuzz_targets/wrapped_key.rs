//! Wrapped keys: parsing never panics, what it accepts encodes back to the same bytes, and nothing opens by chance.
//!
//! The trailing digest would stop nearly every input, so each is tried as it is and with the digest made right.

#![no_main]

use backup_crypto::{Identity, RawKey, RecipientKind, WrappedKey, X25519SecretKey};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fuzz_target!(|data: &[u8]| {
    check(data);
    let mut repaired = data.to_vec();
    repaired.extend_from_slice(&Sha256::digest(data)[..16]);
    check(&repaired);
});

fn check(bytes: &[u8]) {
    let Ok(wrap) = WrappedKey::parse(bytes) else { return };
    assert_eq!(wrap.encode(), bytes);
    // Passphrases are left out: argon2 would take the whole time.
    let identity: Identity = match wrap.kind() {
        RecipientKind::RawKey => RawKey::take(&mut [1; 32]).into(),
        RecipientKind::X25519 => X25519SecretKey::take(&mut [1; 32]).into(),
        _ => return,
    };
    assert!(identity.unwrap(&wrap, wrap.repository(), wrap.epoch()).is_err());
}

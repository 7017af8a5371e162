//! Wrapping and unwrapping epoch keys, for every kind of recipient.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::fmt;
use std::sync::Mutex;

use backup_crypto::entropy::SeededEntropy;
use backup_crypto::*;
use proptest::prelude::*;

const EPOCH: EpochId = EpochId(2);

struct Setup {
    entropy: SeededEntropy,
    repository: RepositoryId,
    key: EpochKey,
}

fn setup(seed: u64) -> Setup {
    let entropy = SeededEntropy::new(seed);
    Setup { repository: RepositoryId::generate(&entropy), key: EpochKey::generate(&entropy), entropy }
}

/// Far too cheap for use, quick enough for a thousand tries.
fn cheap() -> PassphraseParams {
    PassphraseParams::new(64, 1, 1).unwrap()
}

/// Every kind of recipient with its own identity and a wrong one of the same kind.
fn everyone(setup: &Setup) -> Vec<(Recipient, Identity, Identity)> {
    let (right, wrong) = (Passphrase::new("correct horse").unwrap(), Passphrase::new("correct horsf").unwrap());
    let (raw, other_raw) = (RawKey::generate(&setup.entropy), RawKey::generate(&setup.entropy));
    let (pair, other_pair) = (X25519SecretKey::generate(&setup.entropy), X25519SecretKey::generate(&setup.entropy));
    vec![
        (Recipient::Passphrase(right.clone(), cheap()), right.into(), wrong.into()),
        (raw.clone().into(), raw.into(), other_raw.into()),
        (pair.public_key().into(), pair.into(), other_pair.into()),
    ]
}

fn wraps(setup: &Setup) -> Vec<(WrappedKey, Identity, Identity)> {
    let wrap = |recipient: &Recipient| recipient.wrap(&setup.key, setup.repository, EPOCH, &setup.entropy).unwrap();
    everyone(setup).into_iter().map(|(recipient, right, wrong)| (wrap(&recipient), right, wrong)).collect()
}

#[test]
fn whoever_it_was_wrapped_for_gets_the_key() {
    let setup = setup(1);
    for (wrap, identity, _) in wraps(&setup) {
        let stored = WrappedKey::parse(&wrap.encode()).unwrap();
        assert_eq!(stored, wrap);
        assert!(identity.matches(&stored));
        assert_eq!(identity.unwrap(&stored, setup.repository, EPOCH).unwrap(), setup.key);
    }
}

#[test]
fn a_wrong_secret_is_a_clear_error() {
    let setup = setup(2);
    for (wrap, _, wrong) in wraps(&setup) {
        let error = wrong.unwrap(&wrap, setup.repository, EPOCH).unwrap_err();
        assert!(matches!(&error, Error::WrongSecret { recipient, .. } if recipient == wrap.recipient()), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            format!("the {} does not open the key wrapped for {}", wrap.kind(), wrap.recipient())
        );
    }
}

#[test]
fn identities_of_other_kinds_are_told_so() {
    let setup = setup(3);
    let wraps = wraps(&setup);
    for (wrap, identity, _) in &wraps {
        for (other, ..) in wraps.iter().filter(|(other, ..)| other.kind() != wrap.kind()) {
            assert!(!identity.matches(other));
            let refused = identity.unwrap(other, setup.repository, EPOCH);
            assert!(matches!(refused, Err(Error::WrongRecipientKind { .. })));
        }
    }
}

#[test]
fn a_wrap_serves_one_repository_and_epoch() {
    let setup = setup(4);
    let elsewhere = RepositoryId::generate(&setup.entropy);
    for (wrap, identity, _) in wraps(&setup) {
        for (repository, epoch) in [(elsewhere, EPOCH), (setup.repository, EpochId(3))] {
            let refused = identity.unwrap(&wrap, repository, epoch);
            assert!(matches!(refused, Err(Error::ContextMismatch { .. })));
        }
    }
}

/// Someone who moves a wrap and repairs its plain fields and digest still gets nothing out of it.
#[test]
fn a_wrap_made_to_fit_another_place_does_not_open() {
    let setup = setup(5);
    let elsewhere = RepositoryId::generate(&setup.entropy);
    for (wrap, identity, _) in wraps(&setup) {
        let mut moved = wrap.encode();
        moved[20..36].copy_from_slice(elsewhere.as_bytes());
        let moved = WrappedKey::parse(&repaired(moved)).unwrap();
        let refused = identity.unwrap(&moved, elsewhere, EPOCH);
        assert!(matches!(refused, Err(Error::WrongSecret { .. } | Error::Malformed { .. })));

        let mut renamed = wrap.encode();
        renamed[36 + wrap.recipient().as_str().len() - 1] ^= 1;
        let renamed = WrappedKey::parse(&repaired(renamed)).unwrap();
        assert!(identity.unwrap(&renamed, setup.repository, EPOCH).is_err());
    }
}

fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    use sha2::Digest;
    let content = bytes.len() - 16;
    let digest = sha2::Sha256::digest(&bytes[..content]);
    bytes[content..].copy_from_slice(&digest[..16]);
    bytes
}

#[test]
fn a_hostile_wrap_cannot_demand_memory_or_time() {
    let setup = setup(6);
    let (wrap, identity, _) = wraps(&setup).remove(0);
    let params = 36 + wrap.recipient().as_str().len() + 32;
    // A 100 GiB wrap, endless passes, and each at its own limit but together too much.
    for (memory_kib, passes) in
        [(100 << 20, 1), (64, u32::MAX), (PassphraseParams::MAX_MEMORY_KIB, PassphraseParams::MAX_PASSES)]
    {
        let mut hostile = wrap.encode();
        hostile[params..params + 4].copy_from_slice(&u32::to_le_bytes(memory_kib));
        hostile[params + 4..params + 8].copy_from_slice(&u32::to_le_bytes(passes));
        let error = WrappedKey::parse(&repaired(hostile)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    assert!(identity.unwrap(&wrap, setup.repository, EPOCH).is_ok());
}

#[test]
fn costs_are_bounded() {
    assert!(PassphraseParams::new(64 << 10, 3, 4).is_ok());
    for (memory_kib, passes, lanes) in
        [(7, 1, 1), (15, 1, 2), (64, 0, 1), (64, 1, 0), (64, 1, 17), ((1 << 20) + 1, 1, 1)]
    {
        assert!(PassphraseParams::new(memory_kib, passes, lanes).is_err(), "{memory_kib} {passes} {lanes}");
    }
}

#[test]
fn recipient_ids_are_stable_where_that_is_safe() {
    let setup = setup(7);
    for (recipient, identity, wrong) in everyone(&setup) {
        let wrap = || recipient.wrap(&setup.key, setup.repository, EPOCH, &setup.entropy).unwrap();
        let (first, second) = (wrap(), wrap());
        assert_ne!(first.encode(), second.encode(), "every wrap is fresh");
        let is_passphrase = recipient.kind() == RecipientKind::Passphrase;
        assert_eq!(first.recipient() == second.recipient(), !is_passphrase);
        assert_eq!(identity.stable_id().is_none(), is_passphrase);
        assert_eq!(identity.stable_id() == wrong.stable_id(), is_passphrase);
    }
}

#[test]
fn text_forms_round_trip_and_catch_typing_errors() {
    let setup = setup(8);
    let pair = X25519SecretKey::generate(&setup.entropy);
    let raw = RawKey::generate(&setup.entropy);
    let (public, secret, key) = (pair.public_key().to_string(), pair.to_secret_text(), raw.to_secret_text());
    assert!(public.starts_with("backup1") && secret.starts_with("BACKUP-SECRET-1") && key.starts_with("BACKUP-KEY-1"));
    assert_eq!(public.parse::<X25519PublicKey>().unwrap(), pair.public_key());
    assert_eq!(secret.parse::<X25519SecretKey>().unwrap().public_key(), pair.public_key());
    assert_eq!(format!(" {}\n", *key).parse::<RawKey>().unwrap().id(), raw.id());
    let hex = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    assert_eq!(
        hex.parse::<RawKey>().unwrap().id(),
        RawKey::take(&mut std::array::from_fn(|i| (i % 16) as u8 * 17)).id()
    );

    for at in 7..public.len() {
        let mut typo = public.clone().into_bytes();
        typo[at] = if typo[at] == b'q' { b'p' } else { b'q' };
        assert!(String::from_utf8(typo).unwrap().parse::<X25519PublicKey>().is_err());
    }
    assert!(public.parse::<X25519SecretKey>().is_err() && secret.parse::<X25519PublicKey>().is_err());
    assert!(secret.parse::<RawKey>().is_err() && "".parse::<RawKey>().is_err());
}

#[test]
fn nothing_secret_is_printed() {
    let setup = setup(9);
    for (recipient, identity, _) in everyone(&setup) {
        let printed = format!("{recipient:?} {identity:?}");
        assert!(!printed.contains("horse") && !printed.contains("SECRET-1"), "{printed}");
    }
    let mut bytes = *b"nobody may ever read these bytes";
    let printed = format!("{:?} {:?}", RawKey::take(&mut bytes.clone()), X25519SecretKey::take(&mut bytes));
    for form in ["6e6f626f", "110, 111", "nobody"] {
        assert!(!printed.contains(form));
    }
}

#[test]
fn a_public_key_of_low_order_wraps_nothing() {
    let setup = setup(10);
    let refused =
        Recipient::from(X25519PublicKey::from_bytes([0; 32])).wrap(&setup.key, setup.repository, EPOCH, &setup.entropy);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn empty_and_endless_passphrases_are_refused() {
    assert!(Passphrase::new("").is_err());
    assert!(Passphrase::new("x".repeat(Passphrase::MAX_LEN + 1)).is_err());
    assert!(Passphrase::new("x".repeat(Passphrase::MAX_LEN)).is_ok());
}

/// A key service that keeps what it wraps, under the context it was wrapped with.
#[derive(Debug, Default)]
struct Vault {
    kept: Mutex<Vec<(String, [u8; 32])>>,
    sealed: bool,
}

impl fmt::Display for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

#[async_trait::async_trait]
impl KeyWrapper for Vault {
    fn recipient_id(&self) -> RecipientId {
        "vault-1".parse().unwrap()
    }

    async fn wrap(&self, context: &WrapContext<'_>, key: &EpochKey) -> Result<Vec<u8>> {
        let mut kept = self.kept.lock().unwrap();
        kept.push((context.associated_data(), *key.expose()));
        Ok(vec![kept.len() as u8 - 1])
    }

    async fn unwrap(&self, context: &WrapContext<'_>, sealed: &[u8]) -> Result<EpochKey> {
        if self.sealed {
            return Err(Error::from_service(
                ErrorKind::Unavailable,
                "unwrap",
                self.recipient_id(),
                "the vault is sealed",
            ));
        }
        let (kept_for, mut key) = self.kept.lock().unwrap()[usize::from(sealed[0])].clone();
        assert_eq!(kept_for, context.associated_data());
        Ok(EpochKey::take(&mut key))
    }
}

#[test]
fn a_key_service_is_a_recipient() {
    futures::executor::block_on(async {
        let setup = setup(11);
        let mut vault = Vault::default();
        let wrap = WrappedKey::wrap_by(&vault, &setup.key, setup.repository, EPOCH).await.unwrap();
        let wrap = WrappedKey::parse(&wrap.encode()).unwrap();
        assert_eq!((wrap.kind(), wrap.recipient().as_str()), (RecipientKind::Service, "vault-1"));
        assert_eq!(wrap.unwrap_by(&vault, setup.repository, EPOCH).await.unwrap(), setup.key);
        let elsewhere = RepositoryId::generate(&setup.entropy);
        assert!(matches!(wrap.unwrap_by(&vault, elsewhere, EPOCH).await, Err(Error::ContextMismatch { .. })));
        vault.sealed = true;
        let error = wrap.unwrap_by(&vault, setup.repository, EPOCH).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the vault is sealed");
        for (local, identity, _) in wraps(&setup) {
            assert!(matches!(identity.unwrap(&wrap, setup.repository, EPOCH), Err(Error::WrongRecipientKind { .. })));
            let refused = local.unwrap_by(&vault, setup.repository, EPOCH).await;
            assert!(matches!(refused, Err(Error::WrongRecipientKind { .. })));
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_is_damage_and_no_wrong_passphrase(seed: u64, at: prop::sample::Index, bit in 0..8) {
        for (wrap, ..) in wraps(&setup(seed)) {
            let mut bytes = wrap.encode();
            *at.get_mut(&mut bytes[..]) ^= 1_u8 << bit;
            let error = WrappedKey::parse(&bytes).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error);
        }
    }

    /// Even when the digest is repaired, no changed bit of the content gives a key.
    #[test]
    fn any_deliberate_change_is_refused(seed: u64, at: prop::sample::Index, bit in 0..8) {
        let setup = setup(seed);
        for (wrap, identity, _) in wraps(&setup) {
            let mut bytes = wrap.encode();
            let content = bytes.len() - 16;
            // Turning up the cost within its bounds is refused too, but takes its time.
            let at = at.index(content);
            let cost = 36 + wrap.recipient().as_str().len() + 32;
            prop_assume!(wrap.kind() != RecipientKind::Passphrase || !(cost..cost + 12).contains(&at));
            bytes[at] ^= 1_u8 << bit;
            if let Ok(changed) = WrappedKey::parse(&repaired(bytes)) {
                prop_assert!(identity.unwrap(&changed, setup.repository, EPOCH).is_err());
            }
        }
    }

    #[test]
    fn truncation_and_trailing_bytes_are_damage(seed: u64, keep: prop::sample::Index, extra in 1_usize..20) {
        for (wrap, ..) in wraps(&setup(seed)) {
            let mut bytes = wrap.encode();
            prop_assert!(WrappedKey::parse(&bytes[..keep.index(bytes.len())]).is_err());
            bytes.resize(bytes.len() + extra, 0);
            prop_assert!(WrappedKey::parse(&bytes).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(fixed in prop::collection::vec(any::<u8>(), 28), rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = WrappedKey::parse(&rest);
        let mut plausible = b"\x89BKKEY\r\n\x01".to_vec();
        plausible.extend_from_slice(&[1 + fixed[0] % 4, 0, fixed[1] % 30, fixed[2] % 64, 0, fixed[3] % 100, 0]);
        plausible.extend_from_slice(&fixed[8..]);
        plausible.extend_from_slice(&rest);
        plausible.truncate(36 + usize::from(fixed[1] % 30) + usize::from(fixed[2] % 64) + usize::from(fixed[3] % 100));
        plausible.extend_from_slice(&[0; 16]);
        if let Ok(wrap) = WrappedKey::parse(&repaired(plausible.clone())) {
            prop_assert_eq!(wrap.encode(), repaired(plausible));
        }
    }

    #[test]
    fn recipient_ids_are_fit_for_object_names(text in ".{0,70}") {
        if let Ok(id) = text.parse::<RecipientId>() {
            prop_assert!(!id.as_str().is_empty() && id.as_str().len() <= 64);
            prop_assert!(id.as_str().bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')));
        }
    }
}

#[test]
fn a_recipient_keeps_its_name_from_epoch_to_epoch() {
    let setup = setup(21);
    for (recipient, identity, wrong) in everyone(&setup) {
        let first = recipient.wrap(&setup.key, setup.repository, EPOCH, &setup.entropy).unwrap();
        let next = EpochKey::generate(&setup.entropy);
        let again = recipient.wrap_as(first.recipient(), &next, setup.repository, EpochId(3), &setup.entropy).unwrap();
        assert_eq!(again.recipient(), first.recipient());
        let stored = WrappedKey::parse(&again.encode()).unwrap();
        assert_eq!(identity.unwrap(&stored, setup.repository, EpochId(3)).unwrap(), next);
        assert!(wrong.unwrap(&stored, setup.repository, EpochId(3)).is_err());
        let other: RecipientId = "pass-0000000000000000".parse().unwrap();
        let foreign = recipient.wrap_as(&other, &next, setup.repository, EpochId(3), &setup.entropy);
        assert_eq!(foreign.is_ok(), recipient.kind() == RecipientKind::Passphrase);
        assert_eq!(identity.to_recipient().stable_id(), recipient.stable_id());
        let both = recipient.to_identity().is_some();
        assert_eq!(both, identity.is_secret_both_ways());
    }
}

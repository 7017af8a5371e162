//! Plain objects between a host that only writes and those who have the keys: neither of them can open what the other seals.
//!
//! ```text
//! 89 42 4b 44 45 50 0d 0a | version 1 | kind (1 deposit, 2 answer, 3 notice) | 6 zero bytes | CBOR map | 32 bytes tag
//! ```
//! The tag is [`HostSecret::tag`] over the name of the object and everything before. It is what counts: parsing says nothing of who wrote the bytes.

use backup_core::catalog::{ManifestRef, Refusal};
use backup_core::{BackupId, HostId, SessionId};
use backup_crypto::HostSecret;
use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::layout;
use crate::store::ObjectName;

const MAGIC: [u8; 8] = *b"\x89BKDEP\r\n";
const VERSION: u8 = 1;
const HEADER: usize = 16;
const TAG: usize = 32;
/// Longest object that is read, in bytes: several times what the longest wrap makes.
const MOST: usize = 64 << 10;

/// One of them.
pub(crate) trait Paper: Encode<()> + for<'b> Decode<'b, ()> {
    /// Of what there is one.
    type Of: Copy;

    /// Its number in the header.
    const KIND: u8;

    /// The name of its object.
    fn name(of: Self::Of) -> Result<ObjectName>;
}

/// What a host says at the end of its session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Deposit {
    /// The repository.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) repository: [u8; 16],
    /// The host.
    #[n(1)]
    pub(crate) host: HostId,
    /// The epoch from whose key the host's secret and the public key follow.
    #[n(2)]
    pub(crate) epoch: u32,
    /// The session.
    #[n(3)]
    pub(crate) session: SessionId,
    /// The fingerprint of the session's key.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(crate) fingerprint: [u8; 16],
    /// That key, wrapped for the public key.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(crate) wrap: Vec<u8>,
    /// The backup that it is to be.
    #[n(6)]
    pub(crate) backup: BackupId,
    /// Where its manifest begins.
    #[n(7)]
    pub(crate) root: ManifestRef,
    /// How many packs the session stored: those with the numbers below.
    #[n(8)]
    pub(crate) packs: u32,
    /// Their bytes.
    #[n(9)]
    pub(crate) stored_bytes: u64,
    /// When it began.
    #[cbor(n(10), with = "backup_core::cbor::timestamp")]
    pub(crate) started_at: Timestamp,
    /// When it ended.
    #[cbor(n(11), with = "backup_core::cbor::timestamp")]
    pub(crate) ended_at: Timestamp,
}

impl Paper for Deposit {
    type Of = SessionId;

    const KIND: u8 = 1;

    fn name(session: SessionId) -> Result<ObjectName> {
        layout::deposit(session)
    }
}

/// What became of a deposit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Answer {
    /// The session.
    #[n(0)]
    pub(crate) session: SessionId,
    /// Why it is no backup; none when it is one.
    #[n(1)]
    pub(crate) refused: Option<Refusal>,
    /// When that was said.
    #[cbor(n(2), with = "backup_core::cbor::timestamp")]
    pub(crate) at: Timestamp,
}

impl Paper for Answer {
    type Of = SessionId;

    const KIND: u8 = 2;

    fn name(session: SessionId) -> Result<ObjectName> {
        layout::answer(session)
    }
}

/// Tells a host that nothing of it is adopted any more.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Notice {
    /// The host.
    #[n(0)]
    pub(crate) host: HostId,
    /// Why.
    #[n(1)]
    pub(crate) reason: Refusal,
    /// When that was said.
    #[cbor(n(2), with = "backup_core::cbor::timestamp")]
    pub(crate) at: Timestamp,
}

impl Paper for Notice {
    type Of = HostId;

    const KIND: u8 = 3;

    fn name(host: HostId) -> Result<ObjectName> {
        layout::notice(host)
    }
}

/// The object that says `paper`.
///
/// # Errors
/// Internal only.
pub(crate) fn write<P: Paper>(secret: &HostSecret, of: P::Of, paper: &P) -> Result<(ObjectName, Vec<u8>)> {
    let name = P::name(of)?;
    let mut object = Vec::with_capacity(512);
    object.extend_from_slice(&MAGIC);
    object.extend_from_slice(&[VERSION, P::KIND, 0, 0, 0, 0, 0, 0]);
    minicbor::encode(paper, &mut object)
        .map_err(|e| Error::internal(format!("object {name} cannot be encoded: {e}")))?;
    let tag = secret.tag(name.as_str(), &object);
    object.extend_from_slice(&tag);
    Ok((name, object))
}

/// What the object says, whoever wrote it. Pure; allocation is bounded by the input.
///
/// # Errors
/// Damaged; Environment for a later version.
pub(crate) fn parse<P: Paper>(of: P::Of, object: &[u8]) -> Result<P> {
    let name = P::name(of)?;
    let damaged = |why: &str| Error::damaged(format!("object {name} is damaged: {why}"));
    if object.len() > MOST {
        return Err(damaged("it is too long"));
    }
    let (header, rest) = object.split_at_checked(HEADER).ok_or_else(|| damaged("it is too short"))?;
    let body = rest.split_last_chunk::<TAG>().ok_or_else(|| damaged("it is too short"))?.0;
    if header[..8] != MAGIC || header[9] != P::KIND || header[10..] != [0; 6] {
        return Err(damaged("it does not begin as it must"));
    }
    if header[8] != VERSION {
        return Err(Error::environment(format!("object {name} was written by a newer version of this library")));
    }
    minicbor::decode(body).map_err(|e| damaged("it is not readable").with_source(e))
}

/// Whether whoever has `secret` wrote the object.
pub(crate) fn is_genuine<P: Paper>(secret: &HostSecret, of: P::Of, object: &[u8]) -> Result<bool> {
    let name = P::name(of)?;
    Ok(object.split_last_chunk::<TAG>().is_some_and(|(said, tag)| secret.verify(name.as_str(), said, tag)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use backup_core::catalog::PackId;
    use backup_core::env::Env;
    use proptest::prelude::*;

    pub(crate) fn secret() -> HostSecret {
        HostSecret::take(&mut [5; 32])
    }

    pub(crate) fn deposit(session: SessionId) -> Deposit {
        let now = Env::seeded(0).now();
        Deposit {
            repository: [1; 16],
            host: HostId::from_bytes([2; 16]),
            epoch: 3,
            session,
            fingerprint: [4; 16],
            wrap: vec![5; 100],
            backup: BackupId::from_bytes([6; 16]),
            root: ManifestRef { pack: PackId { session, number: 7 }, segment: 8, digest: [9; 32] },
            packs: 10,
            stored_bytes: 11,
            started_at: now,
            ended_at: now,
        }
    }

    #[test]
    fn a_paper_belongs_to_its_writer_its_session_and_its_kind() {
        let (session, other) = (SessionId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
        let said = deposit(session);
        let (name, object) = write(&secret(), session, &said).unwrap();
        assert_eq!(name, layout::deposit(session).unwrap());
        assert_eq!(parse::<Deposit>(session, &object).unwrap(), said);
        assert!(is_genuine::<Deposit>(&secret(), session, &object).unwrap());
        assert!(!is_genuine::<Deposit>(&secret(), other, &object).unwrap(), "it was moved");
        assert!(!is_genuine::<Answer>(&secret(), session, &object).unwrap());
        assert!(!is_genuine::<Deposit>(&HostSecret::take(&mut [6; 32]), session, &object).unwrap());
        assert_eq!(parse::<Answer>(session, &object).unwrap_err().kind(), ErrorKind::Damaged);
        for at in 0..object.len() {
            let mut flipped = object.clone();
            flipped[at] ^= 1;
            assert!(!is_genuine::<Deposit>(&secret(), session, &flipped).unwrap(), "byte {at}");
        }
        let mut newer = object;
        newer[8] = 2;
        assert_eq!(parse::<Deposit>(session, &newer).unwrap_err().kind(), ErrorKind::Environment);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0..300_usize, at: prop::sample::Index, with: u8) {
            let session = SessionId::from_bytes([1; 16]);
            let _ = parse::<Deposit>(session, &bytes);
            let _ = parse::<Answer>(session, &bytes);
            let _ = is_genuine::<Deposit>(&secret(), session, &bytes);
            let (_, mut object) = write(&secret(), session, &deposit(session)).unwrap();
            let at = at.index(object.len());
            object[at] = with;
            let _ = parse::<Deposit>(session, &object);
            object.truncate(cut);
            prop_assert!(!is_genuine::<Deposit>(&secret(), session, &object).unwrap());
            let _ = parse::<Deposit>(session, &object);
            let mut plausible = MAGIC.to_vec();
            plausible.extend_from_slice(&[VERSION, 1, 0, 0, 0, 0, 0, 0]);
            plausible.extend_from_slice(&bytes);
            let _ = parse::<Deposit>(session, &plausible);
        }
    }
}

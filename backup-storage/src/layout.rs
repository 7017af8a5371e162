//! Where things stand in a repository. Every name is relative to the repository's own prefix, and is bound into the key of
//! the object that bears it, so a repository can be copied as a whole but no object can take another's place.
//!
//! ```text
//! repository                                  plain description: format, repository id, suite
//! keys/<epoch %04d>/<recipient>               epoch keys, wrapped when the repository was created
//! keys/<epoch %04d>/<recipient>.<%016x>       epoch keys, wrapped later
//! epochs/<epoch %04d>                         succession: which key follows, sealed in the epoch before
//! catalog/<generation %04d>/<number %020d>    the journal; a rebuild begins a new generation
//! checkpoints/<generation %04d>/<number %020d>   the journal up to an entry, in one object; may be missing
//! packs/<session>/<number %06d>               packs: content, block maps and manifests
//! packs/<session>/commit                      witness: which journal entry made this session a backup
//! packs/<session>/alive-<number %06d>         sign of life of a session that has not ended
//! packs/<session>/deposit                     what a host that only writes says at the end of its session
//! packs/<session>/answer                      what became of that
//! hosts/<host>                                notice to a host that only writes: nothing of it is adopted any more
//! region                                      mark: this is a copy of what lies in another vault, and nobody writes to it
//! purge                                       mark: what lies here without keys is being destroyed
//! log/<lineage>/<epoch %08d>/<sequence %010d>-<start %016x>-<end %016x>   pieces of log, see [`crate::log`]
//! ```

use backup_core::catalog::PackId;
use backup_core::{HostId, SessionId};
use backup_crypto::{EpochId, RecipientId};

use crate::error::Result;
use crate::store::ObjectName;

/// The folder of the journal's generations.
pub(crate) const CATALOG: &str = "catalog";
/// The folder of checkpoints of the journal.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// The folder of all sessions.
pub(crate) const PACKS: &str = "packs";
/// The file in a session's folder that ends a deposit.
const DEPOSIT: &str = "deposit";
/// The file in a session's folder that says what became of a deposit.
const ANSWER: &str = "answer";
/// How the names of signs of life begin.
const ALIVE: &str = "alive-";
/// The folder of the log.
pub(crate) const LOG: &str = "log";
/// The folder of wrapped keys.
pub(crate) const KEYS: &str = "keys";

/// The folder of the succession of epochs.
pub(crate) const EPOCHS: &str = "epochs";

/// The folder of notices to hosts that only write.
pub(crate) const HOSTS: &str = "hosts";

/// The mark of a region: a copy that is not written to until it is promoted, see [`crate::replicate`].
pub(crate) const REGION: &str = "region";

/// The mark of a repository that is being destroyed, see [`crate::vault`].
pub(crate) const PURGE: &str = "purge";

/// The plain description of the repository.
pub(crate) fn repository() -> Result<ObjectName> {
    ObjectName::new("repository")
}

/// One wrap of an epoch key.
pub(crate) fn key(epoch: EpochId, recipient: &RecipientId) -> Result<ObjectName> {
    ObjectName::new(format!("{KEYS}/{:04}/{recipient}", epoch.0))
}

/// One wrap of an epoch key that is stored after the repository was created. The name follows from the object, so that no name is ever
/// used twice, whoever is removed and added again.
pub(crate) fn later_key(epoch: EpochId, recipient: &RecipientId, object: &[u8]) -> Result<ObjectName> {
    let digest = blake3::hash(object).to_hex();
    ObjectName::new(format!("{KEYS}/{:04}/{recipient}.{}", epoch.0, &digest[..16]))
}

/// The folder of the wraps of one epoch's key.
pub(crate) fn keys_of(epoch: EpochId) -> String {
    format!("{KEYS}/{:04}", epoch.0)
}

/// Epoch and recipient of the wrap `name`. Foreign names are `None`.
pub(crate) fn key_place(name: &str) -> Option<(EpochId, &str)> {
    let (epoch, file) = name.strip_prefix(KEYS)?.strip_prefix('/')?.split_once('/')?;
    let recipient = file.split_once('.').map_or(file, |(recipient, _)| recipient);
    Some((epoch_number(epoch)?, recipient))
}

/// What tells of the epoch that follows another.
pub(crate) fn epoch(epoch: EpochId) -> Result<ObjectName> {
    ObjectName::new(format!("{EPOCHS}/{:04}", epoch.0))
}

/// The epoch that the object `name` tells of. Foreign names are `None`.
pub(crate) fn epoch_place(name: &str) -> Option<EpochId> {
    epoch_number(name.strip_prefix(EPOCHS)?.strip_prefix('/')?)
}

fn epoch_number(digits: &str) -> Option<EpochId> {
    let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
    (format!("{number:04}") == digits).then_some(EpochId(number))
}

/// One entry of the journal. The first has number 1.
pub(crate) fn entry(generation: u32, number: u64) -> Result<ObjectName> {
    ObjectName::new(format!("{CATALOG}/{generation:04}/{number:020}"))
}

/// The folder of the entries of one generation.
pub(crate) fn generation(generation: u32) -> String {
    format!("{CATALOG}/{generation:04}")
}

/// The checkpoint of the journal up to an entry.
pub(crate) fn checkpoint(generation: u32, number: u64) -> Result<ObjectName> {
    ObjectName::new(format!("{CHECKPOINTS}/{generation:04}/{number:020}"))
}

/// Generation and number of the entry up to which the checkpoint `name` goes. Foreign names are `None`.
pub(crate) fn checkpoint_place(name: &str) -> Option<(u32, u64)> {
    numbered(name.strip_prefix(CHECKPOINTS)?)
}

/// One pack.
pub(crate) fn pack(id: PackId) -> Result<ObjectName> {
    ObjectName::new(format!("{PACKS}/{}/{:06}", id.session, id.number))
}

/// The folder of one session.
pub(crate) fn session(session: SessionId) -> String {
    format!("{PACKS}/{session}")
}

/// The witness of a session's commit.
pub(crate) fn witness(session: SessionId) -> Result<ObjectName> {
    ObjectName::new(format!("{PACKS}/{session}/commit"))
}

/// One sign of life of a session.
pub(crate) fn alive(session: SessionId, number: u32) -> Result<ObjectName> {
    ObjectName::new(format!("{PACKS}/{session}/{ALIVE}{number:06}"))
}

/// What a host says at the end of its session.
pub(crate) fn deposit(session: SessionId) -> Result<ObjectName> {
    ObjectName::new(format!("{PACKS}/{session}/{DEPOSIT}"))
}

/// What became of a deposit.
pub(crate) fn answer(session: SessionId) -> Result<ObjectName> {
    ObjectName::new(format!("{PACKS}/{session}/{ANSWER}"))
}

/// The notice to a host that nothing of it is adopted any more.
pub(crate) fn notice(host: HostId) -> Result<ObjectName> {
    ObjectName::new(format!("{HOSTS}/{host}"))
}

/// The host to which the notice `name` is given. Foreign names are `None`.
pub(crate) fn noticed(name: &str) -> Option<HostId> {
    name.strip_prefix(HOSTS)?.strip_prefix('/')?.parse().ok()
}

/// The name under which the key of a session is sealed. It stands in the journal; there is no object of this name.
pub(crate) fn session_key(session: SessionId) -> Result<ObjectName> {
    ObjectName::new(format!("{PACKS}/{session}/key"))
}

/// What the name of an object below `packs/` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionObject {
    /// A pack.
    Pack(PackId),
    /// The witness of a commit.
    Witness(SessionId),
    /// A sign of life.
    Alive(SessionId),
    /// What a host says at the end of its session.
    Deposit(SessionId),
    /// What became of a deposit.
    Answer(SessionId),
}

impl SessionObject {
    /// The session in whose folder it lies.
    pub(crate) fn session(&self) -> SessionId {
        match self {
            Self::Pack(id) => id.session,
            Self::Witness(session) | Self::Alive(session) | Self::Deposit(session) | Self::Answer(session) => *session,
        }
    }
}

/// Reads a name below `packs/`. Foreign names are `None`.
pub(crate) fn session_object(name: &str) -> Option<SessionObject> {
    let (session, file) = name.strip_prefix(PACKS)?.strip_prefix('/')?.split_once('/')?;
    let session: SessionId = session.parse().ok()?;
    match file {
        "commit" => return Some(SessionObject::Witness(session)),
        DEPOSIT => return Some(SessionObject::Deposit(session)),
        ANSWER => return Some(SessionObject::Answer(session)),
        _ => {}
    }
    let digits = |text: &str| text.len() >= 6 && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(number) = file.strip_prefix(ALIVE) {
        return digits(number).then_some(SessionObject::Alive(session));
    }
    let number: u32 = file.parse().ok().filter(|_| digits(file))?;
    Some(SessionObject::Pack(PackId { session, number }))
}

/// Generation and number of the journal entry `name`. Foreign names are `None`.
pub(crate) fn entry_place(name: &str) -> Option<(u32, u64)> {
    numbered(name.strip_prefix(CATALOG)?)
}

/// Two numbers behind slashes.
fn numbered(rest: &str) -> Option<(u32, u64)> {
    let (generation, number) = rest.strip_prefix('/')?.split_once('/')?;
    let digits = |text: &str, len: usize| text.len() >= len && text.bytes().all(|b| b.is_ascii_digit());
    (digits(generation, 4) && digits(number, 20)).then_some(())?;
    Some((generation.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::env::Env;

    #[test]
    fn names_come_back() {
        let session = SessionId::mint(&Env::seeded(1));
        let id = PackId { session, number: 7 };
        assert_eq!(session_object(pack(id).unwrap().as_str()), Some(SessionObject::Pack(id)));
        assert_eq!(session_object(witness(session).unwrap().as_str()), Some(SessionObject::Witness(session)));
        assert_eq!(session_object(deposit(session).unwrap().as_str()), Some(SessionObject::Deposit(session)));
        assert_eq!(session_object(answer(session).unwrap().as_str()), Some(SessionObject::Answer(session)));
        assert_eq!(session_object(session_key(session).unwrap().as_str()), None);
        let host = HostId::mint(&Env::seeded(2));
        assert_eq!(noticed(notice(host).unwrap().as_str()), Some(host));
        assert_eq!(noticed("hosts/x"), None);
        assert_eq!(session_object(alive(session, 3).unwrap().as_str()), Some(SessionObject::Alive(session)));
        assert_eq!(entry_place(entry(1, 42).unwrap().as_str()), Some((1, 42)));
        assert_eq!(checkpoint_place(checkpoint(1, 42).unwrap().as_str()), Some((1, 42)));
        assert_eq!(checkpoint_place(entry(1, 42).unwrap().as_str()), None);
        for foreign in ["packs", "packs/x/000001", "packs/x", "other/y/000001", "packs/../000001"] {
            assert_eq!(session_object(foreign), None, "{foreign}");
        }
        let recipient: RecipientId = "x25519-00".parse().unwrap();
        for name in [key(EpochId(3), &recipient).unwrap(), later_key(EpochId(3), &recipient, b"object").unwrap()] {
            assert_eq!(key_place(name.as_str()), Some((EpochId(3), "x25519-00")));
        }
        assert_eq!(epoch_place(epoch(EpochId(12345)).unwrap().as_str()), Some(EpochId(12345)));
        for foreign in ["keys/3/x", "keys/0000/x", "keys/+003/x", "keys/0003", "epochs/00003", "epochs/3"] {
            assert_eq!((key_place(foreign), epoch_place(foreign)), (None, None), "{foreign}");
        }
        assert_eq!(session_object(&format!("packs/{session}/+00001")), None);
        assert_eq!(entry_place("catalog/1/1"), None);
    }
}

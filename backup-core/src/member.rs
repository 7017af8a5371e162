//! Members: the nodes or shards of a clustered service, whose backups are one.
//!
//! A group is no kind of backup of its own: it has one record and one manifest, and so is kept, held, listed, verified, collected and
//! copied like any other. What its members add is here: what each would have said in the header of a backup of its own.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::entry::EntryPath;
use crate::error::{Error, Result};
use crate::position::LogPosition;
use crate::snapshot::{Consistency, Finding, LossyItem, Snapshot};

/// The longest name of a member, in bytes.
const MAX_LEN: usize = 64;

/// The name of a member, and of the folder that its entries lie in: 1 to 64 of `a-z 0-9 . _ -`, the first a letter or digit.
///
/// The engine gives it. A member that keeps its name from backup to backup finds its content in the parent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct MemberName(String);

impl MemberName {
    /// Checks `name` against the rule above.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names it.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = |byte: u8| letter(byte) || matches!(byte, b'.' | b'_' | b'-');
        if name.bytes().next().is_some_and(letter) && name.len() <= MAX_LEN && name.bytes().all(fits) {
            return Ok(Self(name));
        }
        Err(Error::invalid(format!(
            "member name {name:?} must have 1 to {MAX_LEN} of a-z 0-9 . _ -, the first a letter or digit"
        )))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder of its entries.
    ///
    /// # Errors
    /// None for a name that was checked; the type of a path does not know that.
    pub fn folder(&self) -> Result<EntryPath> {
        EntryPath::new(self.0.as_str())
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<C> Encode<C> for MemberName {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> std::result::Result<(), EncodeError<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for MemberName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, DecodeError> {
        Self::new(d.str()?).map_err(DecodeError::custom)
    }
}

/// What an engine knows about one member of a group. As far as they mean the same, its fields are those of [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct Member {
    /// Its name, under which its entries lie.
    #[n(0)]
    pub name: MemberName,
    /// Version of its server.
    #[n(1)]
    pub version: String,
    /// Identity that two members never share.
    #[n(2)]
    pub source: String,
    /// How it was read.
    #[n(3)]
    pub method: String,
    /// How its parts belong together.
    #[n(4)]
    pub consistency: Consistency,
    /// When the work on it began, by the clock of this library's host.
    #[cbor(n(5), with = "crate::cbor::timestamp")]
    pub started_at: Timestamp,
    /// When it had been read.
    #[cbor(n(6), with = "crate::cbor::timestamp")]
    pub ended_at: Timestamp,
    /// First log position that a restore of it needs.
    #[n(7)]
    pub start: Option<LogPosition>,
    /// The position from which its data is consistent.
    #[n(8)]
    pub stop: Option<LogPosition>,
    /// What was noticed.
    #[n(9)]
    pub findings: Vec<Finding>,
    /// What is missing on purpose.
    #[n(10)]
    pub lossy: Vec<LossyItem>,
    /// Facts that only the engine itself reads back, by stable names.
    #[n(11)]
    pub facts: BTreeMap<String, String>,
    /// The moment of `stop`, by the clock of the source, in whole microseconds since 1970: everything of it was committed by then.
    #[n(12)]
    pub stopped_at: Option<i64>,
    /// The same moment by the clock of this library's host, which is one for all members.
    #[n(13)]
    pub taken_at: Option<i64>,
}

impl Member {
    /// The member `name`, of which `snapshot` says what it says of a backup.
    #[must_use]
    pub fn new(name: MemberName, snapshot: Snapshot) -> Self {
        Self {
            name,
            version: snapshot.version,
            source: snapshot.source,
            method: snapshot.method,
            consistency: snapshot.consistency,
            started_at: snapshot.started_at,
            ended_at: snapshot.ended_at,
            start: snapshot.start,
            stop: snapshot.stop,
            findings: snapshot.findings,
            lossy: snapshot.lossy,
            facts: snapshot.facts,
            stopped_at: snapshot.stopped_at,
            taken_at: None,
        }
    }

    /// Sets when it was taken, by the clock of this library's host.
    #[must_use]
    pub fn with_taken_at(mut self, at: Timestamp) -> Self {
        self.taken_at = Some(at.as_microsecond());
        self
    }

    /// A fact by name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// What the header of a backup of this member alone would be.
    #[must_use]
    pub fn snapshot(&self, engine: &str) -> Snapshot {
        let times = (self.started_at, self.ended_at);
        let Self { version, source, method, consistency, .. } = self.clone();
        let mut snapshot = Snapshot::new(engine, version, source, method, consistency, times);
        snapshot.start.clone_from(&self.start);
        snapshot.stop.clone_from(&self.stop);
        snapshot.findings.clone_from(&self.findings);
        snapshot.lossy.clone_from(&self.lossy);
        snapshot.facts.clone_from(&self.facts);
        snapshot.stopped_at = self.stopped_at;
        snapshot
    }
}

/// The members of a backup, and how far their moments lie apart.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct Group {
    /// The members, in the order of their names.
    #[n(0)]
    pub members: Vec<Member>,
    /// The greatest distance between the moments of two members, in microseconds. None when it was not measured for all of them.
    #[n(1)]
    pub skew: Option<u64>,
}

impl Group {
    /// A group of `members`, at least one.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when there is none, or two have one name: their entries would lie in one folder.
    pub fn new(mut members: Vec<Member>) -> Result<Self> {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if members.is_empty() {
            return Err(Error::internal("a group has no members"));
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::internal(format!("two members of a group are called {}", pair[0].name)));
        }
        let taken: Option<Vec<i64>> = members.iter().map(|member| member.taken_at).collect();
        let skew = taken.and_then(|taken| Some(taken.iter().max()?.abs_diff(*taken.iter().min()?)));
        Ok(Self { members, skew })
    }

    /// The member of this name.
    #[must_use]
    pub fn member(&self, name: &MemberName) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }

    /// The versions of its members, each once.
    #[must_use]
    pub fn version(&self) -> String {
        let mut versions: Vec<&str> = self.members.iter().map(|member| member.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        versions.join(", ")
    }

    /// What was noticed of its members. What is so at all of them is told once.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        gathered_findings(self.members.iter().map(|member| (&member.name, member.findings.as_slice())))
    }

    /// What is missing of its members. What is missing of all of them is told once.
    #[must_use]
    pub fn lossy(&self) -> Vec<LossyItem> {
        let all = self.members.iter().map(|member| (&member.name, member.lossy.as_slice()));
        gathered(all, |name, missing| LossyItem::new(format!("{name}: {}", missing.item), missing.reason.clone()))
    }
}

/// What was noticed of members, as findings of the whole: what is so at all of them once, the rest with the name of the member.
#[must_use]
pub fn gathered_findings<'a>(members: impl Iterator<Item = (&'a MemberName, &'a [Finding])>) -> Vec<Finding> {
    gathered(members, |name, finding| finding.clone().of_member(name))
}

impl Finding {
    /// The same, as the whole tells it of one of its members.
    #[must_use]
    pub fn of_member(self, member: &MemberName) -> Self {
        let subject = format!("{member} {}", self.subject);
        self.about(subject.trim_end())
    }
}

fn gathered<'a, T: Clone + PartialEq + 'a>(
    members: impl Iterator<Item = (&'a MemberName, &'a [T])>,
    name: impl Fn(&MemberName, &T) -> T,
) -> Vec<T> {
    let all: Vec<_> = members.collect();
    let everywhere = |item: &&T| all.iter().all(|(_, has)| has.contains(item));
    let first = all.first().map_or(&[][..], |(_, items)| *items);
    let common: Vec<T> = first.iter().filter(everywhere).cloned().collect();
    let own = all.iter().flat_map(|(member, items)| items.iter().map(move |item| (*member, item)));
    let own: Vec<T> = own.filter(|(_, item)| !common.contains(item)).map(|(member, item)| name(member, item)).collect();
    common.into_iter().chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Severity;

    fn member(name: &str, second: i64) -> Member {
        let at = Timestamp::from_second(second).unwrap();
        let snapshot = Snapshot::new("e", "1", name, "m", Consistency::PointInTime, (at, at)).with_fact("k", "v");
        Member::new(MemberName::new(name).unwrap(), snapshot).with_taken_at(at)
    }

    #[test]
    fn names_are_folders_and_nothing_else() {
        for good in ["a", "0", "slots-00000", "shard.1_replica-2", &"x".repeat(64)] {
            assert_eq!(MemberName::new(good).unwrap().folder().unwrap().as_str(), Some(good));
        }
        for bad in ["", ".", "..", "-a", "_a", ".a", "a/b", "A", "ä", "a b", "a\0", &"x".repeat(65)] {
            assert!(MemberName::new(bad).is_err(), "{bad:?}");
            let stored = minicbor::to_vec(bad).unwrap();
            assert!(minicbor::decode::<MemberName>(&stored).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_skew_is_between_the_first_and_the_last() {
        let group = Group::new(vec![member("b", 7), member("c", 12), member("a", 10)]).unwrap();
        assert_eq!(group.skew, Some(5_000_000));
        let names: Vec<_> = group.members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let mut unknown = member("d", 1);
        unknown.taken_at = None;
        assert_eq!(Group::new(vec![member("a", 1), unknown]).unwrap().skew, None);
        assert!(Group::new(vec![member("a", 1), member("a", 2)]).is_err());
        assert!(Group::new(Vec::new()).is_err());
    }

    #[test]
    fn a_member_is_what_a_backup_of_it_alone_would_be() {
        let at = Timestamp::from_second(3).unwrap();
        let snapshot = member("a", 1).snapshot("e").with_stopped_at(at).with_lossy(LossyItem::new("x", "y"));
        let member = Member::new(MemberName::new("a").unwrap(), snapshot.clone());
        assert_eq!(member.snapshot("e"), snapshot);
    }

    #[test]
    fn what_all_say_is_told_once() {
        let noted = |code: &str| Finding::new(Severity::Note, code, "m").about("s");
        let mut members = vec![member("a", 1), member("b", 1)];
        members[0].findings = vec![noted("both"), noted("one")];
        members[1].findings = vec![noted("both")];
        members[1].lossy = vec![LossyItem::new("users", "refused")];
        let group = Group::new(members).unwrap();
        assert_eq!(group.findings(), [noted("both"), noted("one").about("a s")]);
        assert_eq!(group.lossy(), [LossyItem::new("b: users", "refused")]);
    }
}

//! Checking a stored backup of a cluster without a server: each member, and whether they are a whole.

use backup_core::engine::members::{member_check, member_names};
use backup_core::engine::{CheckContext, CheckReport};
use backup_core::{Finding, Result, Severity};
use futures::TryStreamExt as _;

use super::topology::{self, Run};
use crate::engine::{check, facts};
use crate::rdb::{KeyHead, SLOTS, Scanner, Visitor, slot_of};

/// Reads every member with understanding, and what is stored beside them.
pub(super) async fn check(cx: &CheckContext) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    for name in member_names(&**cx.source())? {
        let cx = member_check(cx, &name).await?;
        let slots = cx.source().record().snapshot.fact(facts::SLOTS).and_then(topology::runs_of).unwrap_or_default();
        let mut stray = Stray::new(slots);
        let mut own = check::watched(&cx, |bytes| stray.push(bytes)).await?;
        own.findings.extend(stray.finding());
        report.entries += own.entries;
        report.bytes += own.bytes;
        report.findings.extend(own.findings.into_iter().map(|finding| finding.of_member(&name)));
    }
    let nodes = facts::path(facts::CLUSTER)?;
    if let Some(entry) = cx.source().entry(&nodes).await? {
        let mut content = cx.source().read(&nodes, 0..entry.len);
        while let Some(bytes) = content.try_next().await? {
            report.bytes += bytes.len() as u64;
        }
        report.entries += 1;
    }
    report.findings.extend(whole(cx));
    Ok(report)
}

/// A blocker when the members do not have every slot once, as they say themselves.
fn whole(cx: &CheckContext) -> Option<Finding> {
    let group = cx.source().record().snapshot.group.as_ref()?;
    let slots = group.members.iter().filter_map(|member| member.fact(facts::SLOTS));
    let runs = slots.map(topology::runs_of).collect::<Option<Vec<_>>>();
    let missing = runs.map(|runs| topology::uncovered(runs.iter().flatten()));
    let text = match missing {
        Some((0, false)) => return None,
        Some((missing, _)) => format!("{missing} of {SLOTS} slots are of no member, or one is of two"),
        None => "what slots the members had is not readable".to_owned(),
    };
    Some(Finding::new(Severity::Blocker, "slots-missing", text))
}

/// Looks for keys of slots that the member did not have: they may be in another one, too.
struct Stray {
    scanner: Scanner,
    keys: Keys,
    /// Whether the rest cannot be read, which is told elsewhere.
    over: bool,
}

struct Keys {
    slots: Vec<Run>,
    stray: u64,
    /// The first of them.
    first: Option<String>,
}

impl Stray {
    fn new(slots: Vec<Run>) -> Self {
        Self { scanner: Scanner::new(), keys: Keys { slots, stray: 0, first: None }, over: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.over = self.over || self.scanner.push(bytes, &mut self.keys).is_err();
    }

    fn finding(self) -> Option<Finding> {
        let Keys { stray, first, .. } = self.keys;
        let text = format!("{stray} keys are of slots that the member did not have, the first is {:?}", first?);
        Some(Finding::new(Severity::Warning, "foreign-keys", text))
    }
}

impl Visitor for Keys {
    fn key(&mut self, head: &KeyHead<'_>) -> crate::Result<()> {
        // The slot of a key that is too long to be held is not known.
        let Ok(key) = head.name() else { return Ok(()) };
        let slot = slot_of(&key);
        if !self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot)) {
            self.stray += 1;
            self.first.get_or_insert_with(|| String::from_utf8_lossy(&key).into_owned());
        }
        Ok(())
    }
}

//! What can be restored from what is stored, found by trying.

use backup_policy::retention::{Backup, Facts, LineageKey, RetentionPlan};
use jiff::Timestamp;

/// What stays when a plan is carried out.
pub(crate) fn carried_out(facts: &Facts<u32>, plan: &RetentionPlan<u32>) -> Facts<u32> {
    let mut facts = facts.clone();
    let kept: std::collections::BTreeSet<u32> = plan.kept().collect();
    facts.backups.retain(|backup| kept.contains(&backup.id));
    for log in &mut facts.logs {
        let decision = plan.log(log.lineage).unwrap();
        log.ranges.retain(|range| decision.keeps(range));
    }
    facts
}

/// Whether history `lineage` can be restored as of `moment`: there is a good backup that ended by then, and log without a hole
/// from it along the forks to a piece that tells of that moment; or it is the moment of the backup itself.
pub(crate) fn restorable(facts: &Facts<u32>, lineage: LineageKey, moment: Timestamp) -> bool {
    let good = facts.backups.iter().filter(|backup| backup.good && backup.ended <= moment);
    good.into_iter().any(|backup| {
        let own = backup.position.is_some_and(|position| position.lineage == lineage);
        (own && backup.ended == moment) || leads_to(facts, backup, lineage, moment)
    })
}

fn leads_to(facts: &Facts<u32>, backup: &Backup<u32>, lineage: LineageKey, moment: Timestamp) -> bool {
    let log = |lineage| facts.logs.iter().find(|log| log.lineage == lineage);
    let Some(position) = backup.position else { return false };
    // The forks from the backup to the history, each with the offset at which its parent is left.
    let mut path = vec![(lineage, u64::MAX)];
    while path[path.len() - 1].0 != position.lineage {
        let Some(fork) = log(path[path.len() - 1].0).and_then(|log| log.parent) else { return false };
        path.push((fork.lineage, fork.offset));
    }
    let mut offset = position.offset;
    for (on, limit) in path.into_iter().rev() {
        if offset > limit {
            return false;
        }
        let Some(log) = log(on) else { return false };
        while offset < limit {
            let Some(range) = log.ranges.iter().find(|range| range.start <= offset && offset < range.end) else {
                break;
            };
            if on == lineage && range.first <= moment && moment <= range.last {
                return true;
            }
            offset = range.end.min(limit);
        }
        if offset < limit {
            return false;
        }
    }
    false
}

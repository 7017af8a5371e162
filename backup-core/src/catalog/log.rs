//! Events of the log.

use super::{Event, Rejected};
use crate::log::{LogDamage, LogGap, LogRange, LogState, LogWriter};
use crate::position::Lineage;

/// The state after `event`; unchanged when it is refused.
pub(super) fn apply(state: &mut LogState, event: &Event) -> Result<(), Rejected> {
    match event {
        Event::LogOpened { epoch, purpose, at } => {
            if *epoch != state.next_epoch() {
                return Err(Rejected::LogEpochTaken(*epoch));
            }
            state.writers.insert(*epoch, LogWriter { purpose: *purpose, at: *at, ends: None });
        }
        Event::LogSealed { epoch, ends, .. } => {
            let writer = state.writers.get_mut(epoch).ok_or(Rejected::LogEpochUnknown(*epoch))?;
            if writer.ends.is_some() {
                return Err(Rejected::LogEpochSealed(*epoch));
            }
            writer.ends = Some(ends.clone());
        }
        Event::LineageAdded { record } => {
            if let Some(known) = state.lineage(&record.lineage) {
                let lineage = record.lineage.clone();
                return Err(if known.agrees_with(record) {
                    Rejected::LineageExists(lineage)
                } else {
                    Rejected::LineageDiffers(lineage)
                });
            }
            state.lineages.push((**record).clone());
        }
        Event::LogGap { lineage, start, end, reason, at } => {
            let range = range(state, lineage, *start, *end)?;
            state.gaps.push(LogGap { range, reason: reason.clone(), at: *at });
        }
        Event::LogDamaged { object, lineage, start, end, problem, at } => {
            let range = range(state, lineage, *start, *end)?;
            let damage = LogDamage { object: object.clone(), range, problem: problem.clone(), at: *at };
            state.damages.entry(object.clone()).or_insert(damage);
        }
        Event::LogExpired { lineage, before, .. } => {
            range(state, lineage, 0, *before)?;
            let kept = state.expired.entry(lineage.clone()).or_default();
            *kept = (*kept).max(*before);
        }
        // The caller hands on the events of the log and no others.
        _ => {}
    }
    Ok(())
}

fn range(state: &LogState, lineage: &Lineage, start: u64, end: u64) -> Result<LogRange, Rejected> {
    if state.lineage(lineage).is_none() {
        return Err(Rejected::LineageUnknown(lineage.clone()));
    }
    if end < start {
        return Err(Rejected::NoRange { start, end });
    }
    Ok(LogRange::new(lineage.clone(), start..end))
}

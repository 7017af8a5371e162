//! What everybody can do next.

use backup_core::catalog::{Actor, Condemned, Event, Rejected, Role};
use backup_core::log::{LogEpoch, LogPurpose};
use jiff::Timestamp;

use crate::state::{
    Collector, Merger, Piece, Pieces, State, WINDOW, Writer, backup, counts, ends_of, is_asked, lineage,
};
use crate::world::{Rule, World};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn by() -> Actor {
    Actor::new(Role::Operator, "model")
}

impl State {
    /// Commits against the state as of now, as everybody does.
    fn commit(&mut self, event: &Event) -> Result<(), Rejected> {
        let before = self.catalog.log().clone();
        self.catalog.apply(event)?;
        self.version += u32::from(before != *self.catalog.log());
        Ok(())
    }

    fn enroll(&mut self, purpose: LogPurpose) -> u32 {
        let epoch = self.catalog.log().next_epoch();
        self.commit(&Event::LogOpened { epoch, purpose, at: AT }).unwrap();
        epoch.0
    }

    /// Whether a writer may acknowledge, or end.
    fn stands(&self, epoch: u32) -> bool {
        let log = self.catalog.log();
        let open = log.writer(LogEpoch(epoch)).is_some_and(|writer| writer.ends.is_none());
        open && log.fenced_by(LogEpoch(epoch)).is_none()
    }
}

impl World {
    pub(crate) fn enroll(&self, state: &mut State, w: usize) -> Option<()> {
        state.writers[w] = match &state.writers[w] {
            Writer::Idle if self.lacks(Rule::FencedFirst) => Writer::Enrolled { epoch: None },
            Writer::Idle => Writer::Enrolled { epoch: Some(state.enroll(LogPurpose::Stream)) },
            Writer::Listed { epoch: None, found } => {
                let found = found.clone();
                Writer::Listed { epoch: Some(state.enroll(LogPurpose::Stream)), found }
            }
            _ => return None,
        };
        Some(())
    }

    pub(crate) fn list(&self, state: &mut State, w: usize) -> Option<()> {
        let (store, version) = (state.store.clone(), state.version);
        state.writers[w] = match state.writers[w].clone() {
            Writer::Enrolled { epoch } if self.deletes() => Writer::Listing { epoch, seen: store, version },
            Writer::Enrolled { epoch } => Writer::Listed { epoch, found: store },
            Writer::Listing { epoch, version: before, .. } if before != version && !self.lacks(Rule::Repeated) => {
                Writer::Enrolled { epoch }
            }
            Writer::Listing { epoch, seen, .. } => {
                Writer::Listed { epoch, found: seen.intersection(&store).copied().collect() }
            }
            _ => return None,
        };
        Some(())
    }

    /// Gives older writers their ends, and begins to write.
    pub(crate) fn seal_older(&self, state: &mut State, w: usize) -> Option<()> {
        let Writer::Listed { epoch: Some(epoch), found } = state.writers[w].clone() else { return None };
        let log = state.catalog.log();
        let older = log
            .writers()
            .filter(|(older, writer)| older.0 < epoch && writer.purpose == LogPurpose::Stream && writer.ends.is_none());
        let older: Vec<_> = older.map(|(older, _)| older).collect();
        for older in older.into_iter().filter(|_| !self.lacks(Rule::Sealed)) {
            let ends = ends_of(&found, older.0);
            state.commit(&Event::LogSealed { epoch: older, ends, at: AT }).unwrap();
        }
        let at = state.end(&found);
        // One that was fenced meanwhile is told so before it acknowledges anything.
        state.behind |= at < state.acknowledged && state.stands(epoch);
        state.writers[w] = Writer::Writing { epoch, at, next: 1, sent: Vec::new(), looked: None };
        Some(())
    }

    pub(crate) fn send(&self, state: &mut State, w: usize, len: u8) -> Option<()> {
        let Writer::Writing { epoch, at, next, sent, .. } = &mut state.writers[w] else { return None };
        if sent.len() >= usize::from(WINDOW) || *at + len > self.bytes() {
            return None;
        }
        let piece = Piece { epoch: *epoch, sequence: *next, start: *at, end: *at + len };
        (*at, *next) = (piece.end, *next + 1);
        sent.push(piece);
        state.flying.insert(piece);
        Some(())
    }

    /// Looks at the journal for what has landed in a row.
    pub(crate) fn look(&self, state: &mut State, w: usize) -> Option<()> {
        let Writer::Writing { epoch, sent, looked: None, .. } = &state.writers[w] else { return None };
        let count = match self.lacks(Rule::Landed) {
            true => sent.len(),
            false => self.landed(state, sent),
        };
        if count == 0 {
            return None;
        }
        if state.stands(*epoch) || self.lacks(Rule::Looked) {
            let Writer::Writing { looked, .. } = &mut state.writers[w] else { return None };
            *looked = Some(count);
        } else {
            state.refused = true;
            state.writers[w] = Writer::Over;
        }
        Some(())
    }

    fn landed(&self, state: &State, sent: &[Piece]) -> usize {
        match self.lacks(Rule::InOrder) {
            true => sent.iter().rposition(|piece| state.store.contains(piece)).map_or(0, |last| last + 1),
            false => sent.iter().take_while(|piece| !state.flying.contains(piece)).count(),
        }
    }

    pub(crate) fn acknowledge(&self, state: &mut State, w: usize) -> Option<()> {
        let Writer::Writing { sent, looked: Some(count), .. } = &state.writers[w] else { return None };
        let count = (*count).min(self.landed(state, sent));
        let last = *sent[..count].last()?;
        state.acknowledged = state.acknowledged.max(last.end);
        let Writer::Writing { sent, looked, .. } = &mut state.writers[w] else { return None };
        sent.drain(..count);
        *looked = None;
        Some(())
    }

    pub(crate) fn merge(&self, state: &mut State, pair: Option<[Piece; 2]>) -> Option<()> {
        let (store, version) = (state.store.clone(), state.version);
        state.merger = match (state.merger.clone(), pair) {
            (Merger::Idle, None) => Merger::Listing { seen: store, version },
            (Merger::Listing { version: before, .. }, None) if before != version && !self.lacks(Rule::Repeated) => {
                Merger::Idle
            }
            (Merger::Listing { seen, .. }, None) => {
                Merger::Listed { found: seen.intersection(&store).copied().collect(), version }
            }
            // What others hold, whose writer has its end, goes at once.
            (Merger::Listed { found, .. }, None) => {
                let spare = self.spare(state, &found);
                if spare.is_empty() {
                    return None;
                }
                Merger::Clearing { epoch: None, spare }
            }
            (Merger::Listed { .. }, Some(pair)) => Merger::Open { epoch: state.enroll(LogPurpose::Compact), pair },
            (Merger::Open { epoch, pair }, None) => {
                state.store.insert(Piece { epoch, sequence: 1, start: pair[0].start, end: pair[1].end });
                match self.lacks(Rule::Ended) {
                    true => Merger::Clearing { epoch: Some(epoch), spare: pair.into() },
                    false => Merger::Written { epoch, pair },
                }
            }
            (Merger::Written { epoch, pair }, None) => {
                if !state.stands(epoch) {
                    state.merger = Merger::Done;
                    return Some(());
                }
                let ends = [(lineage(), u64::from(pair[1].end))].into();
                state.commit(&Event::LogSealed { epoch: LogEpoch(epoch), ends, at: AT }).unwrap();
                Merger::Clearing { epoch: None, spare: pair.into() }
            }
            (Merger::Clearing { epoch, mut spare }, None) => {
                match spare.pop_first() {
                    Some(piece) => state.store.remove(&piece),
                    None => return None,
                };
                state.merged = true;
                if spare.is_empty() { Merger::Done } else { Merger::Clearing { epoch, spare } }
            }
            _ => return None,
        };
        Some(())
    }

    /// The pieces of which some two that meet may be merged.
    pub(crate) fn pairs(&self, state: &State) -> Vec<[Piece; 2]> {
        let Merger::Listed { found, .. } = &state.merger else { return Vec::new() };
        let log = state.catalog.log();
        let settled = |piece: &&Piece| counts(log, piece) && (self.lacks(Rule::Last) || !is_asked(log, found, piece));
        let settled: Vec<_> = found.iter().filter(settled).collect();
        let meet =
            |a: &Piece| settled.iter().filter(move |b| b.start == a.end).map(move |b| [*a, **b]).collect::<Vec<_>>();
        settled.iter().flat_map(|a| meet(a)).collect()
    }

    fn spare(&self, state: &State, found: &Pieces) -> Pieces {
        let log = state.catalog.log();
        let ended = |piece: &Piece| log.writer(LogEpoch(piece.epoch)).is_some_and(|writer| writer.ends.is_some());
        let rank = |piece: &Piece| (piece.end - piece.start, piece.epoch, piece.sequence);
        let settled = |piece: &&Piece| counts(log, piece) && !is_asked(log, found, piece);
        let held = |piece: &&Piece| {
            let holds = |by: &&Piece| by.start <= piece.start && piece.end <= by.end && rank(by) > rank(piece);
            found.iter().filter(settled).filter(holds).any(ended)
        };
        found.iter().filter(settled).filter(held).copied().collect()
    }

    /// Condemns, begins, deletes one by one, and says that it is done.
    pub(crate) fn collect(&self, state: &mut State) -> Option<()> {
        let log = state.catalog.log().clone();
        let before = log.expired_before(&lineage());
        let pending = state.catalog.collections().next().map(|collection| collection.condemned.number);
        state.collector = match state.collector.clone() {
            Collector::Idle if before > 0 => {
                let mut condemned = Condemned::default();
                (condemned.number, condemned.pins) = (state.catalog.next_collection(), state.catalog.pins());
                condemned.log = [(lineage(), before)].into();
                state.commit(&Event::Condemned { collection: Box::new(condemned), at: AT }).ok()?;
                Collector::Condemned
            }
            Collector::Condemned => {
                state.commit(&Event::SweepBegun { collection: pending?, at: AT }).ok()?;
                let dead = |piece: &&Piece| {
                    let asked = is_asked(&log, &state.store, piece) && !self.lacks(Rule::Last);
                    u64::from(piece.end) < before && !asked
                };
                Collector::Sweeping { doomed: state.store.iter().filter(dead).copied().collect() }
            }
            Collector::Sweeping { mut doomed } => match doomed.pop_first() {
                Some(piece) => {
                    state.store.remove(&piece);
                    state.swept = true;
                    Collector::Sweeping { doomed }
                }
                None => {
                    state.commit(&Event::Swept { collection: pending?, at: AT }).ok()?;
                    Collector::Done
                }
            },
            _ => return None,
        };
        Some(())
    }

    pub(crate) fn expire(&self, state: &mut State, position: u8) -> Option<()> {
        state.operator.expiries = state.operator.expiries.checked_sub(1)?;
        let event = Event::BackupExpired { backup: backup(position), reason: "wish".to_owned(), by: by(), at: AT };
        state.commit(&event).ok()
    }

    pub(crate) fn reinstate(&self, state: &mut State, position: u8) -> Option<()> {
        state.operator.reinstatements = state.operator.reinstatements.checked_sub(1)?;
        state.commit(&Event::BackupReinstated { backup: backup(position), by: by(), at: AT }).ok()
    }

    /// Reads the catalog, and lets go of log that nobody needs: by the catalog as it is then.
    pub(crate) fn let_go(&self, state: &mut State) -> Option<()> {
        let floor = state.floor();
        let Some(read) = state.operator.read.take() else {
            state.operator.lettings = state.operator.lettings.checked_sub(1)?;
            state.operator.read = Some(floor);
            return Some(());
        };
        let before = if self.lacks(Rule::Decided) { read } else { floor };
        state.broken |= before > floor;
        if before > 0 {
            state.commit(&Event::LogExpired { lineage: lineage(), before: before.into(), at: AT }).ok()?;
        }
        Some(())
    }
}

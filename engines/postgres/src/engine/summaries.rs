//! What the server's own summaries of its log say.
//!
//! A server of version 17 or later with `summarize_wal` keeps them in `pg_wal/summaries`; anyone may read them by SQL.

use backup_core::engine::Work;
use backup_core::{Error, Result};

use super::facts::Facts;
use crate::changes::{ChangeMap, Summarized};
use crate::lsn::{Lsn, TimelineId};
use crate::manifest::WalRange;
use crate::page::Fork;
use crate::wal::{RelationId, TimelineHistory};
use crate::wire::{Row, Session};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Where relations were made or cut off: of thousands of changed blocks a few rows.
    Limits,
    /// Every changed block.
    Blocks,
}

/// The log from the start of the backup `before` to `end` on `timeline`, by timelines, oldest first.
///
/// # Errors
/// Environment, when that backup does not lie in this history. The server itself does not look whether it ended before its
/// timeline was left.
pub(super) fn line(
    before: &Facts,
    history: Option<&TimelineHistory>,
    timeline: TimelineId,
    end: Lsn,
) -> Result<Vec<WalRange>> {
    let range = |timeline, start, end| WalRange { timeline, start, end };
    if before.timeline == timeline {
        return if before.stop <= end {
            Ok(vec![range(timeline, before.start, end)])
        } else {
            Err(Error::environment("the parent ends behind the server's last checkpoint"))
        };
    }
    let ancestors = history.filter(|history| history.timeline == timeline).map(|history| &history.ancestors[..]);
    let known = ancestors.and_then(|ancestors| {
        let number = ancestors.iter().position(|ancestor| ancestor.timeline == before.timeline)?;
        let began = number.checked_sub(1).map_or(Lsn(0), |previous| ancestors[previous].end);
        (began <= before.start && before.stop <= ancestors[number].end).then(|| &ancestors[number..])
    });
    let Some(known) = known else {
        let text = format!("the parent is not known to lie in the history of timeline {timeline}");
        return Err(Error::environment(text));
    };
    let mut start = before.start;
    let mut line = Vec::new();
    for ancestor in known {
        line.push(range(ancestor.timeline, start, ancestor.end));
        start = ancestor.end;
    }
    line.push(range(timeline, start, end));
    Ok(line)
}

/// Whether the role of the session may read them, as everyone may unless it was forbidden.
pub(super) async fn readable(sql: &mut Session) -> Result<bool> {
    let row = sql
        .query_one(
            "SELECT has_function_privilege('pg_available_wal_summaries()', 'EXECUTE') \
             AND has_function_privilege('pg_wal_summary_contents(bigint, pg_lsn, pg_lsn)', 'EXECUTE') AS may",
        )
        .await?;
    Ok(row.required("may")? == "t")
}

/// One file of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
}

/// Those pieces that tell of `range`, and up to where they do without a hole.
fn covering(pieces: &[Piece], range: &WalRange) -> (Vec<Piece>, Lsn) {
    let of = |piece: &&Piece| piece.timeline == range.timeline && piece.start < range.end && piece.end > range.start;
    let mut found: Vec<_> = pieces.iter().filter(of).copied().collect();
    found.sort_unstable_by_key(|piece| piece.start);
    let mut end = range.start;
    for piece in &found {
        if piece.start > end {
            break;
        }
        end = end.max(piece.end);
    }
    (found, end.min(range.end))
}

/// Reads what the server's summaries say of `line`. The map ends where they end, or have a hole.
///
/// # Errors
/// Environment, when an older timeline is not told of as a whole; those of the session.
pub(super) async fn read(work: &Work, sql: &mut Session, line: &[WalRange], wanted: Wanted) -> Result<ChangeMap> {
    let rows = sql.query("SELECT tli, start_lsn, end_lsn FROM pg_available_wal_summaries()").await?;
    let piece = |row: &Row| {
        Ok(Piece { timeline: row.parse("tli")?, start: row.parse("start_lsn")?, end: row.parse("end_lsn")? })
    };
    let pieces: Vec<Piece> = rows.iter().map(piece).collect::<Result<_>>()?;
    let start = line.first().map_or(Lsn(0), |range| range.start);
    let (mut end, mut all) = (start, Vec::new());
    for (number, range) in line.iter().enumerate() {
        let (found, reached) = covering(&pieces, range);
        if reached < range.end && number + 1 < line.len() {
            let WalRange { timeline, end, .. } = range;
            let text = format!("no summary tells of the log from {reached} to {end} on timeline {timeline}");
            return Err(Error::environment(text));
        }
        all.extend(found);
        end = reached;
    }
    let mut map = ChangeMap::of_summaries(start, end);
    let limits = if wanted == Wanted::Limits { " WHERE is_limit_block" } else { "" };
    for Piece { timeline, start, end } in all {
        work.checkpoint()?;
        let query = format!(
            "SELECT relfilenode, reltablespace, reldatabase, relforknumber, relblocknumber, is_limit_block \
             FROM pg_wal_summary_contents({timeline}, '{start}', '{end}'){limits}"
        );
        for row in sql.query(&query).await? {
            map.summarized(&summarized(&row)?);
        }
    }
    Ok(map)
}

fn summarized(row: &Row) -> Result<Summarized> {
    let relation = RelationId {
        tablespace: row.parse("reltablespace")?,
        database: row.parse("reldatabase")?,
        number: row.parse("relfilenode")?,
    };
    let fork = match row.parse("relforknumber")? {
        0 => Fork::Main,
        1 => Fork::FreeSpace,
        2 => Fork::Visibility,
        3 => Fork::Init,
        other => return Err(Error::damaged(format!("a summary names fork {other}"))),
    };
    let limit = row.required("is_limit_block")? == "t";
    Ok(Summarized { relation, fork, block: row.parse("relblocknumber")?, limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::SegmentSize;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn before(timeline: u32, start: u64, stop: u64) -> Facts {
        Facts {
            system_id: 1,
            timeline: tli(timeline),
            start: Lsn(start),
            stop: Lsn(stop),
            wal_segment_size: SegmentSize::new(1 << 20).unwrap(),
            major: 17,
            mode: 0o700,
            tablespaces: Vec::new(),
        }
    }

    fn ranges(line: &[WalRange]) -> Vec<(u32, u64, u64)> {
        line.iter().map(|range| (range.timeline.get(), range.start.0, range.end.0)).collect()
    }

    #[test]
    fn a_parent_lies_in_the_history_or_not() {
        let history = TimelineHistory::parse(tli(3), b"1\t0/100\tx\n2\t0/200\tx\n").unwrap();
        let line = |before: &Facts, end| line(before, Some(&history), tli(3), Lsn(end)).map(|line| ranges(&line));
        assert_eq!(line(&before(3, 0x210, 0x220), 0x300).unwrap(), [(3, 0x210, 0x300)]);
        assert_eq!(line(&before(2, 0x110, 0x200), 0x300).unwrap(), [(2, 0x110, 0x200), (3, 0x200, 0x300)]);
        let three = [(1, 0x50, 0x100), (2, 0x100, 0x200), (3, 0x200, 0x300)];
        assert_eq!(line(&before(1, 0x50, 0x60), 0x300).unwrap(), three);
        for (timeline, start, stop) in
            [(3, 0x210, 0x301), (2, 0x110, 0x201), (2, 0x90, 0x110), (1, 0x50, 0x101), (4, 1, 2)]
        {
            assert!(line(&before(timeline, start, stop), 0x300).is_err(), "{timeline} {start:x} {stop:x}");
        }
        assert!(super::line(&before(2, 0x110, 0x120), None, tli(3), Lsn(0x300)).is_err());
        assert_eq!(
            ranges(&super::line(&before(2, 0x110, 0x120), None, tli(2), Lsn(0x300)).unwrap()),
            [(2, 0x110, 0x300)]
        );
    }

    #[test]
    fn summaries_cover_without_a_hole_or_end_there() {
        let piece = |timeline, start, end| Piece { timeline: tli(timeline), start: Lsn(start), end: Lsn(end) };
        let pieces = [piece(1, 30, 40), piece(1, 10, 20), piece(2, 20, 30), piece(1, 20, 30), piece(1, 50, 60)];
        let covered = |start, end| {
            let (found, reached) = covering(&pieces, &WalRange { timeline: tli(1), start: Lsn(start), end: Lsn(end) });
            (found.len(), reached.0)
        };
        assert_eq!(covered(10, 40), (3, 40));
        assert_eq!(covered(15, 35), (3, 35));
        assert_eq!(covered(15, 55), (4, 40));
        assert_eq!(covered(5, 35), (3, 5));
        assert_eq!(covered(60, 70), (0, 60));
    }
}

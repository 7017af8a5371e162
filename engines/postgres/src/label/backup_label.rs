//! `backup_label`: where recovery must begin.
//!
//! Source: `build_backup_content` and `read_backup_label` of the server (`xlogbackup.c`, `xlogrecovery.c`). The same lines,
//! with `STOP …` among them, make a backup history file (`….backup` in the archive); both are read here.

use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::SegmentName;

/// The server's own limit for one line is `MAXPGPATH`; a file is never more than some such lines.
const MAX_LENGTH: usize = 16 << 10;

/// Which kind of server the backup was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A primary.
    Primary,
    /// A standby in recovery.
    Standby,
}

/// The content of a `backup_label`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupLabel {
    /// Where replay starts: the redo position of the first checkpoint.
    pub start: Lsn,
    /// The name of the segment that holds it.
    pub start_file: SegmentName,
    /// The first checkpoint's own record.
    pub checkpoint: Lsn,
    /// The server it was taken from.
    pub origin: Origin,
    /// When it began, in the server's `log_timezone`, as printed.
    pub start_time: String,
    /// The label given by whoever took it.
    pub label: String,
    /// The timeline at its start.
    pub timeline: TimelineId,
    /// In a backup history file: where the backup ended.
    pub stop: Option<Lsn>,
    /// For an incremental backup (from 17): start position and timeline of the backup that it builds on. A server refuses
    /// to start from such a label; whoever reconstructs a full backup removes these two lines.
    pub incremental_from: Option<(Lsn, TimelineId)>,
}

impl BackupLabel {
    /// Reads the file. Never panics; unknown lines are passed over, as by the server.
    ///
    /// # Errors
    /// [`Error::Malformed`] when a line that recovery needs is missing, repeated or of another form, or when the parts
    /// contradict each other.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("backup_label", reason);
        if content.len() > MAX_LENGTH {
            return Err(wrong(format!("{} bytes", content.len())));
        }
        let text = String::from_utf8_lossy(content);
        let field = |key: &str| {
            let mut found = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            match (found.next(), found.next()) {
                (value, None) => Ok(value),
                _ => Err(wrong(format!("{key} stands there twice"))),
            }
        };
        let needed = |key: &str| field(key)?.ok_or_else(|| wrong(format!("{key} is missing")));
        let location = |value: &str| -> Result<(Lsn, SegmentName)> {
            let (lsn, file) = value
                .split_once(" (file ")
                .and_then(|(lsn, file)| Some((lsn, file.strip_suffix(')')?)))
                .ok_or_else(|| wrong(format!("location {value:?}")))?;
            Ok((lsn.parse()?, file.parse()?))
        };

        let (start, start_file) = location(needed("START WAL LOCATION")?)?;
        let timeline: TimelineId = needed("START TIMELINE")?.parse()?;
        if start_file.timeline != timeline {
            return Err(wrong(format!("timeline {timeline} but the first file is {start_file}")));
        }
        let incremental_from = match (field("INCREMENTAL FROM LSN")?, field("INCREMENTAL FROM TLI")?) {
            (None, None) => None,
            (Some(lsn), Some(timeline)) => Some((lsn.parse()?, timeline.parse()?)),
            _ => return Err(wrong("only one of the two lines of an incremental backup".to_owned())),
        };
        match field("BACKUP METHOD")? {
            // Exclusive backups ended with version 15; their label says so and they need the same recovery.
            Some("streamed" | "pg_start_backup") => {}
            other => return Err(wrong(format!("method {other:?}"))),
        }
        Ok(Self {
            start,
            start_file,
            checkpoint: needed("CHECKPOINT LOCATION")?.parse()?,
            origin: match needed("BACKUP FROM")? {
                // `master` up to version 13.
                "primary" | "master" => Origin::Primary,
                "standby" => Origin::Standby,
                other => return Err(wrong(format!("origin {other:?}"))),
            },
            start_time: needed("START TIME")?.to_owned(),
            label: needed("LABEL")?.to_owned(),
            timeline,
            stop: field("STOP WAL LOCATION")?.map(location).transpose()?.map(|(lsn, _)| lsn),
            incremental_from,
        })
    }

    /// The same file without the lines of an incremental backup: what belongs to a reconstructed full one.
    #[must_use]
    pub fn without_incremental(content: &[u8]) -> Vec<u8> {
        content
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !line.starts_with(b"INCREMENTAL FROM "))
            .flatten()
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIMARY: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-24 01:02:03 UTC\nLABEL: my: label\nSTART TIMELINE: 1\n";

    #[test]
    fn a_full_backup() {
        let label = BackupLabel::parse(PRIMARY.as_bytes()).unwrap();
        assert_eq!((label.start, label.checkpoint), (Lsn(0x200_0028), Lsn(0x200_0060)));
        assert_eq!((label.label.as_str(), label.origin), ("my: label", Origin::Primary));
        assert_eq!((label.timeline, label.incremental_from, label.stop), (TimelineId::FIRST, None, None));
    }

    #[test]
    fn older_and_newer_lines() {
        let old = PRIMARY.replace("primary", "master");
        assert_eq!(BackupLabel::parse(old.as_bytes()).unwrap().origin, Origin::Primary);
        let increment = format!("{PRIMARY}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        let label = BackupLabel::parse(increment.as_bytes()).unwrap();
        assert_eq!(label.incremental_from, Some((Lsn(0x100_0028), TimelineId::FIRST)));
        assert_eq!(BackupLabel::without_incremental(increment.as_bytes()), PRIMARY.as_bytes());
    }

    #[test]
    fn contradictions_are_refused() {
        for (from, to) in [
            ("START WAL", "STAR WAL"),
            ("START TIMELINE: 1", "START TIMELINE: 2"),
            ("START TIMELINE: 1\n", ""),
            ("streamed", "guessed"),
            ("primary", "moon"),
            ("0/2000028", "02000028"),
            (" (file ", " (fil "),
            ("LABEL: my: label", "LABEL: a\nLABEL: b"),
            ("CHECKPOINT LOCATION", "X"),
            ("START TIMELINE: 1\n", "START TIMELINE: 1\nINCREMENTAL FROM TLI: 1\n"),
        ] {
            let text = PRIMARY.replace(from, to);
            assert_ne!(text, PRIMARY);
            assert!(BackupLabel::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = BackupLabel::parse(&bytes);
        }
    }
}

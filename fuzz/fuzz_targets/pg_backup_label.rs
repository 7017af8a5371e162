//! The small text files of a backup, file names and connection strings: never panic, and what is written is read again.

#![no_main]

use backup_postgres::TimelineId;
use backup_postgres::conn::Settings;
use backup_postgres::exclude::{Unlogged, decide};
use backup_postgres::label::{BackupLabel, TablespaceMap};
use backup_postgres::page::RelationFile;
use backup_postgres::wal::{SegmentName, TimelineHistory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = BackupLabel::parse(data);
    let _ = BackupLabel::parse(&BackupLabel::without_incremental(data));
    if let Ok(map) = TablespaceMap::parse(data) {
        assert_eq!(TablespaceMap::parse(&map.to_bytes()).ok(), Some(map));
    }
    if let Some(timeline) = TimelineId::new(u32::MAX) {
        let _ = TimelineHistory::parse(timeline, data);
    }
    let _ = RelationFile::parse_path(data);
    let _ = decide(data, data.len() & 1 == 0);
    let _ = Unlogged::new(b"base/1", data.split(|byte| *byte == b'\n')).skips(data);
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(name) = text.parse::<SegmentName>() {
            assert_eq!(name.to_string(), text);
        }
        let _ = Settings::parse(text, |_| None);
    }
});

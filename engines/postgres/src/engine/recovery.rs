//! The settings of a recovery, as they stand in `standby.signal`.
//!
//! See `docs/decisions/0005-postgres-restore.md`: the server ignores the content of that file, `postgresql.auto.conf` includes it, and
//! it is gone when recovery has ended.

use super::settings::TargetAction;
use super::stop::Stop;
use crate::lsn::{Lsn, TimelineId};

/// The settings of the recovery but for its target. Whatever the source had configured for its own must not act here. The
/// target comes last: a server refuses a second kind of target after a first, even an empty one. At every change of timelines a
/// standby pauses for the retry interval, by default five seconds.
const FIXED: &str = "\
primary_slot_name = ''
restore_command = ''
archive_cleanup_command = ''
recovery_end_command = ''
recovery_min_apply_delay = 0
wal_retrieve_retry_interval = 100
recovery_target_inclusive = on
recovery_target_name = ''
recovery_target_time = ''
recovery_target_xid = ''
";

/// What recovery also needs where a tablespace lies in `pg_tblspc` itself. Servers that have no such tablespaces do not know
/// the setting.
const IN_PLACE: &str = "allow_in_place_tablespaces = on\n";

/// How a restored server recovers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recovery {
    /// The last record that is applied; without one, recovery ends as soon as the backup is consistent.
    pub(super) last_record: Option<Lsn>,
    /// The timeline to follow, when it is not the backup's own.
    pub(super) timeline: Option<TimelineId>,
    /// Where the log is streamed from.
    pub(super) conninfo: Option<String>,
    pub(super) action: TargetAction,
}

impl Recovery {
    /// The recovery of a backup on `timeline` to `stop`.
    pub(super) fn to(stop: Stop, timeline: TimelineId, action: TargetAction) -> Self {
        let other = (stop.timeline != timeline).then_some(stop.timeline);
        Self { last_record: Some(stop.record), timeline: other, conninfo: None, action }
    }

    /// The content of the file.
    pub(super) fn text(&self, in_place: bool) -> String {
        let conninfo = self.conninfo.as_deref().unwrap_or_default().replace('\\', "\\\\").replace('\'', "''");
        let timeline = self.timeline.map_or_else(|| "current".to_owned(), |timeline| timeline.to_string());
        let action = match self.action {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
            TargetAction::Shutdown => "shutdown",
        };
        let target = match self.last_record {
            Some(record) => format!("recovery_target = ''\nrecovery_target_lsn = '{record}'\n"),
            None => "recovery_target_lsn = ''\nrecovery_target = 'immediate'\n".to_owned(),
        };
        format!(
            "primary_conninfo = '{conninfo}'\n{FIXED}recovery_target_timeline = '{timeline}'\nrecovery_target_action = '{action}'\n{}{target}",
            if in_place { IN_PLACE } else { "" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_comes_last_and_quotes_are_doubled() {
        let stop = Stop { timeline: TimelineId::new(2).unwrap(), record: Lsn(0x500_0028), end: Lsn(0x500_0060) };
        let mut recovery = Recovery::to(stop, TimelineId::FIRST, TargetAction::Pause);
        recovery.conninfo = Some("host='/a b' password='x'".to_owned());
        let text = recovery.text(true);
        assert!(text.ends_with("recovery_target = ''\nrecovery_target_lsn = '0/5000028'\n"), "{text}");
        assert!(text.contains("primary_conninfo = 'host=''/a b'' password=''x'''\n"), "{text}");
        assert!(text.contains("recovery_target_timeline = '2'\n") && text.contains("'pause'"), "{text}");
        let own = Recovery::default().text(false);
        assert!(own.contains("timeline = 'current'") && own.ends_with("recovery_target = 'immediate'\n"), "{own}");
        assert!(!own.contains("in_place"));
    }
}

//! The two small text files that make a copy of a data directory a backup: `backup_label` and `tablespace_map`.

mod backup_label;
mod tablespace_map;

pub use self::backup_label::{BackupLabel, Origin};
pub use self::tablespace_map::{TablespaceLink, TablespaceMap};

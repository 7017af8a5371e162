//! `BASE_BACKUP`: the server reads its own files and streams them, framed as tar archives.
//!
//! Source: manual, "Streaming Replication Protocol"; `src/backend/backup/basebackup_copy.c` of the server. Up to version 14
//! every archive, and then the manifest, is a COPY of its own; from 15 on there is a single COPY whose messages carry a
//! tag. Both become the same [`Event`]s here. Tablespaces come first and the main directory last; inside it
//! `backup_label` is the first file and `global/pg_control` the last.

mod event;
mod increment;
mod options;
mod stream;

pub use self::event::{Event, Finished, Started, Tablespace};
pub use self::increment::{IncrementHeader, IncrementReader};
pub use self::options::{BaseBackupOptions, Checkpoint, Compression, ManifestChecksum, ManifestOption};
pub use self::stream::BaseBackup;

//! The configuration of a scratch instance: all of it, since nothing of the source's is used.

use std::path::Path;

use super::PostgresDrillSettings;

/// What the instance is called; also the only name of its socket.
pub(super) const PORT: u16 = 5432;

/// What keeps the instance to itself, and what makes it fast where nothing has to last.
const FIXED: &str = "\
listen_addresses = ''
unix_socket_permissions = 0700
ssl = off
bonjour = off
cluster_name = 'drill'
archive_mode = off
wal_level = replica
max_wal_senders = 0
max_logical_replication_workers = 0
session_preload_libraries = ''
local_preload_libraries = ''
hot_standby = off
max_connections = 20
max_prepared_transactions = 1000
shared_buffers = '128MB'
huge_pages = off
dynamic_shared_memory_type = mmap
autovacuum = off
jit = off
fsync = off
full_page_writes = off
synchronous_commit = off
restart_after_crash = off
ignore_checksum_failure = off
zero_damaged_pages = off
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%e '
log_timezone = 'UTC'
timezone = 'UTC'
lc_messages = 'C'
default_transaction_read_only = on
";

/// The text of `postgresql.conf` for a server of version `major` whose sockets and files lie in `run`.
pub(super) fn text(settings: &PostgresDrillSettings, run: &Path, major: u32) -> String {
    let run = run.display().to_string();
    let mut text = FIXED.to_owned();
    let mut set = |name: &str, value: &str| {
        text.push_str(&format!("{name} = {}\n", quoted(value)));
    };
    set("port", &PORT.to_string());
    set("unix_socket_directories", &run);
    set("hba_file", &format!("{run}/pg_hba.conf"));
    set("ident_file", &format!("{run}/pg_ident.conf"));
    set("shared_preload_libraries", &settings.preload.join(","));
    if major >= 17 {
        set("event_triggers", "off");
    }
    text
}

/// Whoever can enter the directory of the socket is who made it, or root.
pub(super) const HBA: &str = "local all all trust\n";

/// The settings of every session, as a client asks for them: stronger than those of databases and roles. Numbers, moments and bytes are written in
/// one way, so that a digest means something; triggers do not fire.
pub(super) const SESSION: &str = "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=60s \
-c idle_in_transaction_session_timeout=0 -c session_preload_libraries= -c session_replication_role=replica \
-c IntervalStyle=postgres -c extra_float_digits=3 -c bytea_output=hex -c lc_monetary=C -c row_security=off";

/// A value as it stands in `postgresql.conf`.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_listens_and_nothing_is_loaded_unasked() {
        let text = text(&PostgresDrillSettings::default(), Path::new("/s'x"), 16);
        assert!(text.contains("listen_addresses = ''\n") && text.contains("shared_preload_libraries = ''\n"), "{text}");
        assert!(text.contains("unix_socket_directories = '/s''x'\n") && !text.contains("event_triggers"), "{text}");
        let settings = PostgresDrillSettings::default().preload(vec!["a".to_owned(), "b".to_owned()]);
        let text = super::text(&settings, Path::new("/s"), 17);
        assert!(
            text.contains("shared_preload_libraries = 'a,b'\n") && text.contains("event_triggers = 'off'\n"),
            "{text}"
        );
    }
}

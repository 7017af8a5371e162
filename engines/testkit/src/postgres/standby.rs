//! A standby, made from a copy of a running primary.
//!
//! The copy is taken between the start and the stop of a backup in one session (the manual's "low level API"), the WAL
//! from its start is kept by a physical slot and comes by streaming.

use std::path::Path;

use super::builder::PostgresBuilder;
use super::server::Postgres;
use super::template;
use super::version::PgVersion;
use crate::cache::copy_tree;
use crate::error::{Error, Result};
use crate::identity::unprivileged;
use crate::offload::blocking;
use crate::process::free_port;
use crate::scratch::write_private;

pub(super) async fn start(mut builder: PostgresBuilder, primary: &Postgres) -> Result<Postgres> {
    builder.version = primary.version();
    builder.superuser = primary.superuser().to_owned();
    builder.password = primary.password().to_owned();
    let binaries = primary.binaries().clone();
    let home = builder.home()?;
    let data = builder.data.clone().unwrap_or_else(|| home.path().join("data"));
    let source = primary.data_dir().to_owned();
    if std::fs::read_dir(source.join("pg_tblspc")).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::invalid("a standby of a primary with tablespaces would share them"));
    }

    let client = primary.connect("postgres").await?;
    let slot = format!("testkit_{}", free_port()?);
    client.execute("select pg_create_physical_replication_slot($1::text::name, true)", &[&slot]).await?;
    let (begin, end) = if builder.version >= PgVersion::V15 {
        ("select pg_backup_start('testkit', true)", "select labelfile from pg_backup_stop(false)")
    } else {
        ("select pg_start_backup('testkit', true, false)", "select labelfile from pg_stop_backup(false, false)")
    };
    client.execute(begin, &[]).await?;
    let to = data.clone();
    blocking(move || copy_tree(&source, &to, unprivileged(), &left_out)).await?;
    let label: String = client.query_one(end, &[]).await?.try_get(0)?;
    write_private(&data.join("backup_label"), &label)?;
    write_private(&data.join("standby.signal"), "")?;
    let conninfo = format!(
        "host=127.0.0.1 port={} user={} password={} application_name={slot}",
        primary.port(),
        quote(primary.superuser()),
        quote(primary.password()),
    );
    let mut settings = format!(
        "primary_conninfo = '{}'\nprimary_slot_name = '{slot}'\n",
        conninfo.replace('\\', "\\\\").replace('\'', "''")
    );
    for (name, value) in &builder.settings {
        settings.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    template::append(&data.join("postgresql.auto.conf"), &settings)?;

    let mut standby = Postgres::new(builder, binaries, home, data, Vec::new(), primary.tls_ca().map(str::to_owned));
    standby.start().await?;
    Ok(standby)
}

/// What a base backup leaves out and a standby must not inherit (the manual's list for the low level API).
fn left_out(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    match (parts.next(), parts.next()) {
        (Some("postmaster.pid" | "postmaster.opts"), None) => true,
        (Some("pg_wal"), Some(name)) => name != "archive_status",
        (Some("pg_replslot" | "pg_stat_tmp" | "pg_subtrans" | "pg_dynshmem" | "pg_notify" | "pg_serial"), Some(_)) => {
            true
        }
        _ => false,
    }
}

/// A value of a connection string in keyword form: always quoted, backslash and quote escaped (libpq, "Connection Strings").
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_leaves_out_what_belongs_to_the_running_primary() {
        for out in ["postmaster.pid", "pg_wal/000000010000000000000001", "pg_replslot/a", "pg_notify/0000"] {
            assert!(left_out(Path::new(out)), "{out}");
        }
        for kept in ["pg_wal", "pg_wal/archive_status", "pg_replslot", "base/1/1259", "base/postmaster.pid"] {
            assert!(!left_out(Path::new(kept)), "{kept}");
        }
    }

    #[test]
    fn connection_values_are_quoted() {
        assert_eq!(quote(r"it's a \"), r"'it\'s a \\'");
    }
}

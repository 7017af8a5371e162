//! Looking at a running server before anything is done with it.

use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, Finding, Result, Severity};

use super::settings::{Method, PostgresSettings};
use crate::conn::Settings;
use crate::control::ControlFile;
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;
use crate::wal::SegmentSize;
use crate::wire::{Session, SessionKind};

/// What is known of a running server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) version: ServerVersion,
    pub(super) system_id: u64,
    pub(super) timeline: TimelineId,
    pub(super) position: Lsn,
    pub(super) standby: bool,
    pub(super) wal_segment_size: SegmentSize,
    pub(super) blocks_per_segment: u32,
    pub(super) data_checksums: bool,
    /// Permissions of the data directory, `0700` or `0750`.
    pub(super) mode: u32,
    /// Bytes in all databases.
    pub(super) bytes: Option<u64>,
    /// The data directory, when it can be read here and belongs to this very server.
    pub(super) local: std::result::Result<PathBuf, String>,
    pub(super) findings: Vec<Finding>,
}

impl Server {
    /// How a backup is read, by the settings and what was found.
    ///
    /// # Errors
    /// Environment, when the settings ask for local reading and that is not possible.
    pub(super) fn method(&self, settings: &PostgresSettings) -> Result<Method> {
        match (settings.method, &self.local) {
            (Some(Method::Protocol), _) => Ok(Method::Protocol),
            (Some(Method::Local) | None, Ok(_)) => Ok(Method::Local),
            (None, Err(why)) if settings.data_dir.is_none() => {
                tracing::debug!(%why, "reading through the server");
                Ok(Method::Protocol)
            }
            (_, Err(why)) => Err(Error::environment(format!("the data directory cannot be read directly: {why}"))),
        }
    }
}

/// The connection settings of an ordinary SQL session.
pub(crate) fn connection(settings: &PostgresSettings) -> Result<Settings> {
    let mut connection = Settings::from_env(settings.url.as_deref().unwrap_or_default())?;
    // What libpq would do is to use a database named like the user, which few administrators have.
    connection.database.get_or_insert_with(|| "postgres".to_owned());
    Ok(connection)
}

/// Keeps what is configured for the role or the database from ending the session or changing what names mean. A backup
/// takes hours, during which this session is idle, and its first statement may wait for a whole checkpoint.
async fn settle(session: &mut Session) -> Result<()> {
    let mut sql = "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0".to_owned();
    if session.version().major() >= 14 {
        sql.push_str("; SET idle_session_timeout = 0");
    }
    session.query(&sql).await?;
    Ok(())
}

/// Opens a session and asks the server what it is.
pub(super) async fn probe(settings: &PostgresSettings) -> Result<(Session, Server)> {
    let mut session = Session::connect(&connection(settings)?, SessionKind::Sql).await?;
    settle(&mut session).await?;
    let version = session.version();
    let row = session
        .query_one(
            "SELECT s.system_identifier, i.timeline_id, pg_is_in_recovery() AS standby, n.wal_block_size, \
             n.bytes_per_wal_segment, n.blocks_per_segment, n.data_page_checksum_version, \
             CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS position, \
             current_setting('wal_level') AS wal_level, current_setting('full_page_writes') AS full_page_writes, \
             current_setting('fsync') AS fsync, current_setting('max_wal_senders') AS max_wal_senders, \
             current_setting('data_directory_mode') AS mode, current_setting('port') AS port, \
             extract(epoch FROM pg_postmaster_start_time())::bigint AS started \
             FROM pg_control_system() s, pg_control_checkpoint() i, pg_control_init() n",
        )
        .await?;
    let (start, stop) = if version.major() >= 15 {
        ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)")
    } else {
        ("pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)")
    };
    let may = format!(
        "SELECT has_function_privilege('{start}', 'EXECUTE') AND has_function_privilege('{stop}', 'EXECUTE') AS may"
    );
    let may_start = session.query_one(&may).await?.required("may")? == "t";
    let timeline: u32 = row.parse("timeline_id")?;
    let mut findings = Vec::new();
    if row.required("wal_level")? == "minimal" {
        let text = "wal_level is minimal: a running server cannot be backed up, set it to replica";
        findings.push(Finding::new(Severity::Blocker, "wal-level", text));
    }
    for name in ["full_page_writes", "fsync"] {
        if row.required(name)? == "off" {
            let text = "is off: a crash of the server can corrupt it, and backups with it";
            findings.push(Finding::new(Severity::Warning, "unsafe-setting", text).about(name));
        }
    }
    let data_checksums = row.parse::<u32>("data_page_checksum_version")? != 0;
    if !data_checksums {
        let text = "the cluster has no page checksums: silent corruption cannot be noticed";
        findings.push(Finding::new(Severity::Note, "no-page-checksums", text));
    }
    let system_id: u64 = row
        .required("system_identifier")?
        .parse::<i64>()
        .map(i64::cast_unsigned)
        .map_err(|e| Error::damaged("the server's system identifier is not a number").with_source(e))?;
    let started: i64 = row.parse("started")?;
    let standby = row.required("standby")? == "t";
    let position = match row.text("position")? {
        Some(text) => text.parse()?,
        None => Lsn(0),
    };
    let wal_segment_size = SegmentSize::new(row.parse("bytes_per_wal_segment")?)?;
    let blocks_per_segment = row.parse("blocks_per_segment")?;
    // Sizes of databases need permissions that a backup role may lack; they are only for the progress bar.
    let bytes = match session.query_one("SELECT sum(pg_database_size(oid))::bigint AS bytes FROM pg_database").await {
        Ok(row) => row.parse("bytes").ok(),
        Err(error) => {
            tracing::debug!(%error, "the size of the databases is not known");
            None
        }
    };
    let mode = u32::from_str_radix(row.required("mode")?, 8)
        .map_err(|e| Error::damaged("the mode of the data directory is not a number").with_source(e))?;
    let running = Running { system_id, started, port: row.parse("port")? };
    let local = match locate(&mut session, settings, running).await? {
        Ok(_) if !may_start => Err(format!("the role may not execute {start} and {stop}")),
        found => found,
    };
    let server = Server {
        version,
        system_id,
        timeline: TimelineId::new(timeline).ok_or_else(|| Error::damaged("the server is on timeline 0"))?,
        position,
        standby,
        wal_segment_size,
        blocks_per_segment,
        data_checksums,
        mode,
        bytes,
        local,
        findings,
    };
    Ok((session, server))
}

/// By what a running server is known from outside.
#[derive(Debug, Clone, Copy)]
struct Running {
    system_id: u64,
    /// When it was started, in seconds since 1970.
    started: i64,
    port: u16,
}

/// The server's data directory on this host, or why it cannot be read here.
async fn locate(
    session: &mut Session,
    settings: &PostgresSettings,
    server: Running,
) -> Result<std::result::Result<PathBuf, String>> {
    let dir = match &settings.data_dir {
        Some(dir) => dir.clone(),
        None => match session.show("data_directory").await {
            Ok(dir) => PathBuf::from(std::ffi::OsString::from_vec(dir.into_bytes())),
            Err(error) => return Ok(Err(format!("the server does not tell where it is: {error}"))),
        },
    };
    let checked = tokio::task::spawn_blocking(move || same_server(&dir, server).map(|()| dir));
    checked.await.map_err(|e| Error::internal("looking at a data directory panicked").with_source(e))
}

/// Whether `dir` looks like the data directory of the running `server`. A standby on this host has the same identifier, so
/// the postmaster that runs in it is compared too. A backup has better proof: see [`local`](super::local).
fn same_server(dir: &Path, server: Running) -> std::result::Result<(), String> {
    /// A server takes its own start time only when it has its memory, which can take a while.
    const SLOW_START: i64 = 300;
    let control = read_control(dir).map_err(|e| e.to_string())?;
    if control.system_id != server.system_id {
        return Err(format!(
            "{} belongs to the cluster with system identifier {}, the server has {}",
            dir.display(),
            control.system_id,
            server.system_id
        ));
    }
    let pid = dir.join("postmaster.pid");
    let text = std::fs::read_to_string(&pid).map_err(|e| format!("{}: {e}", pid.display()))?;
    // Line 3 is the start time in seconds, line 4 the port (`src/include/utils/pidfile.h`).
    let line = |number: usize| text.lines().nth(number).map(str::trim);
    let started: Option<i64> = line(2).and_then(|line| line.parse().ok());
    let port: Option<u16> = line(3).and_then(|line| line.parse().ok());
    let same_start = started.is_some_and(|here| (0..=SLOW_START).contains(&(server.started - here)));
    if same_start && port == Some(server.port) {
        return Ok(());
    }
    Err(format!("{} belongs to another running server of the same cluster", dir.display()))
}

/// Reads `global/pg_control` below `dir`, again when it was torn by a write.
pub(super) fn read_control(dir: &Path) -> Result<ControlFile> {
    parse_control(dir).map(|(control, _)| control)
}

/// As [`read_control`], with the bytes.
pub(super) fn parse_control(dir: &Path) -> Result<(ControlFile, Vec<u8>)> {
    const TRIES: usize = 10;
    let path = dir.join("global/pg_control");
    let mut last = None;
    for _ in 0..TRIES {
        let mut bytes = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(64 << 10).read_to_end(&mut bytes))
            .map_err(|e| Error::io(path.display(), e))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Error::internal("a file was read no time"), Error::from))
}

//! The instance: started on what was restored, waited for, and read.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::catalog::DrillOutcome;
use backup_core::engine::{Examined, Reached, RestoreContext, ScratchInstance, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::scratch::{Scratch, ServerCommand, ServerProcess};
use backup_core::{BackupEngine, Error, ErrorKind, Result};
use jiff::Timestamp;
use rustix::process::Signal;

use super::super::facts::{self, Facts};
use super::super::restore::{AUTO_CONF, SIGNAL, auto_conf};
use super::super::{PostgresEngine, probe, scan};
use super::{PostgresDrillSettings, config, files, programs, reading, relations, structure};
use crate::conn::Settings;
use crate::disk::{at, blocking};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{Rmgr, TimelineHistory};
use crate::wire::{Session, SessionKind};

/// How often a server is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// How long it may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(600);
/// The name of a socket may have so many bytes (`sun_path` of unix(7), with its zero).
const SOCKET_NAME: usize = 107;

#[derive(Debug)]
pub(super) struct Instance {
    engine: PostgresEngine,
    settings: PostgresDrillSettings,
    run: PathBuf,
    data: PathBuf,
    program: Option<PathBuf>,
    major: u32,
    server: Option<ServerProcess>,
}

impl Instance {
    pub(super) fn new(engine: PostgresEngine, settings: PostgresDrillSettings, scratch: &Scratch) -> Result<Self> {
        let (run, data) = (scratch.run(), scratch.data());
        let socket = run.join(format!(".s.PGSQL.{}.lock", config::PORT));
        if socket.as_os_str().len() > SOCKET_NAME {
            return Err(Error::invalid(format!(
                "{} is too long for the name of a socket: choose a shorter scratch directory",
                socket.display()
            )));
        }
        if scratch.account().is_none() && rustix::process::geteuid().is_root() {
            return Err(Error::environment("PostgreSQL does not run as root: name the account that it is to run as"));
        }
        Ok(Self { engine, settings, run, data, program: None, major: 0, server: None })
    }

    fn server(&mut self) -> Result<&mut ServerProcess> {
        self.server.as_mut().ok_or_else(|| Error::internal("an instance that was not started is asked for something"))
    }

    /// A session in `database`, in which nothing of the source's settings acts.
    pub(super) async fn session(&self, database: &str) -> crate::Result<Session> {
        let quote = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
        let run = self.run.display().to_string();
        let text = format!(
            "host={} port={} user={} dbname={} application_name=drill",
            quote(&run),
            config::PORT,
            quote(&self.settings.role),
            quote(database)
        );
        let mut settings = Settings::parse(&text, |_| None)?;
        settings.options = Some(config::SESSION.to_owned());
        // A table is read for as long as that takes; between two rows a server may detoast a gigabyte.
        settings.max_message = 1 << 30;
        Session::connect(&settings, SessionKind::Sql).await
    }

    /// Why the server has ended by itself.
    fn ended(&mut self) -> Error {
        let Some(server) = &self.server else { return Error::internal("an instance that was not started has ended") };
        let (tail, words) = (server.log_tail(), server.last_words());
        let kind = if tail.lines().any(says_damage) { ErrorKind::Damaged } else { ErrorKind::Environment };
        Error::new(kind, format!("the server has ended before it had reached its target: {words}"))
    }

    /// Stops the server cleanly, so that its files are what it would go on with.
    async fn shut_down(&mut self, work: &Work) -> Result<()> {
        let server = self.server()?;
        server.signal(Signal::INT);
        let begun = work.env().clock().monotonic();
        while server.is_running() {
            if work.env().clock().monotonic().saturating_sub(begun) >= SHUTDOWN {
                return Err(Error::environment(format!("the server does not stop within {} s", SHUTDOWN.as_secs())));
            }
            work.env().clock().sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Whether a line of the server's log, which begins with the SQLSTATE, says that data are damaged: a class XX error that ends it, or a file of a relation
/// that is missing.
fn says_damage(line: &str) -> bool {
    let Some((state, rest)) = line.split_once(' ') else { return false };
    let fatal = ["FATAL:", "PANIC:", "ERROR:"].iter().any(|level| rest.starts_with(level));
    fatal && (matches!(state, "XX001" | "XX002") || (state == "58P01" && rest.contains("\"base/")))
}

#[async_trait]
impl ScratchInstance for Instance {
    fn engine(&self) -> &dyn BackupEngine {
        &self.engine
    }

    async fn make_ready(&mut self, scratch: &mut Scratch, cx: &RestoreContext) -> Result<String> {
        let backup = cx.source().record();
        let facts = Facts::of(&backup.snapshot)?;
        self.major = facts.major;
        let (bin_dir, major) = (self.settings.bin_dir.clone(), facts.major);
        let (program, said) = blocking(move || programs::find(bin_dir.as_deref(), major)).await?;
        self.program = Some(program);
        // Replaying the creation of a tablespace would write to where the source had it.
        if let Some(log) = cx.log() {
            let created = |record: &crate::wal::Record| Ok(record.rmgr == Rmgr::TABLESPACE && record.opcode() == 0);
            if let Some(place) = scan::first(log, log.path(), None, created).await? {
                let text = format!(
                    "a tablespace was created behind backup {}, at {}: a drill would write to where it was; choose a later backup or an earlier target",
                    backup.id, place.start
                );
                return Err(Error::environment(text));
            }
        }
        for tablespace in &facts.tablespaces {
            let root = scratch.dir().join("tablespaces");
            let dir = root.join(tablespace.oid.to_string());
            std::fs::create_dir_all(&dir).map_err(|error| Error::io(dir.display(), error))?;
            scratch.give(&dir)?;
        }
        Ok(said)
    }

    async fn start(&mut self, scratch: &mut Scratch, _cx: &RestoreContext) -> Result<()> {
        // What the source had set by ALTER SYSTEM must not act either.
        let auto = self.data.join(AUTO_CONF);
        at(&auto, std::fs::write(&auto, auto_conf(b"")))?;
        let configuration = scratch.write("postgresql.conf", &config::text(&self.settings, &self.run, self.major))?;
        scratch.write("pg_hba.conf", config::HBA)?;
        scratch.write("pg_ident.conf", "")?;
        let program = self.program.as_ref().ok_or_else(|| Error::internal("no program was looked for"))?;
        let command = ServerCommand::new(program)
            .arg("-D")
            .arg(self.data.display().to_string())
            .arg("-c")
            .arg(format!("config_file={}", configuration.display()))
            .quit(Signal::QUIT);
        self.server = Some(ServerProcess::start(scratch, &command)?);
        Ok(())
    }

    async fn reach(&mut self, cx: &RestoreContext) -> Result<Reached> {
        let work = cx.work();
        let (signal, patience) = (self.data.join(SIGNAL), self.settings.patience);
        work.started(Phase::Replay, None, Unit::Items);
        let begun = work.env().clock().monotonic();
        let mut session = loop {
            if !self.server()?.is_running() {
                return Err(self.ended());
            }
            // The server removes the file when recovery has ended.
            if !signal.exists() {
                match self.session("template1").await {
                    Ok(session) => break session,
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    Err(error) => return Err(Error::from(error).context("the restored server cannot be asked")),
                }
            }
            if work.env().clock().monotonic().saturating_sub(begun) >= patience {
                let text = format!("the server has not reached its target within {} s", patience.as_secs());
                return Err(Error::environment(text));
            }
            work.env().clock().sleep(LOOK).await;
        };
        work.ended(Phase::Replay);
        let row = session
            .query_one(
                "SELECT pg_last_wal_replay_lsn() AS lsn, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super, \
                 (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint AS at",
            )
            .await?;
        if row.required("super")? != "t" {
            return Err(Error::environment(format!(
                "role {} is no superuser of the restored cluster",
                self.settings.role
            )));
        }
        let lsn: Option<Lsn> = row.text("lsn")?.map(str::parse).transpose()?;
        let time =
            row.text("at")?.and_then(|text| text.parse().ok()).and_then(|at| Timestamp::from_microsecond(at).ok());
        session.close().await;
        let data = self.data.clone();
        let left = blocking(move || left_timeline(&data)).await?;
        Ok(Reached::new(lsn.zip(left).map(|(lsn, timeline)| facts::position(timeline, lsn)), time))
    }

    async fn examine(&mut self, _scratch: &Scratch, cx: &RestoreContext) -> Result<Examined> {
        let work = cx.work();
        let mut examined = Examined::default();
        let databases = relations::databases(self).await?;
        let mut names = relations::Names::default();
        relations::check(self, &databases, &mut names, &mut examined).await?;
        reading::check(self, &databases, &mut examined, work).await?;
        if self.settings.amcheck {
            structure::check(self, &databases, &mut examined, work).await?;
        }
        if let Err(error) = self.shut_down(work).await {
            examined.wrong(DrillOutcome::Failed, error.to_string());
            return Ok(examined);
        }
        let (data, control) = (self.data.clone(), probe::read_control(&self.data)?);
        files::check(data, &control, names, &mut examined, work).await?;
        Ok(examined)
    }
}

/// The timeline that the server has left when it became a primary: the last one in the history of its own.
fn left_timeline(data: &std::path::Path) -> Result<Option<TimelineId>> {
    let folder = data.join("pg_wal");
    let mut newest = None;
    for entry in at(&folder, std::fs::read_dir(&folder))? {
        let name = at(&folder, entry)?.file_name();
        let timeline = name.to_str().and_then(|name| name.strip_suffix(".history"));
        let timeline = timeline.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(TimelineId::new);
        newest = newest.max(timeline);
    }
    let Some(newest) = newest else { return Ok(None) };
    let path = folder.join(TimelineHistory::file_name(newest));
    let history = TimelineHistory::parse(newest, &at(&path, std::fs::read(&path))?)?;
    Ok(history.ancestors.last().map(|ancestor| ancestor.timeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_server_is_damage_or_not() {
        for damage in [
            "XX001 PANIC:  could not read block 7 in file \"base/5/16384\": read only 0 of 8192 bytes",
            "58P01 FATAL:  could not open file \"base/5/16384\": No such file or directory",
        ] {
            assert!(says_damage(damage), "{damage}");
        }
        for other in [
            "58P01 FATAL:  could not access file \"timescaledb\": No such file or directory",
            "53100 PANIC:  could not write to file: No space left on device",
            "00000 LOG:  XX001",
            "",
        ] {
            assert!(!says_damage(other), "{other}");
        }
    }
}

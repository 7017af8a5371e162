//! The instance: started on what was restored, waited for, and compared.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::catalog::{DrillCheck, DrillOutcome};
use backup_core::engine::{Examined, Reached, RestoreContext, ScratchInstance, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::scratch::{Scratch, ServerCommand, ServerProcess};
use backup_core::{BackupEngine, Error, ErrorKind, Finding, Result, Severity};

use super::super::{RedisEngine, facts};
use super::{RedisDrillSettings, programs};
use crate::client::{ClientSettings, Connection};
use crate::look::{Change, DiffSettings, Look, Sum, diff};
use crate::rdb::Counted;
use crate::restore;

/// How often a server is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Databases that the instance has at least: what happened behind a snapshot may be in any of them.
const DATABASES: u64 = 1024;
/// So many keys that differ are named.
const NAMED: usize = 20;
/// The name of a socket may have so many bytes (`sun_path` of unix(7), with its zero).
const SOCKET_NAME: usize = 107;
/// What the instance writes itself, below the data directory.
const OWN: &str = "instance.rdb";

#[derive(Debug)]
pub(super) struct Instance {
    engine: RedisEngine,
    settings: RedisDrillSettings,
    socket: PathBuf,
    data: PathBuf,
    program: Option<PathBuf>,
    /// Whether it replays what happened behind the snapshot.
    replays: bool,
    reached: Reached,
    server: Option<ServerProcess>,
    /// The primary that it follows: nobody accepts there.
    nobody: Option<TcpListener>,
}

impl Instance {
    pub(super) fn new(engine: RedisEngine, settings: RedisDrillSettings, scratch: &Scratch) -> Result<Self> {
        let (socket, data) = (scratch.run().join("s"), scratch.data());
        if socket.as_os_str().len() > SOCKET_NAME {
            let text = "is too long for the name of a socket: choose a shorter scratch directory";
            return Err(Error::invalid(format!("{} {text}", socket.display())));
        }
        let (program, server, nobody) = (None, None, None);
        Ok(Self {
            engine,
            settings,
            socket,
            data,
            program,
            replays: false,
            reached: Reached::default(),
            server,
            nobody,
        })
    }

    fn server(&mut self) -> Result<&mut ServerProcess> {
        self.server.as_mut().ok_or_else(|| Error::internal("an instance that was not started is asked for something"))
    }

    async fn connect(&self) -> Result<Connection> {
        let mut settings = ClientSettings::new(format!("unix://{}", self.socket.display()).parse()?);
        // A server that writes its snapshot says nothing until it is done.
        settings.silence = self.settings.patience;
        let endpoint = settings.address.nodes.first().cloned();
        let endpoint = endpoint.ok_or_else(|| Error::internal("a socket is no endpoint"))?;
        Ok(Connection::open(&settings, &endpoint).await?)
    }

    /// The settings of the server: all of them, since nothing of the source's is used.
    fn configuration(&self, port: u16, databases: u64) -> String {
        let quoted = |path: &std::path::Path| {
            format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
        };
        let mut text = format!(
            "port 0\nunixsocket {}\nunixsocketperm 700\ndir {}\ndaemonize no\nsave \"\"\nappendonly {}\ndatabases {databases}\n\
             maxmemory 0\nloglevel notice\nslaveof 127.0.0.1 {port}\n",
            quoted(&self.socket),
            quoted(&self.data),
            if self.replays { "yes" } else { "no" },
        );
        for module in &self.settings.modules {
            text.push_str(&format!("loadmodule {}\n", quoted(module)));
        }
        text
    }

    /// Why the server has ended by itself.
    fn ended(&mut self) -> Error {
        let Some(server) = &self.server else { return Error::internal("an instance that was not started has ended") };
        let (tail, words) = (server.log_tail(), server.last_words());
        let damage = ["CRC error", "Bad file format reading", "Unexpected end of file", "Short read"];
        let kind =
            if damage.iter().any(|text| tail.contains(text)) { ErrorKind::Damaged } else { ErrorKind::Environment };
        Error::new(kind, format!("the server has ended before it had loaded everything: {words}"))
    }

    /// Has the server write what it holds, and reads that.
    async fn own(&mut self, connection: &mut Connection) -> Result<Look> {
        let dump = self.data.join(facts::DUMP);
        // Its content is loaded. Both need not lie here at once.
        match tokio::fs::remove_file(&dump).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(dump.display(), error)),
            _ => {}
        }
        connection.call(&["SAVE"]).await?;
        let own = self.data.join(OWN);
        tokio::fs::rename(&dump, &own).await.map_err(|error| Error::io(own.display(), error))?;
        Look::file(own).await
    }
}

#[async_trait]
impl ScratchInstance for Instance {
    fn engine(&self) -> &dyn BackupEngine {
        &self.engine
    }

    async fn make_ready(&mut self, _scratch: &mut Scratch, cx: &RestoreContext) -> Result<String> {
        let product = cx.source().record().snapshot.fact(facts::PRODUCT).unwrap_or("redis").to_owned();
        let named = self.settings.server.clone();
        let found = tokio::task::spawn_blocking(move || programs::find(named.as_deref(), &product)).await;
        let (program, said) =
            found.map_err(|error| Error::internal("looking for a program panicked").with_source(error))??;
        self.program = Some(program);
        let (position, replays) = restore::end(cx).await?;
        self.replays = replays;
        // The snapshot is of a moment; where the stream ends, only the source's clock knew when that was.
        let time = (!replays).then(|| cx.source().record().snapshot.consistent_at());
        self.reached = Reached::new(position, time);
        Ok(said)
    }

    async fn start(&mut self, scratch: &mut Scratch, cx: &RestoreContext) -> Result<()> {
        let nobody = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| Error::io("listen on loopback", error))?;
        let port = nobody.local_addr().map_err(|error| Error::io("listen on loopback", error))?.port();
        self.nobody = Some(nobody);
        let highest = databases_of(cx).into_keys().max().unwrap_or_default();
        let text = self.configuration(port, DATABASES.max(highest.saturating_add(1)));
        let configuration = scratch.write("server.conf", &text)?;
        let program = self.program.as_ref().ok_or_else(|| Error::internal("no program was looked for"))?;
        let command = ServerCommand::new(program).arg(configuration.display().to_string());
        self.server = Some(ServerProcess::start(scratch, &command)?);
        Ok(())
    }

    async fn reach(&mut self, cx: &RestoreContext) -> Result<Reached> {
        let work = cx.work();
        let patience = self.settings.patience;
        work.started(Phase::Replay, None, Unit::Items);
        let begun = work.env().clock().monotonic();
        loop {
            if !self.server()?.is_running() {
                return Err(self.ended());
            }
            // While it loads it answers with errors, and before that it has no socket.
            if let Ok(mut connection) = self.connect().await
                && connection.call(&["DBSIZE"]).await.is_ok()
            {
                work.ended(Phase::Replay);
                return Ok(self.reached.clone());
            }
            if work.env().clock().monotonic().saturating_sub(begun) >= patience {
                let text = format!("the server has not loaded everything within {} s", patience.as_secs());
                return Err(Error::environment(text));
            }
            work.env().clock().sleep(LOOK).await;
        }
    }

    async fn examine(&mut self, _scratch: &Scratch, cx: &RestoreContext) -> Result<Examined> {
        let (work, mut examined) = (cx.work(), Examined::default());
        let mut connection = self.connect().await?;
        let held = keyspace(&mut connection).await?;
        let own = self.own(&mut connection).await?;
        drop(connection);
        let sum = own.sum(work).await?;
        let all = sum.counted == Counted::All;
        let mut snapshot = DrillCheck::passed("snapshot").counted("bytes", own.bytes()).counted("keys", sum.keys());
        match all {
            true => snapshot = snapshot.with_digest(sum.digest()),
            false => {
                snapshot.problem =
                    Some("it holds types that are not known here, behind which keys are not counted".to_owned());
            }
        }
        examined.checks.push(snapshot);
        let mut keys = counted("keys", &held);
        if all && held != sum.databases {
            let text = format!("the server says that it has {}, and writes {}", shown(&held), shown(&sum.databases));
            examined.wrong(DrillOutcome::Failed, text.clone());
            keys = keys.failed(text);
        }
        if !self.replays && all {
            let expected = databases_of(cx);
            if expected != held {
                let text = format!("the backup has {}, the server has {}", shown(&expected), shown(&held));
                examined.wrong(DrillOutcome::Damaged, text.clone());
                keys = keys.failed(text);
            }
        }
        examined.checks.push(keys);
        let compared = match (self.replays, all) {
            (true, _) => DrillCheck::skipped("values", "there is no snapshot of the moment that was reached"),
            (false, false) => DrillCheck::skipped("values", "the snapshot holds types that are not known here"),
            (false, true) => compare(cx, &own, &sum, self.settings.memory, &mut examined, work).await?,
        };
        examined.checks.push(compared);
        Ok(examined)
    }
}

/// Compares what the backup has with what the server writes, key by key.
async fn compare(
    cx: &RestoreContext,
    own: &Look,
    sum: &Sum,
    memory: usize,
    examined: &mut Examined,
    work: &Work,
) -> Result<DrillCheck> {
    let stored = Look::open(cx.source()).await?;
    let mut named = Vec::new();
    let settings = DiffSettings::default().memory(memory);
    let found = diff(&stored, own, &settings, work, |change| {
        if named.len() < NAMED {
            named.push(change);
        }
        Ok(())
    })
    .await?;
    let check = DrillCheck::passed("values").counted("same", found.same).counted("written_otherwise", found.changed);
    for change in &named {
        let (code, entry, text) = match change {
            Change::Added(entry) => ("key-added", entry, "is in the server and not in the backup"),
            Change::Removed(entry) => ("key-missing", entry, "is in the backup and not in the server"),
            Change::Changed { now, value: false, .. } => ("key-expiry", now, "expires at another moment"),
            // Encodings depend on versions and settings of servers; the value itself may be the same.
            Change::Changed { now, .. } => ("value-encoding", now, "is written in another way by this server"),
        };
        let severity = if code == "value-encoding" { Severity::Note } else { Severity::Blocker };
        let subject = format!("{} of database {}", entry.key.escape_ascii(), entry.database);
        examined.findings.push(Finding::new(severity, code, text).about(subject));
    }
    let wrong = found.added + found.removed + found.expiry_only;
    if wrong == 0 {
        return Ok(if found.changed == 0 { check.with_digest(sum.digest()) } else { check });
    }
    let text = format!(
        "{} keys are missing, {} were not in the backup, {} expire at another moment",
        found.removed, found.added, found.expiry_only
    );
    examined.wrong(DrillOutcome::Damaged, text.clone());
    Ok(check.failed(text))
}

/// The keys of each database, as the header of the backup tells them (`0=12,3=4`).
fn databases_of(cx: &RestoreContext) -> BTreeMap<u64, u64> {
    let fact = cx.source().record().snapshot.fact(facts::DATABASES).unwrap_or_default();
    let pair = |text: &str| {
        let (database, keys) = text.split_once('=')?;
        Some((database.parse().ok()?, keys.parse().ok()?))
    };
    fact.split(',').filter_map(pair).filter(|(_, keys)| *keys > 0).collect()
}

/// The keys of each database, as the server tells them (`db0:keys=12,expires=…`).
async fn keyspace(connection: &mut Connection) -> Result<BTreeMap<u64, u64>> {
    let text = connection.call(&["INFO", "keyspace"]).await?.text().unwrap_or_default();
    let line = |line: &str| {
        let (database, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
        Some((database.parse().ok()?, rest.split(',').next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn counted(name: &str, databases: &BTreeMap<u64, u64>) -> DrillCheck {
    let check = DrillCheck::passed(name).counted("keys", databases.values().sum());
    check.counted("databases", databases.len() as u64)
}

fn shown(databases: &BTreeMap<u64, u64>) -> String {
    let each: Vec<_> = databases.iter().map(|(database, keys)| format!("{keys} keys in database {database}")).collect();
    if each.is_empty() { "no keys".to_owned() } else { each.join(", ") }
}

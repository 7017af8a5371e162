//! One server on this host: how it is started and stopped by its own programs, and what is known of it without asking.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::env::Env;
use backup_core::{Error, Result};
use backup_postgres::control::{ClusterState, ControlFile};
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use super::account;

/// How long a server may take to replay its log and serve, or to stop.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// A PostgreSQL server that this host may run. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresMachine {
    /// The directory of `pg_ctl` and `postgres`.
    pub bin_dir: PathBuf,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The TCP port, which also names the socket.
    pub port: u16,
    /// The directory of the Unix socket.
    #[serde(default = "socket_dir")]
    pub socket_dir: PathBuf,
    /// As which role it is backed up and followed: a superuser, or one that may replicate and read everything.
    #[serde(default = "role")]
    pub role: String,
    /// A connection string instead of the one that socket, port and role make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The account that it runs as, when this program runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// More settings for its command line, as `name=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// Whether the data directory stays beside its place when it is given up, for a human to look at and remove.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_discarded: bool,
}

fn socket_dir() -> PathBuf {
    PathBuf::from("/tmp")
}

fn role() -> String {
    "postgres".to_owned()
}

/// What `postmaster.pid` and the control file tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Stopped,
    /// It starts, replays its log, or shuts down.
    Between,
    Serves,
}

impl PostgresMachine {
    /// A server with the usual socket directory and role.
    pub fn new(bin_dir: impl Into<PathBuf>, data_dir: impl Into<PathBuf>, port: u16) -> Self {
        Self {
            bin_dir: bin_dir.into(),
            data_dir: data_dir.into(),
            port,
            socket_dir: socket_dir(),
            role: role(),
            url: None,
            run_as: None,
            settings: Vec::new(),
            keep_discarded: false,
        }
    }

    /// Sets the directory of the socket.
    #[must_use]
    pub fn socket_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.socket_dir = dir.into();
        self
    }

    /// Sets the account that it runs as.
    #[must_use]
    pub fn run_as(mut self, account: impl Into<String>) -> Self {
        self.run_as = Some(account.into());
        self
    }

    /// Adds a setting.
    #[must_use]
    pub fn setting(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// How to connect to it.
    pub(super) fn connection(&self) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
        self.url.clone().unwrap_or_else(|| {
            let socket = self.socket_dir.display().to_string();
            format!("host={} port={} user={} dbname=postgres", quote(&socket), self.port, quote(&self.role))
        })
    }

    pub(super) fn state(&self) -> Result<State> {
        let path = self.data_dir.join("postmaster.pid");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Stopped),
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        };
        let (pid, ready) = postmaster(&text);
        if !pid.is_some_and(is_alive) {
            return Ok(State::Stopped);
        }
        let serves = ready && self.control()?.is_some_and(|control| control.state == ClusterState::InProduction);
        Ok(if serves { State::Serves } else { State::Between })
    }

    /// The control file; none while it is being written, and where there is no cluster.
    fn control(&self) -> Result<Option<ControlFile>> {
        let path = self.data_dir.join("global/pg_control");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(ControlFile::parse(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("read {}", path.display()), error)),
        }
    }

    /// Starts it if it does not run, and waits until it has replayed its log and serves.
    pub(super) async fn start(&self, env: &Env) -> Result<()> {
        if self.state()? == State::Stopped {
            let settings = self.settings.iter().map(|setting| format!(" -c {}", quoted(setting)));
            let socket = self.socket_dir.display().to_string();
            let options = format!("-p {} -k {}{}", self.port, quoted(&socket), settings.collect::<String>());
            let log = self.beside("log");
            let log = log.to_str().ok_or_else(|| Error::invalid("the data directory's path is not UTF-8"))?;
            self.own_file(Path::new(log))?;
            self.pg_ctl(&["start", "-w", "-l", log, "-o", &options]).await?;
        }
        self.wait(env, "serve", |state| match state {
            State::Serves => Some(true),
            State::Stopped => Some(false),
            State::Between => None,
        })
        .await
    }

    /// Stops it if it runs: ends its clients, lets those who follow its log have all of it, and waits.
    pub(super) async fn stop(&self) -> Result<()> {
        match self.state()? {
            State::Stopped => Ok(()),
            _ => self.pg_ctl(&["stop", "-w", "-m", "fast"]).await,
        }
    }

    /// Waits until `done` says whether it went well.
    async fn wait(&self, env: &Env, what: &str, done: impl Fn(State) -> Option<bool>) -> Result<()> {
        let begun = env.clock().monotonic();
        loop {
            match done(self.state()?) {
                Some(true) => return Ok(()),
                Some(false) => {
                    return Err(Error::environment(format!(
                        "the server ended and does not {what}: {}",
                        self.last_words()
                    )));
                }
                None if env.clock().monotonic().saturating_sub(begun) >= PATIENCE => {
                    let patience = PATIENCE.as_secs();
                    return Err(Error::environment(format!("the server does not {what} within {patience} s")));
                }
                None => env.clock().sleep(LOOK).await,
            }
        }
    }

    async fn pg_ctl(&self, args: &[&str]) -> Result<()> {
        let program = self.bin_dir.join("pg_ctl");
        let mut command = tokio::process::Command::new(&program);
        command.args(args).arg("-t").arg(PATIENCE.as_secs().to_string()).arg("-D").arg(&self.data_dir);
        command.current_dir("/").stdin(std::process::Stdio::null());
        // What is asked of the program on a terminal is not asked of the server.
        command.process_group(0);
        for variable in ["PGDATA", "PGPORT", "PGHOST", "PGOPTIONS"] {
            command.env_remove(variable);
        }
        if let Some((uid, gid)) = self.ids()? {
            command.uid(uid).gid(gid);
        }
        let output = command.output().await.map_err(|e| Error::io(format!("run {}", program.display()), e))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        let action = args.first().copied().unwrap_or_default();
        Err(Error::environment(format!("pg_ctl {action} failed: {said}; {}", self.last_words())))
    }

    /// The end of the server's log.
    fn last_words(&self) -> String {
        let text = std::fs::read(self.beside("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(3).collect();
        if lines.is_empty() {
            "it has left no log".to_owned()
        } else {
            lines.into_iter().rev().collect::<Vec<_>>().join("; ")
        }
    }

    /// A name beside the data directory.
    pub(super) fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.data_dir.as_os_str().to_owned();
        name.push(format!(".{what}"));
        PathBuf::from(name)
    }

    /// Makes the empty data directory.
    pub(super) fn make_data_dir(&self) -> Result<()> {
        let failed = |e| Error::io(format!("create {}", self.data_dir.display()), e);
        if !self.data_dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir).map_err(failed)?;
        }
        std::fs::set_permissions(&self.data_dir, Permissions::from_mode(0o700)).map_err(failed)?;
        self.own(&self.data_dir)
    }

    fn own_file(&self, path: &Path) -> Result<()> {
        let opened = std::fs::File::options().create(true).append(true).open(path);
        opened.map_err(|e| Error::io(format!("open {}", path.display()), e))?;
        self.own(path)
    }

    fn own(&self, path: &Path) -> Result<()> {
        match self.ids()? {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid))
                .map_err(|e| Error::io(format!("give {} to its account", path.display()), e)),
            None => Ok(()),
        }
    }

    fn ids(&self) -> Result<Option<(u32, u32)>> {
        match &self.run_as {
            Some(name) if rustix::process::geteuid().is_root() => account::ids(name).map(Some),
            _ => Ok(None),
        }
    }
}

/// Process id and readiness in `postmaster.pid`: lines 1 and 8 (`src/include/utils/pidfile.h`).
fn postmaster(text: &str) -> (Option<i32>, bool) {
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.trim().parse().ok());
    (pid, lines.nth(6).is_some_and(|status| status.trim() == "ready"))
}

fn is_alive(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// For the shell through which `pg_ctl` starts the server.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_on_the_eighth_line() {
        let text = |status: &str| format!("42\n/data\n1700000000\n5433\n/sock\n127.0.0.1\n  1234 7\n{status}\n");
        assert_eq!(postmaster(&text("ready   ")), (Some(42), true));
        assert_eq!(postmaster(&text("standby ")), (Some(42), false));
        assert_eq!(postmaster("42\n/data\n"), (Some(42), false));
        assert_eq!(postmaster(""), (None, false));
    }

    #[test]
    fn what_goes_through_the_shell_or_libpq_is_quoted() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        let machine = PostgresMachine::new("/bin", "/data", 7).socket_dir("/s'x");
        assert_eq!(machine.connection(), r"host='/s\'x' port=7 user='postgres' dbname=postgres");
    }

    #[test]
    fn a_server_that_never_was_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let machine = PostgresMachine::new("/bin", dir.path().join("data"), 7);
        assert_eq!(machine.state().unwrap(), State::Stopped);
    }
}

//! A server process that ends with its handle, or by the next drill.
//!
//! A process is started in two steps. First a shell that waits for a word; its id and start time are written down, durably; then it gets the word and
//! becomes the server, under the same id. When whoever starts it dies in between, the shell reads the end of its input and ends.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Scratch, at};
use crate::error::{Error, Result};

/// The shell that becomes the server when it is told to.
pub(super) const WAIT: &str = r#"read -r word && [ "$word" = go ] && exec "$@" </dev/null"#;
/// How long a server may take to obey before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// So much of the end of a server's log is read.
const TAIL: u64 = 64 << 10;

/// How a server is started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables. It gets these and no others.
    pub variables: Vec<(String, String)>,
    /// What ends it at once and lets it take away what it has made outside of its directory.
    pub quit: Signal,
}

impl ServerCommand {
    /// A program without arguments in a plain environment: no locale, no time zone, ended by SIGTERM.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let plain = [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")];
        let variables = plain.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { program: program.into(), args: Vec::new(), variables, quit: Signal::TERM }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets what ends it.
    #[must_use]
    pub fn quit(mut self, signal: Signal) -> Self {
        self.quit = signal;
        self
    }
}

/// A server of a drill. Ended, and waited for, when it is dropped.
#[derive(Debug)]
pub struct ServerProcess {
    /// None once it was waited for.
    child: Option<Child>,
    log: PathBuf,
    record: PathBuf,
    quit: Signal,
    status: Option<ExitStatus>,
}

impl ServerProcess {
    /// Starts a server in `scratch`, as its account. What it says goes into a log beside its data.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when it cannot be started.
    pub fn start(scratch: &mut Scratch, command: &ServerCommand) -> Result<Self> {
        let base = scratch.next_server();
        let (record, log) = (base.clone(), base.with_extension("log"));
        let output = at(&log, File::options().create(true).append(true).open(&log))?;
        let errors = at(&log, output.try_clone())?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", WAIT, "drill"]).arg(&command.program).args(&command.args);
        shell.env_clear().envs(command.variables.iter().map(|(name, value)| (name, value)));
        // What is asked of this program on a terminal is not asked of the server.
        shell.current_dir(scratch.run()).process_group(0);
        shell.stdin(Stdio::piped()).stdout(output).stderr(errors);
        if let Some(account) = scratch.account() {
            shell.uid(account.uid).gid(account.gid);
        }
        let mut child = shell.spawn().map_err(|error| Error::io("start /bin/sh", error))?;
        let stdin = child.stdin.take();
        let server = Self { child: Some(child), log, record, quit: command.quit, status: None };
        server.write_down()?;
        let mut stdin = stdin.ok_or_else(|| Error::internal("a process has no input"))?;
        at(&command.program, stdin.write_all(b"go\n"))?;
        Ok(server)
    }

    fn write_down(&self) -> Result<()> {
        let pid = self.child.as_ref().map(Child::id).unwrap_or_default();
        let identity = Identity::of(pid).map(|identity| identity.text()).unwrap_or_default();
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&self.record)?;
            file.write_all(identity.as_bytes())?;
            file.sync_all()?;
            File::open(self.record.parent().unwrap_or(&self.record))?.sync_all()
        };
        at(&self.record, write())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        if let Ok(Some(status)) = child.try_wait() {
            self.status = Some(status);
            self.child = None;
        }
        self.child.is_some()
    }

    /// Sends it a signal. Harmless when it has ended: its id stays taken until it was waited for.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = self.pid().and_then(to_pid)
        {
            // It may end at this very moment.
            let _ = kill_process(pid, signal);
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// The last lines of its log, as one.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = self.log_tail();
        let mut lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(3).collect();
        lines.reverse();
        match (lines.is_empty(), self.status) {
            (false, _) => lines.join("; "),
            (true, Some(status)) => format!("it has said nothing ({status})"),
            (true, None) => "it has said nothing".to_owned(),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.signal(self.quit);
        let Some(mut child) = self.child.take() else { return };
        let pid = to_pid(child.id());
        let (gone, wait) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let ended = child.wait();
            // Nobody may be waiting for it any more.
            let _ = gone.send(());
            ended
        });
        if wait.recv_timeout(PATIENCE).is_err()
            && let Some(pid) = pid
        {
            // Not waited for yet, so the id is still its own.
            let _ = kill_process(pid, Signal::KILL);
        }
        if waiting.join().is_err() {
            tracing::warn!("a server of a drill could not be waited for");
        }
    }
}

/// What tells a process from every other one that has or had the same id on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// In ticks since the boot.
    started: u64,
    boot: String,
}

impl Identity {
    /// The process that has the id `pid` now. None where the system does not tell, and when there is none.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything; the start time is the 22nd field (proc(5)).
        let started = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, started, boot: boot.trim().to_owned() })
    }

    fn text(&self) -> String {
        format!("{} {} {}\n", self.pid, self.started, self.boot)
    }

    /// What was written down at `path`; none when that was cut off.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (pid, started) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { pid, started, boot: words.next()?.to_owned() })
    }

    /// Whether it still runs, and has not merely not been waited for.
    pub(super) fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let ended = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
        !ended && Self::of(self.pid).as_ref() == Some(self)
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = to_pid(self.pid)
        {
            // It may end at this very moment.
            let _ = kill_process(pid, signal);
        }
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

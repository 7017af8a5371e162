//! A server process that can't outlive the test that started it.
//!
//! Two things end a server: dropping its handle (also while a panic unwinds), and the death of the test process by
//! whatever means. For the second, every server has a **watchdog**: a small `/bin/sh` in a process group of its own
//! whose standard input is a pipe held by the test process. The kernel closes that pipe when the test process is gone,
//! be it by `kill -9`; the watchdog's `read` then ends, and it kills exactly the one process it was told about and
//! removes the server's directories. A process id alone could have been given to someone else by then, so where
//! `/proc` tells it, the start time of the process has to be the same too.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};
use crate::identity::unprivileged;
use crate::wait;

/// How long a server may take to obey before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments: process id, signal name, directories to remove. `done` on standard input calls the watchdog off.
const WATCHDOG: &str = r#"
pid=$1 signal=$2; shift 2
born() {
    [ -r "/proc/$1/stat" ] || return 0
    read -r stat < "/proc/$1/stat" || return 0
    stat=${stat##*) }; set -- $stat; shift 19; echo "$1"
}
started=$(born "$pid")
read -r word
[ "$word" = done ] && exit 0
if [ "$(born "$pid")" = "$started" ]; then
    kill -s "$signal" "$pid"
    n=0
    while kill -s 0 "$pid" && [ "$n" -lt 50 ] && [ "$(born "$pid")" = "$started" ]; do sleep 0.1; n=$((n + 1)); done
    [ "$(born "$pid")" = "$started" ] && kill -s KILL "$pid"
fi
rm -rf -- "$@"
"#;

/// A running server process with its watchdog.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    watchdog: Option<Child>,
    /// What ends the server at once and still lets it clean up after itself.
    quit: Signal,
}

impl ServerProcess {
    /// Starts `command` as the unprivileged account in its own process group, so that Ctrl-C in a terminal reaches the
    /// test only; output is appended to `log`. `owned` are the directories to remove if the test process dies.
    pub(crate) fn spawn(command: &mut Command, log: &Path, quit: Signal, owned: &[PathBuf]) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(log).map_err(Error::io("open log", log));
        let program = PathBuf::from(command.get_program());
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?).process_group(0);
        let mut child = unprivileged().apply(command).spawn().map_err(Error::io("run", &program))?;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(if quit == Signal::QUIT { "QUIT" } else { "TERM" })
            .args(owned)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { child, watchdog: Some(watchdog), quit }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::io("run", Path::new("/bin/sh"))(error))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal; harmless when the process has ended, because its id stays taken until it is reaped here.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends the process at once and waits until it is gone.
    pub(crate) fn quit(&mut self) {
        self.signal(self.quit);
        if wait::until(PATIENCE, || self.ended()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.quit();
        if let Some(mut watchdog) = self.watchdog.take() {
            if let Some(mut stdin) = watchdog.stdin.take() {
                let _ = stdin.write_all(b"done\n");
            }
            let _ = watchdog.wait();
        }
    }
}

/// The last `lines` lines of a log file; says so when there is none.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let bytes = match std::fs::read(log) {
        Ok(bytes) => bytes,
        Err(error) => return format!("(no log: {error})"),
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A loopback port that is free at this moment. Another process may take it before the server does: callers try again.
pub(crate) fn free_port() -> Result<u16> {
    let listener =
        std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(Error::io("bind", Path::new("127.0.0.1:0")))?;
    Ok(listener.local_addr().map_err(Error::io("ask", Path::new("127.0.0.1:0")))?.port())
}

//! A real S3 server over a directory: the Versity S3 gateway.
//!
//! Chosen because its create-only puts are exact: of several concurrent writers of one name with `If-None-Match: *`
//! exactly one wins and the others get 412, which is the one promise that a write-once repository stands on. Objects are
//! plain files below [`Versity::data_dir`], so a test can damage them in place.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cache::{Cache, make_readable};
use crate::error::{Error, Result};
use crate::offload::blocking;
use crate::process::{ServerProcess, free_port, tail};
use crate::scratch::scratch_dir;
use crate::{unprivileged, wait};

/// Pinned: built from source by the Go toolchain, which checks it against Go's checksum database.
const VERSION: &str = "v1.8.0";
const PACKAGE: &str = "github.com/versity/versitygw/cmd/versitygw";
const NAME: &str = "versity s3 gateway 1.8.0";
const ACCESS_KEY: &str = "testkit-access";
const SECRET_KEY: &str = "testkit-secret";
/// It answers in a fraction of a second; more is only needed on a machine that is busy with other things.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running S3 server that ends with this value, or with the test process.
#[derive(Debug)]
pub struct Versity {
    port: u16,
    // The process ends before its directory goes.
    process: ServerProcess,
    home: TempDir,
}

impl Versity {
    /// The gateway's program: that in `BACKUP_TESTKIT_VERSITYGW` (the file, or the directory with `versitygw` in it),
    /// otherwise the pinned version, built by `go install` on first use (minutes). Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without a Go toolchain or when the build fails.
    pub fn program() -> Result<PathBuf> {
        if let Some(given) = std::env::var_os("BACKUP_TESTKIT_VERSITYGW").filter(|given| !given.is_empty()) {
            let given = PathBuf::from(given);
            return Ok(if given.is_dir() { given.join("versitygw") } else { given });
        }
        let dir = Cache::open()?.provide(&format!("versitygw/{VERSION}"), build)?;
        Ok(dir.join("versitygw"))
    }

    /// Starts a gateway with an empty data directory and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this machine can't have it, [`Error::Server`] when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; a build that has begun goes on in the background.
    pub async fn start() -> Result<Self> {
        blocking(Self::start_blocking).await
    }

    /// As [`start`](Self::start), for callers without an async runtime.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_blocking() -> Result<Self> {
        let program = Self::program()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::launch(&program) {
                // Between finding a free port and binding it somebody else may have taken it.
                Err(Error::Server { log, .. }) if attempt < 5 && log.contains("address already in use") => {}
                other => return other,
            }
        }
    }

    fn launch(program: &Path) -> Result<Self> {
        let home = scratch_dir()?;
        let port = free_port()?;
        for name in ["data", "versions", "meta"] {
            let dir = home.path().join(name);
            std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
            unprivileged().own(&dir)?;
        }
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("ROOT_ACCESS_KEY", ACCESS_KEY), ("ROOT_SECRET_KEY", SECRET_KEY)])
            .current_dir(home.path())
            .args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"]);
        if !has_xattrs(&home.path().join("meta")) {
            command.arg("--sidecar").arg(home.path().join("meta"));
        }
        command.arg("--versioning-dir").arg(home.path().join("versions")).arg(home.path().join("data"));
        let log = home.path().join("log");
        let mut process = ServerProcess::spawn(&mut command, &log, Signal::TERM, &[home.path().to_owned()])?;
        let answered = wait::until(START_PATIENCE, || {
            if let Some(exit) = process.ended() {
                return Some(Err(exit));
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(Ok(()))
        });
        let what = match answered {
            Some(Ok(())) => return Ok(Self { port, process, home }),
            Some(Err(exit)) => format!("ended while starting ({exit})"),
            None => format!("did not answer within {START_PATIENCE:?}"),
        };
        Err(Error::Server { server: NAME.to_owned(), what, log: tail(&log, 40) })
    }

    /// Base address for clients, `http://127.0.0.1:<port>`; buckets are addressed by path.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Access key of the root account.
    #[must_use]
    pub fn access_key(&self) -> &str {
        ACCESS_KEY
    }

    /// Secret key of the root account.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        SECRET_KEY
    }

    /// The region that requests are signed for.
    #[must_use]
    pub fn region(&self) -> &str {
        "us-east-1"
    }

    /// Makes a bucket: a directory below [`data_dir`](Self::data_dir).
    ///
    /// # Errors
    /// [`Error::Io`], also when it exists.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let dir = self.data_dir().join(name);
        std::fs::create_dir(&dir).map_err(Error::io("create bucket", &dir))?;
        unprivileged().own(&dir)
    }

    /// The directory whose folders are buckets and whose files are objects.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        tail(&self.home.path().join("log"), 60)
    }
}

fn build(dir: &Path) -> Result<()> {
    tracing::info!("building {NAME} from source; this takes minutes, once");
    let output = Command::new("go")
        .args(["install", "-p", "2", "-trimpath", "-ldflags=-s -w", &format!("{PACKAGE}@{VERSION}")])
        .env("GOBIN", dir)
        // A GOFLAGS of the caller's may name a vendor directory or tags that mean nothing here.
        .env("GOFLAGS", "")
        .current_dir(dir)
        .output();
    match output {
        Ok(output) if output.status.success() => make_readable(dir),
        Ok(output) => Err(Error::unavailable(
            NAME,
            format!("go install failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        )),
        Err(error) => Err(Error::unavailable_because(
            NAME,
            "the go command does not run; BACKUP_TESTKIT_VERSITYGW may name an installed gateway",
            error,
        )),
    }
}

/// The gateway keeps an object's metadata in user extended attributes, which not every file system has.
fn has_xattrs(dir: &Path) -> bool {
    let probe = dir.join("probe");
    let made = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&probe).is_ok()
        && rustix::fs::setxattr(&probe, "user.testkit", b"1", rustix::fs::XattrFlags::empty()).is_ok();
    let _ = std::fs::remove_file(&probe);
    made
}

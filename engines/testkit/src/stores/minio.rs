//! A second, independent S3 server: MinIO.
//!
//! The last version of its open source (February 2026; the project is archived there). It is licensed under the AGPL, which is why
//! it is built from source where a test wants it, and nothing of it is linked or shipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Service, answer, own_dir, status};
use crate::error::Result;
use crate::golang::{GoProgram, Source};
use crate::offload::blocking;

const PROGRAM: GoProgram = GoProgram {
    name: "minio 2026-02-12",
    file: "minio",
    version: "v0.0.0-20260212201848-7aac2a2c5b7c",
    source: Source::Package("github.com/minio/minio"),
    variable: "BACKUP_TESTKIT_MINIO",
};
const ACCESS_KEY: &str = "testkit-access";
const SECRET_KEY: &str = "testkit-secret";

/// A running MinIO that ends with this value, or with the test process.
#[derive(Debug)]
pub struct Minio(Service);

impl Minio {
    /// The program: that in `BACKUP_TESTKIT_MINIO` (the file, or the directory with `minio` in it), otherwise the pinned version,
    /// built by `go install` on first use (five minutes of processor time). Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) without a Go toolchain or when the build fails.
    pub fn program() -> Result<PathBuf> {
        PROGRAM.provide()
    }

    /// Starts a server with one empty drive and waits until it is ready.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when this machine can't have it,
    /// [`Error::Server`](crate::Error::Server) when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; a build that has begun goes on in the background.
    pub async fn start() -> Result<Self> {
        blocking(|| {
            let program = Self::program()?;
            let command = |port, home: &Path| command(&program, port, home);
            Service::start(PROGRAM.name, "port is already in use", command, is_ready).map(Self)
        })
        .await
    }

    /// Base address for clients, `http://127.0.0.1:<port>`; buckets are addressed by path.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
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

    /// Makes a bucket, which for a server with one drive is a directory of that drive.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), also when it exists.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        own_dir(&self.0.home.path().join("data"), name).map(drop)
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }
}

fn command(program: &Path, port: u16, home: &Path) -> Result<Command> {
    let data = own_dir(home, "data")?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("MINIO_ROOT_USER", ACCESS_KEY), ("MINIO_ROOT_PASSWORD", SECRET_KEY)])
        // A console would listen on a port of its own; updates would be asked for.
        .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")])
        .env("HOME", home)
        .args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")])
        .arg(data);
    Ok(command)
}

fn is_ready(port: u16) -> bool {
    answer(port, "GET", "/minio/health/ready", &[], "").is_ok_and(|answer| status(&answer) == Some(200))
}

//! A directory published over HTTP for reading, with listings by WebDAV.
//!
//! The server is `golang.org/x/net/webdav` behind a front that lets only reading methods through.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Service, listens};
use crate::error::Result;
use crate::golang::{GoProgram, Source};
use crate::offload::blocking;

const PROGRAM: GoProgram = GoProgram {
    name: "webdav of golang.org/x/net 0.55.0",
    file: "webdav",
    version: "v0.55.0",
    source: Source::Front { main: include_str!("front/webdav.go"), module: "golang.org/x/net" },
    variable: "BACKUP_TESTKIT_WEBDAV",
};

/// A running web server that ends with this value, or with the test process.
#[derive(Debug)]
pub struct WebDav(Service);

impl WebDav {
    /// The program: that in `BACKUP_TESTKIT_WEBDAV`, otherwise built by `go build` with the pinned version of the library on first
    /// use (seconds). Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) without a Go toolchain or when the build fails.
    pub fn program() -> Result<PathBuf> {
        PROGRAM.provide()
    }

    /// Publishes what is in `dir`, which the servers' account must be able to read, and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when this machine can't have it,
    /// [`Error::Server`](crate::Error::Server) when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; a build that has begun goes on in the background.
    pub async fn publish(dir: &Path) -> Result<Self> {
        Self::run(dir, true).await
    }

    /// As [`publish`](Self::publish), by a server that knows nothing of WebDAV: files can be read and not listed.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    pub async fn publish_without_listings(dir: &Path) -> Result<Self> {
        Self::run(dir, false).await
    }

    async fn run(dir: &Path, listings: bool) -> Result<Self> {
        let dir = dir.to_owned();
        blocking(move || {
            let program = Self::program()?;
            let command = |port: u16, _: &Path| {
                let mut command = Command::new(&program);
                command
                    .env_clear()
                    .args(["-port", &port.to_string(), &format!("-listings={listings}"), "-dir"])
                    .arg(&dir);
                Ok(command)
            };
            Service::start(PROGRAM.name, "address already in use", command, listens).map(Self)
        })
        .await
    }

    /// The address of the directory, `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.endpoint()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// What the server was asked: a method and a path on each line, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.0.home.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

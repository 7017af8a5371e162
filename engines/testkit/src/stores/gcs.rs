//! Google Cloud Storage, as far as it can be had: fake-gcs-server behind a front.
//!
//! Cloud Storage has two interfaces, one of JSON and one of XML. The Rust client `object_store` speaks XML; of that the emulator has
//! reads and deletions, answers a plain upload with 400 ("invalid uploadType"), and ignores in listings where they should begin.
//! The front is a page of Go around the emulator's library: it translates those two kinds of requests, `x-goog-if-generation-match`
//! to the JSON interface's `ifGenerationMatch` among them, and passes everything else on. So what is proven with it is the client's
//! half and the emulator's exclusive creation; not how Google answers.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Service, listens};
use crate::error::Result;
use crate::golang::{GoProgram, Source};
use crate::offload::blocking;

const PROGRAM: GoProgram = GoProgram {
    name: "fake-gcs-server 1.56.1",
    file: "fake-gcs",
    version: "v1.56.1",
    source: Source::Front { main: include_str!("front/gcs.go"), module: "github.com/fsouza/fake-gcs-server" },
    variable: "BACKUP_TESTKIT_FAKE_GCS",
};

/// A running emulator of Cloud Storage, in memory, that ends with this value, or with the test process.
#[derive(Debug)]
pub struct FakeGcs(Service);

impl FakeGcs {
    /// The program, emulator and front in one: that in `BACKUP_TESTKIT_FAKE_GCS`, otherwise built by `go build` with the pinned
    /// version of the emulator on first use (a minute). Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) without a Go toolchain or when the build fails.
    pub fn program() -> Result<PathBuf> {
        PROGRAM.provide()
    }

    /// Starts an emulator without buckets and waits until it answers.
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
            let command = |port: u16, _: &Path| {
                let mut command = Command::new(&program);
                command.env_clear().args(["-port", &port.to_string()]);
                Ok(command)
            };
            Service::start(PROGRAM.name, "address already in use", command, listens).map(Self)
        })
        .await
    }

    /// Base address for clients, `http://127.0.0.1:<port>`. Any token is accepted, none is needed.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when it can't be made, [`Error::Io`](crate::Error::Io) without an answer.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        self.0.ask(PROGRAM.name, "PUT", &format!("/{name}"), &[], "")
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

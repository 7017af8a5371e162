//! Real object stores, one of each protocol that a repository is kept in.
//!
//! | store | protocol | from |
//! |---|---|---|
//! | [`Versity`] | S3, over a directory | Go module |
//! | [`Minio`] | S3 | Go module |
//! | [`Azurite`] | Azure Blob Storage | npm |
//! | [`FakeGcs`] | Google Cloud Storage | Go module, behind a front |
//! | [`WebDav`] | HTTP with listings, for reading only | Go module, behind a front |
//!
//! All keep the one promise that a write-once repository stands on, measured: of many writers of one name exactly one wins.

mod azurite;
mod gcs;
mod minio;
mod signature;
mod versity;
mod webdav;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::process::{ServerProcess, free_port, tail};
use crate::scratch::scratch_dir;
use crate::{unprivileged, wait};

pub use azurite::Azurite;
pub use gcs::FakeGcs;
pub use minio::Minio;
pub use versity::Versity;
pub use webdav::WebDav;

/// They answer in a fraction of a second, Azurite in two; more is only needed on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store's process on a port of 127.0.0.1, with a directory of its own.
#[derive(Debug)]
struct Service {
    port: u16,
    // The process ends before its directory goes.
    process: ServerProcess,
    home: TempDir,
}

impl Service {
    /// Starts what `command` makes for a free port and an empty directory, and waits until it answers.
    ///
    /// `taken` is what its log says when somebody else has taken the port meanwhile; then another one is tried. `answers` is asked
    /// about the port until it is true.
    fn start(
        name: &str,
        taken: &str,
        command: impl Fn(u16, &Path) -> Result<Command>,
        answers: impl Fn(u16) -> bool,
    ) -> Result<Self> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::launch(name, &command, &answers) {
                Err(Error::Server { log, .. }) if attempt < 5 && log.contains(taken) => {}
                other => return other,
            }
        }
    }

    fn launch(
        name: &str,
        command: &impl Fn(u16, &Path) -> Result<Command>,
        answers: &impl Fn(u16) -> bool,
    ) -> Result<Self> {
        let home = scratch_dir()?;
        let port = free_port()?;
        let mut command = command(port, home.path())?;
        command.current_dir(home.path());
        let log = home.path().join("log");
        let mut process = ServerProcess::spawn(&mut command, &log, Signal::TERM, &[home.path().to_owned()])?;
        let answered = wait::until(PATIENCE, || match process.ended() {
            Some(exit) => Some(Err(exit)),
            None => answers(port).then_some(Ok(())),
        });
        let what = match answered {
            Some(Ok(())) => return Ok(Self { port, process, home }),
            Some(Err(exit)) => format!("ended while starting ({exit})"),
            None => format!("did not answer within {PATIENCE:?}"),
        };
        Err(Error::Server { server: name.to_owned(), what, log: tail(&log, 40) })
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        tail(&self.home.path().join("log"), 60)
    }

    /// Sends a request that has to be answered with success, a bucket's creation for example.
    fn ask(&self, name: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<()> {
        let answer = answer(self.port, method, target, headers, body).map_err(Error::io("talk to", Path::new(name)))?;
        if status(&answer).is_some_and(|status| (200..300).contains(&status)) {
            return Ok(());
        }
        let what = format!("answered {method} {target} with {answer:?}");
        Err(Error::Server { server: name.to_owned(), what, log: self.log() })
    }
}

/// Makes a directory in `home` that belongs to the servers' account.
fn own_dir(home: &Path, name: &str) -> Result<PathBuf> {
    let dir = home.join(name);
    std::fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
    unprivileged().own(&dir)?;
    Ok(dir)
}

/// Whether something listens on a port of 127.0.0.1.
fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Sends a request and reads the whole answer.
fn answer(port: u16, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The status of an answer, for example 200.
fn status(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

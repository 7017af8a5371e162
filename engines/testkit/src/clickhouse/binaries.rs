//! Where the server comes from: the caller's own, or a pinned build fetched once into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::version::{ClickHouseVersion, ENGINE, ENGINE_FILE, PACKAGES};
use crate::cache::{Cache, make_readable};
use crate::debian;
use crate::error::{Error, Result};
use crate::identity::unprivileged;

/// What the old server's program is called.
const PROGRAM: &str = "clickhouse-server";

/// A server of ClickHouse on this machine.
#[derive(Clone, Debug)]
pub struct ClickHouseBinaries {
    version: ClickHouseVersion,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A program of the system's.
    Installed(PathBuf),
    /// Debian's program with its libraries, in this directory.
    Debian(PathBuf),
    /// The engine as a library, in `dir`, for this `python`.
    Library { dir: PathBuf, python: PathBuf },
}

impl ClickHouseBinaries {
    /// The server of `version`: that in [its variable](ClickHouseVersion::variable) if set, otherwise the pinned build
    /// from the cache, fetched on first use. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be had, [`Error::InvalidInput`] when the override is not that version.
    pub fn get(version: ClickHouseVersion) -> Result<Self> {
        match std::env::var_os(version.variable()).filter(|given| !given.is_empty()) {
            Some(given) => Self::installed(version, Path::new(&given)),
            None => Self::provision(version, &Cache::open()?),
        }
    }

    /// A server of the caller's: the program `clickhouse-server`, the directory that it is in, or a directory with the
    /// engine as a library in it (an unpacked `chdb-core`).
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when there is none, or it is not of that version (the old server can't say so before it
    /// runs: then [starting it](super::ClickHouseBuilder::start) is such an error); [`Error::Unavailable`] when the
    /// library lacks a Python that can load it.
    pub fn installed(version: ClickHouseVersion, given: &Path) -> Result<Self> {
        let kind = if given.join(ENGINE_FILE).exists() {
            Kind::Library { dir: given.to_owned(), python: python(version)? }
        } else if given.is_dir() {
            Kind::Installed(given.join(PROGRAM))
        } else {
            Kind::Installed(given.to_owned())
        };
        let binaries = Self { version, kind };
        let said = binaries.says()?;
        let silent = version == ClickHouseVersion::V18_16 && said.starts_with("Unknown option specified");
        if !silent && !said.contains(&format!(" {}.", version.line())) {
            return Err(Error::invalid(format!("{} is wanted as {version} but says {said:?}", given.display())));
        }
        Ok(binaries)
    }

    /// The pinned build in `cache`, fetched if it is missing. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be fetched, is not what was pinned, or lacks a Python that can load it.
    pub fn provision(version: ClickHouseVersion, cache: &Cache) -> Result<Self> {
        let server = format!("clickhouse {}", version.pinned());
        let variable = version.variable();
        let kind = match version {
            ClickHouseVersion::V18_16 => {
                let members = [("usr/sbin/clickhouse-server", PROGRAM)];
                let dir = cache.provide(&format!("clickhouse/{}", version.pinned()), |dir| {
                    PACKAGES.unpack(&members, dir, &server, &variable)?;
                    make_readable(dir)
                })?;
                Kind::Debian(dir)
            }
            ClickHouseVersion::V26 => {
                // Said first: without it the download would be for nothing.
                let python = python(version)?;
                let (wheel, members) = ENGINE;
                let dir = cache.provide(&format!("clickhouse/{}", version.pinned()), |dir| {
                    wheel.unpack(members, dir, &server, &variable)?;
                    make_readable(dir)
                })?;
                Kind::Library { dir, python }
            }
        };
        Ok(Self { version, kind })
    }

    /// The release line.
    #[must_use]
    pub fn version(&self) -> ClickHouseVersion {
        self.version
    }

    /// Whether it is the engine as a library behind the testkit's front, whose users are checked but not obeyed.
    #[must_use]
    pub fn is_library(&self) -> bool {
        matches!(self.kind, Kind::Library { .. })
    }

    /// A command for the server with the configuration in `home`, in a clean environment and as the servers' account.
    pub(super) fn server(&self, home: &Path, data: &Path, port: u16) -> Command {
        let mut command = self.command();
        match &self.kind {
            Kind::Installed(_) | Kind::Debian(_) => {
                command.arg(format!("--config-file={}", home.join("config.xml").display()));
            }
            Kind::Library { dir, .. } => {
                command.arg(home.join("front.py")).arg("--library").arg(dir).arg("--data").arg(data);
                command.arg("--config").arg(home.join("config.xml")).arg("--users").arg(home.join("users.json"));
                command.args(["--port", &port.to_string(), "--log-level", "warning"]);
            }
        }
        command
    }

    fn command(&self) -> Command {
        let mut command = match &self.kind {
            Kind::Installed(program) => Command::new(program),
            Kind::Debian(dir) => debian::command(dir, PROGRAM),
            Kind::Library { python, .. } => {
                let mut command = Command::new(python);
                // Nothing of the user's own Python set-up.
                command.arg("-I");
                command
            }
        };
        command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")]).current_dir("/");
        unprivileged().apply(&mut command);
        command
    }

    /// What the server says about itself: `ClickHouse server version 26.9.2.1.`.
    fn says(&self) -> Result<String> {
        let mut command = self.command();
        match &self.kind {
            Kind::Installed(_) | Kind::Debian(_) => command.arg("--version"),
            Kind::Library { dir, .. } => command.arg("-c").arg(SAY).arg(dir),
        };
        let output = command.output().map_err(|error| Error::invalid(format!("{self:?} does not run: {error}")))?;
        let said = if output.status.success() { output.stdout } else { output.stderr };
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }
}

/// Asks the library for its version.
const SAY: &str = "
import importlib, sys, types
package = types.ModuleType('chdb')
package.__path__ = [sys.argv[1] + '/chdb']
sys.modules['chdb'] = package
print('version', importlib.import_module('chdb._chdb').connect(':memory:').query('SELECT version()', 'TSV').bytes().decode())
";

/// The first `python3` on the path, or of the system, that the servers' account can run and that can load the library.
fn python(version: ClickHouseVersion) -> Result<PathBuf> {
    const CHECK: &str = "import sys; sys.exit(sys.version_info < (3, 9))";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    let mut candidates = dirs.map(|dir| dir.join("python3")).filter(|python| python.is_absolute() && python.exists());
    let fits = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-I", "-c", CHECK]).current_dir("/");
        unprivileged().apply(&mut command).output().is_ok_and(|output| output.status.success())
    };
    candidates.find(fits).ok_or_else(|| {
        let account = unprivileged().uid;
        Error::unavailable(
            version.name(),
            format!(
                "no python3 of at least 3.9 that uid {account} can run; {} may name an installed server",
                version.variable()
            ),
        )
    })
}

//! Where the server's program comes from: the caller's own, or a pinned build fetched once into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::version::{MODULE, OPENSSL, OPENSSL_LINK, PROGRAM, RedisVersion};
use crate::cache::{Cache, make_readable};
use crate::error::{Error, Result};
use crate::identity::unprivileged;

/// The program of one server of the Redis family.
#[derive(Clone, Debug)]
pub struct RedisBinaries {
    version: RedisVersion,
    program: PathBuf,
    module: Option<PathBuf>,
    libraries: Option<PathBuf>,
    tls: bool,
}

impl RedisBinaries {
    /// The program of `version`: that in [its variable](RedisVersion::variable) if set (the file, or the directory with
    /// `redis-server` or `valkey-server` in it), otherwise the pinned build from the cache, fetched on first use. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be had, [`Error::InvalidInput`] when the override is not that version.
    pub fn get(version: RedisVersion) -> Result<Self> {
        match std::env::var_os(version.variable()).filter(|given| !given.is_empty()) {
            Some(given) => Self::installed(version, Path::new(&given)),
            None => Self::provision(version, &Cache::open()?),
        }
    }

    /// A program of the caller's: the file, or the directory with `redis-server` or `valkey-server` in it.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it is not of that version, or the servers' account can't run it.
    pub fn installed(version: RedisVersion, given: &Path) -> Result<Self> {
        let name = if version.is_valkey() { "valkey-server" } else { "redis-server" };
        let program = if given.is_dir() { given.join(name) } else { given.to_owned() };
        let binaries = Self { version, program, module: None, libraries: None, tls: true };
        let said = binaries.says()?;
        let wanted = format!("v={}.", version.line());
        let kind = if version.is_valkey() { "Valkey" } else { "Redis" };
        if !said.starts_with(kind) || !said.contains(&wanted) {
            let program = binaries.program.display();
            return Err(Error::invalid(format!("{program} is wanted as {version} but says {said:?}")));
        }
        Ok(binaries)
    }

    /// The pinned build in `cache`, fetched if it is missing. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be fetched or is not what was pinned.
    pub fn provision(version: RedisVersion, cache: &Cache) -> Result<Self> {
        let build = version.build();
        let server = format!("{} {}", version.name(), build.version);
        let variable = version.variable();
        let root = cache.provide(&format!("redis/{}-{}", version.name(), build.version), |dir| {
            build.wheel.unpack(build.members, dir, &server, &variable)?;
            make_readable(dir)
        })?;
        let libraries = build.openssl.then(|| openssl(cache, &server, &variable)).transpose()?;
        let module = build.members.iter().any(|(_, name)| *name == MODULE).then(|| root.join(MODULE));
        let binaries = Self { version, program: root.join(PROGRAM), module, tls: build.openssl, libraries };
        Ok(binaries)
    }

    /// The release line.
    #[must_use]
    pub fn version(&self) -> RedisVersion {
        self.version
    }

    /// The program's file.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The directory of libraries that the program needs and the system lacks, for `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn libraries(&self) -> Option<&Path> {
        self.libraries.as_deref()
    }

    /// Whether the server can speak TLS. Said of the pinned builds only; of an override it is assumed.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls
    }

    /// A module with a data type of its own (Bloom filters), where the pinned build has one.
    #[must_use]
    pub fn module(&self) -> Option<&Path> {
        self.module.as_deref()
    }

    /// A command for the server, in a clean environment and as the servers' account.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")]).current_dir("/");
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        unprivileged().apply(&mut command);
        command
    }

    /// What the program says about itself: `Redis server v=7.4.1 sha=…`.
    fn says(&self) -> Result<String> {
        let output = self.command().arg("--version").output();
        let output =
            output.map_err(|error| Error::invalid(format!("{} does not run: {error}", self.program.display())))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn openssl(cache: &Cache, server: &str, variable: &str) -> Result<PathBuf> {
    let (wheel, members) = OPENSSL;
    cache.provide("redis/openssl-1.1", |dir| {
        wheel.unpack(members, dir, server, variable)?;
        let (file, link) = OPENSSL_LINK;
        let link = dir.join(link);
        std::os::unix::fs::symlink(file, &link).map_err(Error::io("link", &link))?;
        make_readable(dir)
    })
}

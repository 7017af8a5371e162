//! The programs that people would pick instead, at known versions, each fetched or built once into the testkit's cache by an
//! ordinary client of packages: `apt-get`, `go`, `cargo`. None of them needs rights or changes the machine.
//!
//! A program that cannot be had is a value, not an error: a table that was made without it says so, and why.

mod debian;
mod golang;
mod rust;

use std::path::{Path, PathBuf};

use backup_testkit::Cache;

use crate::Error;
use crate::measure::Job;

/// Where a program comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The package of Debian's release `SUITE`, and where it has the program.
    Debian { package: &'static str, member: &'static str },
    /// The package of a Go module.
    Go { module: &'static str, package: &'static str, language: &'static str, sodium: bool },
    /// The crate.
    Crate { name: &'static str },
}

/// A program that can be asked for.
#[derive(Debug)]
pub(crate) struct Peer {
    /// As tables call it.
    pub(crate) name: &'static str,
    /// The name of its file.
    file: &'static str,
    /// Its version where one can be asked for, else the release that it comes from.
    pub(crate) version: &'static str,
    source: Source,
    /// What has it say its version.
    ask: &'static str,
}

/// Debian's stable release; its packages bring their own C library, so they run beside any other.
const SUITE: &str = "trixie";

pub(crate) const PGBACKREST: Peer = Peer {
    name: "pgBackRest",
    file: "pgbackrest",
    version: SUITE,
    source: Source::Debian { package: "pgbackrest", member: "usr/bin/pgbackrest" },
    ask: "version",
};
pub(crate) const PG_BASEBACKUP: Peer = Peer {
    name: "pg_basebackup",
    file: "pg_basebackup",
    version: SUITE,
    source: Source::Debian { package: "postgresql-client-17", member: "usr/lib/postgresql/17/bin/pg_basebackup" },
    ask: "--version",
};
pub(crate) const PG_RECEIVEWAL: Peer = Peer {
    name: "pg_receivewal",
    file: "pg_receivewal",
    version: SUITE,
    source: Source::Debian { package: "postgresql-client-17", member: "usr/lib/postgresql/17/bin/pg_receivewal" },
    ask: "--version",
};
pub(crate) const ZSTD: Peer = Peer {
    name: "zstd",
    file: "zstd",
    version: SUITE,
    source: Source::Debian { package: "zstd", member: "usr/bin/zstd" },
    ask: "--version",
};
pub(crate) const WAL_G: Peer = Peer {
    name: "WAL-G",
    file: "wal-g",
    version: "v1.1.1",
    source: Source::Go {
        module: "github.com/wal-g/wal-g",
        package: "github.com/wal-g/wal-g/main/pg",
        language: "1.17",
        sodium: true,
    },
    ask: "--version",
};
pub(crate) const RESTIC: Peer = Peer {
    name: "restic",
    file: "restic",
    version: "v0.19.1",
    source: Source::Go {
        module: "github.com/restic/restic",
        package: "github.com/restic/restic/cmd/restic",
        language: "1.24",
        sodium: false,
    },
    ask: "version",
};
pub(crate) const KOPIA: Peer = Peer {
    name: "kopia",
    file: "kopia",
    version: "v0.23.1",
    source: Source::Go {
        module: "github.com/kopia/kopia",
        package: "github.com/kopia/kopia",
        language: "1.24",
        sodium: false,
    },
    ask: "--version",
};
pub(crate) const RUSTIC: Peer = Peer {
    name: "rustic",
    file: "rustic",
    version: "0.11.4",
    source: Source::Crate { name: "rustic-rs" },
    ask: "--version",
};

/// All of them.
pub(crate) const ALL: [&Peer; 8] =
    [&PGBACKREST, &PG_BASEBACKUP, &PG_RECEIVEWAL, &ZSTD, &WAL_G, &RESTIC, &KOPIA, &RUSTIC];

/// A program that is there and runs.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// As tables call it.
    pub(crate) name: &'static str,
    /// What it says of itself.
    pub(crate) version: String,
    pub(crate) path: PathBuf,
}

impl Program {
    /// A command line that begins with it.
    pub(crate) fn job(&self) -> Job {
        Job::new(&self.path)
    }
}

/// A contender that cannot be had here.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Missing {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Peer {
    /// The program, which is fetched or built on first use (the built ones take minutes). `BACKUP_BENCHES_<NAME>` may name the file
    /// of an installed one.
    pub(crate) fn provide(&self) -> Result<Program, Missing> {
        let missing = |error: Error| Missing { name: self.name.to_owned(), reason: error.to_string() };
        let path = self.path().map_err(missing)?;
        let said = Job::new(&path).env("HOME", "/nonexistent").arg(self.ask).run().map_err(missing)?;
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        // Programs that are built from a module do not all know their version.
        let known = said.contains(self.version.trim_start_matches('v')) || self.version == SUITE;
        let version = if known { said.to_owned() } else { format!("{} {}", self.name, self.version) };
        Ok(Program { name: self.name, version, path })
    }

    fn path(&self) -> Result<PathBuf, Error> {
        let variable = format!("BACKUP_BENCHES_{}", self.file.replace('-', "_").to_uppercase());
        if let Some(given) = std::env::var_os(variable).filter(|given| !given.is_empty()) {
            return Ok(given.into());
        }
        let cache = Cache::open()?;
        let place = format!("peers/{}/{}", self.file, self.version);
        let whole = cache.root().join(&place);
        if !whole.exists() {
            eprintln_note(&format!("{} {} is being had; this may take minutes, once", self.name, self.version));
        }
        let dir = cache.provide(&place, |dir| {
            let made = match self.source {
                Source::Debian { package, member } => debian::program(package, member, self.file, dir, &whole),
                Source::Go { module, package, language, sodium } => {
                    golang::Module { module, version: self.version, package, language, sodium }.build(self.file, dir)
                }
                Source::Crate { name } => rust::install(name, self.version, self.file, dir),
            };
            made.map_err(|error| backup_testkit::Error::Unavailable {
                server: self.name.to_owned(),
                reason: error.to_string(),
                source: None,
            })
        })?;
        Ok(dir.join(self.file))
    }
}

#[expect(clippy::print_stderr, reason = "a program that reports to its terminal")]
fn eprintln_note(text: &str) {
    eprintln!("{text}");
}

/// Runs a client of packages; an error has the end of what it said.
fn run(command: &mut std::process::Command) -> Result<(), Error> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
    let output = command.output().map_err(|error| format!("{name} does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(8)..].join("; ");
    Err(format!("{name} failed ({}): {end}", output.status).into())
}

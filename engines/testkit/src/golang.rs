//! Programs that are built from Go modules at pinned versions.
//!
//! `go` fetches the sources through whatever proxy the machine is set up with and checks them against Go's checksum database, so
//! a version that is named here is the same code everywhere, for ever. Two kinds: a program that a module has, and a **front**, a
//! page of our own in Go around what a module offers only as a library.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::cache::{Cache, make_readable};
use crate::error::{Error, Result};
use crate::wait::Stopwatch;

/// What is built.
pub(crate) enum Source {
    /// The program of this package, with `go install`.
    Package(&'static str),
    /// This program, with `go build`, which uses the module.
    Front {
        /// The text of its `main.go`.
        main: &'static str,
        /// The module, which has the program's version.
        module: &'static str,
    },
}

/// A program.
pub(crate) struct GoProgram {
    /// Its name and version for people.
    pub(crate) name: &'static str,
    /// The name of its file.
    pub(crate) file: &'static str,
    /// The exact version of its module.
    pub(crate) version: &'static str,
    /// What is built.
    pub(crate) source: Source,
    /// The environment variable that may name an installed one: the file, or the directory with it.
    pub(crate) variable: &'static str,
}

impl GoProgram {
    /// The program's file, built on first use (minutes). Blocks.
    pub(crate) fn provide(&self) -> Result<PathBuf> {
        if let Some(given) = std::env::var_os(self.variable).filter(|given| !given.is_empty()) {
            let given = PathBuf::from(given);
            return Ok(if given.is_dir() { given.join(self.file) } else { given });
        }
        let dir = Cache::open()?.provide(&self.place(), |dir| self.build(dir))?;
        Ok(dir.join(self.file))
    }

    /// Where it is in the cache. A front that was changed is another program.
    fn place(&self) -> String {
        let Self { file, version, .. } = self;
        match self.source {
            Source::Package(_) => format!("{file}/{version}"),
            Source::Front { main, .. } => {
                let digest: String = Sha256::digest(main).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                format!("{file}/{version}-{digest}")
            }
        }
    }

    fn build(&self, dir: &Path) -> Result<()> {
        let watch = Stopwatch::start();
        tracing::info!("building {} from source; this takes minutes, once", self.name);
        let mut go = Command::new("go");
        // A GOFLAGS of the caller's may name a vendor directory or tags that mean nothing here.
        go.env("GOFLAGS", "").env("GOBIN", dir).current_dir(dir);
        let stripped = "-ldflags=-s -w";
        match self.source {
            Source::Package(package) => {
                go.args(["install", "-p", "2", "-trimpath", stripped, &format!("{package}@{}", self.version)]);
                self.run(&mut go)?;
            }
            Source::Front { main, module } => {
                let work = dir.join("source");
                std::fs::create_dir(&work).map_err(Error::io("create", &work))?;
                let description = format!("module front\n\ngo 1.24\n\nrequire {module} {}\n", self.version);
                for (name, text) in [("main.go", main), ("go.mod", &description)] {
                    let file = work.join(name);
                    std::fs::write(&file, text).map_err(Error::io("write", &file))?;
                }
                // What the module needs is added to the description, at the versions that the module names.
                go.args(["build", "-mod=mod", "-p", "2", "-trimpath", stripped, "-o"])
                    .arg(dir.join(self.file))
                    .arg(".");
                self.run(go.current_dir(&work))?;
                std::fs::remove_dir_all(&work).map_err(Error::io("remove", &work))?;
            }
        }
        tracing::info!(server = self.name, elapsed = ?watch.elapsed(), "provisioned");
        make_readable(dir)
    }

    fn run(&self, go: &mut Command) -> Result<()> {
        let hint = format!("{} may name an installed one", self.variable);
        match go.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Error::unavailable(self.name, format!("go failed ({}): {said}; {hint}", output.status)))
            }
            Err(error) => {
                Err(Error::unavailable_because(self.name, format!("the go command does not run; {hint}"), error))
            }
        }
    }
}

//! Programs that are built from Go modules.
//!
//! A module of our own without code requires the version; `go build` then takes the path of the package. `go` checks what it
//! fetches against Go's checksum database.

use std::path::Path;
use std::process::Command;

use backup_testkit::debian::{Wanted, fetch};

use super::run;
use crate::Error;

/// A program of a module.
pub(super) struct Module {
    pub(super) module: &'static str,
    pub(super) version: &'static str,
    pub(super) package: &'static str,
    /// The version of the language that the module was written for: it decides on defaults.
    pub(super) language: &'static str,
    /// Whether it is linked with libsodium, which WAL-G encrypts with.
    pub(super) sodium: bool,
}

impl Module {
    pub(super) fn build(&self, name: &str, dir: &Path) -> Result<(), Error> {
        let Self { module, version, package, language, sodium } = self;
        let work = dir.join("work");
        std::fs::create_dir(&work)?;
        let description = format!("module peer\n\ngo {language}\n\nrequire {module} {version}\n");
        std::fs::write(work.join("go.mod"), description)?;
        let mut go = Command::new("go");
        go.env("GOFLAGS", "").current_dir(&work).args(["build", "-mod=mod", "-p", "2", "-trimpath", "-ldflags=-s -w"]);
        if *sodium {
            // Headers and an archive that is linked in; nothing of it is needed afterwards.
            let root = fetch(&["libsodium-dev"], "bookworm", Wanted::Named, &work)?;
            let (headers, libraries) = (root.join("usr/include"), root.join("usr/lib/x86_64-linux-gnu"));
            // The link to the shared library names a file of another package.
            std::fs::remove_file(libraries.join("libsodium.so"))?;
            go.env("CGO_ENABLED", "1")
                .env("CGO_CFLAGS", format!("-O2 -I{}", headers.display()))
                .env("CGO_LDFLAGS", format!("-L{}", libraries.display()))
                .args(["-tags", "libsodium"]);
        }
        run(go.arg("-o").arg(dir.join(name)).arg(package))?;
        std::fs::remove_dir_all(&work)?;
        Ok(())
    }
}

//! Programs out of Debian's packages, with everything that they need, down to the C library.
//!
//! The testkit fetches them. Then the program is told by `patchelf`, which comes the same way, to use the loader and the libraries that
//! came with it. It is started like any other, so what is measured is the program and no wrapper around it; but it cannot be moved.

use std::path::Path;
use std::process::Command;

use backup_testkit::debian::{LOADER, Wanted, fetch, take_libraries};

use super::{SUITE, run};
use crate::Error;

/// Puts the file `member` of `package` into `dir` as `name`, with its libraries. `dir` becomes `whole` afterwards.
pub(super) fn program(package: &str, member: &str, name: &str, dir: &Path, whole: &Path) -> Result<(), Error> {
    let work = dir.join("work");
    let root = fetch(&[package, "patchelf"], SUITE, Wanted::Closure, &work)?;
    let libraries = dir.join("lib");
    std::fs::create_dir(&libraries)?;
    take_libraries(&root, &libraries)?;
    let program = dir.join(name);
    std::fs::rename(root.join(member), &program)?;
    run(Command::new(libraries.join(LOADER))
        .arg("--library-path")
        .arg(&libraries)
        .arg(root.join("usr/bin/patchelf"))
        .arg("--set-interpreter")
        .arg(whole.join("lib").join(LOADER))
        .arg("--force-rpath")
        .arg("--set-rpath")
        .arg(whole.join("lib"))
        .arg(&program))?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

//! Programs that are built from crates, with the versions of dependencies that their makers released them with.

use std::path::Path;
use std::process::Command;

use super::run;
use crate::Error;

pub(super) fn install(name: &str, version: &str, file: &str, dir: &Path) -> Result<(), Error> {
    let work = dir.join("work");
    run(Command::new("cargo")
        // As released, whatever the caller builds with.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(dir)
        .args(["install", name, "--version", version, "--locked", "--no-default-features", "--root"])
        .arg(&work)
        .arg("--target-dir")
        .arg(work.join("target")))?;
    std::fs::rename(work.join("bin").join(file), dir.join(file))?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

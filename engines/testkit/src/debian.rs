//! Programs out of Debian's packages, unpacked beside the system with everything that they need.
//!
//! `apt-get` resolves and fetches, with a state of its own in which nothing is installed: it needs no rights, takes no
//! lock and changes nothing of the system, and because nothing counts as installed it brings the whole closure, down to
//! the C library and its loader. So the program runs on any Linux, whatever libraries that has.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::wait::Stopwatch;

/// Where Debian's packages come from if neither the machine nor the caller says so.
const MIRROR: &str = "http://deb.debian.org/debian";
/// What Debian's releases are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Directories of the packages that libraries lie in.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// The loader, which lies among the libraries.
pub const LOADER: &str = "ld-linux-x86-64.so.2";

/// Packages of one release of Debian.
pub(crate) struct Packages {
    /// The release.
    pub(crate) suite: &'static str,
    /// Their names; what they depend on comes with them. Each comes in the one version that the release has, signed by
    /// Debian: an older build is gone from mirrors as soon as there is another, so none can be asked for.
    pub(crate) names: &'static [&'static str],
}

impl Packages {
    /// Puts the files `members` of the packages into `dir`, each under its second name, and all libraries of the closure
    /// into `dir/lib`, where [`command`] finds them.
    ///
    /// `server` and `variable` are for the error: what is missing, and what may name an installed one.
    pub(crate) fn unpack(&self, members: &[(&str, &str)], dir: &Path, server: &str, variable: &str) -> Result<()> {
        let missing =
            |what: String| Error::unavailable(server, format!("{what}; {variable} may name an installed one"));
        let watch = Stopwatch::start();
        let work = dir.join("work");
        let root = fetch(self.names, self.suite, Wanted::Closure, &work).map_err(&missing)?;
        let libraries = dir.join("lib");
        std::fs::create_dir(&libraries).map_err(Error::io("create", &libraries))?;
        take_libraries(&root, &libraries)?;
        for (member, name) in members {
            let (from, to) = (root.join(member), dir.join(name));
            std::fs::rename(&from, &to).map_err(Error::io("move", &from))?;
        }
        std::fs::remove_dir_all(&work).map_err(Error::io("remove", &work))?;
        tracing::info!(%server, elapsed = ?watch.elapsed(), "provisioned");
        Ok(())
    }
}

/// How much is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The packages that are named.
    Named,
    /// They and all that they depend on.
    Closure,
}

/// Fetches packages of `suite` and unpacks them below `work`, which is made. Returns the root of what was unpacked. Blocking.
///
/// # Errors
/// Why it is not to be had, as text.
pub fn fetch(packages: &[&str], suite: &str, wanted: Wanted, work: &Path) -> std::result::Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("there are no packages for this platform".to_owned());
    }
    if !Path::new(KEYRING).exists() {
        return Err(format!("{KEYRING} is missing (package debian-archive-keyring)"));
    }
    let text = |error: Error| error.to_string();
    let root = work.join("root");
    std::fs::create_dir_all(&root).map_err(Error::io("create", &root)).map_err(text)?;
    let apt = Apt::prepare(&work.join("apt"), suite).map_err(text)?;
    run(apt.command().arg("update"))?;
    match wanted {
        Wanted::Closure => run(apt.command().args(["--yes", "--download-only", "install"]).args(packages))?,
        Wanted::Named => run(apt.command().arg("download").args(packages).current_dir(apt.cache()))?,
    }
    for archive in apt.archives().map_err(text)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&root))?;
    }
    Ok(root)
}

/// Moves the libraries of what was [fetched](fetch) into `to`, and the links that name them; the links are relative and stay among
/// themselves.
///
/// # Errors
/// Those of the disk.
pub fn take_libraries(root: &Path, to: &Path) -> Result<()> {
    LIBRARIES.iter().try_for_each(|below| take_from(&root.join(below), to))
}

/// A command for `program`, which [`Packages::unpack`] has put into `dir`, with the libraries that came with it.
pub(crate) fn command(dir: &Path, program: &str) -> Command {
    let libraries = dir.join("lib");
    let mut command = Command::new(libraries.join(LOADER));
    command.arg("--library-path").arg(libraries).arg(dir.join(program));
    command
}

/// An `apt-get` with a state of its own.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn prepare(dir: &Path, suite: &str) -> Result<Self> {
        for below in ["etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
            let made = dir.join(below);
            std::fs::create_dir_all(&made).map_err(Error::io("create", &made))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror());
        for (name, text) in [("etc/sources.list", source.as_str()), ("status", "")] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(Error::io("write", &path))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").current_dir("/").arg("-qq");
        let place = |name: &str| self.dir.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc", place("etc")),
            ("Dir::Etc::sourcelist", place("etc/sources.list")),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State", place("state")),
            ("Dir::State::status", place("status")),
            ("Dir::Cache", place("cache")),
            ("Debug::NoLocking", "1".to_owned()),
            // Otherwise root's apt becomes an account that may not write here.
            ("APT::Sandbox::User", "root".to_owned()),
            ("APT::Install-Recommends", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            // Otherwise a mirror that can't be reached is a warning, and then packages are unknown.
            ("APT::Update::Error-Mode", "any".to_owned()),
            // A mirror that stands still is as good: a release that is out hardly changes, and is signed.
            ("Acquire::Check-Valid-Until", "false".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }

    fn cache(&self) -> PathBuf {
        self.dir.join("cache/archives")
    }

    fn archives(&self) -> Result<Vec<PathBuf>> {
        let dir = self.cache();
        let mut archives = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Error::io("list", &dir))? {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                archives.push(path);
            }
        }
        Ok(archives)
    }
}

fn take_from(from: &Path, to: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", from)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("list", from))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().contains(".so") {
            std::fs::rename(&path, to.join(&name)).map_err(Error::io("move", &path))?;
        }
    }
    Ok(())
}

/// The mirror of Debian that the caller names, or that this machine is set up with.
fn mirror() -> String {
    if let Some(given) = std::env::var("BACKUP_TESTKIT_DEBIAN_MIRROR").ok().filter(|given| !given.is_empty()) {
        return given;
    }
    let lists = std::fs::read_dir("/etc/apt/sources.list.d");
    let lists = lists.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let texts =
        lists.chain([PathBuf::from("/etc/apt/sources.list")]).filter_map(|list| std::fs::read_to_string(list).ok());
    texts.into_iter().find_map(|text| mirror_in(&text)).unwrap_or_else(|| MIRROR.to_owned())
}

/// The first address of Debian itself in a list of sources, of either form (sources.list(5)).
fn mirror_in(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace);
    let found = words.find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"));
    found.map(str::to_owned)
}

fn run(command: &mut Command) -> std::result::Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} failed ({}): {}", output.status, said.trim()))
        }
        Err(error) => Err(format!("{program} does not run: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms() {
        let one = "# deb http://old/debian x main\ndeb [arch=amd64] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(one).as_deref(), Some("http://mirror.example/debian/"));
        let many =
            "Types: deb\nURIs: https://packages.example/apt\n\nTypes: deb\nURIs: http://m/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(many).as_deref(), Some("http://m/debian"));
        assert_eq!(mirror_in("deb http://m/debian-security bookworm-security main"), None);
    }
}

//! Where the server's program is.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, Result};

/// The program that loads backups of `product`, and what it calls itself.
///
/// # Errors
/// Environment, when there is none.
pub(super) fn find(named: Option<&Path>, product: &str) -> Result<(PathBuf, String)> {
    if let Some(program) = named {
        return Ok((program.to_owned(), version(program)?));
    }
    // Each of the two loads most of what the other one has written.
    let names = if product == "valkey" { ["valkey-server", "redis-server"] } else { ["redis-server", "valkey-server"] };
    for name in names {
        for dir in ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"] {
            let program = Path::new(dir).join(name);
            if let Ok(said) = version(&program) {
                return Ok((program, said));
            }
        }
    }
    Err(Error::environment(format!(
        "there is neither {} nor {} in the usual places: name the program",
        names[0], names[1]
    )))
}

/// The first words of what it says about itself: `Redis server v=7.2.4`.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").current_dir("/").output();
    let output = output.map_err(|error| Error::io(format!("run {}", program.display()), error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.contains("server") {
        true => Ok(said.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
        false => Err(Error::environment(format!("{} is no server of Redis or Valkey", program.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_server_is_refused() {
        let error = find(Some(Path::new("/bin/true")), "redis").unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::Environment);
        assert!(find(Some(Path::new("/nowhere/redis-server")), "redis").unwrap_err().to_string().contains("nowhere"));
    }
}

//! Where the programs of a version are.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, Result};

/// The program `postgres` of version `major`, and what it calls itself.
///
/// # Errors
/// Environment, when there is none.
pub(super) fn find(bin_dir: Option<&Path>, major: u32) -> Result<(PathBuf, String)> {
    if let Some(dir) = bin_dir {
        let program = dir.join("postgres");
        let said = version(&program)?;
        return match major_of(&said) {
            Some(found) if found == major => Ok((program, said)),
            _ => {
                Err(Error::environment(format!("{} is {said:?}, the backup is of version {major}", program.display())))
            }
        };
    }
    let usual = [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
        format!("/usr/lib/postgresql{major}/bin"),
        format!("/opt/homebrew/opt/postgresql@{major}/bin"),
        "/usr/local/pgsql/bin".to_owned(),
        "/usr/local/bin".to_owned(),
        "/usr/bin".to_owned(),
    ];
    for dir in &usual {
        let program = Path::new(dir).join("postgres");
        if let Ok(said) = version(&program)
            && major_of(&said) == Some(major)
        {
            return Ok((program, said));
        }
    }
    Err(Error::environment(format!(
        "there is no PostgreSQL {major} in any of {}: name its directory",
        usual.join(", ")
    )))
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").current_dir("/").output();
    let output = output.map_err(|error| Error::io(format!("run {}", program.display()), error))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The major version in `postgres (PostgreSQL) 17.6 (Debian 17.6-1)`.
fn major_of(said: &str) -> Option<u32> {
    let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        assert_eq!(major_of("postgres (PostgreSQL) 17.6 (Debian 17.6-1.pgdg12+1)"), Some(17));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta3"), Some(18));
        assert_eq!(major_of(""), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = find(Some(Path::new("/nowhere")), 17).unwrap_err();
        assert!(error.to_string().contains("/nowhere/postgres"), "{error}");
    }
}

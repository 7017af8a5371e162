//! Making a cluster: by `initdb` once per version and options, by copying ever after.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::binaries::PgBinaries;
use super::builder::{Auth, PostgresBuilder};
use super::version::PgVersion;
use crate::cache::{Cache, copy_tree};
use crate::certificate::Certificate;
use crate::error::{Error, Result};
use crate::identity::unprivileged;
use crate::scratch::write_private as write;

/// Fills `data` with a new cluster as `builder` wants it. Returns the authority's certificate when TLS is on.
pub(super) fn create_cluster(builder: &PostgresBuilder, binaries: &PgBinaries, data: &Path) -> Result<Option<String>> {
    if builder.fresh {
        initdb(builder, binaries, data)?;
    } else {
        let key = template_name(builder, binaries);
        let template = Cache::open()?.provide(&key, |dir| initdb(builder, binaries, &dir.join("data")))?;
        copy_tree(&template.join("data"), data, unprivileged(), &|_| false)?;
    }
    configure(builder, data)
}

/// One template per build and per everything that `initdb` was told.
fn template_name(builder: &PostgresBuilder, binaries: &PgBinaries) -> String {
    let mut hasher = Sha256::new();
    hasher.update(binaries.fingerprint());
    hasher.update([0]);
    for arg in initdb_args(builder) {
        hasher.update(arg);
        hasher.update([0]);
    }
    hasher.update(&builder.password);
    // A template belongs to the account that it was made for.
    hasher.update(unprivileged().uid.to_le_bytes());
    let digest: String = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("templates/postgres-{}-{digest}", builder.version)
}

fn initdb_args(builder: &PostgresBuilder) -> Vec<String> {
    let mut args = vec![
        format!("--username={}", builder.superuser),
        format!("--auth={}", builder.auth.method()),
        "--encoding=UTF8".to_owned(),
        "--locale=C".to_owned(),
        "--no-sync".to_owned(),
    ];
    if builder.checksums {
        args.push("--data-checksums".to_owned());
    } else if builder.version >= PgVersion::V18 {
        // Before 18 off is the default and has no option.
        args.push("--no-data-checksums".to_owned());
    }
    args.extend(builder.initdb.iter().cloned());
    args
}

fn initdb(builder: &PostgresBuilder, binaries: &PgBinaries, data: &Path) -> Result<()> {
    if !data.exists() {
        fs::create_dir_all(data).map_err(Error::io("create", data))?;
    }
    unprivileged().own(data)?;
    let password = tempfile::NamedTempFile::new().map_err(Error::io("create in", &std::env::temp_dir()))?;
    fs::write(password.path(), format!("{}\n", builder.password)).map_err(Error::io("write", password.path()))?;
    unprivileged().own(password.path())?;
    let output = binaries
        .command("initdb")
        .args(initdb_args(builder))
        .arg(format!("--pwfile={}", password.path().display()))
        .arg("-D")
        .arg(data)
        .output()
        .map_err(Error::io("run initdb of", binaries.bin_dir()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Server {
        server: format!("postgresql {}", builder.version),
        what: format!("could not be initialised ({})", output.status),
        log: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    })
}

fn configure(builder: &PostgresBuilder, data: &Path) -> Result<Option<String>> {
    let mut conf = String::from("\n# settings of the test\n");
    for (name, value) in &builder.settings {
        let _ = writeln!(conf, "{name} = '{}'", value.replace('\'', "''"));
    }
    let ca = if builder.tls {
        conf.push_str("ssl = 'on'\n");
        Some(install_certificate(data)?)
    } else {
        None
    };
    append(&data.join("postgresql.conf"), &conf)?;
    write(&data.join("pg_hba.conf"), &hba(&builder.hba, builder.auth))?;
    Ok(ca)
}

/// Writes `server.crt` and `server.key` (the names that the server looks for by default) into `data` and returns the
/// authority's certificate as PEM.
fn install_certificate(data: &Path) -> Result<String> {
    let made = Certificate::new()?;
    write(&data.join("server.crt"), &made.certificate)?;
    write(&data.join("server.key"), &made.key)?;
    Ok(made.authority)
}

fn hba(first: &[String], auth: Auth) -> String {
    let mut text = String::new();
    for line in first {
        let _ = writeln!(text, "{line}");
    }
    let method = auth.method();
    for database in ["all", "replication"] {
        let _ = writeln!(text, "local {database} all {method}");
        let _ = writeln!(text, "host {database} all 127.0.0.1/32 {method}");
        let _ = writeln!(text, "host {database} all ::1/128 {method}");
    }
    text
}

/// Appends to a file of the cluster, which keeps its owner.
pub(super) fn append(path: &Path, text: &str) -> Result<()> {
    let mut whole = fs::read_to_string(path).map_err(Error::io("read", path))?;
    whole.push_str(text);
    fs::write(path, whole).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_own_hba_lines_win() {
        let text = hba(&["local all guest reject".to_owned()], Auth::Md5);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "local all guest reject");
        assert_eq!(lines[1], "local all all md5");
        assert!(lines.contains(&"host replication all 127.0.0.1/32 md5"));
    }

    #[test]
    fn checksums_are_said_where_the_default_differs() {
        let args = |version, on| initdb_args(&PostgresBuilder::new(version).data_checksums(on)).join(" ");
        assert!(args(PgVersion::V13, true).contains("--data-checksums"));
        assert!(!args(PgVersion::V17, false).contains("checksums"));
        assert!(args(PgVersion::V18, false).contains("--no-data-checksums"));
    }
}

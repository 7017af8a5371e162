//! ClickHouse on the command line.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use backup_clickhouse::{
    ClickHouse as Engine, ClickHouseSettings, Merged, ObjectDisk, OnExisting, RestoreSettings, Staging,
};
use backup_core::{BackupEngine, Error, Result};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use super::EngineKind;

#[derive(Debug)]
pub(super) struct ClickHouse;

/// Where the server is, and how it is talked to.
#[derive(Debug, Args)]
#[command(next_help_heading = "ClickHouse options")]
#[group(skip)]
struct ClickHousePlace {
    /// http://[user:password@]host[:port], or https:// with TLS: the HTTP interface of one server; also read from CLICKHOUSE_URL, which
    /// keeps the password out of the list of processes
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// By what the server is known, whatever its address [default: what it says of itself; its address before 21.12, where it says nothing]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    #[command(flatten)]
    files: FileArgs,
}

/// How the server's certificate is judged, and where its files are.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct FileArgs {
    /// PEM file of the roots that are trusted [default: those of the system, where that was built in]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The server's data directory on this machine, when the server does not say or this machine sees it elsewhere
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Another disk of the server on this machine, when this machine sees it elsewhere than the server says; may be given several times
    #[arg(long, value_name = "NAME=DIR", value_parser = disk)]
    disk: Vec<(String, PathBuf)>,
    /// How the objects of an object disk of the server are reached: a file of JSON with "url" (s3://bucket/prefix/, where the prefix is that of the
    /// endpoint in the server's configuration) and "options" of the store's client, such as endpoint, access_key_id and secret_access_key; what
    /// it leaves out comes from the environment (AWS_…). Of object disks that are not named nothing is stored. May be given several times
    #[arg(long, value_name = "NAME=FILE", value_parser = object_disk)]
    object_disk: Vec<(String, ObjectDisk)>,
    /// The server writes by its own BACKUP into this folder, which this machine sees, too, and reads from it by RESTORE; its data directory is
    /// then not needed here. PLACE says what the server calls it where that is another path: /its/path, or disk:NAME or disk:NAME/its/path
    #[arg(long, value_name = "[PLACE=]DIR", value_parser = staging, conflicts_with_all = ["data_dir", "disk", "object_disk"])]
    staging: Option<Staging>,
    /// So many tables are worked on at a time
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    parallel: NonZeroUsize,
}

/// The server that is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "ClickHouse options")]
#[group(skip)]
struct ClickHouseSource {
    #[command(flatten)]
    place: ClickHousePlace,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// How it is read.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct ReadingArgs {
    /// Do not compare new parts with their own checksums while they are read: damage on the server's disk is then found by `verify
    /// --level engine`, or by the restore
    #[arg(long)]
    no_verify: bool,
    /// A small backup between two regular ones: parts that the server only merged are not stored again, those that they were made of stand
    /// for them, and tables in which nothing happened are not touched. With --every 60s a lost server costs a minute
    #[arg(long)]
    between: bool,
}

/// The server that is restored into. It runs: tables are made by statements, and parts are laid into its data directory and attached.
#[derive(Debug, Args)]
#[command(next_help_heading = "ClickHouse options")]
#[group(skip)]
struct ClickHouseTarget {
    #[command(flatten)]
    way: WayArgs,
    #[command(flatten)]
    files: FileArgs,
}

/// How it is restored.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct WayArgs {
    /// What happens to tables that are there already; others are never touched
    #[arg(long, value_enum, default_value_t = ExistingArg::Refuse)]
    existing: ExistingArg,
    /// A database, or a table as DATABASE.TABLE=DATABASE.TABLE, comes back under another name; views and the like follow. May be given
    /// several times, that of a table is stronger
    #[arg(long, value_name = "OLD=NEW", value_parser = renaming)]
    rename: Vec<String>,
    /// Definitions only, without rows
    #[arg(long)]
    structure_only: bool,
    /// Replicated tables become tables of one server: for a server without Keeper
    #[arg(long)]
    unreplicated: bool,
    /// Leave out parts that are not what their own checksums say, and tell which, instead of ending there
    #[arg(long)]
    skip_damaged: bool,
    /// Leave users, roles, quotas, policies, profiles and named collections of the target as they are
    #[arg(long)]
    keep_access: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExistingArg {
    /// Nothing is restored
    Refuse,
    /// They are dropped and made anew; so a restore that was interrupted is repeated
    Replace,
    /// Parts are added to them, but for those that they have: several backups come into one table
    Add,
}

/// A pair `NAME=DIR`.
fn disk(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && dir.starts_with('/') => Ok((name.to_owned(), dir.into())),
        _ => Err("must be NAME=DIR, where DIR is an absolute path".to_owned()),
    }
}

/// A pair `NAME=FILE`, read.
fn object_disk(text: &str) -> Result<(String, ObjectDisk), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() => Ok((name.to_owned(), read_object_disk(file)?)),
        _ => Err("must be NAME=FILE".to_owned()),
    }
}

/// The file of an object disk. What is in it is not shown, since it may be secret.
pub(super) fn read_object_disk(file: &str) -> Result<ObjectDisk, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("{file} is not of the form {{\"url\": …, \"options\": {{…}}}}: line {line}, column {column}")
    })
}

/// A folder, and what the server calls it.
fn staging(text: &str) -> Result<Staging, String> {
    let (place, dir) = text.split_once('=').unwrap_or((text, text));
    let wrong = || Err("must be DIR, PATH=DIR or disk:NAME[/PATH]=DIR, where DIR and PATH are absolute".to_owned());
    if !dir.starts_with('/') {
        return wrong();
    }
    match place.strip_prefix("disk:") {
        Some(disk) => match disk.split_once('/').unwrap_or((disk, "")) {
            ("", _) => wrong(),
            (disk, path) => Ok(Staging::disk(disk, path, dir)),
        },
        None if place.starts_with('/') => Ok(Staging::file(place, dir)),
        None => wrong(),
    }
}

/// A pair `OLD=NEW` that the engine will understand.
fn renaming(text: &str) -> Result<String, String> {
    match RestoreSettings::default().rename(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be DATABASE=DATABASE or DATABASE.TABLE=DATABASE.TABLE".to_owned()),
    }
}

impl FileArgs {
    pub(crate) fn settings(self) -> ClickHouseSettings {
        let mut settings = ClickHouseSettings::default();
        settings.tls_roots = self.tls_ca;
        settings.data_dir = self.data_dir;
        settings.disks = self.disk.into_iter().collect::<BTreeMap<_, _>>();
        settings.object_disks = self.object_disk.into_iter().collect();
        settings.staging = self.staging;
        settings.parallel(self.parallel.get())
    }
}

impl ReadingArgs {
    pub(super) fn apply(&self, settings: ClickHouseSettings) -> ClickHouseSettings {
        let merged = if self.between { Merged::FromParent } else { Merged::Store };
        settings.verify(!self.no_verify).merged(merged)
    }
}

impl ClickHousePlace {
    fn settings(self) -> ClickHouseSettings {
        let mut settings = self.files.settings();
        settings.url = self.url.or_else(|| std::env::var("CLICKHOUSE_URL").ok());
        settings.identity = self.identity;
        settings
    }
}

impl WayArgs {
    pub(super) fn settings(self) -> Result<RestoreSettings> {
        let existing = match self.existing {
            ExistingArg::Refuse => OnExisting::Refuse,
            ExistingArg::Replace => OnExisting::Replace,
            ExistingArg::Add => OnExisting::Add,
        };
        let mut restore = RestoreSettings::default()
            .existing(existing)
            .structure_only(self.structure_only)
            .unreplicated(self.unreplicated)
            .skip_damaged(self.skip_damaged)
            .keep_access(self.keep_access);
        let mut olds = Vec::new();
        for text in &self.rename {
            let old = text.split_once('=').map(|(old, _)| old);
            if olds.contains(&old) {
                return Err(Error::invalid(format!("{} is renamed twice", old.unwrap_or_default())));
            }
            olds.push(old);
            restore = restore.rename(text)?;
        }
        Ok(restore)
    }
}

impl ClickHouseTarget {
    fn settings(self) -> Result<(ClickHouseSettings, RestoreSettings)> {
        Ok((self.files.settings(), self.way.settings()?))
    }
}

impl EngineKind for ClickHouse {
    fn name(&self) -> &'static str {
        "clickhouse"
    }

    fn about(&self) -> &'static str {
        "ClickHouse 18.16 to 26: one server, its tables part by part, restored into a running server"
    }

    fn source_options(&self, command: Command) -> Command {
        ClickHouseSource::augment_args(command)
    }

    fn target_options(&self, command: Command) -> Command {
        ClickHouseTarget::augment_args(command)
    }

    fn stream_options(&self, command: Command) -> Command {
        ClickHousePlace::augment_args(command)
    }

    fn stream(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        // Whoever captures asks the engine for its log, and hears that it has none.
        let place = ClickHousePlace::from_arg_matches(matches).map_err(misread)?;
        Ok(Box::new(Engine::new(place.settings())?))
    }

    fn source(&self, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        let args = ClickHouseSource::from_arg_matches(matches).map_err(misread)?;
        Ok(Box::new(Engine::new(args.reading.apply(args.place.settings()))?))
    }

    fn target(&self, into: &str, matches: &ArgMatches) -> Result<Box<dyn BackupEngine>> {
        if !into.contains("://") {
            let text = format!(
                "{into:?} is no url: a backup of clickhouse comes back into a running server, http://host:8123, and --data-dir \
                 says where that has its files"
            );
            return Err(Error::invalid(text));
        }
        let args = ClickHouseTarget::from_arg_matches(matches).map_err(misread)?;
        let (settings, restore) = args.settings()?;
        Ok(Box::new(Engine::new(settings.url(into))?.with_restore(restore)))
    }

    fn checker(&self) -> Result<Box<dyn BackupEngine>> {
        Ok(Box::new(Engine::new(ClickHouseSettings::default())?))
    }
}

/// The matches are of the very command that was parsed with these options.
pub(super) fn misread(error: clap::Error) -> Error {
    Error::internal("options of clickhouse cannot be read back").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<ClickHouseTarget, clap::Error> {
        let command = ClickHouseTarget::augment_args(Command::new("restore"));
        ClickHouseTarget::from_arg_matches(&command.try_get_matches_from(["restore"].iter().chain(args))?)
    }

    #[test]
    fn options_become_settings() {
        let (settings, restore) = parsed(&[]).unwrap().settings().unwrap();
        assert_eq!((settings, restore), Default::default());
        let args = [
            "--existing",
            "replace",
            "--rename",
            "shop=copy",
            "--rename",
            "shop.a=other.b",
            "--structure-only",
            "--unreplicated",
            "--skip-damaged",
            "--keep-access",
            "--data-dir",
            "/srv/ch",
            "--disk",
            "cold=/srv/cold",
            "--parallel",
            "2",
        ];
        let (settings, restore) = parsed(&args).unwrap().settings().unwrap();
        let wanted = RestoreSettings::default().existing(OnExisting::Replace).structure_only(true).unreplicated(true);
        let wanted = wanted.skip_damaged(true).keep_access(true).rename("shop=copy").unwrap();
        assert_eq!(restore, wanted.rename("shop.a=other.b").unwrap());
        let wanted = ClickHouseSettings::default().data_dir("/srv/ch").disk("cold", "/srv/cold").parallel(2);
        assert_eq!(settings, wanted);
    }

    #[test]
    fn a_staging_folder_is_named_as_both_see_it() {
        for (text, wanted) in [
            ("/mnt/stage", Staging::file("/mnt/stage", "/mnt/stage")),
            ("/srv/stage=/mnt/stage", Staging::file("/srv/stage", "/mnt/stage")),
            ("disk:backups=/mnt/stage", Staging::disk("backups", "", "/mnt/stage")),
            ("disk:backups/a/b=/mnt/stage", Staging::disk("backups", "a/b", "/mnt/stage")),
        ] {
            let (settings, _) = parsed(&["--staging", text]).unwrap().settings().unwrap();
            assert_eq!(settings.staging, Some(wanted), "{text}");
        }
        assert!(parsed(&["--staging", "/mnt/stage", "--data-dir", "/srv"]).is_err());
    }

    #[test]
    fn an_object_disk_is_read_from_a_file_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s3.json");
        let given = format!("s3={}", file.display());
        std::fs::write(&file, r#"{"url": "s3://bucket/x/", "options": {"endpoint": "http://127.0.0.1:9000"}}"#)
            .unwrap();
        let (settings, _) = parsed(&["--object-disk", &given]).unwrap().settings().unwrap();
        let wanted = ObjectDisk::new("s3://bucket/x/").option("endpoint", "http://127.0.0.1:9000");
        assert_eq!(settings.object_disks["s3"], wanted);
        for bad in [r#"{"url": "s3://bucket/x/", "secret": "hunter2"}"#, r#"{"url": "s3://b/", "options": "hunter2"}"#]
        {
            std::fs::write(&file, bad).unwrap();
            let error = parsed(&["--object-disk", &given]).unwrap_err().to_string();
            assert!(error.contains("s3.json") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for (option, bad) in [
            ("--disk", "cold"),
            ("--disk", "=/srv"),
            ("--disk", "cold=srv"),
            ("--object-disk", "s3"),
            ("--object-disk", "=/srv/s3.json"),
            ("--object-disk", "s3=/nowhere/s3.json"),
            ("--staging", "srv"),
            ("--staging", "/srv=mnt"),
            ("--staging", "cold=/mnt"),
            ("--staging", "disk:=/mnt"),
            ("--rename", "shop"),
            ("--rename", "shop.a=b"),
            ("--existing", "keep"),
            ("--parallel", "0"),
        ] {
            assert!(parsed(&[option, bad]).is_err(), "{option} {bad}");
        }
        let twice = parsed(&["--rename", "shop=a", "--rename", "shop=b"]).unwrap().settings().unwrap_err();
        assert!(twice.to_string().contains("shop is renamed twice"), "{twice}");
    }
}

//! `BASE_BACKUP` from real servers of every version: what is streamed is what the manifest, the control file, the page
//! checksums and our own exclusion list say it must be.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use backup_postgres::basebackup::{BaseBackup, BaseBackupOptions, Checkpoint, Event, Finished, ManifestChecksum};
use backup_postgres::basebackup::{ManifestOption, Started};
use backup_postgres::conn::Settings;
use backup_postgres::control::{ClusterState, ControlFile};
use backup_postgres::exclude::{Decision, Unlogged, decide};
use backup_postgres::label::{BackupLabel, Origin, TablespaceMap};
use backup_postgres::manifest::{ChecksumAlgorithm, FileHasher, Manifest, ManifestReader};
use backup_postgres::page::{PAGE_SIZE, PageCheck, RelationFile, Verdict};
use backup_postgres::tar::{self, EntryKind};
use backup_postgres::wal::{LongPageHeader, SegmentName, page_magic};
use backup_postgres::wire::{Session, SessionKind};
use backup_postgres::{Error, Lsn};
use backup_testkit::{Postgres, require_or_skip, unprivileged, versions_under_test};

async fn connect(server: &Postgres, kind: SessionKind) -> Session {
    let (directory, port) = (server.socket_dir(), server.port());
    let (user, password) = (server.superuser(), server.password());
    let text = format!("host={} port={port} dbname=postgres user={user} password={password}", directory.display());
    Session::connect(&Settings::parse(&text, |_| None).unwrap(), kind).await.unwrap()
}

/// A backup in memory, by the paths that a manifest uses.
struct Taken {
    started: Started,
    finished: Finished,
    files: BTreeMap<String, Vec<u8>>,
    directories: BTreeSet<String>,
    /// The order of the main directory's files.
    order: Vec<String>,
    manifest: Vec<u8>,
    progress: u64,
}

async fn take(session: &mut Session, options: &BaseBackupOptions) -> Result<Taken, Error> {
    let version = session.version();
    let mut backup = BaseBackup::start(session, options, version).await?;
    let Some(Event::Started(started)) = backup.next().await? else { panic!("no start") };
    let (mut files, mut directories, mut order) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    let (mut manifest, mut progress) = (Vec::new(), 0);
    let mut reader: Option<tar::Reader> = None;
    let (mut prefix, mut current) = (String::new(), String::new());
    let mut archives = Vec::new();
    let finished = loop {
        match backup.next().await?.expect("an end comes before the stream's") {
            Event::Archive { tablespace, name } => {
                if let Some(last) = reader.replace(tar::Reader::new()) {
                    last.finish()?;
                }
                prefix = tablespace.as_ref().map_or(String::new(), |space| format!("pg_tblspc/{}/", space.oid));
                archives.push((tablespace, name));
            }
            Event::Data(data) => {
                let reader = reader.as_mut().unwrap();
                reader.push(data);
                while let Some(event) = reader.next()? {
                    match event {
                        tar::Event::Entry(entry) => {
                            let path = format!("{prefix}{}", String::from_utf8(entry.path).unwrap());
                            match entry.kind {
                                EntryKind::Directory => assert!(directories.insert(path)),
                                EntryKind::File => {
                                    assert!(files.insert(path.clone(), Vec::new()).is_none(), "{path} twice");
                                    if prefix.is_empty() {
                                        order.push(path.clone());
                                    }
                                    current = path;
                                }
                                kind => panic!("{path} is a {kind:?}"),
                            }
                        }
                        tar::Event::Data(data) => files.get_mut(&current).unwrap().extend_from_slice(&data),
                        _ => {}
                    }
                }
            }
            Event::ManifestStart => reader.take().unwrap().finish()?,
            Event::ManifestData(data) => manifest.extend_from_slice(&data),
            Event::Progress(bytes) => {
                assert!(bytes >= progress);
                progress = bytes;
            }
            Event::Finished(finished) => break finished,
            other => panic!("{other:?}"),
        }
    };
    assert!(backup.next().await?.is_none());
    if let Some(last) = reader {
        last.finish()?;
    }
    assert_eq!(archives.len(), started.tablespaces.len() + 1);
    assert_eq!(archives.last().unwrap().1, "base.tar");
    Ok(Taken { started, finished, files, directories, order, manifest, progress })
}

/// Every file of the manifest was streamed with its size and checksum, and nothing else but was.
fn verify(taken: &Taken) -> Manifest {
    let manifest = Manifest::parse(&taken.manifest).unwrap();
    for file in &manifest.files {
        let path = String::from_utf8(file.path.clone()).unwrap();
        let data = taken.files.get(&path).unwrap_or_else(|| panic!("{path} was not streamed"));
        assert_eq!(data.len() as u64, file.size, "{path}");
        let stated = file.checksum.as_ref().unwrap();
        let mut hasher = FileHasher::new(stated.algorithm);
        hasher.update(data);
        assert_eq!(&hasher.finish(), stated, "{path}");
    }
    assert_eq!(manifest.files.len(), taken.files.len());
    let mut reader = ManifestReader::new();
    for part in taken.manifest.chunks(1000) {
        reader.push(part, &mut |_| ()).unwrap();
    }
    assert_eq!(reader.finish().unwrap(), manifest.summary);
    manifest
}

async fn fill(server: &Postgres, tablespaces: &[&str]) -> Session {
    let mut sql = connect(server, SessionKind::Sql).await;
    sql.query("CREATE TABLE kept AS SELECT g, md5(g::text) AS text FROM generate_series(1, 100000) g").await.unwrap();
    sql.query("CREATE INDEX ON kept (text)").await.unwrap();
    sql.query("VACUUM kept").await.unwrap();
    sql.query("CREATE UNLOGGED TABLE passing AS SELECT g FROM generate_series(1, 1000) g").await.unwrap();
    sql.query("CREATE TEMP TABLE temporary AS SELECT g FROM generate_series(1, 1000) g").await.unwrap();
    for name in tablespaces {
        let location = server.home().join(name);
        std::fs::create_dir(&location).unwrap();
        unprivileged().own_tree(&location).unwrap();
        let plain = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        sql.query(&format!("CREATE TABLESPACE {plain} LOCATION '{}'", location.display())).await.unwrap();
        sql.query(&format!("CREATE TABLE in_{plain} TABLESPACE {plain} AS SELECT g FROM generate_series(1, 5000) g"))
            .await
            .unwrap();
        sql.query(&format!("CREATE UNLOGGED TABLE un_{plain} (g int) TABLESPACE {plain}")).await.unwrap();
    }
    sql.query("CHECKPOINT").await.unwrap();
    sql
}

/// The files and directories that our own rules take from a data directory.
fn walk(root: &Path, relative: &str, files: &mut BTreeSet<String>, directories: &mut BTreeSet<String>) {
    let read: Vec<_> = std::fs::read_dir(root.join(relative)).unwrap().map(Result::unwrap).collect();
    let names: Vec<Vec<u8>> = read.iter().map(|entry| entry.file_name().into_encoded_bytes()).collect();
    let unlogged = Unlogged::new(relative.as_bytes(), names.iter().map(Vec::as_slice));
    for entry in read {
        let name = entry.file_name().into_string().unwrap();
        let path = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
        // Links: into tablespaces.
        let directory = std::fs::metadata(entry.path()).unwrap().is_dir();
        match decide(path.as_bytes(), directory) {
            Decision::Skip => {}
            _ if unlogged.skips(name.as_bytes()) => {}
            Decision::Empty => drop(directories.insert(path)),
            _ if directory => {
                directories.insert(path.clone());
                walk(root, &path, files, directories);
            }
            _ => drop(files.insert(path)),
        }
    }
}

#[tokio::test]
async fn the_stream_is_the_data_directory() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).setting("autovacuum", "off").start().await);
        let _sql = fill(&server, &["space", "other space"]).await;
        let mut session = connect(&server, SessionKind::Replication).await;
        let system = session.identify_system().await.unwrap();
        for (checksum, algorithm) in [
            (ManifestChecksum::Crc32c, ChecksumAlgorithm::Crc32c),
            (ManifestChecksum::Sha256, ChecksumAlgorithm::Sha256),
            (ManifestChecksum::Sha512, ChecksumAlgorithm::Sha512),
        ] {
            let options = BaseBackupOptions::default().label("it's mine").manifest(ManifestOption::Yes(checksum));
            let taken = take(&mut session, &options).await.unwrap();
            let manifest = verify(&taken);
            assert!(manifest.files.iter().all(|f| f.checksum.as_ref().unwrap().algorithm == algorithm));
            assert_eq!(manifest.summary.version, if version.major() >= 17 { 2 } else { 1 });
            assert!(manifest.summary.system_id.is_none_or(|id| id == system.system_id));
            let range = manifest.summary.wal_ranges[0];
            assert_eq!((range.start, range.end), (taken.started.position, taken.finished.end));
            assert!(!taken.finished.checksum_failures);
            assert!(taken.progress > manifest.summary.bytes, "{} {}", taken.progress, manifest.summary.bytes);
            assert!(taken.started.estimated_bytes().unwrap() > manifest.summary.bytes / 2);

            let control = ControlFile::parse(&taken.files["global/pg_control"]).unwrap();
            assert_eq!((control.system_id, control.timeline), (system.system_id, system.timeline));
            assert_eq!((control.state, control.data_checksum_version), (ClusterState::InProduction, 1));
            assert!((control.server_versions().0..=control.server_versions().1).contains(&version.major()));
            assert_eq!((control.block_size as usize, control.relation_segment_blocks), (PAGE_SIZE, 131_072));
            assert!(!control.min_recovery.is_valid() && control.checkpoint >= control.redo);
            assert_eq!(taken.order.first().unwrap(), "backup_label");
            assert_eq!(taken.order.last().unwrap(), "global/pg_control");

            let label = BackupLabel::parse(&taken.files["backup_label"]).unwrap();
            assert_eq!((label.start, label.timeline), (taken.started.position, taken.started.timeline));
            assert_eq!((label.origin, label.incremental_from), (Origin::Primary, None));
            assert_eq!(label.start_file, control.wal_segment_size.name(label.timeline, label.start));
            assert_eq!(label.label, "it's mine");
            assert!(label.checkpoint >= label.start && label.checkpoint < taken.finished.end);

            let map = TablespaceMap::parse(&taken.files["tablespace_map"]).unwrap();
            assert_eq!(map.links.len(), 2);
            for space in &taken.started.tablespaces {
                let link = map.links.iter().find(|link| link.oid == space.oid).unwrap();
                assert_eq!(link.location, space.location);
            }

            let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
            walk(server.data_dir(), "", &mut files, &mut directories);
            files.extend(["backup_label".to_owned(), "tablespace_map".to_owned()]);
            directories.insert("pg_wal/archive_status".to_owned());
            if version.major() >= 17 {
                directories.insert("pg_wal/summaries".to_owned());
            }
            directories.retain(|path| !(path.starts_with("pg_tblspc/") && path.matches('/').count() == 1));
            assert_eq!(taken.files.keys().cloned().collect::<BTreeSet<_>>(), files, "{version}");
            assert_eq!(taken.directories, directories, "{version}");
        }
    }
}

#[tokio::test]
async fn every_page_has_the_servers_checksum() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let _sql = fill(&server, &[]).await;
        let mut session = connect(&server, SessionKind::Replication).await;
        let taken = take(&mut session, &BaseBackupOptions::default()).await.unwrap();
        let check = PageCheck { start_lsn: Lsn(u64::MAX) };
        let (mut good, mut new) = (0, 0);
        for (path, data) in &taken.files {
            let Some(file) = RelationFile::parse_path(path.as_bytes()) else { continue };
            let (pages, rest) = data.as_chunks::<PAGE_SIZE>();
            assert!(rest.is_empty(), "{path}");
            for (block, page) in (file.first_block(131_072).unwrap()..).zip(pages) {
                match check.page(page, block) {
                    Verdict::Good => good += 1,
                    Verdict::New => new += 1,
                    other => panic!("{version} {path} block {block}: {other:?}"),
                }
            }
        }
        assert!(good > 3000 && new < good, "{good} {new}");
    }
}

#[tokio::test]
async fn corrupt_pages_are_told_and_the_backup_is_whole() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(Postgres::builder(version).start().await);
        let mut sql = fill(&server, &[]).await;
        let row = sql.query_one("SELECT pg_relation_filepath('kept') AS path").await.unwrap();
        let path = row.required("path").unwrap().to_owned();
        server.stop(backup_testkit::StopMode::Fast).await.unwrap();
        let file = server.data_dir().join(&path);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[3 * PAGE_SIZE + 5000] ^= 0xff;
        std::fs::write(&file, &bytes).unwrap();
        server.start().await.unwrap();

        let mut session = connect(&server, SessionKind::Replication).await;
        let taken = take(&mut session, &BaseBackupOptions::default()).await.unwrap();
        assert!(taken.finished.checksum_failures, "{version}");
        assert!(
            taken.finished.notices.iter().any(|notice| notice.message.contains(&path)),
            "{:?}",
            taken.finished.notices
        );
        verify(&taken);
        let (pages, _) = taken.files[&path].as_chunks::<PAGE_SIZE>();
        let check = PageCheck { start_lsn: taken.started.position };
        let wrong: Vec<_> = (0_u32..)
            .zip(pages)
            .filter(|(block, page)| matches!(check.page(page, *block), Verdict::Wrong { .. }))
            .map(|(block, _)| block)
            .collect();
        assert_eq!(wrong, [3]);
        // The session is as good as before.
        session.identify_system().await.unwrap();
        let options = BaseBackupOptions::default().verify_checksums(false).manifest(ManifestOption::No).estimate(false);
        let taken = take(&mut session, &options).await.unwrap();
        assert!(!taken.finished.checksum_failures && taken.manifest.is_empty());
        assert_eq!(taken.started.estimated_bytes(), None);
    }
}

#[tokio::test]
async fn other_segment_sizes_encoded_paths_and_spread_checkpoints() {
    for version in versions_under_test() {
        let builder = Postgres::builder(version).initdb_arg("--wal-segsize=1").data_checksums(false);
        let server = require_or_skip!(builder.start().await);
        let _sql = fill(&server, &["s"]).await;
        let mut session = connect(&server, SessionKind::ReplicationDatabase).await;
        let size = session.show("wal_segment_size").await.unwrap().parse().unwrap();
        let options = BaseBackupOptions::default()
            .manifest(ManifestOption::ForceEncode(ManifestChecksum::Crc32c))
            .checkpoint(Checkpoint::Spread)
            .max_rate(Some(1_048_576));
        // The checkpoint is spread over nothing: one was just made.
        let taken = take(&mut session, &options).await.unwrap();
        verify(&taken);
        let control = ControlFile::parse(&taken.files["global/pg_control"]).unwrap();
        assert_eq!((control.wal_segment_size, control.data_checksum_version), (size, 0));
        assert!(String::from_utf8_lossy(&taken.manifest).contains("Encoded-Path"));

        let mut segments = 0;
        for entry in std::fs::read_dir(server.data_dir().join("pg_wal")).unwrap() {
            let Ok(name) = entry.as_ref().unwrap().file_name().to_str().unwrap().parse::<SegmentName>() else {
                continue;
            };
            if name > control.wal_segment_size.name(taken.finished.timeline, taken.finished.end) {
                continue;
            }
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let header = LongPageHeader::parse(&bytes).unwrap();
            header.check_name(name).unwrap();
            assert_eq!((header.system_id, header.segment_size), (control.system_id, size));
            assert_eq!(Some(header.magic), page_magic(version.major()));
            segments += 1;
        }
        assert!(segments > 0);
    }
}

#[tokio::test]
async fn an_increment_builds_on_an_uploaded_manifest() {
    for version in versions_under_test().into_iter().filter(|version| version.major() >= 17) {
        let server = require_or_skip!(Postgres::builder(version).setting("summarize_wal", "on").start().await);
        let mut sql = fill(&server, &["s"]).await;
        let mut session = connect(&server, SessionKind::Replication).await;
        let full = take(&mut session, &BaseBackupOptions::default()).await.unwrap();
        sql.query("UPDATE kept SET text = 'x' WHERE g = 7").await.unwrap();
        let mut upload = session.copy_in("UPLOAD_MANIFEST").await.unwrap();
        for part in full.manifest.chunks(30_000) {
            upload.send(part).await.unwrap();
        }
        upload.finish().await.unwrap();
        let taken = take(&mut session, &BaseBackupOptions::default().incremental(true)).await.unwrap();
        verify(&taken);
        let label = BackupLabel::parse(&taken.files["backup_label"]).unwrap();
        assert_eq!(label.incremental_from, Some((full.started.position, full.started.timeline)));
        let stripped = BackupLabel::without_incremental(&taken.files["backup_label"]);
        assert_eq!(BackupLabel::parse(&stripped).unwrap().incremental_from, None);
        let increments = taken.files.iter().filter(|(path, _)| path.contains("/INCREMENTAL."));
        assert!(increments.clone().count() > 100);
        assert!(increments.clone().all(|(_, data)| data.starts_with(&0xd3ae_1f0d_u32.to_le_bytes())));
    }
}

#[tokio::test]
async fn a_standby_is_backed_up_and_its_promotion_spoils_it() {
    for version in versions_under_test() {
        let primary = require_or_skip!(Postgres::builder(version).start().await);
        fill(&primary, &[]).await;
        let standby = Postgres::standby_of(&primary).await.unwrap();
        let mut session = connect(&standby, SessionKind::Replication).await;
        let taken = take(&mut session, &BaseBackupOptions::default()).await.unwrap();
        verify(&taken);
        let label = BackupLabel::parse(&taken.files["backup_label"]).unwrap();
        assert_eq!(label.origin, Origin::Standby);
        let control = ControlFile::parse(&taken.files["global/pg_control"]).unwrap();
        assert_eq!(control.state, ClusterState::InArchiveRecovery);
        assert!(control.min_recovery.is_valid() && taken.finished.end >= control.min_recovery);

        let server = session.version();
        let slow = BaseBackupOptions::default().max_rate(Some(32));
        let mut backup = BaseBackup::start(&mut session, &slow, server).await.unwrap();
        while !matches!(backup.next().await.unwrap(), Some(Event::Data(_))) {}
        // A throttled server finds out only when it goes on: the promotion comes first.
        standby.promote().await.unwrap();
        let error = loop {
            match backup.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{version}: the backup of a promoted standby was complete"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Server(_)), "{error:?}");
        session.identify_system().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_backup_ends_at_the_server() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let mut sql = fill(&server, &[]).await;
        let mut session = connect(&server, SessionKind::Replication).await;
        let number = session.version();
        let slow = BaseBackupOptions::default().max_rate(Some(32));
        let mut backup = BaseBackup::start(&mut session, &slow, number).await.unwrap();
        while !matches!(backup.next().await.unwrap(), Some(Event::Data(_))) {}
        assert!(matches!(session.identify_system().await, Err(Error::Closed(_))));
        drop(session);
        loop {
            let row = sql.query_one("SELECT count(*) AS n FROM pg_stat_replication").await.unwrap();
            if row.required("n").unwrap() == "0" {
                break;
            }
            backup_testkit::wait::pause().await;
        }
    }
}

//! Every command, asked by our own client.

use backup_postgres::walsender::WalFeed;
use backup_postgres::wire::{Session, SessionKind};
use backup_postgres::{Error, Lsn, TimelineId};
use backup_testkit::{PgVersion, Postgres, require_or_skip, versions_under_test};

use crate::harness::{
    Archive, connect, create_ledger, options, serve, settings, source, two_timelines, wait_for, write_ledger,
};

/// Reads a stream up to `end`, telling that everything has arrived, and checks that messages meet and keep to their size.
async fn read(session: &mut Session, command: &str, from: Lsn, end: Lsn) -> Vec<u8> {
    let mut stream = session.copy_both(command).await.unwrap();
    let mut log = Vec::new();
    while from.0 + (log.len() as u64) < end.0 {
        let message = stream.receive().await.unwrap().expect("more of the log");
        if message[0] == b'w' {
            let word = |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
            assert_eq!(word(1), from.0 + log.len() as u64);
            assert!(word(9) >= word(1) + (message.len() as u64 - 25), "the end lies behind what is sent");
            assert!(message.len() <= 25 + (128 << 10));
            log.extend_from_slice(&message[25..]);
            let at = from.0 + log.len() as u64;
            assert!(at == end.0 || at.is_multiple_of(8192), "a message ends with a page or with the log");
            stream.send(&status(Lsn(at), false)).await.unwrap();
        }
    }
    stream.finish().await.unwrap();
    log
}

fn status(position: Lsn, reply: bool) -> Vec<u8> {
    let mut status = vec![b'r'];
    (0..3).for_each(|_| status.extend(position.0.to_be_bytes()));
    status.extend([0; 8]);
    status.push(u8::from(reply));
    status
}

fn sqlstate<T>(result: Result<T, Error>) -> String {
    match result {
        Err(error) => error.sqlstate().unwrap_or_else(|| panic!("{error}")).to_owned(),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_answered() {
    for version in versions_under_test() {
        let Some(archive) = two_timelines(version).await else { return };
        let wal = archive.serve().await;
        let feed = archive.feed().await;
        let mut session = connect(&wal).await.unwrap();
        assert_eq!(session.version().major(), version.major());
        assert_eq!(session.parameter("integer_datetimes"), Some("on"));
        let system = session.identify_system().await.unwrap();
        let end = feed.end().await.unwrap();
        assert_eq!((system.system_id, system.timeline), (feed.identity().system_id, end.timeline));
        assert_eq!((system.position, system.database), (end.position, None));
        assert_eq!(session.show("wal_segment_size").await.unwrap(), "1MB");
        assert_eq!(session.show("data_directory_mode").await.unwrap(), "0700");
        assert_eq!(session.show("server_version_num").await.unwrap(), format!("{}0000", version.major()));
        assert_eq!(sqlstate(session.show("shared_buffers").await), "42704");
        assert_eq!(sqlstate(session.timeline_history(TimelineId::FIRST).await), "58P01");
        let two = TimelineId::new(2).unwrap();
        let (name, content) = session.timeline_history(two).await.unwrap();
        assert_eq!((name.as_str(), Some(content)), ("00000002.history", feed.history(two).await.unwrap()));
        for refused in ["SELECT 1", "BASE_BACKUP", "UPLOAD_MANIFEST", "CREATE_REPLICATION_SLOT x LOGICAL y"] {
            assert_eq!(sqlstate(session.query(refused).await), "0A000", "{refused}");
        }
        assert_eq!(sqlstate(session.query("IDENTIFY_SYSTEM twice").await), "42601");

        // Nobody else is let in than who asks for the log.
        for kind in [SessionKind::Sql, SessionKind::ReplicationDatabase] {
            assert!(Session::connect(&settings(&wal, "dbname=postgres"), kind).await.is_err());
        }
        for rest in ["password=wrong", "password=''", "user=postgres"] {
            let error = Session::connect(&settings(&wal, rest), SessionKind::Replication).await.unwrap_err();
            assert!(matches!(error, Error::Authentication { .. }), "{rest}: {error}");
        }
        // TLS and GSSAPI are asked for, and gone without; who insists goes.
        assert!(Session::connect(&settings(&wal, "sslmode=prefer"), SessionKind::Replication).await.is_ok());
        assert!(Session::connect(&settings(&wal, "sslmode=require"), SessionKind::Replication).await.is_err());
        session.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_what_the_server_wrote() {
    for version in versions_under_test() {
        let Some(archive) = two_timelines(version).await else { return };
        let size = 1 << 20;
        // Ranges and limits that do not fit segments.
        for (fetch, ahead) in [(1, 1), (384 << 10, 2 << 20), (64 << 20, 0)] {
            let wal = serve(archive.feed().await, options().read_ahead(fetch, ahead)).await;
            let mut session = connect(&wal).await.unwrap();
            let end = session.identify_system().await.unwrap().position;
            let (_, content) = session.timeline_history(TimelineId::new(2).unwrap()).await.unwrap();
            let fork: Lsn = String::from_utf8(content.to_vec()).unwrap().split('\t').nth(1).unwrap().parse().unwrap();
            let start = Lsn(fork.0 / size * size);
            let segment = |timeline: u32, position: u64| {
                let name = format!("{timeline:08X}{:08X}{:08X}", position >> 32, (position >> 20) & 0xfff);
                std::fs::read(archive.path().join(name)).unwrap()
            };
            let log = read(&mut session, &format!("START_REPLICATION {start} TIMELINE 2"), start, end).await;
            let mut expected = Vec::new();
            for position in (start.0..end.0).step_by(1 << 20) {
                expected.extend(segment(2, position));
            }
            expected.truncate((end.0 - start.0) as usize);
            assert!(log == expected, "{version} {fetch}");

            // The old timeline up to where it was left, in the middle of a page, from a place that is no boundary.
            let from = Lsn(start.0 - (2 << 20) + 8192 * 3);
            let mut stream = session.copy_both(&format!("START_REPLICATION {from} TIMELINE 1")).await.unwrap();
            let mut log = Vec::new();
            while let Some(message) = stream.receive().await.unwrap() {
                if message[0] == b'w' {
                    log.extend_from_slice(&message[25..]);
                }
            }
            let sets = stream.finish().await.unwrap();
            let next = (&sets[0].rows[0].to_texts()[0], &sets[0].rows[0].to_texts()[1]);
            assert_eq!(next, (&Some("2".to_owned()), &Some(fork.to_string())));
            assert_eq!((sets[0].tag.as_str(), sets[1].tag.as_str()), ("START_STREAMING", "START_REPLICATION"));
            let mut expected = [segment(1, from.0), segment(1, from.0 + size), segment(2, start.0)].concat();
            expected.truncate((fork.0 - start.0) as usize + (2 << 20));
            assert!(log == expected[8192 * 3..], "{version} {fetch}");

            // Nothing is left to send: the answer comes without a stream.
            let sets = session.query_all(&format!("START_REPLICATION {fork} TIMELINE 1")).await.unwrap();
            assert_eq!(sets[0].rows[0].to_texts(), [Some("2".to_owned()), Some(fork.to_string())]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_as_a_server_refuses_it() {
    let Some(archive) = two_timelines(PgVersion::V17).await else { return };
    let wal = archive.serve().await;
    let mut session = connect(&wal).await.unwrap();
    let end = session.identify_system().await.unwrap().position;
    let beyond = Lsn(end.0 + 8);
    let mut stream = session.copy_both(&format!("START_REPLICATION {beyond}")).await.unwrap();
    let error = stream.receive().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("XX000"));
    assert!(error.to_string().contains("is ahead of the WAL flush position of this server"), "{error}");
    let error = session.copy_both("START_REPLICATION 0/0 TIMELINE 7").await.map(drop).unwrap_err();
    assert!(error.to_string().contains("requested timeline 7 is not in this server's history"), "{error}");
    let error = session.copy_both(&format!("START_REPLICATION {end} TIMELINE 1")).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("on timeline 1 is not in this server's history"), "{error}");
    assert!(error.to_string().contains("forked from timeline 1 at"), "{error}");
    assert!(wal.failure().is_none());

    // What lies before the first segment was removed; whoever runs the server hears of it.
    let mut stream = session.copy_both("START_REPLICATION 0/0 TIMELINE 1").await.unwrap();
    assert_eq!(stream.receive().await.unwrap_err().sqlstate(), Some("58P01"));
    assert!(wal.failure().unwrap().to_string().contains("0/0 of timeline 1 is missing"));

    // A hole: all before it is sent, and what follows is not passed off as what is missing.
    let mut newer: Vec<String> = std::fs::read_dir(archive.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("00000002") && name.len() == 24)
        .collect();
    newer.sort();
    assert!(newer.len() >= 3, "{newer:?}");
    let hole = &newer[1];
    std::fs::remove_file(archive.path().join(hole)).unwrap();
    let first = Lsn(u64::from_str_radix(&hole[16..], 16).unwrap() << 20);
    let start = Lsn(first.0 - (1 << 20));
    let mut stream = session.copy_both(&format!("START_REPLICATION {start} TIMELINE 2")).await.unwrap();
    let mut at = start.0;
    let error = loop {
        match stream.receive().await {
            Ok(message) => {
                let message = message.expect("no end of the stream");
                at += if message[0] == b'w' { message.len() as u64 - 25 } else { 0 };
            }
            Err(error) => break error,
        }
    };
    assert_eq!((error.sqlstate(), Lsn(at)), (Some("58P01"), first));
    assert!(error.to_string().contains(hole.as_str()), "{error}");
    assert!(session.identify_system().await.is_ok(), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_names_that_receivers_know() {
    let Some(archive) = two_timelines(PgVersion::V17).await else { return };
    let wal = archive.serve().await;
    let mut session = connect(&wal).await.unwrap();
    assert_eq!(session.read_slot("mine").await.unwrap(), None);
    session.create_physical_slot("mine", false).await.unwrap();
    session.create_physical_slot("passing", true).await.unwrap();
    assert_eq!(sqlstate(session.create_physical_slot("mine", false).await), "42710");
    let end = session.identify_system().await.unwrap().position;
    let slot = session.read_slot("mine").await.unwrap().unwrap();
    assert_eq!((slot.restart, slot.timeline), (Some(end), TimelineId::new(2)));
    assert_eq!(sqlstate(session.copy_both("START_REPLICATION SLOT \"other\" 0/0").await.map(drop)), "42704");

    let mut other = connect(&wal).await.unwrap();
    let start = Lsn(end.0 >> 20 << 20);
    let mut stream = session.copy_both(&format!("START_REPLICATION SLOT \"mine\" {start}")).await.unwrap();
    stream.send(&status(start, true)).await.unwrap();
    wait_for(&wal, |progress| progress.replicas.iter().any(|replica| replica.flushed == start)).await;
    assert_eq!(other.read_slot("mine").await.unwrap().unwrap().restart, Some(start));
    assert_eq!(sqlstate(other.query("DROP_REPLICATION_SLOT mine").await), "55006");
    let taken = format!("START_REPLICATION SLOT \"mine\" {start}");
    assert_eq!(sqlstate(other.copy_both(&taken).await.map(drop)), "55006");
    let (waited, finished) = tokio::join!(other.drop_slot("mine"), stream.finish());
    waited.unwrap();
    assert_eq!(finished.unwrap().len(), 2, "no next timeline");
    assert_eq!(sqlstate(other.drop_slot("mine").await), "42704");

    assert!(other.read_slot("passing").await.unwrap().is_some());
    session.close().await;
    while other.read_slot("passing").await.unwrap().is_some() {
        backup_testkit::wait::pause().await;
    }
}

/// A real receiver is given its slot by the name in its configuration.
#[tokio::test(flavor = "multi_thread")]
async fn receivers_use_their_slots() {
    let Some(version) = versions_under_test().into_iter().next_back() else { return };
    let server: Postgres = require_or_skip!(source(version).start().await);
    let client = server.connect("postgres").await.unwrap();
    create_ledger(&client).await;
    let vault = crate::harness::Vault::of(&server).await;
    let written = write_ledger(&client, 20).await;
    let archive = Archive::new();
    archive.copy(&server, |_| true);
    let wal = archive.serve().await;
    let mut session = connect(&wal).await.unwrap();
    session.create_physical_slot("standby_1", false).await.unwrap();
    let restored = vault.restore(version).await;
    restored.follow(&wal.conninfo(), None);
    restored.configure("primary_slot_name = 'standby_1'\n");
    let copy = restored.open().await;
    copy.wait_replayed(written.0.into(), crate::harness::PATIENCE).await.unwrap_or_else(|e| panic!("{}", e.full()));
    wait_for(&wal, |progress| progress.applied() >= written).await;
    assert!(session.read_slot("standby_1").await.unwrap().unwrap().restart.unwrap() >= written);
    drop(copy);

    // One that makes a slot of its own for as long as it is connected.
    let restored = vault.restore(version).await;
    restored.follow(&wal.conninfo(), None);
    restored.configure("wal_receiver_create_temp_slot = on\n");
    let copy = restored.open().await;
    copy.wait_replayed(written.0.into(), crate::harness::PATIENCE).await.unwrap_or_else(|e| panic!("{}", e.full()));
    let copied = copy.connect("postgres").await.unwrap();
    let slot = crate::harness::value(&copied, "select slot_name from pg_stat_wal_receiver").await;
    assert!(session.read_slot(&slot).await.unwrap().is_some(), "{slot}");
}

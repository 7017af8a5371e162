//! The client against real servers of every version: how it connects, proves itself, is refused, and fails.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use backup_postgres::conn::Settings;
use backup_postgres::wire::{Session, SessionKind};
use backup_postgres::{Error, Lsn, TimelineId};
use backup_testkit::{Auth, Postgres, require_or_skip, versions_under_test};

/// Settings from the string alone: the environment of whoever runs the tests must not matter.
fn settings(text: &str) -> Settings {
    Settings::parse(text, |_| None).unwrap()
}

async fn connect(text: &str, kind: SessionKind) -> Result<Session, Error> {
    Session::connect(&settings(text), kind).await
}

fn tcp(server: &Postgres, rest: &str) -> String {
    format!("host=127.0.0.1 port={} dbname=postgres {rest}", server.port())
}

fn unix(server: &Postgres, rest: &str) -> String {
    format!("host={} port={} dbname=postgres {rest}", server.socket_dir().display(), server.port())
}

fn superuser(server: &Postgres) -> String {
    format!("user={} password={}", server.superuser(), server.password())
}

const KINDS: [SessionKind; 3] = [SessionKind::Sql, SessionKind::Replication, SessionKind::ReplicationDatabase];

#[tokio::test]
async fn every_method_over_every_transport() {
    for version in versions_under_test() {
        for auth in [Auth::Trust, Auth::Md5, Auth::Scram] {
            let server = require_or_skip!(Postgres::builder(version).auth(auth).tls(true).start().await);
            let me = superuser(&server);
            for kind in KINDS {
                for (text, encrypted) in [
                    (unix(&server, &me), false),
                    (tcp(&server, &format!("{me} sslmode=disable")), false),
                    (tcp(&server, &format!("{me} sslmode=allow")), false),
                    (tcp(&server, &me), true),
                    (tcp(&server, &format!("{me} sslmode=require ssl_min_protocol_version=TLSv1.3")), true),
                ] {
                    let session = connect(&text, kind)
                        .await
                        .unwrap_or_else(|e| panic!("{version} {auth:?} {kind:?} {text}: {e}"));
                    assert_eq!(session.version().major(), version.major());
                    assert_eq!(session.is_encrypted(), encrypted, "{text}");
                    session.close().await;
                }
            }
            if matches!(auth, Auth::Trust) {
                continue;
            }
            for password in ["password=wrong", ""] {
                let error =
                    connect(&tcp(&server, &format!("user={} {password}", server.superuser())), SessionKind::Sql).await;
                assert!(matches!(error, Err(Error::Authentication { .. })), "{error:?}");
            }
            let error = connect(&tcp(&server, "user=nobody_here password=x"), SessionKind::Replication).await;
            assert!(matches!(error, Err(Error::Authentication { .. })), "{error:?}");
        }
    }
}

#[tokio::test]
async fn certificates_and_channel_binding() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).tls(true).start().await);
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.crt");
        std::fs::write(&ca, server.tls_ca().unwrap()).unwrap();
        let other = directory.path().join("other.crt");
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&other, rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()).unwrap();
        let pinned = server.data_dir().join("server.crt");
        let me = superuser(&server);
        let connect = async |rest: String| {
            let text = format!("port={} dbname=postgres {me} {rest}", server.port());
            connect(&text, SessionKind::Replication).await
        };

        for host in ["host=localhost", "host=127.0.0.1", "host=localhost hostaddr=127.0.0.1"] {
            let session =
                connect(format!("{host} sslmode=verify-full sslrootcert={} channel_binding=require", ca.display()));
            assert!(session.await.unwrap().is_encrypted());
        }
        let wrong = "host=db.example hostaddr=127.0.0.1";
        let error = connect(format!("{wrong} sslmode=verify-full sslrootcert={}", ca.display())).await;
        assert!(matches!(error, Err(Error::Tls { .. })), "{error:?}");
        assert!(connect(format!("{wrong} sslmode=verify-ca sslrootcert={}", ca.display())).await.is_ok());
        for mode in ["verify-full", "verify-ca", "require"] {
            let error = connect(format!("host=localhost sslmode={mode} sslrootcert={}", other.display())).await;
            assert!(matches!(error, Err(Error::Tls { .. })), "{mode}: {error:?}");
        }
        let pin = format!("sslmode=verify-full sslrootcert={}", pinned.display());
        assert!(connect(format!("host=localhost {pin}")).await.is_ok());
        assert!(matches!(connect(format!("{wrong} {pin}")).await, Err(Error::Tls { .. })));
        let missing = directory.path().join("missing.crt");
        let error = connect(format!("host=localhost sslmode=verify-ca sslrootcert={}", missing.display())).await;
        assert!(matches!(error, Err(Error::Tls { .. })), "{error:?}");

        let error = connect("host=localhost sslmode=disable channel_binding=require".to_owned()).await;
        assert!(matches!(error, Err(Error::Authentication { .. })), "{error:?}");
        assert!(connect("host=localhost sslmode=require channel_binding=disable".to_owned()).await.is_ok());
        let direct = connect("host=localhost sslmode=require sslnegotiation=direct".to_owned()).await;
        assert_eq!(direct.is_ok(), version.major() >= 17, "{version} {direct:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_proves_who_we_are() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, key);
    let client_key = rcgen::KeyPair::generate().unwrap();
    let mut client = rcgen::CertificateParams::default();
    client.distinguished_name.push(rcgen::DnType::CommonName, "backup_role");
    let certificate = client.signed_by(&client_key, &issuer).unwrap().pem();

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let root = file("root.crt", &root, 0o644);
    let (certificate, key) = (file("me.crt", &certificate, 0o644), file("me.key", &client_key.serialize_pem(), 0o600));
    let open_key = file("open.key", &client_key.serialize_pem(), 0o644);

    for version in versions_under_test() {
        let server = require_or_skip!(
            Postgres::builder(version)
                .tls(true)
                .setting("ssl_ca_file", &root)
                .hba("hostssl replication backup_role 127.0.0.1/32 cert")
                .start()
                .await
        );
        let mut admin = connect(&unix(&server, &superuser(&server)), SessionKind::Sql).await.unwrap();
        admin.query("CREATE ROLE backup_role LOGIN REPLICATION").await.unwrap();
        let with =
            |key: &str| tcp(&server, &format!("user=backup_role sslmode=require sslcert={certificate} sslkey={key}"));
        let mut session = connect(&with(&key), SessionKind::Replication).await.unwrap();
        assert_eq!(session.identify_system().await.unwrap().timeline, TimelineId::FIRST);
        assert!(matches!(connect(&with(&open_key), SessionKind::Replication).await, Err(Error::Tls { .. })));
        assert!(connect(&tcp(&server, "user=backup_role sslmode=require"), SessionKind::Replication).await.is_err());
    }
}

#[tokio::test]
async fn what_is_not_permitted_is_told_apart() {
    for version in versions_under_test() {
        let server = require_or_skip!(
            Postgres::builder(version)
                .auth(Auth::Trust)
                .hba("host replication barred 127.0.0.1/32 reject")
                .start()
                .await
        );
        let mut admin = connect(&unix(&server, &superuser(&server)), SessionKind::Sql).await.unwrap();
        admin
            .query("CREATE ROLE plain LOGIN; CREATE ROLE barred LOGIN REPLICATION; CREATE ROLE able LOGIN REPLICATION")
            .await
            .unwrap();
        for (user, kind) in [
            ("plain", SessionKind::Replication),
            ("plain", SessionKind::ReplicationDatabase),
            ("barred", SessionKind::Replication),
        ] {
            let error = connect(&tcp(&server, &format!("user={user}")), kind).await.unwrap_err();
            assert!(matches!(&error, Error::NotPermitted { user: u, .. } if u == user), "{user} {kind:?}: {error:?}");
            assert_eq!(error.kind(), backup_core::ErrorKind::Environment);
        }
        assert!(connect(&tcp(&server, "user=able"), SessionKind::Replication).await.is_ok());
        let error =
            connect(&tcp(&server, "user=plain").replace("postgres", "nowhere"), SessionKind::Sql).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("3D000"));
    }
}

#[tokio::test]
async fn a_session_answers_and_survives_errors() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let mut session = connect(&unix(&server, &superuser(&server)), SessionKind::Sql).await.unwrap();
        let rows = session.query("SELECT 1 AS one, NULL AS none, '' AS empty, 'é' AS text").await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].columns(), ["one", "none", "empty", "text"]);
        assert_eq!(rows[0].to_texts(), [Some("1".to_owned()), None, Some(String::new()), Some("é".to_owned())]);
        assert_eq!(rows[0].parse::<u8>("one").unwrap(), 1);
        assert!(rows[0].required("none").is_err() && rows[0].text("other").is_err());

        let sets =
            session.query_all("SELECT 1; SELECT 2 WHERE false; CREATE TEMP TABLE t (i int); SELECT 3").await.unwrap();
        let tags: Vec<_> = sets.iter().map(|set| set.tag.as_str()).collect();
        assert_eq!(tags, ["SELECT 1", "SELECT 0", "CREATE TABLE", "SELECT 1"]);
        assert!(session.query("").await.unwrap().is_empty());
        assert_eq!(session.query("SELECT 1/0").await.unwrap_err().sqlstate(), Some("22012"));
        assert_eq!(session.query("nonsense").await.unwrap_err().kind(), backup_core::ErrorKind::InvalidInput);
        assert!(matches!(session.query("SELECT '\0'").await, Err(Error::Settings(_))));
        assert_eq!(session.query("SELECT g FROM generate_series(1, 100000) g").await.unwrap().len(), 100_000);
        session.query("DO $$BEGIN RAISE WARNING 'look'; END$$").await.unwrap();
        assert_eq!(session.take_notices()[0].message, "look");
        assert!(session.show("wal_segment_size").await.unwrap().ends_with("MB"));
        assert!(matches!(session.show("a; b").await, Err(Error::Settings(_))));

        // Whoever drops a call half-way must not get the answer to another question.
        let slow = session.query("SELECT pg_sleep(60)");
        assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
        assert!(matches!(session.query("SELECT 1").await, Err(Error::Closed(_))));

        let mut session = connect(&unix(&server, &superuser(&server)), SessionKind::Sql).await.unwrap();
        session.set_read_timeout(Some(Duration::from_millis(50)));
        assert!(matches!(session.query("SELECT pg_sleep(60)").await, Err(Error::Timeout { .. })));
        let mut session = connect(&unix(&server, &superuser(&server)), SessionKind::Sql).await.unwrap();
        let error = session.query("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("57P01"));
    }
}

#[tokio::test]
async fn replication_commands() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        for kind in [SessionKind::Replication, SessionKind::ReplicationDatabase] {
            let mut session = connect(&unix(&server, &superuser(&server)), kind).await.unwrap();
            let system = session.identify_system().await.unwrap();
            assert_eq!(system.system_id, server.system_identifier().await.unwrap());
            assert_eq!(system.timeline, TimelineId::FIRST);
            assert_eq!(system.database.as_deref(), (kind == SessionKind::ReplicationDatabase).then_some("postgres"));
            assert_eq!(session.show("server_version_num").await.unwrap(), session.version().number().to_string());
            assert_eq!(session.timeline_history(TimelineId::FIRST).await.unwrap_err().sqlstate(), Some("58P01"));
            assert_eq!(session.query("SELECT 1").await.is_ok(), kind == SessionKind::ReplicationDatabase);

            let start = Lsn(system.position.0 & !0xff_ffff);
            let mut stream = session.copy_both(&format!("START_REPLICATION {start} TIMELINE 1")).await.unwrap();
            let message = stream.receive().await.unwrap().unwrap();
            assert!(matches!(message[0], b'w' | b'k'));
            let mut status = vec![b'r'];
            status.extend([0; 33]);
            stream.send(&status).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(session.identify_system().await.unwrap().system_id, system.system_id);

            let beyond = Lsn(system.position.0 + (1 << 40));
            let mut stream = session.copy_both(&format!("START_REPLICATION {beyond} TIMELINE 1")).await.unwrap();
            assert_eq!(stream.receive().await.unwrap_err().sqlstate(), Some("XX000"));
            let wrong = session.copy_both("START_REPLICATION 0/0 TIMELINE 7").await.map(|_| ());
            assert!(matches!(wrong, Err(Error::Server(_))), "{wrong:?}");
            assert!(session.identify_system().await.is_ok());

            if version.major() >= 17 {
                let mut upload = session.copy_in("UPLOAD_MANIFEST").await.unwrap();
                upload.send(b"not a manifest").await.unwrap();
                assert!(matches!(upload.finish().await, Err(Error::Server(_))));
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_timeline_names_the_next() {
    for version in versions_under_test() {
        let primary = require_or_skip!(Postgres::builder(version).start().await);
        let standby = Postgres::standby_of(&primary).await.unwrap();
        let text = unix(&standby, &superuser(&standby));
        for (target, fits) in [
            ("standby", true),
            ("read-only", true),
            ("primary", false),
            ("read-write", false),
            ("prefer-standby", true),
        ] {
            for kind in [SessionKind::Sql, SessionKind::Replication] {
                let session = connect(&format!("{text} target_session_attrs={target}"), kind).await;
                assert_eq!(session.is_ok(), fits, "{version} {target} {session:?}");
            }
        }
        let both = format!(
            "host={},{} port={},{} dbname=postgres {} target_session_attrs=primary",
            standby.socket_dir().display(),
            primary.socket_dir().display(),
            standby.port(),
            primary.port(),
            superuser(&primary)
        );
        let mut session = connect(&both, SessionKind::Sql).await.unwrap();
        assert_eq!(session.query_one("SELECT pg_is_in_recovery()").await.unwrap().to_texts(), [Some("f".to_owned())]);

        let mut session = connect(&text, SessionKind::Replication).await.unwrap();
        let position = session.identify_system().await.unwrap().position;
        let start = Lsn(position.0 & !0xff_ffff);
        let mut stream = session.copy_both(&format!("START_REPLICATION {start} TIMELINE 1")).await.unwrap();
        standby.promote().await.unwrap();
        while stream.receive().await.unwrap().is_some() {}
        let sets = stream.finish().await.unwrap();
        let next: TimelineId = sets[0].rows[0].parse("next_tli").unwrap();
        let switch: Lsn = sets[0].rows[0].parse("next_tli_startpos").unwrap();
        assert_eq!(next.get(), 2);
        let (name, content) = session.timeline_history(next).await.unwrap();
        assert_eq!(name, "00000002.history");
        let history = backup_postgres::wal::TimelineHistory::parse(next, &content).unwrap();
        assert_eq!((history.ancestors[0].timeline, history.ancestors[0].end), (TimelineId::FIRST, switch));
    }
}

#[tokio::test]
async fn slots_keep_the_log() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let text = unix(&server, &superuser(&server));
        let mut session = connect(&text, SessionKind::ReplicationDatabase).await.unwrap();
        assert_eq!(session.read_slot("absent").await.unwrap(), None);
        session.create_physical_slot("mine", false).await.unwrap();
        let position = session.identify_system().await.unwrap().position;
        let slot = session.read_slot("mine").await.unwrap().unwrap();
        assert!(slot.restart.unwrap() <= position);
        assert_eq!(slot.timeline, (version.major() >= 15).then_some(TimelineId::FIRST));
        assert_eq!(session.create_physical_slot("mine", true).await.unwrap_err().sqlstate(), Some("42710"));
        let mut sql = connect(&text, SessionKind::Sql).await.unwrap();
        assert_eq!(sql.read_slot("mine").await.unwrap().unwrap().restart, slot.restart);
        session.drop_slot("mine").await.unwrap();
        assert_eq!(session.read_slot("mine").await.unwrap(), None);
        assert_eq!(session.drop_slot("mine").await.unwrap_err().sqlstate(), Some("42704"));
        assert!(matches!(session.create_physical_slot("My slot", true).await, Err(Error::Settings(_))));
    }
}

#[tokio::test]
async fn a_clean_shutdown_hands_over_everything() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(Postgres::builder(version).start().await);
        let mut session = connect(&unix(&server, &superuser(&server)), SessionKind::Replication).await.unwrap();
        let position = session.identify_system().await.unwrap().position;
        let start = Lsn(position.0 & !0xff_ffff);
        let mut stream = session.copy_both(&format!("START_REPLICATION {start} TIMELINE 1")).await.unwrap();
        let (streaming, started) = tokio::sync::oneshot::channel();
        let mut streaming = Some(streaming);
        let follow = async {
            let mut received = start.0;
            while let Some(message) = stream.receive().await.unwrap() {
                if let Some(streaming) = streaming.take() {
                    streaming.send(()).unwrap();
                }
                let word = |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
                if message[0] == b'w' {
                    assert_eq!(word(1), received);
                    received += message.len() as u64 - 25;
                }
                let mut status = vec![b'r'];
                (0..3).for_each(|_| status.extend(received.to_be_bytes()));
                status.extend([0; 9]);
                // The server may hang up as soon as it has seen that we have everything.
                let _ = stream.send(&status).await;
            }
            received
        };
        // A sender that is told to stop between its reply and its first message dies like any session
        // (`HandleWalSndInitStopping`); only one that streams hands over the rest first.
        let stop = async {
            started.await.unwrap();
            server.stop(backup_testkit::StopMode::Fast).await
        };
        let (stopped, received) = tokio::join!(stop, follow);
        stopped.unwrap();
        assert!(stream.is_shut_down(), "{version}");
        assert!(stream.finish().await.unwrap().is_empty());
        assert!(matches!(session.identify_system().await, Err(Error::Closed(_))));
        let control = std::fs::read(server.data_dir().join("global/pg_control")).unwrap();
        let control = backup_postgres::control::ControlFile::parse(&control).unwrap();
        assert_eq!(control.state, backup_postgres::control::ClusterState::ShutDown);
        // The shutdown checkpoint's own record is the last thing written.
        assert!(control.checkpoint.0 < received && received <= control.checkpoint.0 + 200, "{received:x} {control:?}");
    }
}

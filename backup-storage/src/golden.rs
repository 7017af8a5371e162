//! Golden vectors: the bytes of format version 1, committed beside the tests.
//!
//! What is read must be readable for ever; what is written without compression must be the same bytes for ever (zstd may find
//! better ones). `BACKUP_BLESS=1` writes missing files.

use std::path::PathBuf;

use backup_core::catalog::{
    Actor, BackupRecord, Catalog, Condemned, Deposit, DrillCheck, DrillOutcome, DrillRecord, DrillStep, Event,
    HostChange, KeyChange, ManifestRef, Origin, PackDamage, PackId, PackMove, Refusal, RestorePurpose,
    Role as ActorRole, RunPurpose, ServiceChange, ServiceSpec, SessionPacks, Totals, Verification, VerifyPass,
    VerifyPlace, Wrap,
};
use backup_core::entry::{ContentIdentity, EntryKind, EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::log::{AsOf, LineageRecord, LogEpoch, LogIndex, LogPurpose, NamedPoint, Notation, Note, TimeSample};
use backup_core::{
    BackupId, Consistency, DrillId, Finding, Group, HostId, Lineage, LogPosition, LossyItem, Member, MemberName,
    ServiceId, SessionId, Severity, Snapshot,
};
use backup_crypto::{EpochId, ObjectKind, RepositoryId, Suite};

use crate::envelope;
use crate::journal::{Entry, EpochRecord, FORMAT, Genesis, Place, PlainObject};
use crate::keyring::Keyring;
use crate::keyring::tests::keyring;
use crate::keys::succession::{self, Succession};
use crate::layout;
use crate::log::name::Piece as LogPiece;
use crate::log::object::{LogObject, LogSheet, sheet};
use crate::manifest::{Blob, BlockMap, Content, Extent, ManifestEntry, PackUse, PartRef, Root};
use crate::pack::{Codec, PackBuilder, PackIndex, Piece, Role, Scratch, checksum, content_id_of};
use crate::repository::Description;
use crate::witness::Witness;

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("BACKUP_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let lines: Vec<_> = hex.as_bytes().chunks(96).map(|l| std::str::from_utf8(l).unwrap()).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn session() -> SessionId {
    SessionId::from_bytes([0x11; 16])
}

fn backup() -> BackupId {
    BackupId::from_bytes([0x22; 16])
}

fn snapshot() -> Snapshot {
    let now = Env::seeded(0).now();
    Snapshot::new("postgres", "17.6", "42", "local", Consistency::PointInTime, (now, now))
        .with_positions(LogPosition::new(Lineage::new("1"), 1, "0/1"), LogPosition::new(Lineage::new("1"), 2, "0/2"))
        .with_findings([Finding::new(Severity::Warning, "page-checksum", "block 7").about("base/1/2")])
        .with_lossy(LossyItem::new("x", "y"))
        .with_fact("k", "v")
}

fn record() -> BackupRecord {
    let now = Env::seeded(0).now();
    BackupRecord::new(
        backup(),
        ServiceId::new("svc").unwrap(),
        session(),
        None,
        (now, now),
        Totals { data_bytes: 1, new_bytes: 2, stored_bytes: 3, entries: 4 },
        ManifestRef { pack: PackId { session: session(), number: 5 }, segment: 6, digest: [7; 32] },
        vec![SessionId::from_bytes([0x33; 16])],
        snapshot(),
    )
}

/// Encodes `value`, compares with the file, and decodes the file.
fn check<T>(name: &str, value: &T)
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> + PartialEq + std::fmt::Debug,
{
    let bytes = minicbor::to_vec(value).unwrap();
    let stored = golden(name, &bytes);
    assert_eq!(bytes, stored, "{name}");
    assert_eq!(&minicbor::decode::<T>(&stored).unwrap(), value, "{name}");
}

#[test]
fn description() {
    let description = Description { format: FORMAT, id: RepositoryId::from_bytes([9; 16]), suite: Suite::Aes256Gcm };
    let stored = golden("description.hex", &description.encode().unwrap());
    assert_eq!(description.encode().unwrap(), stored);
    assert_eq!(Description::parse(&stored).unwrap(), description);
}

#[test]
fn journal_entries() {
    let now = Env::seeded(0).now();
    let genesis = Genesis {
        format: FORMAT,
        repository: [1; 16],
        service: ServiceId::new("svc").unwrap(),
        suite: 2,
        created_at: now,
        objects: vec![PlainObject { name: "repository".to_owned(), digest: [2; 32] }],
        epochs: None,
    };
    let events = vec![
        Event::SessionOpened { session: session(), at: now, parent: Some(backup()), adopted: vec![session()] },
        Event::BackupCommitted { record: Box::new(record()) },
        Event::SessionClosed { session: session(), at: now, reason: backup_core::catalog::CloseReason::Fenced },
        Event::BackupRecovered { record: Box::new(record()) },
    ];
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 1, previous: [3; 32], nonce: [4; 16], at: now, genesis: Some(genesis), events };
    check("journal-entry.hex", &entry);
    let keyring = keyring(1);
    let name = layout::entry(1, 1).unwrap();
    let sealed = envelope::seal(&keyring, ObjectKind::Journal, &name, b"an entry").unwrap();
    // The salt is the keyring's first draw of randomness, which the seed fixes.
    let stored = golden("journal-object.hex", &sealed);
    assert_eq!(sealed, stored);
    assert_eq!(envelope::open(&keyring, ObjectKind::Journal, &name, &stored).unwrap(), b"an entry");
}

#[test]
fn journal_events_of_keys() {
    let at = Env::seeded(0).now();
    let by = Actor::new(ActorRole::Operator, "alex");
    let wrap = |epoch: u32| Wrap {
        epoch,
        recipient: "x25519-0123456789abcdef".to_owned(),
        name: format!("keys/{epoch:04}/x25519-0123456789abcdef.0011223344556677"),
        digest: [epoch as u8; 32],
    };
    let recipient = || "x25519-0123456789abcdef".to_owned();
    let changes = [
        KeyChange::Announced { wraps: vec![wrap(1)], epoch: None },
        KeyChange::Added {
            recipient: recipient(),
            label: Some("offline".to_owned()),
            public: Some([5; 32]),
            wraps: vec![wrap(1).name],
        },
        KeyChange::Announced { wraps: vec![wrap(2)], epoch: Some(2) },
        KeyChange::EpochBegun {
            epoch: 2,
            fingerprint: [6; 16],
            wraps: vec![wrap(2).name],
            removed: vec!["pass-0123456789abcdef".to_owned()],
        },
        KeyChange::Described { recipient: recipient(), label: None, public: None },
        KeyChange::Abandoned { wraps: vec![wrap(2).name] },
    ];
    let events = changes.into_iter().map(|change| Event::Keys { change, by: by.clone(), at }).collect();
    let objects = vec![PlainObject { name: wrap(1).name, digest: [7; 32] }];
    let epochs = Some(vec![EpochRecord { epoch: 1, fingerprint: [8; 16] }]);
    let service = ServiceId::new("svc").unwrap();
    let genesis = Genesis { format: FORMAT, repository: [1; 16], service, suite: 1, created_at: at, objects, epochs };
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 1, previous: [0; 32], nonce: [4; 16], at, genesis: Some(genesis), events };
    check("journal-entry-keys.hex", &entry);
}

#[test]
fn the_succession_of_epochs() {
    let at = Env::seeded(0).now();
    check("succession.hex", &Succession { epoch: 2, fingerprint: [6; 16], at });
    let fingerprint = backup_crypto::EpochFingerprint::from_bytes([6; 16]);
    let (name, sealed) = succession::seal(&keyring(4), EpochId(2), fingerprint, at).unwrap();
    let stored = golden("succession-object.hex", &sealed);
    assert_eq!((name.as_str(), &sealed), ("epochs/0002", &stored));
    assert_eq!(succession::open(&keyring(4), EpochId(2), &stored).unwrap(), fingerprint);
    // The name of a later wrap follows from its bytes.
    let recipient = "key-0123456789abcdef".parse().unwrap();
    let name = layout::later_key(EpochId(2), &recipient, b"a wrap").unwrap();
    let digest = blake3::hash(b"a wrap").to_hex();
    assert_eq!(name.as_str(), format!("keys/0002/key-0123456789abcdef.{}", &digest[..16]));
}

fn lineage() -> LineageRecord {
    LineageRecord::new(Lineage::new("2"), "42", Notation::HexHalves, Env::seeded(0).now())
        .with_fork(Lineage::new("1"), 0x1_0000_0000)
        .with_fact("history", "1\t1/0\tno recovery target specified")
}

#[test]
fn journal_events_of_the_log() {
    let now = Env::seeded(0).now();
    let lineage = lineage();
    let of = || Lineage::new("2");
    let ends = [(Lineage::new("1"), 5), (of(), 7)].into();
    let opened = |epoch, purpose| Event::LogOpened { epoch: LogEpoch(epoch), purpose, at: now };
    let events = vec![
        opened(1, LogPurpose::Stream),
        opened(2, LogPurpose::Import),
        opened(3, LogPurpose::Compact),
        Event::LogSealed { epoch: LogEpoch(1), ends, at: now },
        Event::LineageAdded { record: Box::new(lineage) },
        Event::LogGap { lineage: of(), start: 1, end: 2, reason: "lost".to_owned(), at: now },
        Event::LogDamaged {
            object: "log/2/x".to_owned(),
            lineage: of(),
            start: 3,
            end: 4,
            problem: "torn".to_owned(),
            at: now,
        },
        Event::LogExpired { lineage: of(), before: 5, at: now },
    ];
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 2, previous: [3; 32], nonce: [4; 16], at: now, genesis: None, events };
    check("journal-entry-log.hex", &entry);
    check("snapshot-moment.hex", &snapshot().with_stopped_at("2026-11-27T04:05:06.789Z".parse().unwrap()));
}

#[test]
fn groups() {
    let now = Env::seeded(0).now();
    let member = |name: &str, second: i64| {
        let taken = now.checked_add(jiff::SignedDuration::from_secs(second)).unwrap();
        let snapshot = snapshot().with_stopped_at("2026-11-27T04:05:06.789Z".parse().unwrap());
        Member::new(MemberName::new(name).unwrap(), snapshot).with_taken_at(taken)
    };
    let group = Group::new(vec![member("slots-00000", 0), member("slots-08192", 2)]).unwrap();
    assert_eq!(group.skew, Some(2_000_000));
    check("snapshot-group.hex", &Snapshot::of_group("redis-cluster", "42", "replication", (now, now), group));
}

#[test]
fn journal_events_of_collections() {
    let at = Env::seeded(0).now();
    let by = Actor::new(ActorRole::Operator, "alex");
    let pack = |number| PackId { session: session(), number };
    let moves = vec![PackMove { from: pack(3), to: pack(9), base: 17, count: 40 }];
    let mut collection = Condemned::default();
    (collection.number, collection.pins, collection.bytes) = (2, 5, 1_000);
    collection.packs = vec![SessionPacks::new(session(), [0, 1, 3], true)];
    collection.log.insert(Lineage::new("1"), 70_000);
    (collection.session, collection.moves) = (Some(session()), moves.clone());
    let events = vec![
        Event::Condemned { collection: Box::new(collection), at },
        Event::SweepBegun { collection: 2, at },
        Event::Swept { collection: 2, at },
        Event::CollectionWithdrawn { collection: 3, by: by.clone(), at },
        Event::BackupReinstated { backup: backup(), by, at },
        Event::PacksRecovered { session: session(), moves },
    ];
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 4, previous: [3; 32], nonce: [4; 16], at, genesis: None, events };
    check("journal-entry-collections.hex", &entry);
}

#[test]
fn journal_events_of_damage() {
    let at = Env::seeded(0).now();
    let by = Actor::new(ActorRole::Platform, "verify");
    let pack = PackId { session: session(), number: 3 };
    let damage = |problem: &str, backups| PackDamage { pack, problem: problem.to_owned(), backups };
    let through =
        [None, Some(VerifyPlace::Pack(pack)), Some(VerifyPlace::Log { epoch: LogEpoch(2), sequence: 70_000 })];
    let verified = |through| {
        let mut verification = Verification::new("budget", at, at);
        (verification.objects, verification.read_bytes, verification.problems) = (5, 1 << 33, 1);
        verification.pass = Some(VerifyPass { began: at, through });
        Event::Verified { verification: Box::new(verification) }
    };
    let mut events = vec![
        Event::PacksDamaged { packs: vec![damage("torn", vec![backup()]), damage("gone", vec![])], at },
        Event::Mended { packs: vec![pack], log: vec!["log/2/x".to_owned()], by, at },
        Event::Verified { verification: Box::new(Verification::new("sample", at, at)) },
    ];
    events.extend(through.map(verified));
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 5, previous: [3; 32], nonce: [4; 16], at, genesis: None, events };
    check("journal-entry-damage.hex", &entry);
}

#[test]
fn journal_events_of_drills() {
    let at = Env::seeded(0).now();
    let by = Actor::new(ActorRole::Platform, "runner");
    let drill = DrillId::from_bytes([0x33; 16]);
    let mut record = DrillRecord::new(drill, ("postgres", "latest"), backup(), at, by.clone());
    let unreached = record.clone();
    record.position = Some(LogPosition::new(Lineage::new("1"), 7, "0/7"));
    record.time = Some(at);
    record.steps = vec![DrillStep::new("restore", 1_200), DrillStep::new("start", 3)];
    record.restored_bytes = 70_000;
    record.checks = vec![
        DrillCheck::passed("tables").counted("rows", 9).counted("bytes", 300).with_digest("00ff"),
        DrillCheck::passed("page-checksums").failed("block 7"),
        DrillCheck::skipped("amcheck", "the server has none"),
    ];
    record.findings = vec![Finding::new(Severity::Blocker, "page-checksum", "block 7").about("shop.public.orders")];
    record.outcome = DrillOutcome::Damaged;
    record.problem = Some("block 7".to_owned());
    record.program = "backup 1".to_owned();
    record.server = Some("postgres 17.6".to_owned());
    let events = vec![
        Event::DrillBegun { drill, by, at, until: at },
        Event::Drilled { record: Box::new(record) },
        Event::Drilled { record: Box::new(unreached) },
    ];
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 5, previous: [3; 32], nonce: [4; 16], at, genesis: None, events };
    check("journal-entry-drills.hex", &entry);
}

#[test]
fn journal_events_of_decisions() {
    let at = Env::seeded(0).now();
    let by = Actor::new(ActorRole::Operator, "alex");
    let origin = Origin {
        service: ServiceId::new("source").unwrap(),
        location: "eu".to_owned(),
        backup: backup(),
        time: Some(at),
        latest: false,
    };
    let mut spec = ServiceSpec::new("postgres", "startup", "moon", "eu").with_schedule(Some(3), None);
    spec = spec.with_origin(origin);
    let changes = vec![
        ServiceChange::Created { spec: Box::new(spec) },
        ServiceChange::PlanChanged { plan: "premium".to_owned() },
        ServiceChange::ScheduleChanged { hour: None, minute: Some(59) },
        ServiceChange::Moved { zone: "mars".to_owned() },
        ServiceChange::Suspended { reason: Some("off".to_owned()) },
        ServiceChange::LeaseTaken { lease: 1, runner: "r".to_owned(), until: at },
        ServiceChange::LeaseRenewed { until: at },
        ServiceChange::LeaseReleased,
        ServiceChange::RunStarted { purpose: RunPurpose::Final, due: at },
        ServiceChange::RunEnded { backup: Some(backup()), problem: None },
        ServiceChange::PowerOffBegun { accept_data_loss: true },
        ServiceChange::PoweredOff { loss: None },
        ServiceChange::PowerOffGivenUp { reason: "no".to_owned() },
        ServiceChange::RestoreBegun { purpose: RestorePurpose::Disaster },
        ServiceChange::Restored { backup: Some(backup()) },
        ServiceChange::Deleted { reason: None },
        ServiceChange::Recovered,
        ServiceChange::PurgeBegun,
        ServiceChange::NoticeSent { notice: "deletion-in-7d".to_owned() },
        ServiceChange::Discarded,
        ServiceChange::CaptureTaken { capture: 1, runner: "r".to_owned(), until: at },
        ServiceChange::CaptureRenewed { capture: 1, until: at },
        ServiceChange::CaptureReleased { capture: 1 },
        ServiceChange::ReaderSeen { reader: "restore 7".to_owned(), until: at },
        ServiceChange::ReaderLeft { reader: "restore 7".to_owned() },
        ServiceChange::Told { lines: 3 },
    ];
    let (hold, reason) = ("case-7".to_owned(), "evidence".to_owned());
    let mut events = vec![
        Event::BackupExpired { backup: backup(), reason: "old".to_owned(), by: by.clone(), at },
        Event::HoldPlaced { backup: backup(), hold: hold.clone(), reason, by: by.clone(), at, log: false },
        Event::HoldReleased { backup: backup(), hold, by: by.clone(), at },
    ];
    let service = |(n, change)| Event::Service { change, lease: (n % 2 == 0).then_some(n), by: by.clone(), at };
    events.extend((1..).zip(changes).map(service));
    let entry: Entry<<Catalog as crate::journal::Fold>::Event> =
        Entry { number: 3, previous: [3; 32], nonce: [4; 16], at, genesis: None, events };
    check("journal-entry-decisions.hex", &entry);
}

#[test]
fn pieces_of_log() {
    let (of, at) = (Lineage::new("2"), Env::seeded(0).now());
    let piece = LogPiece { epoch: LogEpoch(3), sequence: 4, start: 0x1_0000_0000, end: 0x1_0000_0005 };
    let name = piece.name(&of).unwrap();
    assert_eq!(name.as_str(), "log/2/00000003/0000000004-0000000100000000-0000000100000005");
    let mut index = LogIndex::default();
    index.samples.push(TimeSample { offset: piece.end, at });
    index.names.push(NamedPoint { offset: piece.end, name: "before the mistake".to_owned(), at });
    index.as_of = Some(AsOf(at));
    // As it was before there were notes: read for ever, written no more.
    let older = sheet(&of, &piece, (LogPurpose::Import, Some(lineage())), Some([6; 32]), index.clone());
    let stored = golden("log-sheet-before-notes.hex", &[]);
    assert_eq!(minicbor::decode::<LogSheet>(&stored).unwrap(), older);
    index.notes.push(Note { offset: piece.end, bytes: b"said".to_vec() });
    let sheet = sheet(&of, &piece, (LogPurpose::Import, Some(lineage())), Some([6; 32]), index);
    check("log-sheet.hex", &sheet);
    let said = minicbor::to_vec(&sheet).unwrap();
    let sealed_with = |ids: [[u8; 16]; 2]| {
        // From a keyring of its own: what is random in an object depends on what was drawn before.
        let mut builder = PackBuilder::named(ObjectKind::Log, name.clone(), &keyring(3), Vec::new()).unwrap();
        builder.push(Role::Data, Codec::Raw, b"bytes", 5, ids[0]).unwrap();
        builder.push(Role::LogIndex, Codec::Raw, &said, said.len(), ids[1]).unwrap();
        builder.finish().unwrap().object
    };
    let keyring = keyring(3);
    let hash = &keyring.hash_key(keyring.current()).unwrap();
    // As it was before there were checksums: read for ever, written no more.
    let older = sealed_with([content_id_of(hash, b"bytes"), content_id_of(hash, &said)]);
    let newer = sealed_with([checksum(b"bytes"), checksum(&said)]);
    for (file, sealed) in [("log-object.hex", older), ("log-object-checksums.hex", newer)] {
        let stored = golden(file, &sealed);
        assert_eq!(sealed, stored, "{file}");
        let mut scratch = Scratch::new().unwrap();
        let object = LogObject::of_object(&keyring, &name, &stored, &mut scratch).unwrap();
        assert_eq!(object.sheet(), &sheet);
        let range = object.stored(0).unwrap();
        let content = object.open(0, &stored[range.start as usize..range.end as usize], &mut scratch).unwrap();
        assert_eq!(content, b"bytes".as_slice());
    }
}

#[test]
fn manifests() {
    let mut meta = EntryMeta::file(EntryPath::new("base/1/\u{fc}").unwrap()).with_mode(0o640);
    meta = meta.with_modified(Some(Env::seeded(0).now())).with_identity(ContentIdentity::new("id").unwrap());
    let extents = vec![Extent::hole(7), Extent::stored(300, 1, 2, 3)];
    let inline = ManifestEntry {
        meta,
        len: 307,
        content: Content::Inline(extents.clone()),
        blocks: BlockMap::Inline { epoch: 1, hashes: vec![5; 16] },
    };
    check("manifest-entry-inline.hex", &inline);
    let link = EntryKind::Symlink { target: b"elsewhere".to_vec() };
    let stored = ManifestEntry {
        meta: EntryMeta::new(EntryPath::new("l").unwrap(), link),
        len: 0,
        content: Content::Stored(extents.clone()),
        blocks: BlockMap::Stored { epoch: 2, hashes: extents.clone() },
    };
    check("manifest-entry-stored.hex", &stored);
    let now = Env::seeded(0).now();
    let parts = vec![PartRef { run: 0, first: EntryPath::new("a").unwrap(), entries: 2, pack: 3, segment: 4 }];
    check("manifest-parts.hex", &parts);
    let packs = vec![PackUse { pack: PackId { session: session(), number: 1 }, stored_len: 2, live: 3 }];
    check("manifest-packs.hex", &packs);
    let root = Root {
        format: FORMAT,
        backup: backup(),
        service: ServiceId::new("svc").unwrap(),
        session: session(),
        parent: None,
        started_at: now,
        ended_at: now,
        data_bytes: 1,
        new_bytes: 2,
        entries: 3,
        snapshot: snapshot(),
        parts: Blob::Inline(vec![1, 2]),
        packs: Blob::Stored(extents),
        reused: vec![session()],
    };
    check("manifest-root.hex", &root);
    let place = Place { generation: 1, number: 2, digest: [3; 32] };
    check("witness.hex", &Witness { backup: backup(), place });
}

#[test]
fn packs() {
    let keyring = keyring(2);
    let id = PackId { session: session(), number: 8 };
    let hash = &keyring.hash_key(keyring.current()).unwrap();
    let text = b"compressible compressible compressible compressible compressible".as_slice();
    let mut builder = PackBuilder::new(id, &keyring, Vec::new()).unwrap();
    builder.push(Role::Data, Codec::Raw, b"raw", 3, content_id_of(hash, b"raw")).unwrap();
    // The compressed bytes are part of the vector: only reading them must work for ever.
    let packed = golden("zstd-frame.hex", &zstd::bulk::compress(text, 1).unwrap());
    builder.push(Role::ManifestPart, Codec::Zstd, &packed, text.len(), content_id_of(hash, text)).unwrap();
    builder.note(Piece { segment: 0, offset: 1, len: 2, id: content_id_of(hash, b"aw") });
    let pack = builder.finish().unwrap();
    let stored = golden("pack.hex", &pack.object);
    assert_eq!(pack.object, stored);
    let index = PackIndex::of_object(&keyring, id, &stored).unwrap();
    let mut scratch = Scratch::new().unwrap();
    for (segment, content) in [(0, b"raw".as_slice()), (1, text)] {
        let range = index.range(segment).unwrap();
        let mut out = Vec::new();
        index.open(segment, &stored[range.start as usize..range.end as usize], &mut scratch, &mut out).unwrap();
        assert_eq!(out, content);
    }
}

#[test]
fn deposits() {
    use crate::deposit::paper::{self, Answer, Notice, tests as papers};
    let now = Env::seeded(0).now();
    let host = HostId::from_bytes([2; 16]);
    let said = papers::deposit(session());
    let answer = Answer { session: session(), refused: Some(Refusal::ParentGone), at: now };
    let adopted = Answer { refused: None, ..answer.clone() };
    let notice = Notice { host, reason: Refusal::HostOutdated, at: now };
    for (name, (_, object)) in [
        ("deposit.hex", paper::write(&papers::secret(), session(), &said).unwrap()),
        ("deposit-refused.hex", paper::write(&papers::secret(), session(), &answer).unwrap()),
        ("deposit-adopted.hex", paper::write(&papers::secret(), session(), &adopted).unwrap()),
        ("deposit-notice.hex", paper::write(&papers::secret(), host, &notice).unwrap()),
    ] {
        assert_eq!(golden(name, &object), object, "{name}");
    }
    let stored = golden("deposit.hex", &[]);
    assert!(paper::is_genuine::<paper::Deposit>(&papers::secret(), session(), &stored).unwrap());
    assert_eq!(paper::parse::<paper::Deposit>(session(), &stored).unwrap(), said);
    assert_eq!(paper::parse::<Answer>(session(), &golden("deposit-refused.hex", &[])).unwrap(), answer);
    assert_eq!(paper::parse::<Notice>(host, &golden("deposit-notice.hex", &[])).unwrap(), notice);
}

#[test]
fn the_key_of_a_session_and_what_it_seals() {
    use crate::deposit::key::SessionKey;
    use backup_crypto::EpochKey;
    let key = SessionKey { key: EpochKey::take(&mut [7; 32]), hash_root: zeroize::Zeroizing::new([8; 32]) };
    let keys = keyring(4);
    let sealed = golden("session-key.hex", &key.seal(&keys, session()).unwrap());
    assert_eq!(SessionKey::open(&keys, session(), &sealed).unwrap().key, key.key);
    let host = Keyring::of_session(keys.repository(), keys.suite(), (session(), key), Env::seeded(9));
    let id = PackId { session: session(), number: 3 };
    let hash = host.hash_key_in(host.current(), session()).unwrap();
    let mut pack = PackBuilder::new(id, &host, Vec::new()).unwrap();
    pack.push(Role::Data, Codec::Raw, b"content", 7, content_id_of(&hash, b"content")).unwrap();
    let object = pack.finish().unwrap().object;
    let stored = golden("pack-of-a-deposit.hex", &object);
    assert_eq!(object, stored);
    keys.add_sealed_session(session(), &sealed);
    let index = PackIndex::of_object(&keys, id, &stored).unwrap();
    let (mut scratch, mut plain, range) = (Scratch::new().unwrap(), Vec::new(), index.range(0).unwrap());
    index.open(0, &stored[range.start as usize..range.end as usize], &mut scratch, &mut plain).unwrap();
    assert_eq!(plain, b"content");
}

#[test]
fn entries_of_hosts() {
    let now = Env::seeded(0).now();
    let host = HostId::from_bytes([2; 16]);
    let by = || Actor::new(ActorRole::Operator, "anna");
    let events = vec![
        Event::Hosts { change: HostChange::Added { host, label: "web".to_owned(), epoch: 3 }, by: by(), at: now },
        Event::DepositAdopted {
            deposit: Box::new(Deposit::new(record(), host, vec![1, 2, 3], &Catalog::new())),
            at: now,
        },
        Event::DepositRefused { session: session(), host, reason: Refusal::WrongKey, at: now },
        Event::DepositRecovered { session: session(), host, key: vec![4, 5, 6] },
        Event::Hosts { change: HostChange::Removed { host }, by: by(), at: now },
    ];
    let entry = Entry { number: 9, previous: [1; 32], nonce: [2; 16], at: now, genesis: None, events };
    check("journal-entry-hosts.hex", &entry);
}

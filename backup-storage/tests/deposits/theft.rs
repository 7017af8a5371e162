//! Somebody has taken the host over: he has its file, its folder and the whole store.

use std::collections::BTreeSet;

use backup_core::repository::{ParentChoice, Repository as _};
use backup_crypto::{
    EpochKey, HostSecret, Identity, ObjectContext, ObjectHeader, ObjectOpener, RawKey, RepositoryId, WrappedKey,
    X25519SecretKey,
};
use backup_storage::HostFile;

use super::world::{World, content, pair, put, raw, words};

/// Every run of 32 bytes that the thief has or can make of what he has.
fn secrets(file: &HostFile, state: &std::path::Path) -> BTreeSet<[u8; 32]> {
    let text = file.to_text().unwrap().to_string();
    let mut material = vec![text.clone().into_bytes()];
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let secret: HostSecret = json["secret"].as_str().unwrap().parse().unwrap();
    material.push(secret.hash_root().to_vec());
    material.push(secret.tag("", b"").to_vec());
    // The bytes of the secret itself, out of its text: 5 bits a letter.
    let letters = json["secret"].as_str().unwrap().rsplit_once('1').unwrap().1.to_lowercase();
    let alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let bits = letters.chars().flat_map(|letter| {
        let value = alphabet.find(letter).unwrap();
        (0..5).rev().map(move |bit| value >> bit & 1 == 1)
    });
    let bits: Vec<bool> = bits.collect();
    material.push(bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit))).collect());
    for entry in std::fs::read_dir(state).unwrap() {
        material.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    material.iter().flat_map(|bytes| bytes.windows(32)).map(|window| window.try_into().unwrap()).collect()
}

/// The kind and name under which an object would have been sealed.
fn opens(key: &EpochKey, repository: RepositoryId, name: &str, header: &ObjectHeader) -> bool {
    let context = ObjectContext { repository, epoch: header.epoch, kind: header.kind, name };
    ObjectOpener::new(key, &context, header).is_ok()
}

#[tokio::test]
async fn whoever_takes_over_a_host_opens_nothing() {
    let world = World::of(1, vec![raw(1), pair(2), words("correct horse")]).await;
    let (file, dir) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let state = dir.path();
    let other = world.add_host("db").await;
    // What others have stored, with keys and without, and what this very host has: adopted and not.
    let repository = world.open().await;
    let session = repository.begin(ParentChoice::None, &world.work()).await.unwrap();
    put(session.as_ref(), &content(1)).await.unwrap();
    session.commit(world.snapshot().await).await.unwrap();
    let small = [("row".to_owned(), b"a row of the table".to_vec())].into();
    world.deposit(&other, None, &small).await;
    let own = world.deposit(&file, Some(state), &small).await;
    world.adopt_all().await;
    let last = world.deposit(&file, Some(state), &small).await;
    assert_eq!(last.parent, Some(own.id));

    let secrets = secrets(&file, state);
    assert!(secrets.len() > 500, "{}", secrets.len());
    let json: serde_json::Value = serde_json::from_str(&file.to_text().unwrap()).unwrap();
    let id: RepositoryId = json["repository"].as_str().unwrap().parse().unwrap();
    let (mut sealed, mut wraps) = (0, 0);
    for name in world.names("").await {
        let object = world.get(&name).await;
        if let Ok(header) = ObjectHeader::parse(&object) {
            sealed += 1;
            for secret in &secrets {
                assert!(!opens(&EpochKey::take(&mut { *secret }), id, &name, &header), "{name} was opened");
            }
        }
        // Wrapped keys, also those in the middle of something.
        let starts = object.windows(8).enumerate().filter(|(_, window)| *window == b"\x89BKKEY\r\n");
        for wrap in starts.flat_map(|(at, _)| (at + 100..=object.len()).map(move |end| (at, end))) {
            let Ok(wrap) = WrappedKey::parse(&object[wrap.0..wrap.1]) else { continue };
            wraps += 1;
            for secret in &secrets {
                let keys = [
                    Identity::from(X25519SecretKey::take(&mut { *secret })),
                    Identity::from(RawKey::take(&mut { *secret })),
                ];
                // A name that fits is what a key is tried for; others are refused without it.
                for key in keys.iter().filter(|key| key.matches(&wrap)) {
                    assert!(key.unwrap(&wrap, id, wrap.epoch()).is_err(), "a key in {name} was unwrapped");
                }
            }
        }
    }
    assert!(sealed >= 10, "{sealed} objects were tried");
    assert_eq!(wraps, 3 + 3, "those of the recipients, and one of each deposit");

    // And as whom could he open the repository?
    for secret in secrets.iter().take(200) {
        for identity in
            [Identity::from(RawKey::take(&mut { *secret })), Identity::from(X25519SecretKey::take(&mut { *secret }))]
        {
            assert!(world.open_as(&identity.into()).await.is_err());
        }
    }
}

#[tokio::test]
async fn names_and_content_do_not_leave_the_host_in_the_clear() {
    let world = World::new(2).await;
    let (file, dir) = (world.add_host("web").await, tempfile::tempdir().unwrap());
    let secret = "customers-of-the-bank";
    let content = [(secret.to_owned(), secret.as_bytes().to_vec())].into();
    let record = world.deposit(&file, Some(dir.path()), &content).await;
    world.adopt_all().await;
    world.assert_restores(&[(record.id, &content)]).await;
    for name in world.names("").await {
        let object = world.get(&name).await;
        assert!(!object.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name}");
    }
    let text = file.to_text().unwrap();
    let start = text.find("BACKUP-HOST-1").unwrap();
    let shown = format!("{file:?} {:?}", world.host(&file, Some(dir.path())).await.unwrap());
    assert!(!shown.contains(&text[start..start + 30]));
}

#[tokio::test]
async fn a_stolen_host_is_removed_and_the_others_go_on() {
    let world = World::new(3).await;
    let (stolen, other) = (world.add_host("web").await, world.add_host("db").await);
    let before = world.deposit(&stolen, None, &content(1)).await;
    world.adopt_all().await;
    // The thief goes on; an honest host would find a notice.
    let thief = world.begin(&stolen, None, &content(2)).await.unwrap();
    world.open().await.remove_host(stolen.host(), &by_operator()).await.unwrap();
    let rubbish = world.end(thief).await;
    let told = world.try_deposit(&stolen, None, &content(2)).await.unwrap_err();
    assert!(told.kind() == backup_core::ErrorKind::Environment && told.to_string().contains("removed"), "{told}");
    let honest = world.deposit(&other, None, &content(3)).await;
    let entries = world.entries().await;
    let done = world.adopt().await;
    assert_eq!(done.adopted.iter().map(|adopted| adopted.record.id).collect::<Vec<_>>(), [honest.id]);
    assert_eq!((done.refused.len(), done.refused[0].session), (1, rubbish.session), "{done:?}");
    assert_eq!(world.entries().await, entries + 1, "of a host that was removed the journal does not speak");
    world.assert_restores(&[(before.id, &content(1)), (honest.id, &content(3))]).await;
    // What it stores is nobody's.
    let options = super::world::at_once().silence(std::time::Duration::ZERO);
    world.collect(&options).await;
    assert_eq!(world.folder(rubbish.session).await, Vec::<String>::new());
    world.assert_restores(&[(before.id, &content(1)), (honest.id, &content(3))]).await;
}

fn by_operator() -> backup_core::catalog::Actor {
    super::world::by()
}

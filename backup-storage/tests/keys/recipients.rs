//! Who can open what.

use backup_core::ErrorKind;
use backup_core::repository::{ParentChoice, Repository as _};
use backup_crypto::{EpochId, EpochKey, RepositoryId};
use backup_storage::fault::{Fault, FaultPlan};
use backup_storage::{AddRecipient, Unlock};
use std::sync::Arc;

use super::world::{Person, World, actor, content, put};

#[tokio::test]
async fn whoever_is_added_opens_everything_and_whoever_is_removed_nothing_that_comes_after() {
    let (anna, bert, word) = (Person::pair(1), Person::raw(2), Person::passphrase("correct horse"));
    let world = World::new(1, &[&anna]).await;
    let by = world.open(&anna).await.unwrap();
    let first = (world.backup(&by, &content(1)).await.unwrap(), content(1));
    world.rotate(&by, &[]).await.unwrap();
    for new in [&bert, &word] {
        assert!(!world.lets_in(new).await);
        assert_eq!(world.add(&by, new).await.unwrap().stored, 2);
        let opened = world.open(new).await.unwrap();
        world.assert_restores(&opened, std::slice::from_ref(&first), 0).await;
    }
    // Once more changes nothing, and a passphrase is recognised.
    for again in [&bert, &word] {
        assert_eq!(world.add(&by, again).await.unwrap().stored, 0);
    }
    let report = by.keys().await.unwrap();
    let kinds: Vec<_> =
        report.recipients.iter().map(|r| (r.kind.as_deref().unwrap(), r.epochs.len(), r.present)).collect();
    assert_eq!(kinds, [("raw key", 2, true), ("passphrase", 2, true), ("x25519 key", 2, true)]);
    assert!(report.unfinished.is_empty() && report.epochs.iter().all(|epoch| epoch.fingerprint.is_some()));
    let options = AddRecipient::default().label("of the night shift");
    by.add_recipient(&bert.holder(), &options, &actor(), &world.work()).await.unwrap();
    assert_eq!(by.keys().await.unwrap().recipients[0].label.as_deref(), Some("of the night shift"));

    // Bert has the keys of both epochs open while he is removed, and keeps a copy of his wraps.
    let kept = world.open(&bert).await.unwrap();
    kept.catalog().await.unwrap();
    let bert_wraps: Vec<_> =
        world.names("keys").await.into_iter().filter(|name| name.contains(bert.id().as_str())).collect();
    assert_eq!(bert_wraps.len(), 2);
    let mut copies = Vec::new();
    for name in &bert_wraps {
        copies.push((name.clone(), world.get(name).await));
    }
    let changed = world.remove(&by, &bert.id(), &[word.holder()]).await.unwrap();
    assert!(changed.epoch == 3 && changed.deleted == 2 && changed.left.is_empty(), "{changed:?}");
    assert!(!world.lets_in(&bert).await);
    assert_eq!(
        kept.catalog().await.unwrap_err().kind(),
        ErrorKind::InvalidInput,
        "he is told that he is none any more"
    );
    let entries = world.names("catalog").await.len();
    let second = (world.backup(&by, &content(2)).await.unwrap(), content(2));
    let after: Vec<_> = world.epochs_in("catalog").await.into_values().skip(entries).collect();
    assert!(!after.is_empty() && after.iter().all(|epoch| *epoch == 3), "{after:?}");
    let packs = world.epochs_in(&format!("packs/{}", second.0.session)).await;
    assert!(packs.values().all(|epoch| *epoch == 3), "{packs:?}");
    // With his wraps put back he opens what was written while he was a recipient, and nothing else.
    for (name, object) in copies {
        world.put(&name, object).await;
    }
    let opened = world.open(&bert).await.unwrap();
    let refused = opened.open(second.0.id).await.unwrap_err();
    assert!(refused.to_string().contains("not among the recipients"), "{refused}");
    let faults = world.faults(&by).await;
    assert_eq!(faults.iter().map(|(object, _)| object.clone()).collect::<Vec<_>>(), bert_wraps, "{faults:?}");
    assert!(faults.iter().all(|(_, problem)| problem.contains("removed")), "{faults:?}");
    assert_eq!(by.tidy_keys(&actor(), &world.work()).await.unwrap().deleted, 2);
    assert!(world.faults(&by).await.is_empty());
    for person in [&anna, &word] {
        world.assert_restores(&world.open(person).await.unwrap(), &[first.clone(), second.clone()], 0).await;
    }
    // He may come back. His names are new ones.
    world.add(&by, &bert).await.unwrap();
    world.assert_restores(&world.open(&bert).await.unwrap(), &[first, second], 0).await;
    assert!(world.faults(&by).await.is_empty());
    world.guard.assert_clean();
}

#[tokio::test]
async fn nothing_is_written_when_somebody_is_missing_or_would_be_the_last() {
    let (anna, bert, word) = (Person::raw(1), Person::raw(2), Person::passphrase("correct horse"));
    let world = World::new(2, &[&anna, &bert]).await;
    let by = world.open(&anna).await.unwrap();
    let options = AddRecipient::default().label("offline");
    by.add_recipient(&word.holder(), &options, &actor(), &world.work()).await.unwrap();
    let before = world.names("").await;
    let refused = world.rotate(&by, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let said = refused.to_string();
    assert!(
        said.contains(bert.id().as_str()) && said.contains("(offline)") && !said.contains(anna.id().as_str()),
        "{said}"
    );
    let stranger = Person::passphrase("correct horsf");
    let refused = world.rotate(&by, &[bert.holder(), stranger.holder()]).await.unwrap_err();
    assert!(refused.to_string().contains("not among the recipients"), "{refused}");
    let unknown = Person::raw(9).id();
    assert_eq!(world.remove(&by, &unknown, &[]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(world.names("").await, before);
    world.rotate(&by, &[bert.holder(), word.holder()]).await.unwrap();

    world.remove(&by, &bert.id(), &[word.holder()]).await.unwrap();
    let report = by.keys().await.unwrap();
    let words = report.recipients.iter().find(|r| r.label.is_some()).unwrap().recipient.parse().unwrap();
    world.remove(&by, &words, &[]).await.unwrap();
    let before = world.names("").await;
    let refused = world.remove(&by, &anna.id(), &[]).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::InvalidInput && refused.to_string().contains("last recipient"), "{refused}");
    assert_eq!(world.names("").await, before);
    assert!(world.lets_in(&anna).await && !world.lets_in(&word).await && !world.lets_in(&bert).await);
    world.guard.assert_clean();
}

#[tokio::test]
async fn wraps_that_are_planted_replaced_or_stripped_are_found_and_open_nothing() {
    let (anna, bert) = (Person::pair(1), Person::pair(2));
    let world = World::new(3, &[&anna, &bert]).await;
    let by = world.open(&anna).await.unwrap();
    world.rotate(&by, &[]).await.unwrap();
    let backup = (world.backup(&by, &content(1)).await.unwrap(), content(1));
    assert!(world.faults(&by).await.is_empty());
    // Somebody who can write to the store, and knows Anna's public key, would like her to use keys of his.
    let repository: RepositoryId = by.id();
    let forge = |epoch: u32| {
        let key = EpochKey::take(&mut [66; 32]);
        let entropy = backup_crypto::OsEntropy;
        anna.recipient().wrap(&key, repository, EpochId(epoch), &entropy).unwrap().encode()
    };
    let planted = ["keys/0001/a", "keys/0002/a", "keys/0003/a", "keys/0009/a"];
    for (name, epoch) in planted.into_iter().zip([1, 2, 3, 9]) {
        world.put(name, forge(epoch)).await;
    }
    let opened = world.open(&anna).await.unwrap();
    world.assert_restores(&opened, std::slice::from_ref(&backup), 0).await;
    let faults = world.faults(&opened).await;
    assert_eq!(faults.iter().map(|(object, _)| object.as_str()).collect::<Vec<_>>(), planted, "{faults:?}");
    assert!(faults.iter().all(|(_, problem)| problem.contains("somebody else")), "{faults:?}");
    let next = (world.backup(&opened, &content(2)).await.unwrap(), content(2));
    let packs = world.epochs_in(&format!("packs/{}", next.0.session)).await;
    assert!(packs.values().all(|epoch| *epoch == 2), "{packs:?}");
    world.rotate(&opened, &[]).await.unwrap();
    for name in planted {
        world.delete(name).await;
    }

    // In the place of Bert's wrap there is another, and of Anna's newest there is none.
    let of = |who: &Person, epoch: &str, names: &[String]| {
        let (folder, id) = (format!("keys/{epoch}/"), who.id());
        names.iter().find(|name| name.starts_with(&folder) && name.contains(id.as_str())).unwrap().clone()
    };
    let names = world.names("keys").await;
    let (replaced, stripped) = (of(&bert, "0002", &names), of(&anna, "0003", &names));
    let genuine = world.get(&replaced).await;
    world.delete(&replaced).await;
    world.put(&replaced, forge(2)).await;
    let held = world.get(&stripped).await;
    world.delete(&stripped).await;
    let faults = world.faults(&opened).await;
    assert_eq!(
        faults.iter().map(|(object, _)| object.clone()).collect::<Vec<_>>(),
        [replaced.clone(), stripped.clone()]
    );
    // Adding Anna again gives her what she lacks.
    world.delete(&replaced).await;
    world.put(&replaced, genuine).await;
    world.add(&opened, &anna).await.unwrap();
    assert!(world.faults(&opened).await.is_empty());
    world.put(&stripped, held).await;
    assert_eq!(world.faults(&opened).await.len(), 1, "it was replaced by another one");
    world.assert_restores(&world.open(&anna).await.unwrap(), &[backup, next], 0).await;
}

#[tokio::test]
async fn where_the_store_refuses_to_delete_it_is_said_what_is_left() {
    let (anna, bert) = (Person::pair(1), Person::pair(2));
    let world = World::new(4, &[&anna, &bert]).await;
    let by = world.open(&anna).await.unwrap();
    world.faults.set_plan(FaultPlan::quiet().with(Fault::DeleteDenied, 1.0));
    let changed = world.remove(&by, &bert.id(), &[]).await.unwrap();
    assert_eq!((changed.epoch, changed.deleted, changed.left.len()), (2, 0, 1));
    assert!(
        changed.left[0].object.contains(bert.id().as_str()) && changed.left[0].reason.contains("allow"),
        "{changed:?}"
    );
    assert_eq!(world.faults(&by).await.len(), 1);
    assert!(!world.lets_in(&bert).await, "what he can still open ends before the new epoch");
    world.faults.set_plan(FaultPlan::quiet());
    // The same again completes it.
    assert_eq!(world.remove(&by, &bert.id(), &[]).await.unwrap().deleted, 1);
    assert!(world.faults(&by).await.is_empty());
}

#[tokio::test]
async fn of_two_who_change_the_keys_at_once_both_have_their_way() {
    let people: Vec<_> = (1..6).map(Person::pair).collect();
    for seed in 0..20 {
        let world = World::new(seed, &[&people[0], &people[1]]).await;
        let (left, right) = (world.open(&people[0]).await.unwrap(), world.open(&people[1]).await.unwrap());
        world.faults.set_plan(FaultPlan::quiet().yields(5));
        let third = world.open(&people[1]).await.unwrap();
        let gone = people[1].id();
        let (added, begun, removed) = tokio::join!(world.add(&left, &people[2]), world.rotate(&right, &[]), async {
            if seed % 2 == 0 { Some(world.remove(&left, &gone, &[]).await) } else { None }
        },);
        added.unwrap();
        if let Some(removed) = removed {
            removed.unwrap();
            // Whoever is removed while he begins an epoch is told, or was quick enough.
            assert!(begun.is_ok() || begun.is_err_and(|e| e.kind() == ErrorKind::InvalidInput));
            assert!(!world.lets_in(&people[1]).await && third.catalog().await.is_err());
        } else {
            begun.unwrap();
            assert!(world.lets_in(&people[1]).await);
        }
        assert!(world.lets_in(&people[0]).await && world.lets_in(&people[2]).await, "seed {seed}");
        world.faults.set_plan(FaultPlan::quiet());
        left.tidy_keys(&actor(), &world.work()).await.unwrap();
        let faults = world.faults(&left).await;
        assert!(faults.is_empty(), "seed {seed}: {faults:?}");
        world.guard.assert_clean();
    }
}

#[tokio::test]
async fn a_session_that_is_open_goes_on_in_its_epoch() {
    let anna = Person::pair(1);
    let world = World::new(6, &[&anna]).await;
    let (by, other) = (world.open(&anna).await.unwrap(), world.open(&anna).await.unwrap());
    let session = by.begin(ParentChoice::None, &world.work()).await.unwrap();
    world.rotate(&other, &[]).await.unwrap();
    put(&*session, &content(1)).await.unwrap();
    let first = (session.commit(world.snapshot().await).await.unwrap(), content(1));
    let packs = world.epochs_in(&format!("packs/{}", first.0.session)).await;
    assert!(packs.values().all(|epoch| *epoch == 1), "{packs:?}");
    // Its commit is in the journal, and so in the present epoch. The next session is as a whole.
    assert_eq!(world.epochs_in("catalog").await.into_values().next_back(), Some(2));
    let second = (world.backup(&by, &content(2)).await.unwrap(), content(2));
    let packs = world.epochs_in(&format!("packs/{}", second.0.session)).await;
    assert!(packs.values().all(|epoch| *epoch == 2), "{packs:?}");
    assert!(world.faults(&by).await.is_empty());
    let unlock = Unlock::from(Arc::clone(&anna.identity));
    assert!(format!("{unlock:?}").contains('…'), "no secret is printed: {unlock:?}");
    world.assert_restores(&world.open(&anna).await.unwrap(), &[first, second], 0).await;
}

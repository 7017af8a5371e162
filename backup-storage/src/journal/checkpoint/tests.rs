use backup_core::env::Env;
use backup_crypto::{EpochId, EpochKey};

use super::super::tests::{Counter, genesis, journal, other, replace};
use super::*;
use crate::keyring::tests::keyring;

/// A journal of the numbers up to `count`, each in an entry of its own, after the first.
async fn filled(store: &Store, count: u64) -> Journal<Counter> {
    let journal = journal(store).await;
    for number in 1..=count {
        journal.commit(vec![number]).await.unwrap();
    }
    journal
}

async fn places(store: &Store) -> Vec<u64> {
    list(store).await.unwrap().into_iter().map(|(_, number)| number).collect()
}

/// How many objects were read since the last time.
fn gets(store: &Store) -> u64 {
    store.metrics().get.requests
}

#[tokio::test]
async fn a_history_is_read_from_its_last_checkpoint_on() {
    let store = Store::memory();
    let writer = filled(&store, 100).await;
    assert_eq!(writer.checkpoint(Due::After(64)).await.unwrap(), Some(101));
    for number in 101..=110 {
        writer.commit(vec![number]).await.unwrap();
    }
    let before = gets(&store);
    assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(110));
    let read = gets(&store) - before;
    // The checkpoint, its last entry, ten more, and the question what comes next.
    assert_eq!(read, 13);
    // What it is worth is decided by those who read: nothing depends on it.
    let name = layout::checkpoint(1, 101).unwrap();
    let good = store.get(&name).await.unwrap();
    for at in [0, 90, good.len() / 2, good.len() - 1] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        replace(&store, &name, bad).await;
        assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(110), "byte {at}");
    }
    replace(&store, &name, good[..good.len() / 3].to_vec()).await;
    assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(110));
    // A useless one is made anew when it is time, and that one is complete.
    assert_eq!(writer.checkpoint(Due::Now).await.unwrap(), Some(111));
    let before = gets(&store);
    assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(110));
    assert_eq!(gets(&store) - before, 3);
}

#[tokio::test]
async fn checkpoints_are_made_when_it_is_worth_it_and_old_ones_go() {
    let store = Store::memory();
    let writer = filled(&store, 10).await;
    assert_eq!(writer.checkpoint(Due::After(12)).await.unwrap(), None);
    assert_eq!(writer.checkpoint(Due::After(11)).await.unwrap(), Some(11));
    assert_eq!(writer.checkpoint(Due::Now).await.unwrap(), None, "nothing has happened since");
    let mut made = vec![11];
    for number in 11..=200 {
        writer.commit(vec![number]).await.unwrap();
        made.extend(writer.checkpoint(Due::After(4)).await.unwrap());
    }
    assert!(made.windows(2).all(|pair| pair[1] - pair[0] >= 4.max(pair[1] / SHARE)), "{made:?}");
    assert!(made.len() > 15 && made.len() < 30, "{made:?}");
    assert_eq!(places(&store).await, made[made.len() - 2..]);
    assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(200));
    // Two at the same time make the same.
    let (a, b) = (other(&store, 4), other(&store, 5));
    for number in 201..=300 {
        a.commit(vec![number]).await.unwrap();
    }
    let (one, two) = futures::join!(a.checkpoint(Due::Now), b.checkpoint(Due::Now));
    // Whoever comes when the other is done has nothing to do.
    let made = [one.unwrap(), two.unwrap()];
    assert!(made.contains(&Some(301)) && made.iter().all(|made| made.is_none_or(|number| number == 301)), "{made:?}");
    assert_eq!(*other(&store, 6).refresh().await.unwrap(), Counter(300));
}

#[tokio::test]
async fn a_store_that_brings_back_an_older_state_is_found_out() {
    let store = Store::memory();
    let writer = filled(&store, 20).await;
    writer.checkpoint(Due::Now).await.unwrap();
    store.delete(&layout::entry(1, 21).unwrap()).await.unwrap();
    store.delete(&layout::entry(1, 20).unwrap()).await.unwrap();
    let error = other(&store, 3).refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("is missing, though checkpoint"), "{error}");
    // A hole behind it is as bad as one before it.
    let store = Store::memory();
    let writer = filled(&store, 20).await;
    writer.checkpoint(Due::Now).await.unwrap();
    for number in 21..=24 {
        writer.commit(vec![number]).await.unwrap();
    }
    store.delete(&layout::entry(1, 23).unwrap()).await.unwrap();
    let error = other(&store, 3).refresh().await.unwrap_err();
    assert!(error.to_string().contains("00000000000000000023 is missing"), "{error}");
}

#[tokio::test]
async fn who_has_kept_an_older_key_cannot_tell_another_history() {
    let store = Store::memory();
    let writer = filled(&store, 20).await;
    writer.checkpoint(Due::Now).await.unwrap();
    let (rotated, key) = (keyring(1), EpochKey::take(&mut [9; 32]));
    let fingerprint = key.fingerprint(rotated.repository(), EpochId(2));
    rotated.offer(EpochId(2), [key]);
    assert!(rotated.confirm(EpochId(2), fingerprint));
    rotated.set_current(EpochId(2));
    let reader: Journal<Counter> = Journal::new(store.clone(), rotated.clone(), Env::seeded(3));
    let before = gets(&store);
    assert_eq!(*reader.refresh().await.unwrap(), Counter(20));
    assert!(gets(&store) - before > 21, "entry by entry");
    // The next one is made soon, and is of the present epoch.
    reader.commit(vec![21]).await.unwrap();
    assert_eq!(reader.checkpoint(Due::After(1000)).await.unwrap(), Some(22));
    let before = gets(&store);
    let next: Journal<Counter> = Journal::new(store.clone(), rotated, Env::seeded(4));
    assert_eq!(*next.refresh().await.unwrap(), Counter(21));
    assert_eq!(gets(&store) - before, 3);
}

#[tokio::test]
async fn a_new_generation_begins_without() {
    let store = Store::memory();
    let writer = filled(&store, 20).await;
    writer.checkpoint(Due::Now).await.unwrap();
    let (keys, env) = (keyring(1), Env::seeded(9));
    let next: Journal<Counter> = Journal::new(store.clone(), keys.clone(), env.clone());
    next.begin(2, genesis(&keys, &env), vec![1, 2]).await.unwrap();
    assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(2));
    next.commit(vec![3]).await.unwrap();
    assert_eq!(next.checkpoint(Due::Now).await.unwrap(), Some(2));
    assert_eq!(*other(&store, 3).refresh().await.unwrap(), Counter(3));
}

#[tokio::test]
async fn segments_are_filled_up_and_hold_whole_entries() {
    let store = Store::memory();
    let writer = filled(&store, 10).await;
    writer.checkpoint(Due::Now).await.unwrap();
    let keys = keyring(1);
    let object = store.get(&layout::checkpoint(1, 11).unwrap()).await.unwrap();
    let opened = open(&keys, (1, 11), &object).unwrap();
    assert_eq!(opened.parts.len(), 1);
    let mut growing = Growing::new(&keys, (1, 12), opened.parts).unwrap();
    for _ in 0..3 {
        growing.add(&Told { genesis: None, epoch: 1, events: vec![7_u64; SEGMENT - 100] }).unwrap();
    }
    let finished = growing.finish(&About { number: 12, ..opened.about }).unwrap();
    let opened = open(&keys, (1, 12), &finished.object).unwrap();
    assert_eq!(opened.parts.len(), 4);
    assert!(opened.parts.iter().all(|part| part.len() <= SEGMENT));
}

use super::*;
use crate::error::ErrorKind;
use crate::keyring::tests::keyring;
use backup_core::ServiceId;

/// The numbers 1, 2, 3 … in this order, each once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counter(pub(super) u64);

impl Fold for Counter {
    type Event = u64;

    fn apply(&mut self, event: &u64) -> std::result::Result<(), backup_core::Error> {
        if *event != self.0 + 1 {
            return Err(backup_core::Error::conflict(format!("{event} after {}", self.0)));
        }
        self.0 = *event;
        Ok(())
    }
}

pub(super) fn genesis(keyring: &Keyring, env: &Env) -> Genesis {
    Genesis {
        format: FORMAT,
        repository: *keyring.repository().as_bytes(),
        service: ServiceId::new("svc").unwrap(),
        suite: keyring.suite() as u8,
        created_at: env.now(),
        objects: Vec::new(),
        epochs: None,
    }
}

pub(super) async fn journal(store: &Store) -> Journal<Counter> {
    let keyring = keyring(1);
    let env = Env::seeded(2);
    let journal = Journal::new(store.clone(), keyring.clone(), env.clone());
    journal.begin(1, genesis(&keyring, &env), vec![]).await.unwrap();
    journal
}

/// A second process with other randomness.
pub(super) fn other(store: &Store, seed: u64) -> Journal<Counter> {
    Journal::new(store.clone(), keyring(1), Env::seeded(seed))
}

pub(super) async fn replace(store: &Store, name: &ObjectName, object: Vec<u8>) {
    store.delete(name).await.unwrap();
    assert!(store.create(name, object).await.unwrap().is_ours());
}

#[tokio::test]
async fn every_writer_and_reader_sees_one_history() {
    let store = Store::memory();
    let a = journal(&store).await;
    let b = other(&store, 3);
    a.commit(vec![1]).await.unwrap();
    b.commit(vec![2, 3]).await.unwrap();
    assert_eq!(a.commit(vec![4]).await.unwrap().number, 4);
    assert_eq!(other(&store, 4).refresh().await.unwrap().0, 4);
    // What does not fit what others did is refused, and leaves nothing behind.
    assert_eq!(b.commit(vec![4]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(b.commit(vec![5, 7]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(b.refresh().await.unwrap().0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_all_commit_once() {
    #[derive(Debug, Clone, Default)]
    struct Bag(Vec<u64>);
    impl Fold for Bag {
        type Event = u64;
        fn apply(&mut self, event: &u64) -> std::result::Result<(), backup_core::Error> {
            self.0.push(*event);
            Ok(())
        }
    }
    let store = Store::memory();
    let (keys, env) = (keyring(1), Env::seeded(2));
    let first: Journal<Bag> = Journal::new(store.clone(), keys.clone(), env.clone());
    first.begin(1, genesis(&keys, &env), vec![]).await.unwrap();
    let writers = (0..8_u64).map(|w| {
        let journal: Journal<Bag> = Journal::new(store.clone(), keyring(1), Env::seeded(100 + w));
        tokio::spawn(async move {
            for n in 0..10 {
                journal.commit(vec![w * 100 + n]).await.unwrap();
            }
        })
    });
    futures::future::try_join_all(writers).await.unwrap();
    let mut all = first.refresh().await.unwrap().0.clone();
    for writer in 0..8 {
        let own: Vec<_> = all.iter().filter(|e| **e / 100 == writer).copied().collect();
        assert!(own.is_sorted() && own.len() == 10, "{own:?}");
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 80);
}

#[tokio::test]
async fn a_missing_entry_is_damage_not_the_end_of_history() {
    let store = Store::memory();
    let a = journal(&store).await;
    for n in 1..=4 {
        a.commit(vec![n]).await.unwrap();
    }
    store.delete(&layout::entry(1, 3).unwrap()).await.unwrap();
    let error = other(&store, 9).refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("catalog/0001/00000000000000000003"), "{error}");
    assert_eq!(other(&store, 9).commit(vec![3]).await.unwrap_err().kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn entries_that_were_altered_or_swapped_are_noticed() {
    let store = Store::memory();
    let a = journal(&store).await;
    for n in 1..=3 {
        a.commit(vec![n]).await.unwrap();
    }
    let (second, third) = (layout::entry(1, 2).unwrap(), layout::entry(1, 3).unwrap());
    let (two, three) = (store.get(&second).await.unwrap(), store.get(&third).await.unwrap());
    replace(&store, &second, three.to_vec()).await;
    assert_eq!(other(&store, 9).refresh().await.unwrap_err().kind(), ErrorKind::Damaged);
    let mut flipped = two.to_vec();
    flipped[90] ^= 1;
    replace(&store, &second, flipped).await;
    assert_eq!(other(&store, 9).refresh().await.unwrap_err().kind(), ErrorKind::Damaged);
    replace(&store, &second, two.to_vec()).await;
    assert_eq!(other(&store, 9).refresh().await.unwrap().0, 3);
}

#[tokio::test]
async fn another_history_under_the_same_numbers_is_noticed() {
    // Both stores are of one repository: somebody restored an old copy of the vault and went on.
    let (mine, theirs) = (Store::memory(), Store::memory());
    let a = journal(&mine).await;
    a.commit(vec![1]).await.unwrap();
    for n in 1..=2 {
        let name = layout::entry(1, n).unwrap();
        assert!(theirs.create(&name, mine.get(&name).await.unwrap()).await.unwrap().is_ours());
    }
    a.commit(vec![2]).await.unwrap();
    other(&theirs, 5).commit(vec![2]).await.unwrap();
    a.commit(vec![3]).await.unwrap();
    let third = layout::entry(1, 3).unwrap();
    replace(&mine, &third, theirs.get(&third).await.unwrap().to_vec()).await;
    let error = other(&mine, 9).refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("does not follow"), "{error}");
}

#[tokio::test]
async fn writers_of_an_older_generation_stop() {
    let store = Store::memory();
    let a = journal(&store).await;
    a.commit(vec![1]).await.unwrap();
    let b = other(&store, 3);
    b.begin(2, genesis(&keyring(1), &Env::seeded(3)), vec![1, 2]).await.unwrap();
    // A writer that has not noticed folds the new generation before it commits.
    assert_eq!(a.commit(vec![3]).await.unwrap().generation, 2);
    assert_eq!(b.refresh().await.unwrap().0, 3);
    let again = other(&store, 4).begin(2, genesis(&keyring(1), &Env::seeded(4)), vec![]).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn whoever_has_kept_the_key_of_an_epoch_that_is_over_cannot_go_on_with_the_journal() {
    use backup_core::catalog::{Actor, Catalog, Event, KeyChange, Role, Wrap};
    use backup_crypto::EpochKey;
    let (store, env, keys) = (Store::memory(), Env::seeded(2), keyring(1));
    let key = EpochKey::take(&mut [2; 32]);
    let fingerprint = *key.fingerprint(keys.repository(), EpochId(2)).as_bytes();
    let mut genesis = genesis(&keys, &env);
    genesis.objects.push(PlainObject { name: "keys/0001/key-1".to_owned(), digest: [0; 32] });
    let journal: Journal<Catalog> = Journal::new(store.clone(), keys.clone(), env.clone());
    journal.begin(1, genesis, Vec::new()).await.unwrap();
    let name = "keys/0002/key-1.0".to_owned();
    let wrap = Wrap { epoch: 2, recipient: "key-1".to_owned(), name: name.clone(), digest: [1; 32] };
    let event = |change| Event::Keys { change, by: Actor::new(Role::Operator, "test"), at: env.now() };
    keys.offer(EpochId(2), [key.clone()]);
    journal.commit(vec![event(KeyChange::Announced { wraps: vec![wrap], epoch: Some(2) })]).await.unwrap();
    let begun = KeyChange::EpochBegun { epoch: 2, fingerprint, wraps: vec![name], removed: Vec::new() };
    let place = journal.commit(vec![event(begun)]).await.unwrap();
    let hold = || Event::SessionOpened {
        session: backup_core::SessionId::mint(&env),
        at: env.now(),
        parent: None,
        adopted: Vec::new(),
    };
    // He has the key of epoch 1, and can write to the store.
    let old = keys.pinned_to(EpochId(1));
    let (name, object) = journal.entry(&old, (1, place.number + 1), place.digest, None, vec![hold()]).unwrap();
    assert!(store.create(&name, object).await.unwrap().is_ours());
    let reader = || {
        let keys = keyring(1);
        keys.offer(EpochId(2), [key.clone()]);
        Journal::<Catalog>::new(store.clone(), keys, env.clone())
    };
    // It is passed over.
    let first = reader();
    let state = first.refresh().await.unwrap();
    assert_eq!((state.keys().current(), state.sessions().count()), (2, 0));
    let place = first.commit(vec![hold()]).await.unwrap();
    let own = layout::entry(1, place.number).unwrap();
    assert!(own > name);
    assert_eq!(keys::epoch_of(&own, &store.get(&own).await.unwrap()).unwrap(), EpochId(2));
    assert_eq!(reader().refresh().await.unwrap().sessions().count(), 1);
}

/// What somebody without a key can put: nothing, noise, an entry of another name, and one that was altered where it says what it is.
async fn planted(store: &Store) -> [Vec<u8>; 4] {
    let other = store.get(&layout::entry(1, 2).unwrap()).await.unwrap().to_vec();
    let mut altered = other.clone();
    altered[60] ^= 1;
    [Vec::new(), vec![7; 200], other, altered]
}

#[tokio::test]
async fn what_lies_where_the_next_entry_belongs_is_passed_over_by_everybody() {
    let store = Store::memory();
    let a = journal(&store).await;
    a.commit(vec![1]).await.unwrap();
    let mut last = 1;
    for object in planted(&store).await {
        let place = a.place().await.unwrap();
        // Two in a row, and one behind a hole that is reached later.
        for ahead in [1, 2, 4] {
            let name = layout::entry(1, place.number + ahead).unwrap();
            assert!(store.create(&name, object.clone()).await.unwrap().is_ours());
        }
        assert_eq!(other(&store, 9).refresh().await.unwrap().0, last);
        assert_eq!(a.commit(vec![last + 1]).await.unwrap().number, place.number + 3);
        assert_eq!(a.commit(vec![last + 2]).await.unwrap().number, place.number + 5);
        last += 2;
        assert_eq!(other(&store, 9).refresh().await.unwrap().0, last);
    }
    // A checkpoint tells the same.
    a.checkpoint(Due::Now).await.unwrap();
    let reader = other(&store, 9);
    assert_eq!(reader.refresh().await.unwrap().0, last);
    let passed = reader.passed().await.unwrap();
    assert_eq!((passed.1.len(), &passed), (12, &a.passed().await.unwrap()));
    // The next one is not made of what was planted among checkpoints.
    for number in [1_000, u64::MAX] {
        assert!(store.create(&layout::checkpoint(1, number).unwrap(), vec![1; 300]).await.unwrap().is_ours());
    }
    a.commit(vec![last + 1]).await.unwrap();
    assert_eq!(a.checkpoint(Due::Now).await.unwrap(), Some(a.place().await.unwrap().number));
    assert_eq!(other(&store, 9).refresh().await.unwrap().0, last + 1);
}

#[tokio::test]
async fn a_generation_that_nobody_with_a_key_has_begun_is_none() {
    let store = Store::memory();
    let a = journal(&store).await;
    a.commit(vec![1]).await.unwrap();
    for (generation, object) in [2, 3, 9, u32::MAX].into_iter().zip(planted(&store).await) {
        assert!(store.create(&layout::entry(generation, 1).unwrap(), object).await.unwrap().is_ours());
    }
    let b = other(&store, 9);
    assert_eq!(b.refresh().await.unwrap().0, 1);
    assert_eq!(a.commit(vec![2]).await.unwrap().generation, 1);
    assert_eq!(b.commit(vec![3]).await.unwrap().generation, 1);
    // One that is begun is found behind them, by those who were there before as well.
    let next = b.next_generation(1).await.unwrap();
    assert_eq!(next, 4);
    b.begin(next, genesis(&keyring(1), &Env::seeded(3)), vec![1]).await.unwrap();
    assert_eq!(a.commit(vec![2]).await.unwrap().generation, 4);
    assert_eq!(other(&store, 8).refresh().await.unwrap().0, 2);
}

#[tokio::test]
async fn an_entry_that_was_destroyed_is_not_taken_for_something_planted() {
    for destroyed in 2..=4 {
        let store = Store::memory();
        let a = journal(&store).await;
        for n in 1..=3 {
            a.commit(vec![n]).await.unwrap();
        }
        let name = layout::entry(1, destroyed).unwrap();
        let whole = store.get(&name).await.unwrap().to_vec();
        // Its body: it was an entry, also if it is the last one.
        let mut torn = whole.clone();
        torn[whole.len() - 1] ^= 1;
        replace(&store, &name, torn).await;
        assert_eq!(other(&store, 9).refresh().await.unwrap_err().kind(), ErrorKind::Damaged);
        // Its header: whoever came behind it knows that it was one, and so does whoever has read it.
        let mut headless = whole;
        headless[60] ^= 1;
        replace(&store, &name, headless).await;
        let read = other(&store, 9).refresh().await;
        match destroyed {
            4 => assert_eq!(read.unwrap().0, 2, "nobody came behind it"),
            _ => assert_eq!(read.unwrap_err().kind(), ErrorKind::Damaged),
        }
        a.commit(vec![4]).await.unwrap();
        assert_eq!(other(&store, 9).refresh().await.unwrap_err().kind(), ErrorKind::Damaged);
    }
}

//! Rules about putting and deleting.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;

use super::{Capabilities, expect, name, noise, put};
use crate::store::{Created, Store};

pub(super) async fn a_second_put_changes_nothing(store: &Store) {
    let rule = "a second put changes nothing";
    let object = name("a/b");
    expect(store.create(&object, "first").await, Created::New, rule);
    expect(store.create(&object, "other").await, Created::Conflict, rule);
    expect(store.create(&object, "much longer than the first").await, Created::Conflict, rule);
    expect(store.create(&object, "").await, Created::Conflict, rule);
    expect(store.create(&object, "first").await, Created::AlreadyOurs, rule);
    assert_eq!(store.get(&object).await.expect(rule), "first", "{rule}");
}

pub(super) async fn a_race_has_exactly_one_winner(store: &Store, caps: &Capabilities) {
    let rule = "a race has exactly one winner";
    for (race, len) in (0..caps.races).zip([10usize, 1 << 20].into_iter().cycle()) {
        let object = name(&format!("{race:04}"));
        let bodies: Vec<Bytes> = (0..caps.racers).map(|racer| noise(racer as u64 * 2 + 1, len).into()).collect();
        let tasks: Vec<_> = bodies
            .iter()
            .map(|body| {
                let (store, object, body) = (store.clone(), object.clone(), body.clone());
                tokio::spawn(async move { store.create(&object, body).await })
            })
            .collect();
        let outcomes = join_all(tasks).await;
        let mut winners = Vec::new();
        for (outcome, body) in outcomes.into_iter().zip(&bodies) {
            match outcome.expect("the racer lives").unwrap_or_else(|error| panic!("{rule}: {error}")) {
                Created::New | Created::AlreadyOurs => winners.push(body),
                Created::Conflict => {}
            }
        }
        assert_eq!(winners.len(), 1, "{rule}: race {race} with bodies of {len} bytes");
        assert!(store.get(&object).await.expect(rule) == *winners[0], "{rule}: race {race} left another body");
    }
}

pub(super) async fn what_is_put_is_seen_at_once(store: &Store) {
    let rule = "what is put is seen at once";
    for number in 0..10u64 {
        let object = name(&format!("x/{number:03}"));
        // Asking first tempts a store that caches absence.
        assert!(store.head(&object).await.expect(rule).is_none(), "{rule}: before the put");
        let body = noise(number + 1, 100 + usize::try_from(number).expect("small"));
        put(store, object.as_str(), body.clone()).await;
        assert_eq!(store.get(&object).await.expect(rule), body, "{rule}");
        let meta = store.head(&object).await.expect(rule).expect(rule);
        assert_eq!((meta.size, &meta.name), (body.len() as u64, &object), "{rule}");
        let listed: Vec<_> = store.list("x").map(|meta| meta.expect(rule).name).collect().await;
        assert_eq!(listed.len() as u64, number + 1, "{rule}: by listing");
        assert!(listed.contains(&object), "{rule}: by listing");
    }
}

pub(super) async fn a_dropped_put_leaves_no_part(store: &Store, caps: &Capabilities) {
    let rule = "a dropped put leaves no part";
    let body = Bytes::from(noise(5, caps.large.min(4 << 20)));
    for polls in [1usize, 2, 3, 5, 8] {
        let object = name(&format!("{polls}"));
        {
            let mut future = pin!(store.create(&object, body.clone()));
            for _ in 0..polls {
                let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if let Poll::Ready(outcome) = polled {
                    expect(outcome, Created::New, rule);
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        match store.get(&object).await {
            Ok(found) => assert!(found == body, "{rule}: after {polls} polls {} bytes are there", found.len()),
            Err(error) => assert!(error.is_not_found(), "{rule}: {error}"),
        }
        let again = store.create(&object, body.clone()).await.expect(rule);
        assert!(again.is_ours(), "{rule}: putting again gave {again:?}");
        assert!(store.get(&object).await.expect(rule) == body, "{rule}: after putting again");
    }
}

pub(super) async fn every_name_of_the_alphabet_comes_back(store: &Store) {
    let rule = "every name of the alphabet comes back";
    let deep = vec!["d"; 20].join("/");
    let long = format!("{}/{}", "l".repeat(99), "m".repeat(60));
    let names = [
        "abcdefghijklmnopqrstuvwxyz0123456789._-",
        "a.b",
        "a..b",
        "..a",
        ".hidden",
        "-dash",
        "_",
        "con",
        "a-b/c",
        "a/c",
        &deep,
        &long,
    ];
    for text in names {
        put(store, text, text.as_bytes().to_vec()).await;
    }
    for text in names {
        assert_eq!(store.get(&name(text)).await.expect(rule), text, "{rule}");
    }
    let mut expected = names.to_vec();
    expected.sort_unstable();
    let listed: Vec<_> = store.list("").map(|meta| meta.expect(rule).name.to_string()).collect().await;
    assert_eq!(listed, expected, "{rule}");
}

pub(super) async fn ropes_arrive_in_order(store: &Store) {
    let rule = "ropes arrive in order";
    let chunks: Vec<Bytes> =
        (0..50).map(|chunk| noise(chunk + 1, usize::try_from(chunk * 997).expect("small")).into()).collect();
    put(store, "rope", chunks.clone()).await;
    assert!(store.get(&name("rope")).await.expect(rule) == chunks.concat(), "{rule}");
    expect(store.create(&name("rope"), chunks.concat()).await, Created::AlreadyOurs, rule);
}

pub(super) async fn deleting_is_idempotent(store: &Store) {
    let rule = "deleting is idempotent";
    store.delete(&name("never-there")).await.expect(rule);
    for text in ["a", "b", "c"] {
        put(store, text, "x").await;
    }
    let names = ["a", "missing-1", "c", "missing-2"].map(name);
    let mut gone: Vec<_> = store
        .delete_many(futures::stream::iter(names.clone()))
        .map(|(name, outcome)| outcome.map(|()| name).expect(rule))
        .collect()
        .await;
    gone.sort_unstable();
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(gone, expected, "{rule}");
    for (text, there) in [("a", false), ("b", true), ("c", false)] {
        assert_eq!(store.head(&name(text)).await.expect(rule).is_some(), there, "{rule}: {text}");
    }
    store.delete(&name("b")).await.expect(rule);
    store.delete(&name("b")).await.expect(rule);
    assert!(store.get(&name("b")).await.expect_err(rule).is_not_found(), "{rule}");
}

pub(super) async fn a_deleted_name_can_be_created(store: &Store) {
    let rule = "a deleted name can be created";
    let object = name("a");
    expect(store.create(&object, "first").await, Created::New, rule);
    store.delete(&object).await.expect(rule);
    expect(store.create(&object, "second").await, Created::New, rule);
    assert_eq!(store.get(&object).await.expect(rule), "second", "{rule}");
}

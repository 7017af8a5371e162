//! Rules about reading and listing.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;

use super::{Capabilities, name, noise, put};
use crate::error::{Error, ErrorKind};
use crate::store::Store;

pub(super) async fn empty_and_large_objects_come_back(store: &Store, caps: &Capabilities) {
    let rule = "empty and large objects come back";
    for len in [0, 1, 8 << 10, caps.large] {
        let object = name(&format!("{len}"));
        let body = Bytes::from(noise(len as u64 + 3, len));
        put(store, object.as_str(), body.clone()).await;
        assert!(store.get(&object).await.expect(rule) == body, "{rule}: {len} bytes");
        assert_eq!(store.head(&object).await.expect(rule).expect(rule).size, len as u64, "{rule}");
    }
}

pub(super) async fn ranges_are_slices(store: &Store) {
    let rule = "ranges are slices";
    let body = Bytes::from(noise(11, 3 << 20));
    put(store, "body", body.clone()).await;
    let object = name("body");
    let len = body.len() as u64;
    let slice = |range: &Range<u64>| {
        body.slice(usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small"))
    };
    // Neighbours, overlaps, repeats, gaps near and far, backward order, empty ones.
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range of any shape is empty")]
    let ranges = [
        0..1,
        0..len,
        1..2,
        2..100,
        50..150,
        50..150,
        len - 1..len,
        (2 << 20)..(2 << 20) + 5,
        7..7,
        9..3,
        100..101,
        len..len,
    ];
    for range in &ranges {
        let expected = if range.is_empty() { Bytes::new() } else { slice(range) };
        assert!(store.get_range(&object, range.clone()).await.expect(rule) == expected, "{rule}: {range:?}");
    }
    let parts = store.get_ranges(&object, &ranges).await.expect(rule);
    assert_eq!(parts.len(), ranges.len(), "{rule}");
    for (part, range) in parts.iter().zip(&ranges) {
        let expected = if range.is_empty() { Bytes::new() } else { slice(range) };
        assert!(*part == expected, "{rule}: {range:?} among many");
    }
    assert!(store.get_ranges(&object, &[]).await.expect(rule).is_empty(), "{rule}: none");
}

pub(super) async fn ranges_past_the_end_are_refused(store: &Store) {
    let rule = "ranges past the end are refused";
    put(store, "ten", "0123456789").await;
    put(store, "empty", "").await;
    for (object, range, len) in
        [("ten", 0..11, 10), ("ten", 9..11, 10), ("ten", 10..11, 10), ("ten", 50..60, 10), ("empty", 0..1, 0)]
    {
        let refused = |outcome: Result<(), Error>| match outcome {
            Err(Error::Truncated { start, end, len: found, .. }) => {
                assert_eq!((start..end, found), (range.clone(), len), "{rule}: {object}");
            }
            other => panic!("{rule}: {range:?} of {object} gave {other:?}"),
        };
        refused(store.get_range(&name(object), range.clone()).await.map(drop));
        refused(store.get_ranges(&name(object), std::slice::from_ref(&range)).await.map(drop));
    }
    let mixed = store.get_ranges(&name("ten"), &[0..3, 5..20]).await;
    assert_eq!(mixed.expect_err(rule).kind(), ErrorKind::Damaged, "{rule}: one of several");
}

pub(super) async fn suffixes_are_slices_and_tell_the_length(store: &Store) {
    let rule = "suffixes are slices and tell the length";
    put(store, "ten", "0123456789").await;
    put(store, "empty", "").await;
    for (object, len, expected, total) in [
        ("ten", 3, "789", 10),
        ("ten", 10, "0123456789", 10),
        ("ten", 99, "0123456789", 10),
        ("ten", 0, "", 10),
        ("empty", 5, "", 0),
        ("empty", 0, "", 0),
    ] {
        let (bytes, found) = store.get_suffix(&name(object), len).await.expect(rule);
        assert_eq!((&bytes[..], found), (expected.as_bytes(), total), "{rule}: {len} of {object}");
    }
}

#[expect(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
pub(super) async fn a_missing_object_is_not_found(store: &Store) {
    let rule = "a missing object is not found";
    put(store, "there", "x").await;
    for text in ["nowhere", "no/where/at-all", "ther"] {
        let object = name(text);
        let full = format!("{}/{text}", store.prefix());
        let check = |error: Error| match error {
            Error::NotFound { name, .. } => assert_eq!(name, full, "{rule}"),
            other => panic!("{rule}: {text} gave {other:?}"),
        };
        check(store.get(&object).await.expect_err(rule));
        check(store.get_range(&object, 0..1).await.expect_err(rule));
        check(store.get_ranges(&object, &[0..1]).await.expect_err(rule));
        check(store.get_suffix(&object, 1).await.expect_err(rule));
        check(store.get_suffix(&object, 0).await.expect_err(rule));
        assert!(store.head(&object).await.expect(rule).is_none(), "{rule}");
    }
}

pub(super) async fn listings_are_sorted_and_whole(store: &Store) {
    let rule = "listings are sorted and whole";
    assert_eq!(store.list("").count().await, 0, "{rule}: a folder that was never written");
    // '-' and '.' sort before '/', which sorts before digits: whole names are compared, not components.
    let mut names = ["a-b", "a.b", "a/1", "a/10", "a/2", "a/b/c", "a0", "ab/1", "b"].map(name).to_vec();
    names.extend((0..30).map(|number| name(&format!("many/{number:020}"))));
    for (number, object) in names.iter().enumerate().rev() {
        put(store, object.as_str(), noise(number as u64, number)).await;
    }
    let list: Vec<_> = store.list("").map(|meta| meta.expect(rule)).collect().await;
    assert!(list.iter().map(|meta| &meta.name).eq(&names), "{rule}: {list:?}");
    for (number, meta) in list.iter().enumerate() {
        assert_eq!(meta.size, number as u64, "{rule}: size of {}", meta.name);
    }
    let inside: Vec<_> = store.list("a").map(|meta| meta.expect(rule).name.to_string()).collect().await;
    assert_eq!(inside, ["a/1", "a/10", "a/2", "a/b/c"], "{rule}: folders are whole components");
    let after: Vec<_> = store.list_after("many", &names[9 + 24]).map(|meta| meta.expect(rule).name).collect().await;
    assert_eq!(after, names[9 + 25..], "{rule}: behind a name, that name excluded");
    let below = store.at("many").expect(rule);
    assert_eq!(
        below.list("").next().await.expect(rule).expect(rule).name,
        name("00000000000000000000"),
        "{rule}: names are relative"
    );
}

pub(super) async fn folders_are_listed_without_their_content(store: &Store) {
    let rule = "folders are listed without their content";
    for text in ["x/b/1", "x/b/2", "x/a/1/2/3", "x/c", "y/d/1"] {
        put(store, text, "x").await;
    }
    assert_eq!(store.list_dirs("x").await.expect(rule), ["a", "b"], "{rule}");
    assert_eq!(store.list_dirs("").await.expect(rule), ["x", "y"], "{rule}");
    assert!(store.list_dirs("nowhere").await.expect(rule).is_empty(), "{rule}");
}

//! What every store must do before a repository may trust it, as code. Third parties run it against theirs.
//!
//! Each rule is a function named after what it demands; [`run`] calls them all. A broken rule panics with the rule and the
//! difference, as a test does. All objects lie under a random folder and are deleted afterwards.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() {
//! use backup_storage::conformance::{Capabilities, run};
//! run(&backup_storage::store::Store::memory(), Capabilities::default()).await;
//! # }
//! ```

mod reads;
mod writes;

use futures::StreamExt;

use crate::store::{Created, ObjectName, Store};

/// What a store claims to be able to do; rules about anything else are left out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Capabilities {
    /// Objects can be deleted. Off for append-only credentials and object lock; then nothing is cleaned up.
    pub delete: bool,
    /// A deleted name can be created again. Off for stores that keep versions and count a deletion among them; a repository never asks
    /// for it.
    pub recreate: bool,
    /// Bodies of this many bytes are written and read. 33 MiB by default: above the limits of clients and proxies that are
    /// commonly set to 32 MiB.
    pub large: usize,
    /// How many writers race for one name. 64 by default, all of them in flight at once.
    pub racers: usize,
    /// How many races there are.
    pub races: usize,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { delete: true, recreate: true, large: 33 << 20, racers: 64, races: 4 }
    }
}

impl Capabilities {
    /// Sets [`Capabilities::delete`].
    #[must_use]
    pub fn delete(mut self, delete: bool) -> Self {
        self.delete = delete;
        self
    }

    /// Sets [`Capabilities::recreate`].
    #[must_use]
    pub fn recreate(mut self, recreate: bool) -> Self {
        self.recreate = recreate;
        self
    }

    /// Sets [`Capabilities::large`].
    #[must_use]
    pub fn large(mut self, bytes: usize) -> Self {
        self.large = bytes;
        self
    }

    /// Sets [`Capabilities::racers`] and [`Capabilities::races`].
    #[must_use]
    pub fn races(mut self, races: usize, racers: usize) -> Self {
        self.races = races;
        self.racers = racers;
        self
    }
}

/// Holds `store` to every rule.
///
/// # Panics
/// When a rule is broken.
pub async fn run(store: &Store, caps: Capabilities) {
    let unique = u128::from_le_bytes(store.env().random());
    let root = store.at(&format!("conformance-{unique:032x}")).expect("the folder's name is valid");
    let place = |rule: &str| root.at(rule).expect("the rule's name is valid");

    store.probe_exclusive_create().await.expect("the store honours create-only puts");
    writes::a_second_put_changes_nothing(&place("second")).await;
    writes::a_race_has_exactly_one_winner(&place("race"), &caps).await;
    writes::what_is_put_is_seen_at_once(&place("seen")).await;
    writes::a_dropped_put_leaves_no_part(&place("dropped"), &caps).await;
    writes::every_name_of_the_alphabet_comes_back(&place("names")).await;
    writes::ropes_arrive_in_order(&place("ropes")).await;
    reads::empty_and_large_objects_come_back(&place("sizes"), &caps).await;
    reads::ranges_are_slices(&place("ranges")).await;
    reads::ranges_past_the_end_are_refused(&place("past")).await;
    reads::suffixes_are_slices_and_tell_the_length(&place("suffix")).await;
    reads::a_missing_object_is_not_found(&place("missing")).await;
    reads::listings_are_sorted_and_whole(&place("list")).await;
    reads::folders_are_listed_without_their_content(&place("folders")).await;
    if caps.delete {
        writes::deleting_is_idempotent(&place("delete")).await;
        if caps.recreate {
            writes::a_deleted_name_can_be_created(&place("recreate")).await;
        }
        remove_all(&root).await;
    }
}

/// Deletes everything in `store`.
async fn remove_all(store: &Store) {
    let mut names = Vec::new();
    let mut list = store.list("");
    while let Some(meta) = list.next().await {
        names.push(meta.expect("list").name);
    }
    let mut outcomes = store.delete_many(futures::stream::iter(names));
    while let Some((name, outcome)) = outcomes.next().await {
        outcome.unwrap_or_else(|error| panic!("delete {name}: {error}"));
    }
    assert!(store.list("").next().await.is_none(), "everything was deleted");
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("a valid name")
}

/// Creates an object that cannot be there yet.
async fn put(store: &Store, text: &str, body: impl Into<crate::store::PutBody> + Send) {
    let created = store.create(&name(text), body).await.unwrap_or_else(|error| panic!("create {text}: {error}"));
    assert!(created.is_ours(), "create {text} in a fresh folder: {created:?}");
}

/// Bytes that look random and differ by `seed`.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // Xorshift: any pattern without long repeats does.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Whether an outcome of a put is the one that the rule expects.
fn expect(outcome: crate::error::Result<Created>, expected: Created, rule: &str) {
    match outcome {
        Ok(created) => assert_eq!(created, expected, "{rule}"),
        Err(error) => panic!("{rule}: {error}"),
    }
}

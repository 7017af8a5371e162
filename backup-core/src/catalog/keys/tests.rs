use super::*;

fn wrap(recipient: &str, epoch: u32, attempt: u8) -> Wrap {
    let name = format!("keys/{epoch:04}/{recipient}.{attempt}");
    Wrap { epoch, recipient: recipient.to_owned(), name, digest: [attempt; 32] }
}

fn names(wraps: &[Wrap]) -> Vec<String> {
    wraps.iter().map(|wrap| wrap.name.clone()).collect()
}

/// Two recipients in epoch 1.
fn state() -> KeyState {
    KeyState::begin(1, [(1, Some([1; 16]))], [wrap("a", 1, 0), wrap("b", 1, 0)])
}

fn begin(state: &mut KeyState, epoch: u32, of: &[&str], removed: &[&str]) -> Result<(), KeyRejected> {
    let wraps: Vec<_> = of.iter().map(|name| wrap(name, epoch, 1)).collect();
    state.apply(&KeyChange::Announced { wraps: wraps.clone(), epoch: Some(epoch) })?;
    let removed = removed.iter().map(|name| (*name).to_owned()).collect();
    state.apply(&KeyChange::EpochBegun { epoch, fingerprint: [epoch as u8; 16], wraps: names(&wraps), removed })
}

fn add(recipient: &str, wraps: &[Wrap]) -> KeyChange {
    let (recipient, wraps) = (recipient.to_owned(), names(wraps));
    KeyChange::Added { recipient, label: Some("L".to_owned()), public: None, wraps }
}

#[test]
fn an_epoch_begins_for_exactly_those_who_stay() {
    let mut state = state();
    let uncovered = KeyRejected::Uncovered { recipient: "b".to_owned(), epoch: 2 };
    assert_eq!(begin(&mut state.clone(), 2, &["a"], &[]), Err(uncovered));
    assert!(matches!(begin(&mut state.clone(), 2, &["a", "b"], &["b"]), Err(KeyRejected::NotAnnounced(_))));
    assert!(matches!(begin(&mut state.clone(), 2, &["a", "b", "c"], &[]), Err(KeyRejected::NotAnnounced(_))));
    assert_eq!(begin(&mut state.clone(), 2, &[], &["a", "b"]), Err(KeyRejected::LastRecipient));
    assert_eq!(begin(&mut state.clone(), 2, &["a"], &["x"]), Err(KeyRejected::NoRecipient("x".to_owned())));
    assert_eq!(begin(&mut state.clone(), 1, &["a", "b"], &[]), Err(KeyRejected::EpochTaken(1)));
    begin(&mut state, 2, &["a"], &["b"]).unwrap();
    assert_eq!(state.current(), 2);
    assert_eq!(state.present().collect::<Vec<_>>(), ["a"]);
    assert_eq!(state.gone().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["keys/0001/b.0"]);
    assert_eq!(state.wraps().count(), 2);
    assert_eq!(begin(&mut state, 3, &[], &["a"]), Err(KeyRejected::LastRecipient));
    assert_eq!(state.next(), Ok(4), "a number is taken once it was announced");
}

#[test]
fn whoever_did_not_know_of_an_epoch_begins_again() {
    let mut state = state();
    let late = [wrap("c", 1, 7)];
    state.apply(&KeyChange::Announced { wraps: late.to_vec(), epoch: None }).unwrap();
    let other = [wrap("a", 2, 9), wrap("b", 2, 9)];
    state.apply(&KeyChange::Announced { wraps: other.to_vec(), epoch: Some(2) }).unwrap();
    begin(&mut state, 3, &["a", "b"], &[]).unwrap();
    assert!(matches!(state.apply(&add("c", &late)), Err(KeyRejected::NotAnnounced(_))));
    let begun = KeyChange::EpochBegun { epoch: 2, fingerprint: [2; 16], wraps: names(&other), removed: Vec::new() };
    assert!(state.apply(&begun).is_err());
    assert_eq!(state.gone().count(), 3);
    // With all the epochs it fits.
    let wraps = [wrap("c", 1, 8), wrap("c", 3, 8)];
    assert!(state.apply(&KeyChange::Announced { wraps: late.to_vec(), epoch: None }).is_err(), "a name has one use");
    state.apply(&KeyChange::Announced { wraps: wraps.to_vec(), epoch: None }).unwrap();
    let uncovered = KeyRejected::Uncovered { recipient: "c".to_owned(), epoch: 3 };
    assert_eq!(state.apply(&add("c", &wraps[..1])), Err(uncovered));
    assert!(matches!(state.apply(&add("a", &wraps)), Err(KeyRejected::NotAnnounced(_))));
    state.apply(&add("c", &wraps)).unwrap();
    assert_eq!(state.recipient("c").unwrap().wraps.len(), 2);
    assert_eq!(state.recipient("c").unwrap().label.as_deref(), Some("L"));
}

#[test]
fn wraps_that_are_replaced_or_given_up_are_gone() {
    let mut state = state();
    let (first, second) = ([wrap("a", 1, 1)], [wrap("a", 1, 2)]);
    for wraps in [&first, &second] {
        state.apply(&KeyChange::Announced { wraps: wraps.to_vec(), epoch: None }).unwrap();
    }
    state.apply(&add("a", &second)).unwrap();
    let gone: Vec<_> = state.gone().map(|w| w.name.as_str()).collect();
    assert_eq!(gone, ["keys/0001/a.0", "keys/0001/a.1"]);
    let third = [wrap("z", 1, 3)];
    state.apply(&KeyChange::Announced { wraps: third.to_vec(), epoch: None }).unwrap();
    state.apply(&KeyChange::Abandoned { wraps: names(&third) }).unwrap();
    assert!(state.apply(&KeyChange::Abandoned { wraps: names(&third) }).is_err());
    assert_eq!((state.announced().count(), state.gone().count()), (0, 3));
    assert_eq!(KeyState::default().apply(&add("a", &[])), Err(KeyRejected::Unknown));
}

#[test]
fn wraps_of_an_epoch_that_never_began_do_not_count() {
    let state =
        KeyState::begin(2, [(1, None), (2, Some([2; 16])), (3, Some([3; 16]))], [wrap("a", 2, 0), wrap("a", 3, 0)]);
    assert_eq!(state.epochs().map(|(epoch, _)| epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((state.wraps().count(), state.gone().count()), (1, 1));
    assert_eq!(state.next(), Ok(4));
}

//! Rules that change keys, applied to a replication stream: other databases, fewer keys, other names. Pure.
//!
//! A command is taken as it is, changed, or left out; what is left out must not have anything to do with what is kept. So a command that
//! brings keys that are wanted together with others that are not is refused, and so is one of which it is not known what it does. Where
//! the stream goes to has to hold nothing but what the same rules have left of the snapshot, and must not let keys expire by itself
//! meanwhile: a replica, and a server that loads its log.

use bytes::{Bytes, BytesMut};

use super::framer::Framer;
use super::keys::{Effect, Sources, effect};
use crate::client::Pipeline;
use crate::error::{Error, Result};
use crate::rdb::{ExpiryRule, Rules};

/// So large may be a command: all of it has to be seen before it is given.
const HELD: usize = 64 << 20;

/// Why `rules` cannot be applied to a stream, whatever is in it. None when they can.
pub(crate) fn judge(rules: &Rules) -> Option<&'static str> {
    if rules.expiry != ExpiryRule::Keep {
        return Some("expiries are set by many commands, and are not changed in them");
    }
    if rules.filter.names_kinds() {
        return Some("its commands do not tell the types of all keys");
    }
    if rules.into_database.is_some() && rules.filter.only_database().is_none() {
        return Some("keys go into one database, and it has to be said from which one");
    }
    None
}

/// Changes a stream that comes in pieces of any size.
#[derive(Debug)]
pub(crate) struct Editor {
    rules: Rules,
    framer: Framer,
    /// What has come of the present command.
    held: BytesMut,
    /// Where that begins.
    base: u64,
    /// The database of the source that the stream is in, as far as it is known.
    database: Option<u64>,
    /// The database that what is given is in.
    given: Option<u64>,
}

/// What becomes of a command.
enum Fate {
    Drop,
    /// As it came.
    Keep,
    Change(Vec<Bytes>),
}

impl Editor {
    /// An editor of a stream that begins at `from`, in `database` as far as that is known. The rules must have been
    /// [judged](judge) possible.
    pub(crate) fn new(rules: Rules, from: u64, database: Option<u64>) -> Self {
        Self { rules, framer: Framer::new(from), held: BytesMut::new(), base: from, database, given: None }
    }

    /// Takes the next bytes and appends what becomes of the commands that end in them.
    ///
    /// # Errors
    /// [`Error::Protocol`] where this is no stream of commands; [`Error::Unsupported`] with the place of a command to which the
    /// rules cannot be applied.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<()> {
        self.held.extend_from_slice(bytes);
        let mut ends = Vec::new();
        self.framer.push(bytes, |command| {
            ends.push(command.end);
            Ok(())
        })?;
        for end in ends {
            let len = usize::try_from(end - self.base).unwrap_or(usize::MAX).min(self.held.len());
            let raw = self.held.split_to(len).freeze();
            self.command(&raw, out).map_err(|error| match error {
                Error::Unsupported(text) => {
                    Error::Unsupported(format!("{text}, at offset {} of the stream", self.base))
                }
                other => other,
            })?;
            self.base = end;
        }
        if self.held.len() > HELD {
            let text = format!("a command of more than {HELD} bytes at offset {} of the stream", self.base);
            return Err(Error::Unsupported(text));
        }
        Ok(())
    }

    fn command(&mut self, raw: &Bytes, out: &mut BytesMut) -> Result<()> {
        let Some(words) = words(raw) else { return Ok(()) };
        let Some(name) = words.first().map(|name| name.to_ascii_uppercase()) else { return Ok(()) };
        match name.as_slice() {
            b"SELECT" => {
                let number = words.get(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                self.database = number;
                return Ok(());
            }
            b"MULTI" | b"EXEC" | b"DISCARD" => {
                out.extend_from_slice(raw);
                return Ok(());
            }
            _ => {}
        }
        let shown = String::from_utf8_lossy(&name).into_owned();
        let effect = effect(&name, words.len()).ok_or_else(|| {
            Error::Unsupported(format!("it is not known here which keys the command {shown} changes"))
        })?;
        let fate = self.fate(effect, &words).map_err(|error| match error {
            Error::Unsupported(text) => Error::Unsupported(format!("the command {shown}: {text}")),
            other => other,
        })?;
        if matches!(fate, Fate::Drop) {
            return Ok(());
        }
        self.enter(out)?;
        match fate {
            Fate::Change(words) => {
                let mut pipeline = Pipeline::new();
                pipeline.push(&words);
                out.extend_from_slice(pipeline.as_bytes());
            }
            Fate::Keep | Fate::Drop => out.extend_from_slice(raw),
        }
        Ok(())
    }

    /// Leads into the database that the next command is about.
    fn enter(&mut self, out: &mut BytesMut) -> Result<()> {
        let source = self.database.ok_or_else(unknown_database)?;
        let wanted = self.rules.into_database.unwrap_or(source);
        if self.given != Some(wanted) {
            let mut pipeline = Pipeline::new();
            pipeline.push(&["SELECT".to_owned(), wanted.to_string()]);
            out.extend_from_slice(pipeline.as_bytes());
            self.given = Some(wanted);
        }
        Ok(())
    }

    fn fate(&self, effect: Effect, words: &[Bytes]) -> Result<Fate> {
        let filter = &self.rules.filter;
        match effect {
            Effect::Nothing => return Ok(Fate::Drop),
            Effect::Functions => return Ok(if filter.is_all() { Fate::Keep } else { Fate::Drop }),
            // What is there came from databases that are wanted, and goes.
            Effect::Empty { all: true } => return Ok(Fate::Keep),
            _ => {}
        }
        if !filter.wants_database(self.database.ok_or_else(unknown_database)?) {
            return Ok(Fate::Drop);
        }
        match effect {
            Effect::One(at) => self.together(words, &[at]),
            Effect::Each { first, step } => self.each(words, first, step),
            Effect::Together { first, step, count } => {
                let count = count.unwrap_or(usize::MAX);
                let keys: Vec<_> = (first..words.len()).step_by(step.max(1)).take(count).collect();
                self.together(words, &keys)
            }
            Effect::Into { target, sources } => {
                if !self.wants(words, target)? {
                    return Ok(Fate::Drop);
                }
                let mut keys = vec![target];
                match sources {
                    Sources::One(at) => keys.push(at),
                    Sources::From(first) => keys.extend(first..words.len()),
                    Sources::Counted(at) => {
                        let count =
                            words.get(at).and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok());
                        let count = count.filter(|count| *count <= words.len()).ok_or_else(malformed)?;
                        keys.extend(at + 1..at + 1 + count);
                    }
                }
                self.together(words, &keys)
            }
            Effect::Empty { .. } | Effect::Functions | Effect::Nothing => Ok(Fate::Keep),
        }
    }

    fn wants(&self, words: &[Bytes], at: usize) -> Result<bool> {
        words.get(at).map(|key| self.rules.filter.wants_name(key)).ok_or_else(malformed)
    }

    /// The name under which a key goes on. None when it stays.
    fn renamed(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let Some((from, to)) = &self.rules.rename else { return Ok(None) };
        match key.strip_prefix(from.as_slice()) {
            Some(rest) => Ok(Some([to, rest].concat().into())),
            None if key.starts_with(to) => Err(Error::Unsupported(format!(
                "the key {:?} begins as renamed keys will, and could be one of them",
                String::from_utf8_lossy(key)
            ))),
            None => Ok(None),
        }
    }

    /// All of these keys, or none.
    fn together(&self, words: &[Bytes], keys: &[usize]) -> Result<Fate> {
        let mut wanted = 0;
        for at in keys {
            wanted += usize::from(self.wants(words, *at)?);
        }
        if wanted == 0 {
            return Ok(Fate::Drop);
        }
        if wanted < keys.len() {
            return Err(Error::Unsupported("it brings keys that are wanted together with others that are not".into()));
        }
        let mut changed = None;
        for at in keys {
            if let (Some(key), Some(word)) = (self.renamed(words.get(*at).ok_or_else(malformed)?)?, Some(*at))
                && let Some(place) = changed.get_or_insert_with(|| words.to_vec()).get_mut(word)
            {
                *place = key;
            }
        }
        Ok(changed.map_or(Fate::Keep, Fate::Change))
    }

    /// Those of the keys that are wanted.
    fn each(&self, words: &[Bytes], first: usize, step: usize) -> Result<Fate> {
        let (head, rest) = words.split_at_checked(first).ok_or_else(malformed)?;
        let mut kept = head.to_vec();
        for group in rest.chunks(step.max(1)) {
            let [key, values @ ..] = group else { continue };
            if self.rules.filter.wants_name(key) {
                kept.push(self.renamed(key)?.unwrap_or_else(|| key.clone()));
                kept.extend_from_slice(values);
            }
        }
        Ok(if kept.len() == head.len() { Fate::Drop } else { Fate::Change(kept) })
    }
}

fn malformed() -> Error {
    Error::Unsupported("it has fewer words than it must have".into())
}

fn unknown_database() -> Error {
    Error::Unsupported("it is not known in which database it was".into())
}

/// The words of one command. None for a lone line break.
fn words(raw: &Bytes) -> Option<Vec<Bytes>> {
    let mut at = 0;
    let count = number(raw, b'*', &mut at)?;
    let mut words = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let len = number(raw, b'$', &mut at)?;
        let end = at.checked_add(len).filter(|end| *end <= raw.len())?;
        words.push(raw.slice(at..end));
        at = end + 2;
    }
    Some(words)
}

/// A number behind `mark`, up to the line break, which is passed.
fn number(raw: &[u8], mark: u8, at: &mut usize) -> Option<usize> {
    let rest = raw.get(*at..)?.strip_prefix(&[mark])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    *at += 1 + end + 2;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rdb::KeyFilter;
    use crate::stream::sample::command;

    fn stream(lines: &[&str]) -> Vec<u8> {
        let line = |line: &&str| command(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        lines.iter().flat_map(line).collect()
    }

    /// What becomes of `lines`, which begin in database 0, as lines.
    fn edited(rules: Rules, lines: &[&str], piece: usize) -> Result<Vec<String>> {
        let mut editor = Editor::new(rules, 100, Some(0));
        let mut out = BytesMut::new();
        for chunk in stream(lines).chunks(piece) {
            editor.push(chunk, &mut out)?;
        }
        let (mut framer, mut found, mut at) = (Framer::new(0), Vec::new(), 0);
        let out = out.freeze();
        framer.push(&out, |command| {
            let raw = out.slice(at..command.end as usize);
            at = command.end as usize;
            let words = words(&raw).unwrap();
            found.push(
                words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" "),
            );
            Ok(())
        })?;
        Ok(found)
    }

    fn some() -> Rules {
        Rules::default().filter(KeyFilter::all().prefix("a:"))
    }

    #[test]
    fn keys_that_are_not_wanted_are_left_out_and_others_renamed() {
        let lines = [
            "SET a:1 x",
            "SET b:1 x",
            "MULTI",
            "DEL a:1 b:1 a:2",
            "MSET b:1 x a:3 y",
            "EXEC",
            "SELECT 3",
            "PING",
            "publish a:1 x",
            "xgroup CREATE a:s g 0",
            "ZUNIONSTORE b:z 1 a:z",
            "ZUNIONSTORE a:z 2 a:y a:x WEIGHTS 1 1",
            "RENAME b:1 b:2",
            "RENAME a:1 a:2",
            "FUNCTION LOAD code",
            "FLUSHDB",
        ];
        for piece in [1, 7, 10_000] {
            let kept = edited(some(), &lines, piece).unwrap();
            let wanted = [
                "SELECT 0",
                "SET a:1 x",
                "MULTI",
                "DEL a:1 a:2",
                "MSET a:3 y",
                "EXEC",
                "SELECT 3",
                "xgroup CREATE a:s g 0",
                "ZUNIONSTORE a:z 2 a:y a:x WEIGHTS 1 1",
                "RENAME a:1 a:2",
                "FLUSHDB",
            ];
            assert_eq!(kept, wanted);
            let one =
                Rules::default().filter(KeyFilter::all().prefix("a:").database(3)).rename("a:", "c:").into_database(7);
            let kept = edited(one, &lines, piece).unwrap();
            let wanted = [
                "MULTI",
                "EXEC",
                "SELECT 7",
                "xgroup CREATE c:s g 0",
                "ZUNIONSTORE c:z 2 c:y c:x WEIGHTS 1 1",
                "RENAME c:1 c:2",
                "FLUSHDB",
            ];
            assert_eq!(kept, wanted);
        }
    }

    #[test]
    fn what_is_not_sound_is_refused_with_its_place() {
        for line in [
            "RENAME a:1 b:1",
            "RENAME b:1 a:1",
            "SUNIONSTORE a:1 a:2 b:1",
            "MSETNX a:1 x b:1 y",
            "ZUNIONSTORE a:1 9999999999 a:2",
            "COPY a:1 a:2 DB 3 REPLACE",
            "SORT a:1 STORE a:2",
            "EVAL x 1 a:1",
            "SWAPDB 0 1",
            "MOVE a:1 3",
            "NEWCOMMAND a:1",
            "SET",
        ] {
            let error = edited(some(), &["SET a:1 x", line], 5).unwrap_err();
            let Error::Unsupported(text) = error else { panic!("{line}: {error}") };
            assert!(text.contains("at offset 129"), "{line}: {text}");
        }
        let error = edited(Rules::default().rename("a:", "b:"), &["SET b:1 x"], 5).unwrap_err();
        assert!(error.to_string().contains("begins as renamed keys will"), "{error}");
        let mut unknown = Editor::new(some(), 0, None);
        assert!(unknown.push(&stream(&["SET a:1 x"]), &mut BytesMut::new()).is_err());
        assert!(judge(&some()).is_none());
        assert!(judge(&some().expiry(ExpiryRule::Never)).is_some());
        assert!(judge(&some().into_database(3)).is_some());
        assert!(judge(&Rules::default().filter(KeyFilter::all().kind(crate::rdb::Kind::Set))).is_some());
    }

    proptest! {
        #[test]
        fn what_all_want_stays_as_it_is_but_for_signs_of_life(
            numbers in prop::collection::vec((0_u64..3, "[a-c]{1,3}"), 1..20), piece in 1_usize..50,
        ) {
            let lines: Vec<_> = numbers.iter().flat_map(|(database, key)| {
                [format!("SELECT {database}"), format!("SET {key} x"), "PING".to_owned()]
            }).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let kept = edited(Rules::default(), &lines, piece).unwrap();
            let sets: Vec<_> = kept.iter().filter(|line| line.starts_with("SET")).cloned().collect();
            prop_assert_eq!(sets, numbers.iter().map(|(_, key)| format!("SET {key} x")).collect::<Vec<_>>());
            // The database before each is the right one.
            let (mut here, mut seen) = (u64::MAX, Vec::new());
            for line in &kept {
                match line.split_once(' ') {
                    Some(("SELECT", number)) => here = number.parse().unwrap(),
                    _ => seen.push(here),
                }
            }
            prop_assert_eq!(seen, numbers.iter().map(|(database, _)| *database).collect::<Vec<_>>());
        }
    }
}

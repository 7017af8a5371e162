//! The running backup: a state machine over messages, one for each framing.

use bytes::{Buf, Bytes};

use super::event::{Event, Finished, Started, Tablespace};
use super::options::BaseBackupOptions;
use crate::error::{Error, Result, ServerError};
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;
use crate::wire::{Message, ResultSet, Session, message_name};

/// How often progress is told where the server does not: at most once per this many bytes.
const PROGRESS_STEP: u64 = 32 << 20;

/// A running base backup.
///
/// Dropping it leaves the session unusable; drop the session too and the server stops.
#[derive(Debug)]
pub struct BaseBackup<'a> {
    session: &'a mut Session,
    state: State,
    tablespaces: Vec<Tablespace>,
    /// Archives begun so far; the main directory counts as one.
    archives: usize,
    manifest_seen: bool,
    received: u64,
    told: u64,
    tagged: bool,
    end: Option<(Lsn, TimelineId)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was read yet.
    Begin,
    /// Between COPYs: the next one begins, or the end position comes.
    Between,
    /// Inside a COPY, before the first archive of a tagged stream.
    Idle,
    Archive,
    Manifest,
    Done,
}

impl<'a> BaseBackup<'a> {
    /// Asks the server of `session` for a base backup.
    ///
    /// # Errors
    /// [`Error::Settings`] for options that the server's version does not have; sending may fail as any call.
    pub async fn start(session: &'a mut Session, options: &BaseBackupOptions, version: ServerVersion) -> Result<Self> {
        let command = options.command(version)?;
        session.take_notices();
        session.begin(&command).await?;
        Ok(Self {
            session,
            state: State::Begin,
            tablespaces: Vec::new(),
            archives: 0,
            manifest_seen: false,
            received: 0,
            told: 0,
            tagged: version.major() >= 15,
            end: None,
        })
    }

    /// The next event; `None` after [`Event::Finished`].
    ///
    /// # Errors
    /// [`Error::Server`] when the server gives up (the standby was promoted, a file cannot be read, …): what came so far
    /// is not a backup. [`Error::Protocol`] when the stream is not of its form.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing, except before the first event and at the end.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        match self.state {
            State::Begin => return self.begin().await.map(|started| Some(Event::Started(started))),
            State::Done => return Ok(None),
            _ => {}
        }
        loop {
            if self.state != State::Between && self.received - self.told >= PROGRESS_STEP && !self.tagged {
                self.told = self.received;
                return Ok(Some(Event::Progress(self.received)));
            }
            let message = self.session.receive(|| "the base backup").await?;
            let event = match message {
                Message::CopyData(data) if self.tagged => self.tagged(data)?,
                Message::CopyData(data) => self.untagged(data)?,
                Message::CopyOut if self.state == State::Between => self.copy_begins()?,
                Message::CopyDone if !matches!(self.state, State::Begin | State::Between | State::Done) => {
                    self.state = State::Between;
                    self.told = self.received;
                    (!self.tagged).then_some(Event::Progress(self.received))
                }
                Message::RowDescription(columns) if self.state == State::Between && self.complete() => {
                    return self.finish(columns).await.map(|finished| Some(Event::Finished(finished)));
                }
                Message::Error(error) => return Err(self.session.fail(error).await),
                other => {
                    let (name, state) = (message_name(&other), self.state);
                    return Err(Error::protocol(format!("unexpected {name} in a base backup ({state:?})")));
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    async fn begin(&mut self) -> Result<Started> {
        let missing = || Error::protocol("a base backup without its first answers");
        let (position, timeline) = position(&self.session.result_set().await?.ok_or_else(missing)?)?;
        let spaces = self.session.result_set().await?.ok_or_else(missing)?;
        let mut main = None;
        for row in &spaces.rows {
            if main.is_some() {
                return Err(Error::protocol("a tablespace is listed after the main directory"));
            }
            let size_kb = if row.text("size")?.is_some() { Some(row.parse("size")?) } else { None };
            match row.text("spcoid")? {
                None => main = Some(size_kb),
                Some(_) => {
                    let location = row.bytes(1)?.cloned().unwrap_or_default();
                    self.tablespaces.push(Tablespace { oid: row.parse("spcoid")?, location, size_kb });
                }
            }
        }
        let main_kb = main.ok_or_else(|| Error::protocol("the main directory is not listed"))?;
        self.state = State::Between;
        Ok(Started { position, timeline, tablespaces: self.tablespaces.clone(), main_kb })
    }

    /// Whether every archive has come.
    fn complete(&self) -> bool {
        self.archives == self.tablespaces.len() + 1
    }

    fn copy_begins(&mut self) -> Result<Option<Event>> {
        if self.tagged {
            if self.archives > 0 {
                return Err(Error::protocol("a second copy in a base backup"));
            }
            self.state = State::Idle;
            return Ok(None);
        }
        if self.complete() {
            return self.manifest().map(Some);
        }
        let tablespace = self.tablespaces.get(self.archives).cloned();
        let name = tablespace.as_ref().map_or("base.tar".to_owned(), |space| format!("{}.tar", space.oid));
        self.archives += 1;
        self.state = State::Archive;
        Ok(Some(Event::Archive { tablespace, name }))
    }

    fn manifest(&mut self) -> Result<Event> {
        if self.manifest_seen || !self.complete() {
            return Err(Error::protocol("a manifest before the last archive or after another"));
        }
        self.manifest_seen = true;
        self.state = State::Manifest;
        Ok(Event::ManifestStart)
    }

    fn untagged(&mut self, data: Bytes) -> Result<Option<Event>> {
        match self.state {
            State::Archive => {
                self.received += data.len() as u64;
                Ok(Some(Event::Data(data)))
            }
            State::Manifest => Ok(Some(Event::ManifestData(data))),
            state => Err(Error::protocol(format!("copy data outside of an archive ({state:?})"))),
        }
    }

    fn tagged(&mut self, mut data: Bytes) -> Result<Option<Event>> {
        if data.is_empty() || matches!(self.state, State::Begin | State::Between | State::Done) {
            return Err(Error::protocol(format!("copy data of {} bytes in {:?}", data.len(), self.state)));
        }
        match data.get_u8() {
            b'd' => self.untagged(data),
            b'n' => self.archive(&data).map(Some),
            b'm' if data.is_empty() => self.manifest().map(Some),
            b'p' if data.len() == 8 => {
                let done = u64::try_from(data.get_i64()).map_err(|_| Error::protocol("progress is negative"))?;
                Ok(Some(Event::Progress(done)))
            }
            tag => Err(Error::protocol(format!("unknown part {:?} of a base backup", char::from(tag)))),
        }
    }

    /// `n`: file name and tablespace directory, each ended by a zero byte; the directory is empty for the main one.
    fn archive(&mut self, data: &[u8]) -> Result<Event> {
        let wrong = || Error::protocol("the name of an archive is not of its form");
        if self.manifest_seen {
            return Err(Error::protocol("an archive after the manifest"));
        }
        let mut fields = data.split(|byte| *byte == 0);
        let (Some(name), Some(location), Some([]), None) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(wrong());
        };
        let name = std::str::from_utf8(name).map_err(|_| wrong())?.to_owned();
        let stem = name.split('.').next().unwrap_or_default();
        let tablespace = match self.tablespaces.get(self.archives) {
            Some(space) if stem.parse() == Ok(space.oid) && location == space.location => Some(space.clone()),
            None if stem == "base" && location.is_empty() && !self.complete() => None,
            _ => return Err(Error::protocol(format!("archive {name:?} comes out of order"))),
        };
        self.archives += 1;
        self.state = State::Archive;
        Ok(Event::Archive { tablespace, name })
    }

    /// After the last COPY: the end position, and either success or an error that only says "pages are corrupt".
    async fn finish(&mut self, columns: Vec<String>) -> Result<Finished> {
        let mut set = ResultSet { columns: columns.into(), ..ResultSet::default() };
        let mut failure: Option<ServerError> = None;
        loop {
            match self.session.receive(|| "the end of the base backup").await? {
                Message::DataRow(values) if self.end.is_none() => {
                    set.rows.push(crate::wire::Row::new(std::sync::Arc::clone(&set.columns), values)?);
                    self.end = Some(position(&set)?);
                }
                Message::CommandComplete(_) => {}
                Message::Error(error) if error.sqlstate == "XX001" && self.end.is_some() => {
                    failure = Some(error);
                    break;
                }
                Message::Error(error) => return Err(self.session.fail(error).await),
                Message::ReadyForQuery(_) => {
                    self.session.idle();
                    break;
                }
                other => {
                    return Err(Error::protocol(format!("unexpected {} after a base backup", message_name(&other))));
                }
            }
        }
        if let Some(error) = failure.clone() {
            self.session.fail(error).await;
        }
        let (end, timeline) = self.end.ok_or_else(|| Error::protocol("a base backup without an end"))?;
        self.state = State::Done;
        let notices = self.session.take_notices();
        Ok(Finished { end, timeline, checksum_failures: failure.is_some(), notices })
    }
}

fn position(set: &ResultSet) -> Result<(Lsn, TimelineId)> {
    match set.rows.as_slice() {
        [row] => Ok((row.parse("recptr")?, row.parse("tli")?)),
        rows => Err(Error::protocol(format!("{} rows where a position was expected", rows.len()))),
    }
}

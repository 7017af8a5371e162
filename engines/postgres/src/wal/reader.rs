//! From the bytes of a log to its records, as they come.
//!
//! Nothing here reads a file or waits: bytes go in by [`WalReader::push`], records come out by [`WalReader::next`]. All that
//! the server checks when it replays its log is checked here: the header of every page, the chain from each record to the one
//! before, and the checksum of each record (`xlogreader.c`). Three things are no damage:
//!
//! - *The end.* A log ends where zeros stand in place of the next record, or where a page was never written, or is left over
//!   from the segment file's earlier life. The reader says so ([`WalReader::end`]); only the caller knows whether the log was
//!   expected to go on, because zeros may as well be a hole in it.
//! - *A switch.* What follows in its segment is skipped. Servers fill it with zeros, but one that died in between leaves what
//!   was there, so nothing is concluded from it.
//! - *A record that was given up.* A server that died while it wrote a record across pages begins the next page with a record
//!   that says so (`CreateOverwriteContrecordRecord`, `xlog.c`), and goes on from there.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::event;
use super::header::LongPageHeader;
use super::input::Input;
use super::page::{Joint, PageHeader, WalFormat};
use super::record::{HEADER, Record, RecordHeader, Rmgr, skim};
use crate::error::{Error, Result};
use crate::lsn::Lsn;

/// How much memory is made ready at once for records that do not lie in one piece. A longer one grows with what has come.
const RESERVE: usize = 256 << 10;

/// Of a record that is skimmed, the headers of its parts are looked for in so many bytes. Hardly one has more than a few dozen.
const FRONT: usize = 512;

/// As far as positions go: centuries at any speed.
const LONGEST: u64 = 1 << 62;

/// Why a log ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndKind {
    /// Zeros stand where the next record or page would begin.
    Zeros,
    /// The next page is one of an earlier segment, whose file was renamed to be used again.
    Recycled,
}

/// The end of what is valid in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalEnd {
    /// The end of the last complete record.
    pub at: Lsn,
    /// What is there instead of the next one.
    pub kind: EndKind,
}

/// Reads the log of one lineage.
///
/// # Example
/// ```
/// use backup_postgres::wal::{SegmentSize, WalFormat, WalReader};
/// use backup_postgres::{Lsn, Result, TimelineId};
///
/// fn count(segment: bytes::Bytes, start: Lsn) -> Result<usize> {
///     let format = WalFormat::new(17, SegmentSize::DEFAULT, 7_512_345_678_901_234_567, TimelineId::FIRST)?;
///     let mut reader = WalReader::new(format, start)?;
///     reader.push(segment);
///     let mut records = 0;
///     while let Some(record) = reader.next()? {
///         println!("{} {} {:#04x}", record.start, record.rmgr, record.opcode());
///         records += 1;
///     }
///     Ok(records)
/// }
/// # assert_eq!(count(bytes::Bytes::new(), Lsn(0x100_0000))?, 0);
/// # Ok::<(), backup_postgres::Error>(())
/// ```
pub struct WalReader {
    format: WalFormat,
    checksums: bool,
    skimming: bool,
    input: Input,
    /// The position of the first byte of `input`.
    at: u64,
    state: State,
    position: Lsn,
    last: Option<Lsn>,
    /// The timeline of the page before.
    timeline: u32,
    /// A record that was given up, until the one that says so has come.
    given_up: Option<Option<Lsn>>,
    /// Where pieces of records are joined.
    joining: BytesMut,
}

#[derive(Debug)]
enum State {
    /// Nothing has been read, and it is unknown whether a record begins.
    Joining,
    /// So many bytes of a record remain that began before the reader did.
    Passing(u32),
    /// The next record begins here, behind the page's header if it is the start of a page.
    Between,
    /// Inside of a record that does not lie in one piece.
    Within(Partial),
    /// The rest of the segment behind a switch.
    Skipping(u64),
    /// What looks like the end, as soon as the page is zeros up to its own.
    Fading,
    /// With where the record begins that was not complete by then.
    Ended(EndKind, Option<Lsn>),
    Failed(String),
}

/// A record of which a part has come. The bytes that are kept of it are in [`WalReader::joining`].
#[derive(Debug)]
struct Partial {
    start: u64,
    length: u32,
    /// How much has come.
    come: usize,
    header: Option<RecordHeader>,
    keeping: Keeping,
}

/// What is kept of a record.
#[derive(Debug, Clone, Copy)]
enum Keeping {
    /// So much as says whether it is skimmed.
    Front,
    All,
    Skimmed(Skimmed),
}

/// A record of which the bytes of blocks are left out.
#[derive(Debug, Clone, Copy)]
struct Skimmed {
    /// So many bytes of its beginning are kept.
    front: usize,
    /// From here on it is kept again.
    end: usize,
    /// The checksum of its body up to what is kept of the end.
    sum: u32,
}

impl WalReader {
    /// A reader of the log from `start`: the start of any page, where the first record is looked for that begins on it or
    /// later, or exactly the start of a record.
    ///
    /// # Errors
    /// [`Error::Malformed`] when neither is possible at `start`.
    pub fn new(format: WalFormat, start: Lsn) -> Result<Self> {
        let behind = format.offset_in_page(start.0);
        let page = start.0 - behind;
        let state = match behind {
            // No log is so long, and no arithmetic on its positions overflows.
            _ if start.0 > LONGEST => {
                return Err(Error::malformed("wal position", format!("no log reaches {start}")));
            }
            0 => State::Joining,
            _ if behind.is_multiple_of(8) && behind >= format.header_length(page) as u64 => State::Between,
            _ => return Err(Error::malformed("wal position", format!("no record can begin at {start}"))),
        };
        Ok(Self {
            format,
            checksums: true,
            skimming: false,
            input: Input::default(),
            at: start.0,
            state,
            position: start,
            last: None,
            timeline: 0,
            given_up: None,
            joining: BytesMut::new(),
        })
    }

    /// A reader that goes on where another one stopped: at its [`position`](Self::position), behind its
    /// [`last_record`](Self::last_record). The chain between the two readers is checked, too.
    ///
    /// # Errors
    /// As [`WalReader::new`].
    pub fn resume(format: WalFormat, position: Lsn, last_record: Lsn) -> Result<Self> {
        Ok(Self { state: State::Between, last: Some(last_record), ..Self::new(format, position)? })
    }

    /// Leaves out the checksums of records, for bytes that are known to be what a server wrote.
    #[must_use]
    pub fn without_checksums(self) -> Self {
        Self { checksums: false, ..self }
    }

    /// Leaves out the data and images of blocks, where a record does not lie in one piece and they would be copied. They are checked all
    /// the same. For whoever wants to know which blocks were changed, and not how.
    #[must_use]
    pub fn skimming(self) -> Self {
        Self { skimming: true, ..self }
    }

    /// What it reads.
    #[must_use]
    pub fn format(&self) -> &WalFormat {
        &self.format
    }

    /// Hands over the bytes of the log that follow those already pushed, in pieces of any size. They are kept, not copied,
    /// until the records in them have been taken; behind the [`end`](Self::end) they are dropped.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// The next complete record. None when there is none in what has been pushed: more may follow, unless
    /// [`end`](Self::end) says otherwise.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the position when the log is damaged; everything before has been given out. Every further
    /// call fails in the same way.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's None would mean the end, here it means: push more"
    )]
    pub fn next(&mut self) -> Result<Option<Record>> {
        self.advance().map_err(|reason| {
            let error = Error::malformed("wal", reason.as_str());
            self.input = Input::default();
            self.state = State::Failed(reason);
            error
        })
    }

    /// Up to where the log is whole: the end of the last complete record, of a switch the end of its segment. Before the
    /// first record, where that begins, or would. A new reader can start here.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Where the last complete record begins.
    #[must_use]
    pub fn last_record(&self) -> Option<Lsn> {
        self.last
    }

    /// Where the record begins that has come in part, so far as that can be told.
    #[must_use]
    pub fn pending(&self) -> Option<Lsn> {
        match &self.state {
            State::Within(partial) => Some(Lsn(partial.start)),
            State::Ended(_, pending) => *pending,
            State::Between if self.input.len > 0 && self.format.offset_in_page(self.at) != 0 => Some(Lsn(self.at)),
            _ => None,
        }
    }

    /// The end of all that has been pushed.
    #[must_use]
    pub fn received(&self) -> Lsn {
        Lsn(self.at.saturating_add(self.input.len as u64))
    }

    /// How much memory is held beyond what was pushed.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.joining.capacity()
    }

    /// Whether the log ends in what has been pushed, and where.
    #[must_use]
    pub fn end(&self) -> Option<WalEnd> {
        match self.state {
            State::Ended(kind, _) => Some(WalEnd { at: self.position, kind }),
            _ => None,
        }
    }

    fn advance(&mut self) -> Result<Option<Record>, String> {
        loop {
            if self.format.offset_in_page(self.at) == 0
                && !matches!(self.state, State::Skipping(_) | State::Ended(..) | State::Failed(_))
                && !self.page()?
            {
                return Ok(None);
            }
            match &mut self.state {
                State::Failed(reason) => return Err(reason.clone()),
                State::Ended(..) => {
                    self.consume(self.input.len);
                    return Ok(None);
                }
                State::Skipping(until) => {
                    let until = *until;
                    if !self.skip(until) {
                        return Ok(None);
                    }
                    self.state = State::Between;
                }
                // Pages decide how these go on, and the start of one has been seen to above.
                State::Joining => self.state = State::Between,
                State::Passing(owed) => {
                    let left = self.format.left_in_page(self.at);
                    let piece = u64::from(*owed).min(left).min(self.input.len as u64);
                    *owed -= piece as u32;
                    let owed = *owed;
                    self.consume(piece as usize);
                    if owed > 0 {
                        if piece == left {
                            continue;
                        }
                        return Ok(None);
                    }
                    let next = self.at.next_multiple_of(8);
                    if !self.skip(next) {
                        return Ok(None);
                    }
                    self.position = Lsn(next);
                    self.state = State::Between;
                }
                State::Fading => {
                    let left = self.format.left_in_page(self.at) as usize;
                    if self.input.len < left {
                        return Ok(None);
                    }
                    if self.input.take(left).iter().any(|byte| *byte != 0) {
                        return Err(format!(
                            "{}: zeros where a record would begin, but not up to the page's end",
                            Lsn(self.at)
                        ));
                    }
                    self.at += left as u64;
                    self.state = State::Ended(EndKind::Zeros, None);
                }
                State::Between => match self.begin()? {
                    Step::Record(record) => return Ok(Some(record)),
                    Step::Further => {}
                    Step::Starved => return Ok(None),
                },
                State::Within(_) => match self.collect()? {
                    Step::Record(record) => return Ok(Some(record)),
                    Step::Further => {}
                    Step::Starved => return Ok(None),
                },
            }
        }
    }

    /// Reads the header of the page that begins here. False when it has not come yet.
    fn page(&mut self) -> Result<bool, String> {
        let page = self.at;
        let at = |reason: String| format!("{}: {reason}", Lsn(page));
        let Some(bytes) = self.input.peek::<{ PageHeader::LENGTH }>() else { return Ok(false) };
        let header = PageHeader::parse(&bytes);
        if header.is_blank() {
            self.state = State::Ended(EndKind::Zeros, self.pending());
            return Ok(true);
        }
        if header.is_recycled(&self.format, page) {
            self.state = State::Ended(EndKind::Recycled, self.pending());
            return Ok(true);
        }
        let joint = header.check(&self.format, page, self.timeline).map_err(at)?;
        let length = self.format.header_length(page);
        if length == LongPageHeader::LENGTH {
            let Some(bytes) = self.input.peek() else { return Ok(false) };
            PageHeader::check_long(&self.format, &bytes).map_err(at)?;
        }
        self.timeline = header.timeline;
        let next = match (&self.state, joint) {
            (State::Joining | State::Between, Joint::Clean) => State::Between,
            (State::Joining, Joint::Continues(owed)) => State::Passing(owed),
            (State::Passing(expected), Joint::Continues(owed)) if *expected == owed => State::Passing(owed),
            (State::Within(partial), Joint::Continues(owed))
                if partial.length as usize - partial.come == owed as usize =>
            {
                // Most of what follows is copied; nothing changes.
                self.consume(length);
                return Ok(true);
            }
            (State::Joining | State::Passing(_), Joint::Overwrites) => {
                self.given_up = Some(None);
                self.position = Lsn(page);
                State::Between
            }
            (State::Within(partial), Joint::Overwrites) => {
                self.given_up = Some(Some(Lsn(partial.start)));
                self.joining.clear();
                State::Between
            }
            (State::Within(partial), _) => {
                return Err(at(format!("the record of {} does not go on as it should: {joint:?}", Lsn(partial.start))));
            }
            (_, _) => return Err(at(format!("the record before does not go on as it should: {joint:?}"))),
        };
        self.state = next;
        self.consume(length);
        Ok(true)
    }

    /// Begins the record that begins here.
    #[inline]
    fn begin(&mut self) -> Result<Step, String> {
        let start = self.at;
        let at = |reason: String| format!("{}: {reason}", Lsn(start));
        let Some(length) = self.input.peek().map(u32::from_le_bytes) else { return Ok(Step::Starved) };
        if length == 0 {
            self.state = State::Fading;
            return Ok(Step::Further);
        }
        if (length as usize) < HEADER || length > RecordHeader::longest(self.format.major()) {
            return Err(at(format!("a record of {length} bytes")));
        }
        let aligned = u64::from(length).next_multiple_of(8);
        if aligned > self.format.left_in_page(start) {
            if self.joining.capacity() < RESERVE.min(length as usize) {
                self.joining.reserve(RESERVE);
            }
            let keeping = if self.skimming { Keeping::Front } else { Keeping::All };
            self.state = State::Within(Partial { start, length, come: 0, header: None, keeping });
            return Ok(Step::Further);
        }
        if self.input.len < aligned as usize {
            return Ok(Step::Starved);
        }
        let bytes = self.input.take(length as usize);
        self.input.skip((aligned - u64::from(length)) as usize);
        self.at += aligned;
        let Some(header) = bytes.first_chunk().map(RecordHeader::parse) else {
            return Err(at("a record without header".to_owned()));
        };
        self.check_header(start, &header)?;
        let sum = if self.checksums { RecordHeader::body_sum(&bytes) } else { 0 };
        self.finish((start, &header), (bytes, 0), sum).map(Step::Record)
    }

    /// Takes what has come of a record that crosses pages.
    fn collect(&mut self) -> Result<Step, String> {
        let State::Within(partial) = &mut self.state else { return Ok(Step::Further) };
        let (start, length) = (partial.start, partial.length as usize);
        let left = self.format.left_in_page(self.at) as usize;
        let there = (length - partial.come).min(left).min(self.input.len);
        let piece = match &mut partial.keeping {
            Keeping::Skimmed(skimmed) if partial.come < skimmed.end => {
                let piece = there.min(skimmed.end - partial.come);
                self.input.pass(piece, |bytes| skimmed.sum = crc32c::crc32c_append(skimmed.sum, bytes));
                piece
            }
            keeping => {
                let wanted = if matches!(keeping, Keeping::Front) { FRONT - self.joining.len() } else { there };
                let piece = there.min(wanted);
                self.input.take_into(piece, &mut self.joining);
                piece
            }
        };
        self.at += piece as u64;
        partial.come += piece;
        let header = match partial.header {
            Some(header) => Some(header),
            // As early as possible: what is no record is not collected.
            None => match self.joining.first_chunk().map(RecordHeader::parse) {
                Some(header) => {
                    partial.header = Some(header);
                    self.check_header(start, &header)?;
                    Some(header)
                }
                None => None,
            },
        };
        let State::Within(partial) = &mut self.state else { return Ok(Step::Further) };
        if matches!(partial.keeping, Keeping::Front) && self.joining.len() == FRONT {
            partial.keeping = Skimmed::of(&mut self.joining, length, self.format.major());
        }
        if partial.come < length {
            return Ok(if self.input.len > 0 { Step::Further } else { Step::Starved });
        }
        let keeping = partial.keeping;
        let next = self.at.next_multiple_of(8);
        let Some(header) = header.filter(|_| self.skip(next)) else { return Ok(Step::Starved) };
        let bytes = self.joining.split().freeze();
        self.state = State::Between;
        let left_out = (length - bytes.len()) as u32;
        let sum = match keeping {
            Keeping::Skimmed(skimmed) => crc32c::crc32c_append(skimmed.sum, &bytes[skimmed.front..]),
            Keeping::All | Keeping::Front => RecordHeader::body_sum(&bytes),
        };
        self.finish((start, &header), (bytes, left_out), sum).map(Step::Record)
    }

    #[inline]
    fn check_header(&self, start: u64, header: &RecordHeader) -> Result<(), String> {
        if !header.rmgr.is_known(self.format.major()) {
            return Err(format!("{}: a record of resource manager {}", Lsn(start), header.rmgr.0));
        }
        let chained = match self.last {
            Some(last) => header.prev == last,
            None => header.prev.0 < start,
        };
        if !chained {
            let (prev, last) = (header.prev, self.last.unwrap_or_default());
            return Err(format!("{}: a record that follows one at {prev}, not at {last}", Lsn(start)));
        }
        Ok(())
    }

    /// Checks a record, the last byte of which lies before `self.at`: what is kept of it, how much is not, and the checksum of its body.
    fn finish(
        &mut self,
        (start, header): (u64, &RecordHeader),
        (bytes, left_out): (Bytes, u32),
        sum: u32,
    ) -> Result<Record, String> {
        if self.checksums && RecordHeader::checksum(sum, &bytes) != header.crc {
            return Err(format!("{}: the checksum of a record is wrong", Lsn(start)));
        }
        let record = Record::new(Lsn(start), Lsn(self.at), header, self.format.major(), bytes);
        let mut record = record.without(left_out);
        if let Some(given_up) = self.given_up {
            // The flag on the page and the record must be of the same mind (`VerifyOverwriteContrecord`, `xlogrecovery.c`).
            let said = event::overwritten(&record).map_err(|error| error.to_string())?;
            if said.is_none() || given_up.is_some() && said != given_up {
                return Err(format!("{}: a record that does not say which one was given up", Lsn(start)));
            }
            self.given_up = None;
        }
        if record.rmgr == Rmgr::XLOG && record.opcode() == event::SWITCH {
            let end = self.at.next_multiple_of(self.format.segment_size().bytes());
            record.end = Lsn(end);
            self.state = State::Skipping(end);
        }
        self.last = Some(record.start);
        self.position = record.end;
        Ok(record)
    }

    fn consume(&mut self, count: usize) {
        self.input.skip(count);
        self.at += count as u64;
    }

    /// Drops what lies before `until`. False when not all of it has come.
    fn skip(&mut self, until: u64) -> bool {
        let wanted = until.saturating_sub(self.at);
        let there = wanted.min(self.input.len as u64);
        self.consume(there as usize);
        there == wanted
    }
}

impl fmt::Debug for WalReader {
    /// Without the bytes, which may be megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalReader")
            .field("format", &self.format)
            .field("position", &self.position)
            .field("received", &self.received())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Skimmed {
    /// What is kept of a record of `length` bytes that begins with `front`, of which the bytes of blocks are taken away.
    fn of(front: &mut BytesMut, length: usize, major: u32) -> Keeping {
        match skim(front, length, major) {
            Some((headers, main)) if length - main >= front.len() => {
                let sum = RecordHeader::body_sum(front);
                front.truncate(headers);
                Keeping::Skimmed(Self { front: headers, end: length - main, sum })
            }
            _ => Keeping::All,
        }
    }
}

enum Step {
    Record(Record),
    Further,
    Starved,
}

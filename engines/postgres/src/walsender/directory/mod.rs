//! A log in a directory of segments: what an `archive_command` fills, or a copy of `pg_wal`.
//!
//! Segments have their names and their full size, histories are `NNNNNNNN.history`. The newest segment may be cut off, still
//! be written, or be called `….partial`, as a promoted server and `pg_receivewal` call it: it counts as far as its records are
//! whole. Files with another content than their name says, as recycled segments in `pg_wal`, do not count. Files may come
//! while the feed is served; it looks for them from time to time.

mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use backup_core::env::{Clock, Env};
use backup_core::{Error, Result};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use self::tail::{Expected, PAGE, Tail};
use super::feed::{FeedIdentity, LogEnd, WalFeed};
use super::route::Route;
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;
use crate::wal::{LongPageHeader, SegmentName, TimelineHistory, page_magic};

/// How often the directory is looked at by default.
const INTERVAL: Duration = Duration::from_secs(1);
/// A history has some hundred bytes for each promotion.
const MAX_HISTORY: u64 = 16 << 20;

/// The log in a directory.
#[derive(Debug)]
pub struct DirectoryFeed {
    place: Arc<Place>,
    clock: Arc<dyn Clock>,
    interval: Duration,
}

#[derive(Debug)]
struct Place {
    dir: PathBuf,
    identity: FeedIdentity,
    magic: u16,
    timeline: Option<TimelineId>,
    /// The end of the segment that was looked at last.
    seen: Mutex<Option<(Stamp, Lsn)>>,
    /// The way to the end that was found last, by which files are chosen.
    route: Mutex<Option<Arc<Route>>>,
}

/// By which a file that has not changed is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
}

/// What is in the directory, by name.
#[derive(Debug, Default)]
struct Listing {
    segments: BTreeMap<TimelineId, BTreeMap<SegmentName, PathBuf>>,
    histories: BTreeSet<TimelineId>,
}

impl DirectoryFeed {
    /// Looks at the directory and takes the identity of the log from its first segment.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](backup_core::ErrorKind::InvalidInput) when there is no segment, otherwise the operating
    /// system's.
    pub async fn open(dir: impl Into<PathBuf>, env: &Env) -> Result<Self> {
        let dir = dir.into();
        let place = blocking(move || {
            let listing = Listing::of(&dir)?;
            let header = listing.segments.values().flatten().find_map(|(name, path)| {
                let header = header(&File::open(path).ok()?).ok()??;
                header.check_name(*name).is_ok().then_some(header)
            });
            let header = header.ok_or_else(|| Error::invalid(format!("{} has no segment of a log", dir.display())))?;
            let major = (ServerVersion::OLDEST..=ServerVersion::NEWEST)
                .find(|major| page_magic(*major) == Some(header.magic))
                .ok_or_else(|| Error::invalid("the log is of a version that is not supported"))?;
            if header.page_size as usize != PAGE {
                return Err(Error::invalid(format!("pages of {} bytes are not supported", header.page_size)));
            }
            // A segment tells no more of the version than its first number.
            let identity = FeedIdentity::new(header.system_id, header.segment_size, major.to_string());
            Ok(Place {
                dir,
                identity,
                magic: header.magic,
                timeline: None,
                seen: Mutex::default(),
                route: Mutex::default(),
            })
        })
        .await?;
        Ok(Self { place: Arc::new(place), clock: Arc::clone(env.clock()), interval: INTERVAL })
    }

    /// Follows the way to this timeline instead of the newest one that the directory has.
    #[must_use]
    pub fn timeline(mut self, timeline: TimelineId) -> Self {
        let old = &self.place;
        self.place = Arc::new(Place {
            dir: old.dir.clone(),
            identity: old.identity.clone(),
            magic: old.magic,
            timeline: Some(timeline),
            seen: Mutex::default(),
            route: Mutex::default(),
        });
        self
    }

    /// Looks at the directory so often, while somebody waits for more.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

#[async_trait]
impl WalFeed for DirectoryFeed {
    fn identity(&self) -> &FeedIdentity {
        &self.place.identity
    }

    async fn end(&self) -> Result<LogEnd> {
        let place = Arc::clone(&self.place);
        blocking(move || Ok(place.route()?.end())).await
    }

    async fn grown(&self, known: LogEnd) -> Result<LogEnd> {
        loop {
            let end = self.end().await?;
            // A file that is being written anew is shorter for a moment; a log does not shrink.
            if end.timeline != known.timeline || end.position > known.position {
                return Ok(end);
            }
            self.clock.sleep(self.interval).await;
        }
    }

    async fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>> {
        let place = Arc::clone(&self.place);
        blocking(move || place.history(timeline)).await
    }

    async fn read(&self, timeline: TimelineId, at: Lsn, max: usize) -> Result<Option<Bytes>> {
        let place = Arc::clone(&self.place);
        blocking(move || place.read(timeline, at, max)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("reading segments panicked").with_source(e))?
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::io(path.display(), error))
}

/// The file at `path`, if there is one.
fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The header of a segment; `None` when what is there is none.
fn header(file: &File) -> io::Result<Option<LongPageHeader>> {
    let mut bytes = [0; LongPageHeader::LENGTH];
    let length = fill(file, &mut bytes, 0)?;
    Ok(LongPageHeader::parse(&bytes[..length]).ok())
}

impl Listing {
    fn of(dir: &Path) -> Result<Self> {
        let mut listing = Self::default();
        for entry in at(dir, fs::read_dir(dir))? {
            let entry = at(dir, entry)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let (stem, partial) = name.strip_suffix(".partial").map_or((name, false), |stem| (stem, true));
            if let Ok(segment) = stem.parse::<SegmentName>() {
                let segments = listing.segments.entry(segment.timeline).or_default();
                // The whole one counts, where there are both.
                if !partial {
                    segments.insert(segment, entry.path());
                } else {
                    segments.entry(segment).or_insert_with(|| entry.path());
                }
            } else if let Some(number) = name.strip_suffix(".history")
                && let Some(timeline) = u32::from_str_radix(number, 16).ok().and_then(TimelineId::new)
                && TimelineHistory::file_name(timeline) == name
            {
                listing.histories.insert(timeline);
            }
        }
        Ok(listing)
    }
}

impl Place {
    fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>> {
        let path = self.dir.join(TimelineHistory::file_name(timeline));
        let Some(file) = open(&path)? else { return Ok(None) };
        let length = at(&path, file.metadata())?.len();
        if length > MAX_HISTORY {
            return Err(Error::damaged(format!("{} has {length} bytes", path.display())));
        }
        let mut bytes = BytesMut::zeroed(usize::try_from(length).unwrap_or_default());
        let length = at(&path, fill(&file, &mut bytes, 0))?;
        bytes.truncate(length);
        Ok(Some(bytes.freeze()))
    }

    /// Looks for the end of the log, and for the way to it.
    fn route(&self) -> Result<Arc<Route>> {
        let listing = Listing::of(&self.dir)?;
        let newest = listing.histories.last().copied().max(listing.segments.keys().next_back().copied());
        let timeline = self.timeline.or(newest).unwrap_or(TimelineId::FIRST);
        let history = if timeline == TimelineId::FIRST { None } else { self.history(timeline)? };
        // Where nothing of a timeline is there yet, the log reaches to where it began.
        let began = match &history {
            Some(content) => TimelineHistory::parse(timeline, content)?.ancestors.last().map(|last| last.end),
            None => None,
        };
        let segments = listing.segments.get(&timeline);
        let mut position = None;
        for (name, path) in segments.into_iter().flatten().rev() {
            position = self.segment_end(*name, path)?;
            if position.is_some() {
                break;
            }
        }
        let position = position
            .max(began)
            .ok_or_else(|| Error::invalid(format!("{} has no segment of timeline {timeline}", self.dir.display())))?;
        let route = Arc::new(Route::new(LogEnd { timeline, position }, history.as_ref())?);
        *self.route.lock() = Some(Arc::clone(&route));
        Ok(route)
    }

    /// How far the log goes in a segment; `None` when the file is not what its name says.
    fn segment_end(&self, name: SegmentName, path: &Path) -> Result<Option<Lsn>> {
        let Some(file) = open(path)? else { return Ok(None) };
        if !self.is_segment(name, &file, path)? {
            return Ok(None);
        }
        let meta = at(path, file.metadata())?;
        let stamp = Stamp { path: path.to_owned(), length: meta.len(), modified: meta.modified().ok() };
        if let Some((seen, end)) = &*self.seen.lock()
            && *seen == stamp
        {
            return Ok(Some(*end));
        }
        let size = self.identity.segment_size;
        let start = name.start(size)?;
        let mut tail = Tail::new(Expected { magic: self.magic, timeline: name.timeline, size, start });
        let mut page = [0; PAGE];
        let mut offset = 0;
        let mut more = true;
        while more && offset < size.bytes() && at(path, fill(&file, &mut page, offset))? == PAGE {
            more = tail.page(&page);
            offset += PAGE as u64;
        }
        // A file that was cut off behind a switch lacks zeros, which cannot be made up for.
        let end = tail.end(more && offset == size.bytes()).min(Lsn(start.0.saturating_add(stamp.length)));
        *self.seen.lock() = Some((stamp, end));
        Ok(Some(end))
    }

    /// Whether `file` is the segment `name` of this log. One that is still empty, or was recycled for a later name, is not.
    fn is_segment(&self, name: SegmentName, file: &File, path: &Path) -> Result<bool> {
        let Some(header) = at(path, header(file))? else { return Ok(false) };
        if header.check_name(name).is_err() {
            return Ok(false);
        }
        if header.system_id != self.identity.system_id || header.segment_size != self.identity.segment_size {
            let (theirs, ours) = (header.system_id, self.identity.system_id);
            return Err(Error::damaged(format!("{} belongs to system {theirs}, not {ours}", path.display())));
        }
        Ok(header.magic == self.magic)
    }

    fn read(&self, timeline: TimelineId, at_position: Lsn, max: usize) -> Result<Option<Bytes>> {
        let size = self.identity.segment_size;
        let offset = size.offset(at_position);
        let segment_end = Lsn((at_position.0 - offset).saturating_add(size.bytes()));
        let known = self.route.lock().clone();
        let route = known.map_or_else(|| self.route(), Ok)?;
        for holder in route.holders(timeline, segment_end) {
            let name = size.name(holder, at_position);
            for path in [self.dir.join(name.to_string()), self.dir.join(format!("{name}.partial"))] {
                let Some(file) = open(&path)? else { continue };
                if !self.is_segment(name, &file, &path)? {
                    continue;
                }
                let max = (segment_end.0 - at_position.0).min(max as u64);
                let mut bytes = BytesMut::zeroed(usize::try_from(max).unwrap_or_default());
                let length = at(&path, fill(&file, &mut bytes, offset))?;
                if length > 0 {
                    bytes.truncate(length);
                    return Ok(Some(bytes.freeze()));
                }
            }
        }
        Ok(None)
    }
}

//! Logs that no server wrote: for tests of all that reads logs, where a real server cannot be made to show a case.

use bytes::Bytes;

use super::page::{Joint, PageHeader, WalFormat};
use super::record::{Compression, HEADER, RecordHeader, RelationId, Rmgr};
use crate::lsn::Lsn;
use crate::page::{Fork, PAGE_SIZE};

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRecord {
    rmgr: Rmgr,
    info: u8,
    xid: u32,
    blocks: Vec<SampleBlock>,
    main: Vec<u8>,
    origin: Option<u16>,
    top_xid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SampleBlock {
    relation: RelationId,
    fork: Fork,
    block: u32,
    image: Option<(Vec<u8>, Option<Compression>)>,
    data: Vec<u8>,
}

impl SampleRecord {
    /// A record of `rmgr` with nothing in it.
    #[must_use]
    pub fn new(rmgr: Rmgr, info: u8) -> Self {
        Self { rmgr, info, xid: 0, blocks: Vec::new(), main: Vec::new(), origin: None, top_xid: None }
    }

    /// The commit of transaction `xid`, `micros` microseconds after the start of 2000.
    #[must_use]
    pub fn commit(xid: u32, micros: i64) -> Self {
        Self::new(Rmgr::TRANSACTION, 0x00).xid(xid).main(micros.to_le_bytes())
    }

    /// A restore point; `name` has at most 63 bytes.
    #[must_use]
    pub fn restore_point(name: &str, micros: i64) -> Self {
        let mut main = micros.to_le_bytes().to_vec();
        main.extend(name.bytes().take(63));
        main.resize(72, 0);
        Self::new(Rmgr::XLOG, 0x70).main(main)
    }

    /// With the transaction that wrote it.
    #[must_use]
    pub fn xid(self, xid: u32) -> Self {
        Self { xid, ..self }
    }

    /// With data that belongs to no block.
    #[must_use]
    pub fn main(self, data: impl AsRef<[u8]>) -> Self {
        Self { main: data.as_ref().to_vec(), ..self }
    }

    /// With a replication origin.
    #[must_use]
    pub fn origin(self, origin: u16) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// With the transaction that the writing one is a part of; from 14 on.
    #[must_use]
    pub fn top_xid(self, xid: u32) -> Self {
        Self { top_xid: Some(xid), ..self }
    }

    /// With one more block.
    #[must_use]
    pub fn block(mut self, relation: RelationId, fork: Fork, block: u32) -> Self {
        self.blocks.push(SampleBlock { relation, fork, block, image: None, data: Vec::new() });
        self
    }

    /// With an image of the last block's page: up to 8192 bytes, fewer if it is compressed.
    #[must_use]
    pub fn image(mut self, bytes: impl AsRef<[u8]>, compression: Option<Compression>) -> Self {
        if let Some(last) = self.blocks.last_mut() {
            last.image = Some((bytes.as_ref().to_vec(), compression));
        }
        self
    }

    /// With data for the last block, up to 65535 bytes.
    #[must_use]
    pub fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        if let Some(last) = self.blocks.last_mut() {
            last.data = data.as_ref().to_vec();
        }
        self
    }

    /// The record as a server of major version `major` would write it behind the one at `prev`.
    fn write(&self, major: u32, prev: Lsn) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        let mut relation = None;
        for (id, block) in (0_u8..).zip(&self.blocks) {
            let fork = match block.fork {
                Fork::Main => 0,
                Fork::FreeSpace => 1,
                Fork::Visibility => 2,
                Fork::Init => 3,
            };
            let same = relation == Some(block.relation);
            let flags = [(block.image.is_some(), 0x10), (!block.data.is_empty(), 0x20), (same, 0x80)];
            out.extend([id, flags.iter().filter(|flag| flag.0).fold(fork, |all, flag| all | flag.1)]);
            out.extend((block.data.len() as u16).to_le_bytes());
            if let Some((bytes, compression)) = &block.image {
                let hole = PAGE_SIZE - bytes.len().min(PAGE_SIZE);
                out.extend((bytes.len() as u16).to_le_bytes());
                out.extend(u16::from(hole > 0).to_le_bytes());
                let method = match compression {
                    None => 0,
                    Some(Compression::Pglz) if major < 15 => 0x02,
                    Some(Compression::Pglz) => 0x04,
                    Some(Compression::Lz4) => 0x08,
                    Some(Compression::Zstd) => 0x10,
                };
                out.push(method | u8::from(hole > 0) | if major >= 15 { 0x02 } else { 0x04 });
                if compression.is_some() && hole > 0 {
                    out.extend(1_u16.to_le_bytes());
                }
            }
            if !same {
                for number in [block.relation.tablespace, block.relation.database, block.relation.number] {
                    out.extend(number.to_le_bytes());
                }
                relation = Some(block.relation);
            }
            out.extend(block.block.to_le_bytes());
        }
        if let Some(origin) = self.origin {
            out.push(253);
            out.extend(origin.to_le_bytes());
        }
        if let Some(top_xid) = self.top_xid {
            out.push(252);
            out.extend(top_xid.to_le_bytes());
        }
        match u8::try_from(self.main.len()) {
            Ok(0) => {}
            Ok(length) => out.extend([255, length]),
            Err(_) => {
                out.push(254);
                out.extend((self.main.len() as u32).to_le_bytes());
            }
        }
        for block in &self.blocks {
            out.extend(block.image.iter().flat_map(|(bytes, _)| bytes));
            out.extend(&block.data);
        }
        out.extend(&self.main);
        let length = out.len() as u32;
        out[0..4].copy_from_slice(&length.to_le_bytes());
        out[4..8].copy_from_slice(&self.xid.to_le_bytes());
        out[8..16].copy_from_slice(&prev.0.to_le_bytes());
        out[16..18].copy_from_slice(&[self.info, self.rmgr.0]);
        let crc = RecordHeader::checksum(RecordHeader::body_sum(&out), &out);
        out[20..24].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// A log, written record by record from the start of a page on.
#[derive(Debug, Clone)]
pub struct SampleLog {
    format: WalFormat,
    timeline: u32,
    base: u64,
    bytes: Vec<u8>,
    last: Lsn,
    records: Vec<(Lsn, Lsn)>,
    /// What the next page says, if no record continues there.
    joint: Joint,
}

impl SampleLog {
    /// An empty log from `start` on, which is moved to the start of its page.
    #[must_use]
    pub fn new(format: &WalFormat, start: Lsn) -> Self {
        let base = start.0 - format.offset_in_page(start.0);
        let (timeline, last) = (format.timeline().get(), Lsn(base.saturating_sub(64)));
        Self { format: *format, timeline, base, bytes: Vec::new(), last, records: Vec::new(), joint: Joint::Clean }
    }

    /// Has further pages say that they are of `timeline`.
    pub fn set_timeline(&mut self, timeline: u32) {
        self.timeline = timeline;
    }

    /// The end of the last record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.base + self.bytes.len() as u64)
    }

    /// Where every complete record begins and ends.
    #[must_use]
    pub fn records(&self) -> &[(Lsn, Lsn)] {
        &self.records
    }

    /// What has been written, with the last page filled up with zeros.
    #[must_use]
    pub fn pages(&self) -> Bytes {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(self.format.page_size() as usize), 0);
        bytes.into()
    }

    /// Appends `record` and tells where it begins.
    pub fn append(&mut self, record: &SampleRecord) -> Lsn {
        let bytes = record.write(self.format.major(), self.last);
        let start = self.put(&bytes, usize::MAX);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.last = start;
        self.records.push((start, self.end()));
        start
    }

    /// Appends a switch and fills up its segment.
    pub fn switch(&mut self) -> Lsn {
        let start = self.append(&SampleRecord::new(Rmgr::XLOG, 0x40));
        let end = self.end().0.next_multiple_of(self.format.segment_size().bytes());
        self.bytes.resize((end - self.base) as usize, 0);
        if let Some(last) = self.records.last_mut() {
            last.1 = Lsn(end);
        }
        start
    }

    /// Has the server die while it writes `record`: what fits on the page is there, and behind it the record that says so.
    /// Nothing happens if all of it fits.
    pub fn give_up(&mut self, record: &SampleRecord) {
        let bytes = record.write(self.format.major(), self.last);
        let at = self.end().0;
        let header = if self.format.offset_in_page(at) == 0 { self.format.header_length(at) } else { 0 };
        let room = self.format.left_in_page(at) as usize - header;
        if bytes.len() <= room {
            return;
        }
        let start = self.put(&bytes, room);
        self.joint = Joint::Overwrites;
        let mut main = start.0.to_le_bytes().to_vec();
        main.extend([0; 8]);
        self.append(&SampleRecord::new(Rmgr::XLOG, 0xd0).main(main));
    }

    /// Writes at most `most` of a record's bytes.
    fn put(&mut self, record: &[u8], most: usize) -> Lsn {
        let mut start = None;
        let mut left = &record[..record.len().min(most)];
        while !left.is_empty() {
            let at = self.end().0;
            if self.format.offset_in_page(at) == 0 {
                let joint = match start {
                    None => std::mem::replace(&mut self.joint, Joint::Clean),
                    Some(_) => Joint::Continues(left.len() as u32),
                };
                self.bytes.extend(PageHeader::write(&self.format, at, self.timeline, joint));
            }
            let at = self.end().0;
            start.get_or_insert(Lsn(at));
            let (piece, rest) = left.split_at(left.len().min(self.format.left_in_page(at) as usize));
            self.bytes.extend(piece);
            left = rest;
        }
        start.unwrap_or_default()
    }
}

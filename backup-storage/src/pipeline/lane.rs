//! A lane: one pack that is being filled by one thread.

use std::sync::Arc;

use backup_core::catalog::PackId;

use super::Shared;
use super::assembly::Assembly;
use crate::error::{Error, Result};
use crate::manifest::{Extent, SegmentSink};
use crate::pack::{Compressor, PackBuilder, Piece, Role, SEGMENT, content_id_of};

/// Fills packs one after the other.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
    compressor: Compressor,
    pack: Option<(PackId, PackBuilder)>,
    bundle: Bundle,
}

/// Small runs of content that will share a segment.
#[derive(Debug, Default)]
struct Bundle {
    content: Vec<u8>,
    pieces: Vec<BundlePiece>,
}

/// Who waits for a piece of the bundle.
#[derive(Debug)]
struct BundlePiece {
    assembly: Arc<Assembly>,
    /// Where the piece stands in its entry.
    at: u64,
    offset: u32,
    len: u32,
    id: [u8; 16],
}

impl Lane {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let compressor = Compressor::new(shared.context.shape.level)?;
        Ok(Self { shared, compressor, pack: None, bundle: Bundle::default() })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Seals one segment into the lane's pack.
    fn seal(&mut self, role: Role, plaintext: &[u8], id: [u8; 16]) -> Result<(PackId, u32)> {
        // Room for the segment even if it does not compress, and for its row in the footer.
        let full = |pack: &PackBuilder| pack.len() + plaintext.len() + 4096 > self.shared.context.shape.pack_size;
        if self.pack.as_ref().is_some_and(|(_, pack)| full(pack)) {
            self.close_pack()?;
        }
        if self.pack.is_none() {
            let number = self.shared.next_pack();
            let builder = PackBuilder::new(number, &self.shared.context.keyring, self.shared.buffer())?;
            self.pack = Some((number, builder));
        }
        let (number, pack) = self.pack.as_mut().ok_or_else(|| Error::internal("a lane has no pack"))?;
        let segment = pack.add(role, &mut self.compressor, plaintext, id)?;
        if let Some(notes) = &self.shared.notes {
            notes.note(*number, segment, role, plaintext);
        }
        Ok((*number, segment))
    }

    fn close_pack(&mut self) -> Result<()> {
        match self.pack.take() {
            Some((number, pack)) => self.shared.send_pack(number, pack.finish()?),
            None => Ok(()),
        }
    }

    /// Where content with this id is already, if an interrupted session has stored it.
    fn known(&self, plaintext: &[u8], id: &[u8; 16]) -> Option<Extent> {
        let place = self.shared.known.find(id, plaintext.len())?;
        let index = self.shared.table.index(place.pack);
        self.shared.table.set_len(place.pack, place.stored_len);
        Some(Extent::stored(plaintext.len() as u64, index, place.segment, place.offset))
    }

    /// Stores a run of content as a segment of its own.
    pub(crate) fn put(&mut self, content: &[u8], id: [u8; 16]) -> Result<Extent> {
        if let Some(extent) = self.known(content, &id) {
            return Ok(extent);
        }
        let (pack, segment) = self.seal(Role::Data, content, id)?;
        self.shared.count_new(content.len() as u64);
        Ok(Extent::stored(content.len() as u64, self.shared.table.index(pack), segment, 0))
    }

    /// Stores a small run of content together with others. Where it is becomes known later; `assembly` is told.
    pub(crate) fn put_small(&mut self, assembly: &Arc<Assembly>, at: u64, content: &[u8], id: [u8; 16]) -> Result<()> {
        if let Some(extent) = self.known(content, &id) {
            assembly.place(at, extent);
            return Ok(());
        }
        if self.bundle.content.len() + content.len() > SEGMENT {
            self.flush_bundle()?;
        }
        self.shared.count_new(content.len() as u64);
        assembly.open_part();
        let offset = u32::try_from(self.bundle.content.len()).map_err(|_| Error::internal("a bundle is too large"))?;
        let len = u32::try_from(content.len()).map_err(|_| Error::internal("a piece is too large"))?;
        self.bundle.content.extend_from_slice(content);
        self.bundle.pieces.push(BundlePiece { assembly: Arc::clone(assembly), at, offset, len, id });
        Ok(())
    }

    fn flush_bundle(&mut self) -> Result<()> {
        let mut bundle = std::mem::take(&mut self.bundle);
        if bundle.pieces.is_empty() {
            return Ok(());
        }
        let id = content_id_of(&self.shared.hash, &bundle.content);
        let (pack, segment) = self.seal(Role::Data, &bundle.content, id)?;
        let index = self.shared.table.index(pack);
        if let Some((_, pack)) = &mut self.pack {
            for piece in &bundle.pieces {
                pack.note(Piece { segment, offset: piece.offset, len: piece.len, id: piece.id });
            }
        }
        for piece in bundle.pieces.drain(..) {
            piece.assembly.place(piece.at, Extent::stored(u64::from(piece.len), index, segment, piece.offset));
            piece.assembly.close_part(self)?;
        }
        // Closing the last part of an entry may store its block map, but never another small run.
        bundle.content.clear();
        self.bundle = bundle;
        Ok(())
    }

    /// Stores bytes of any length that belong to an entry of the manifest.
    pub(crate) fn put_blob(&mut self, blob: &[u8]) -> Result<Vec<Extent>> {
        let mut extents = Vec::new();
        for piece in blob.chunks(SEGMENT) {
            let (pack, segment) = self.seal(Role::Blob, piece, content_id_of(&self.shared.hash, piece))?;
            let index = self.shared.table.index(pack);
            Extent::push(&mut extents, Extent::stored(piece.len() as u64, index, segment, 0));
        }
        Ok(extents)
    }

    /// Seals what is left and hands the pack over.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.flush_bundle()?;
        self.close_pack()
    }
}

impl SegmentSink for Lane {
    fn store(&mut self, role: Role, plaintext: &[u8]) -> Result<(u32, u32)> {
        let id = content_id_of(&self.shared.hash, plaintext);
        let (pack, segment) = self.seal(role, plaintext, id)?;
        Ok((pack.number, segment))
    }
}

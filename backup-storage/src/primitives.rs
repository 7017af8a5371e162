//! The hot kernels one by one, for benchmarks. Not part of the API.

use backup_core::SessionId;
use backup_core::catalog::PackId;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_crypto::{EpochId, EpochKey, RepositoryId, Suite};

use crate::error::Result;
use crate::keyring::Keyring;
use crate::manifest::{BlockMap, Content, Extent, ManifestEntry, ManifestWriter, SegmentSink};
use crate::pack::{BLOCK, Compressor, PackBuilder, PackIndex, Role, Scratch, content_id_of};

/// Keys and buffers of one bench.
#[derive(Debug)]
pub struct Kernels {
    keyring: Keyring,
    compressor: Compressor,
    scratch: Scratch,
    out: Vec<u8>,
}

struct Nowhere(u32);

impl SegmentSink for Nowhere {
    fn store(&mut self, _: Role, _: &[u8]) -> Result<(u32, u32)> {
        self.0 += 1;
        Ok((0, self.0))
    }
}

impl Kernels {
    /// Kernels over `suite`, compressing at level 1.
    ///
    /// # Errors
    /// When zstd cannot be set up.
    pub fn new(suite: Suite) -> Result<Self> {
        let env = Env::system();
        let key = EpochKey::take(&mut env.random());
        let keyring = Keyring::new(RepositoryId::from_bytes(env.random()), suite, [(EpochId(1), key)], env)?;
        Ok(Self { keyring, compressor: Compressor::new(1)?, scratch: Scratch::new()?, out: Vec::new() })
    }

    /// Compresses one segment; the number of bytes left.
    ///
    /// # Errors
    /// Never, for at most 1 MiB.
    pub fn compress(&mut self, segment: &[u8]) -> Result<usize> {
        Ok(self.compressor.compress(segment)?.1.len())
    }

    /// Hashes the blocks of `content` and compares them with `before`; the number of blocks that differ.
    ///
    /// # Errors
    /// Never.
    pub fn diff(&self, content: &[u8], before: &[[u8; 16]]) -> Result<usize> {
        let key = self.keyring.hash_key(self.keyring.current())?;
        let blocks = content.chunks(BLOCK).map(|block| key.block(block));
        Ok(blocks.zip(before).filter(|(now, before)| now != *before).count())
    }

    /// Puts `content` into a pack, segment by segment; the finished object.
    ///
    /// # Errors
    /// When it is more than a pack holds.
    pub fn pack(&mut self, content: &[u8]) -> Result<Vec<u8>> {
        let id = PackId { session: SessionId::from_bytes([1; 16]), number: 0 };
        let mut builder = PackBuilder::new(id, &self.keyring, std::mem::take(&mut self.out))?;
        let key = self.keyring.hash_key(self.keyring.current())?;
        for segment in content.chunks(crate::pack::SEGMENT) {
            builder.add(Role::Data, &mut self.compressor, segment, content_id_of(&key, segment))?;
        }
        Ok(builder.finish()?.object)
    }

    /// Opens every segment of a pack made by [`pack`](Self::pack); the number of bytes of content.
    ///
    /// # Errors
    /// When the object is not such a pack.
    pub fn unpack(&mut self, object: &[u8]) -> Result<usize> {
        let id = PackId { session: SessionId::from_bytes([1; 16]), number: 0 };
        let index = PackIndex::of_object(&self.keyring, id, object)?;
        let mut total = 0;
        for segment in 0..u32::try_from(index.segments().len()).unwrap_or(0) {
            let range = index.range(segment)?;
            let sealed = &object[range.start as usize..range.end as usize];
            index.open(segment, sealed, &mut self.scratch, &mut self.out)?;
            total += self.out.len();
        }
        Ok(total)
    }

    /// Writes the manifest of `entries` files of one extent each; the number of its parts.
    ///
    /// # Errors
    /// Never.
    pub fn manifest(&self, entries: u32) -> Result<usize> {
        let mut writer = ManifestWriter::new();
        let mut sink = Nowhere(0);
        for number in 0..entries {
            let entry = ManifestEntry {
                meta: EntryMeta::file(EntryPath::new(format!("base/16384/{number}"))?),
                len: 8192,
                content: Content::Inline(vec![Extent::stored(8192, 0, number, 0)]),
                blocks: BlockMap::Inline { epoch: 1, hashes: vec![0; 16] },
            };
            writer.add(&entry, &mut sink)?;
        }
        Ok(writer.finish(&mut sink)?.parts.len())
    }
}

/// Every parser of stored bytes, for fuzzing. None may panic, and none may allocate more than its input explains.
pub mod parsers {
    use backup_core::SessionId;
    use backup_core::catalog::{Catalog, PackId};
    use backup_crypto::ObjectHeader;

    use crate::journal::{Entry, Fold};
    use crate::keyring::Keyring;
    use crate::log::object::LogSheet;
    use crate::manifest::{ManifestEntry, Root, decode_packs, decode_parts};
    use crate::pack::{Codec, Decompressor, PackIndex, Trailer, parse_footer};
    use crate::repository::{Description, parse_key};
    use crate::store::ObjectName;

    /// The plain objects.
    pub fn plain(bytes: &[u8]) {
        let _ = Description::parse(bytes);
        let session = SessionId::from_bytes([1; 16]);
        let _ = crate::deposit::paper::parse::<crate::deposit::paper::Deposit>(session, bytes);
        let _ = crate::deposit::paper::parse::<crate::deposit::paper::Answer>(session, bytes);
        let host = backup_core::HostId::from_bytes([1; 16]);
        let _ = crate::deposit::paper::parse::<crate::deposit::paper::Notice>(host, bytes);
        let _ = crate::HostFile::parse(&String::from_utf8_lossy(bytes));
        let _ = parse_key("keys/0001/x", bytes);
        let _ = crate::layout::session_object(&String::from_utf8_lossy(bytes));
        let _ = crate::layout::entry_place(&String::from_utf8_lossy(bytes));
        let _ = crate::layout::key_place(&String::from_utf8_lossy(bytes));
        let _ = crate::layout::epoch_place(&String::from_utf8_lossy(bytes));
    }

    /// What a pack says about itself, as an object and as the plaintext of a footer.
    pub fn pack(keyring: &super::Kernels, bytes: &[u8]) {
        let keyring: &Keyring = &keyring.keyring;
        let id = PackId { session: SessionId::from_bytes([1; 16]), number: 0 };
        let header = bytes.get(..ObjectHeader::LEN).unwrap_or(bytes);
        let _ = PackIndex::parse(keyring, id, header, bytes, bytes.len() as u64);
        let _ = Trailer::parse(bytes, bytes.len() as u64);
        let _ = parse_footer(bytes);
    }

    /// Plaintexts of journals, manifests and pieces of log.
    pub fn cbor(bytes: &[u8]) {
        if let Ok(name) = ObjectName::new("log/1/00000001/0000000001-0000000000000000-0000000000000001") {
            let _ = LogSheet::decode(bytes, &name);
        }
        let _ = minicbor::decode::<Entry<<Catalog as Fold>::Event>>(bytes);
        let _ = minicbor::decode::<ManifestEntry>(bytes);
        let _ = minicbor::decode::<crate::keys::succession::Succession>(bytes);
        let _ = Root::decode(bytes);
        let _ = decode_packs(bytes);
        let _ = decode_parts(bytes);
    }

    /// A compressed segment that claims to have up to 1 MiB.
    pub fn segment(bytes: &[u8]) {
        if let Ok(mut decompressor) = Decompressor::new() {
            let _ = decompressor.decompress(Codec::Zstd, bytes, crate::pack::SEGMENT, &mut Vec::new());
        }
    }
}

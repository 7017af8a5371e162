//! Reading whole packs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use backup_core::catalog::PackId;
use backup_core::engine::Work;
use backup_core::observe::Phase;
use backup_core::repository::VerifyReport;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::findings::{Findings, describe};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{PackCache, blocking};
use crate::layout;
use crate::pack::PackIndex;

/// What is known of packs after they were looked at.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Packs of which nothing can be used.
    pub(super) lost: BTreeMap<PackId, String>,
    /// Segments that cannot be used, of packs that are otherwise fine.
    pub(super) torn: BTreeMap<PackId, Vec<u32>>,
    /// Plain lengths of the segments of packs that were read.
    pub(super) lens: HashMap<PackId, Box<[u32]>>,
}

/// What one pack turned out to be.
enum Inspected {
    Lost {
        problem: String,
        /// Whether it is so for everyone. One that this recipient has no key for may be sound for others.
        certain: bool,
    },
    Read {
        lens: Box<[u32]>,
        torn: Vec<(u32, String)>,
    },
}

impl Inspected {
    fn lost(error: Error) -> Self {
        let certain = error.kind() == ErrorKind::Damaged;
        Self::Lost { problem: describe(error), certain }
    }
}

impl Packs {
    /// Whether nothing is wrong so far.
    pub(super) fn are_sound(&self) -> bool {
        self.lost.is_empty() && self.torn.is_empty()
    }

    /// Notes that nothing of `id` can be used.
    pub(super) fn lose(&mut self, id: PackId, problem: String, findings: &mut Findings) -> Result<()> {
        findings.add(layout::pack(id)?.as_str(), problem.clone(), []);
        self.lost.insert(id, problem);
        Ok(())
    }

    /// Reads and decodes `chosen` completely.
    pub(super) async fn read(
        &mut self,
        context: &Arc<Context>,
        cache: &PackCache,
        chosen: Vec<PackId>,
        work: &Work,
        (report, findings): (&mut VerifyReport, &mut Findings),
    ) -> Result<()> {
        let mut inspected = stream::iter(chosen)
            .map(|id| async move {
                let outcome = match context.store.get(&layout::pack(id)?).await {
                    Ok(object) => {
                        let len = object.len() as u64;
                        work.advanced(Phase::Verify, len);
                        (inspect(context, cache, id, object).await?, len)
                    }
                    Err(e) if e.kind() == ErrorKind::Damaged => (Inspected::lost(e), 0),
                    Err(e) => return Err(e),
                };
                Ok::<_, Error>((id, outcome))
            })
            .buffer_unordered(context.shape.transfers)
            .boxed();
        while let Some(next) = inspected.next().await {
            let (id, (inspected, len)) = next?;
            report.read_bytes += len;
            match inspected {
                Inspected::Lost { problem, certain } => {
                    self.lose(id, problem, findings)?;
                    if !certain {
                        findings.doubt(layout::pack(id)?.as_str());
                    }
                }
                Inspected::Read { lens, torn } => {
                    self.lens.insert(id, lens);
                    for (segment, problem) in torn {
                        findings.add(layout::pack(id)?.as_str(), problem, []);
                        self.torn.entry(id).or_default().push(segment);
                    }
                }
            }
        }
        Ok(())
    }
}

async fn inspect(context: &Arc<Context>, cache: &PackCache, id: PackId, object: Bytes) -> Result<Inspected> {
    let (context, scratches) = (Arc::clone(context), Arc::clone(cache.scratches()));
    blocking(move || {
        // Whatever it says, a pack that this recipient cannot open is of no use to it.
        let index = match PackIndex::of_object(&context.keyring, id, &object) {
            Ok(index) => index,
            Err(e) => return Ok(Inspected::lost(e)),
        };
        let mut scratch = scratches.take()?;
        let mut content = Vec::new();
        let mut torn = Vec::new();
        for (segment, _) in (0..).zip(index.segments()).filter(|(_, info)| !info.is_empty()) {
            let range = index.range(segment)?;
            let sealed = &object[range.start as usize..range.end as usize];
            if let Err(e) = index.open(segment, sealed, &mut scratch, &mut content) {
                torn.push((segment, describe(e)));
            }
        }
        scratches.give(scratch);
        Ok(Inspected::Read { lens: index.segments().iter().map(|s| s.plain_len).collect(), torn })
    })
    .await
}

//! Entries that are the parent's, but for what a stream brings.

use std::sync::Arc;

use backup_core::engine::{Patch, Put, Stored};
use bytes::{Buf, Bytes};
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::oneshot;

use super::sink::Sink;
use crate::error::{Error, Result};
use crate::pack::SEGMENT;
use crate::pipeline::assembly::Assembly;
use crate::pipeline::parent::ParentContent;
use crate::pipeline::sparse::{self, Step};
use crate::pipeline::worker::Job;

/// The bytes that come with a patch.
struct Body<'a> {
    stream: BoxStream<'a, backup_core::Result<Bytes>>,
    /// What came and was not taken yet.
    rest: Bytes,
}

impl Body<'_> {
    /// Waits until something is there to take. False at the end.
    async fn more(&mut self) -> Result<bool> {
        while self.rest.is_empty() {
            match self.stream.next().await {
                Some(piece) => self.rest = piece?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next `len` bytes, or fewer at the end.
    async fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len && self.more().await? {
            let taken = self.rest.len().min(len - bytes.len());
            bytes.extend_from_slice(&self.rest[..taken]);
            self.rest.advance(taken);
        }
        Ok(bytes)
    }
}

impl Sink {
    /// Stores an entry that is the parent's but for what `body` brings.
    pub(super) async fn store_patch(
        &self,
        patch: Patch,
        body: BoxStream<'_, backup_core::Result<Bytes>>,
    ) -> Result<Stored> {
        let mut body = Body { stream: body, rest: Bytes::new() };
        let found = match &self.parent {
            Some(parent) => parent.entry(&patch.meta.path).await?.map(|entry| (parent, entry)),
            None => None,
        };
        let Some((parent, entry)) = found.filter(|(_, entry)| entry.meta.kind == patch.meta.kind) else {
            return Err(Error::invalid(format!("the parent has no {} to patch", patch.meta.path)));
        };
        patch.check(entry.len)?;
        if patch.changes.is_verified() {
            let content = parent.content(&entry, &self.shared).await?;
            return self.compare(patch, content, body).await;
        }
        let steps = sparse::plan_patch(&patch.changes, patch.len, entry.len);
        if patch.len == entry.len && steps.iter().all(|step| matches!(step, Step::Keep(_))) {
            if body.more().await? {
                return Err(patch.wrong_body(true).into());
            }
            let Put::Stored(stored) = self.take_whole(parent, &entry, patch.meta).await? else {
                return Err(Error::internal("what is taken whole cannot vanish"));
            };
            return Ok(stored);
        }
        let content = parent.content(&entry, &self.shared).await?;
        self.overlay(patch, content, steps, body).await
    }

    /// Lays what comes over what the parent has.
    async fn overlay(
        &self,
        patch: Patch,
        parent: ParentContent,
        steps: Vec<Step>,
        mut body: Body<'_>,
    ) -> Result<Stored> {
        let kept = sparse::kept(&steps);
        let portions = sparse::portions(steps, SEGMENT as u64);
        let (meta, inspector) = (patch.meta.clone(), patch.inspector.clone());
        let (assembly, receipt) =
            Assembly::new(Arc::clone(&self.shared), meta, Some(parent), inspector, None, portions.len());
        for range in kept {
            assembly.keep(range)?;
        }
        let last = portions.len() - 1;
        for (number, steps) in portions.into_iter().enumerate() {
            let wanted = usize::try_from(steps.iter().map(Step::reads).sum::<u64>()).unwrap_or(usize::MAX);
            let bytes = body.take(wanted).await?;
            if bytes.len() < wanted {
                return Err(patch.wrong_body(false).into());
            }
            // With the last portion the entry is complete and cannot be taken back.
            if number == last && body.more().await? {
                return Err(patch.wrong_body(true).into());
            }
            self.shared.submit(Job::Patch { assembly: Arc::clone(&assembly), steps, bytes }).await?;
        }
        drop(assembly);
        self.receive(receipt).await
    }

    /// Stores the whole content, and counts what differs from the parent though nobody said so.
    async fn compare(&self, patch: Patch, parent: ParentContent, mut body: Body<'_>) -> Result<Stored> {
        let (meta, inspector) = (patch.meta.clone(), patch.inspector.clone());
        let claimed = Some(patch.changes.clone());
        let (assembly, receipt): (_, oneshot::Receiver<_>) =
            Assembly::new(Arc::clone(&self.shared), meta, Some(parent), inspector, claimed, 1);
        let len = self.feed(&assembly, &mut body.stream, patch.len).await?;
        if len != patch.len {
            return Err(patch.wrong_body(len > patch.len).into());
        }
        self.shared.submit(Job::End { assembly }).await?;
        self.receive(receipt).await
    }
}

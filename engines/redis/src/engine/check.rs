//! Checking a stored backup without a server: the snapshot is read to its end once more.

use backup_core::engine::{CheckContext, CheckReport};
use backup_core::entry::Selector;
use backup_core::observe::{Phase, Unit};
use backup_core::{Finding, Result, Severity};
use futures::TryStreamExt as _;

use super::facts;
use crate::rdb::{Counter, Summary};

/// Reads every entry of the backup, and the snapshot with understanding.
pub(super) async fn check(cx: &CheckContext) -> Result<CheckReport> {
    watched(cx, |_| {}).await
}

/// As [`check`]. The bytes of the snapshot pass `watch` as well, in their order.
pub(super) async fn watched(cx: &CheckContext, mut watch: impl FnMut(&[u8]) + Send) -> Result<CheckReport> {
    let source = &**cx.source();
    let dump = facts::path(facts::DUMP)?;
    let mut report = CheckReport::default();
    let mut found = false;
    cx.work().started(Phase::Verify, Some(source.record().data_bytes), Unit::Bytes);
    let mut entries = source.entries(Selector::all());
    while let Some(entry) = entries.try_next().await? {
        let mut counter = (entry.meta.path == dump).then(Counter::new);
        let mut wrong = None;
        let mut content = source.read(&entry.meta.path, 0..entry.len);
        while let Some(bytes) = content.try_next().await? {
            cx.work().checkpoint()?;
            cx.work().advanced(Phase::Verify, bytes.len() as u64);
            report.bytes += bytes.len() as u64;
            if let Some(counter) = counter.as_mut().filter(|_| wrong.is_none()) {
                watch(&bytes);
                wrong = match counter.push(&bytes) {
                    Ok(taken) if taken == bytes.len() => None,
                    Ok(_) => Some("something stands behind its end".to_owned()),
                    Err(error) => Some(error.to_string()),
                };
            }
        }
        report.entries += 1;
        if let Some(counter) = counter {
            found = true;
            let outcome = match wrong {
                Some(text) => Err(text),
                None => counter.finish().map_err(|error| error.to_string()),
            };
            report.findings.extend(judge(cx, outcome));
        }
    }
    cx.work().ended(Phase::Verify);
    if !found {
        report.findings.push(blocker("missing-file", "it is missing"));
    }
    Ok(report)
}

fn blocker(code: &str, text: &str) -> Finding {
    Finding::new(Severity::Blocker, code, text).about(facts::DUMP)
}

/// What is wrong with the snapshot, if anything is.
fn judge(cx: &CheckContext, outcome: Result<Summary, String>) -> Option<Finding> {
    let summary = match outcome {
        Ok(summary) => summary,
        Err(text) => return Some(blocker("snapshot-damaged", &text)),
    };
    if let Some(database) = summary.differing().next() {
        let text = format!("database {} has other keys than the file says", database.number);
        return Some(blocker("key-count", &text));
    }
    let keys = summary.keys().to_string();
    let stated = cx.source().record().snapshot.fact(facts::KEYS).filter(|stated| *stated != keys);
    stated.map(|stated| blocker("key-count", &format!("it has {keys} keys, the backup had {stated}")))
}

//! The bytes of a snapshot as they are given away: never the last of them before all were seen to be right.

use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};

use super::stored::Stored;
use crate::rdb::{Counter, RdbVersion, Rewriter, Rules};

/// Gives the snapshot, piece by piece, as the rules make it.
pub(super) struct Feed<'a> {
    pieces: BoxStream<'a, Result<Bytes>>,
    pass: Pass,
}

enum Pass {
    /// As it is. The last piece is held until the whole was right.
    Plain {
        counter: Box<Counter>,
        held: Option<Bytes>,
    },
    /// Rewritten. Its end is written when the whole was right.
    Rewrite(Box<Rewriter>),
    Over,
}

impl<'a> Feed<'a> {
    pub(super) fn new(stored: &'a Stored, rules: &Rules, version: Option<RdbVersion>) -> Self {
        let pass = match version {
            None if rules.change_nothing() => Pass::Plain { counter: Box::default(), held: None },
            None => Pass::Rewrite(Box::new(Rewriter::new(rules.clone()))),
            Some(version) => Pass::Rewrite(Box::new(Rewriter::new(rules.clone()).for_version(version))),
        };
        Self { pieces: stored.read(0..stored.len()), pass }
    }

    /// The next piece. None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(piece) = self.pieces.next().await.transpose()? else { return self.end() };
            match &mut self.pass {
                Pass::Plain { counter, held } => {
                    behind(counter.push(&piece)?, &piece)?;
                    if let Some(earlier) = held.replace(piece) {
                        return Ok(Some(earlier));
                    }
                }
                Pass::Rewrite(rewriter) => {
                    let mut out = Vec::new();
                    behind(rewriter.push(&piece, &mut out)?, &piece)?;
                    if !out.is_empty() {
                        return Ok(Some(out.into()));
                    }
                }
                Pass::Over => return Ok(None),
            }
        }
    }

    fn end(&mut self) -> Result<Option<Bytes>> {
        match std::mem::replace(&mut self.pass, Pass::Over) {
            Pass::Plain { counter, held } => {
                counter.finish()?;
                Ok(held)
            }
            Pass::Rewrite(rewriter) => {
                let mut out = Vec::new();
                rewriter.finish(&mut out)?;
                Ok(Some(out.into()))
            }
            Pass::Over => Ok(None),
        }
    }
}

fn behind(taken: usize, piece: &[u8]) -> Result<()> {
    if taken < piece.len() {
        return Err(Error::damaged(format!("{} bytes follow behind the end of the snapshot", piece.len() - taken)));
    }
    Ok(())
}

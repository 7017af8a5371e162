//! `windows`: what can be restored, and what is missing.

use backup_core::run;

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::view::WindowsView;
use crate::table::{Cell, Table};

pub(super) async fn run(cx: &mut Context<'_, '_>) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let restorable = run::windows(&repository, None, cx.work()).await?;
    if cx.json() {
        return cx.document(&WindowsView::new(&restorable));
    }
    if restorable.windows.is_empty() {
        cx.line("nothing can be restored: there is no backup")?;
    } else {
        let mut table = Table::new(&["from", "to", "position", "until", "lineage", "backups", "log", "note"]);
        for timed in &restorable.windows {
            let window = &timed.window;
            table.row(vec![
                Cell::text(timed.from_time),
                Cell::text(timed.to_time),
                Cell::text(window.from()),
                Cell::text(&window.to),
                Cell::text(&window.to.lineage),
                Cell::Count(window.backups.len() as u64),
                Cell::Bytes(window.path.len()),
                Cell::text(if window.orphaned { "orphaned" } else { "" }),
            ]);
        }
        cx.table(&table)?;
    }
    if !restorable.holes.is_empty() {
        let mut table = Table::new(&["hole from", "to", "lineage", "reason"]);
        for hole in &restorable.holes {
            table.row(vec![
                Cell::text(&hole.from),
                Cell::text(&hole.to),
                Cell::text(&hole.range.lineage),
                Cell::text(hole.reason.as_deref().unwrap_or("not known")),
            ]);
        }
        cx.table(&table)?;
    }
    Ok(())
}

//! `list`: the backups, oldest first.

use backup_core::repository::Repository as _;

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::view::ListedView;
use crate::table::{Cell, Table};

pub(super) async fn run(cx: &mut Context<'_, '_>) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let catalog = cx.work().run(repository.catalog()).await?;
    if cx.json() {
        return cx.document(&catalog.backups().map(|backup| ListedView::new(backup, &catalog)).collect::<Vec<_>>());
    }
    let mut columns = vec!["backup", "engine", "kind", "ended at", "data", "new", "stored", "entries", "position"];
    let drilled = catalog.drills().last().is_some();
    if drilled {
        columns.push("proven");
    }
    let mut table = Table::new(&columns);
    for backup in catalog.backups() {
        let mut cells = vec![
            Cell::text(backup.id),
            Cell::text(&backup.snapshot.engine),
            Cell::text(backup.kind),
            Cell::text(backup.ended_at),
            Cell::Bytes(backup.data_bytes),
            Cell::Bytes(backup.new_bytes),
            Cell::Bytes(backup.stored_bytes),
            Cell::Count(backup.entries),
            Cell::text(backup.snapshot.stop.as_ref().map_or("", |position| position.text.as_str())),
        ];
        if drilled {
            let proof = catalog.drills().proof_of(backup.id);
            cells.push(Cell::text(proof.map(|record| record.ended.to_string()).unwrap_or_default()));
        }
        table.row(cells);
    }
    cx.table(&table)?;
    for backup in catalog.backups() {
        if let Some((_, harm)) = catalog.harm(backup.id).next() {
            cx.remark(&format!("backup {} is damaged since {}: {}", backup.id, harm.since, harm.problem));
        }
    }
    Ok(())
}

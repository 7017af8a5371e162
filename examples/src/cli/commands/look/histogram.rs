//! `look redis histogram`: who fills the memory.

use std::collections::BTreeMap;

use backup_core::run;
use backup_redis::look::{Profile, ProfileSettings, Totals};
use clap::Args;
use serde::Serialize;

use super::{KeyView, open, remark_unseen, unseen};
use crate::cli::commands::Context;
use crate::cli::failure::Failure;
use crate::cli::keys::{KeyArgs, shown};
use crate::human;
use crate::table::{Cell, Table};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct HistogramArgs {
    /// The backup's id, as `list` shows it [default: the newest]
    backup: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
    /// What stands between the parts of a key's name
    #[arg(long, value_name = "TEXT", default_value = ":")]
    separator: String,
    /// How many parts of a name are told at most
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    depth: usize,
    /// How many beginnings of names are told: the largest ones. Up to twice as many are kept in memory
    #[arg(long = "prefixes", value_name = "NUMBER", default_value_t = 100)]
    told: usize,
    /// How many of the biggest keys are told
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    biggest: usize,
}

#[derive(Debug, Serialize)]
struct HistogramView {
    backup: backup_core::BackupId,
    all: Totals,
    databases: BTreeMap<u64, Totals>,
    types: BTreeMap<&'static str, Totals>,
    sizes: Vec<SizeView>,
    biggest: Vec<KeyView>,
    prefixes: Vec<PrefixView>,
    /// A beginning that is not told has at most so many bytes.
    prefix_floor: u64,
    unprefixed: Totals,
    /// From this byte on the snapshot could not be seen into.
    unseen_from: Option<u64>,
}

#[derive(Debug, Serialize)]
struct SizeView {
    from: u64,
    to: u64,
    #[serde(flatten)]
    totals: Totals,
}

#[derive(Debug, Serialize)]
struct PrefixView {
    database: u64,
    prefix: String,
    keys: u64,
    bytes: u64,
    /// How many more bytes there may be, at most.
    missed: u64,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, args: HistogramArgs) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let looked = open(cx, &repository, args.backup.as_deref()).await?;
    let settings = ProfileSettings::default()
        .separator(args.separator)
        .depth(args.depth)
        .prefixes(args.told)
        .biggest(args.biggest);
    let profiling = looked.look.profile(args.keys.filter(), settings, cx.work());
    let profile = run::while_reading(&repository, "look", cx.work(), cx.work().run(profiling)).await?;
    let counted = profile.counted;
    let view = HistogramView::new(looked.id, profile);
    if cx.json() {
        return cx.document(&view);
    }
    show(cx, &view)?;
    remark_unseen(cx, counted);
    Ok(())
}

impl HistogramView {
    fn new(backup: backup_core::BackupId, profile: Profile) -> Self {
        let prefixes = profile.prefixes.iter().map(|total| PrefixView {
            database: total.database,
            prefix: shown(&total.prefix),
            keys: total.keys,
            bytes: total.bytes,
            missed: total.missed,
        });
        let sizes = profile.sizes.iter();
        Self {
            backup,
            all: profile.all,
            types: profile.kinds.iter().map(|(kind, totals)| (kind.name(), *totals)).collect(),
            sizes: sizes.map(|class| SizeView { from: class.from, to: class.to, totals: class.totals }).collect(),
            biggest: profile.biggest.iter().map(KeyView::from).collect(),
            prefixes: prefixes.collect(),
            prefix_floor: profile.prefix_floor,
            unprefixed: profile.unprefixed,
            unseen_from: unseen(profile.counted),
            databases: profile.databases,
        }
    }
}

fn show(cx: &mut Context<'_, '_>, view: &HistogramView) -> Result<(), Failure> {
    let cells = |totals: &Totals| [Cell::Count(totals.keys), Cell::Bytes(totals.bytes), Cell::Count(totals.expiring)];
    let row = |what: &str, name: String, totals: &Totals| {
        [Cell::text(what), Cell::text(name)].into_iter().chain(cells(totals)).collect::<Vec<_>>()
    };
    let mut sums = Table::new(&["by", "which", "keys", "size", "expire"]);
    sums.row(row("all", String::new(), &view.all));
    for (database, totals) in &view.databases {
        sums.row(row("database", database.to_string(), totals));
    }
    for (kind, totals) in &view.types {
        sums.row(row("type", (*kind).to_owned(), totals));
    }
    for class in &view.sizes {
        sums.row(row("size", format!("up to {}", human::size(class.to)), &class.totals));
    }
    sums.row(row("prefix", "none".to_owned(), &view.unprefixed));
    cx.table(&sums)?;
    cx.line("")?;
    let mut prefixes = Table::new(&["database", "prefix", "keys", "size", "at most more"]);
    for prefix in &view.prefixes {
        prefixes.row(vec![
            Cell::text(prefix.database),
            Cell::text(&prefix.prefix),
            Cell::Count(prefix.keys),
            Cell::Bytes(prefix.bytes),
            Cell::Bytes(prefix.missed),
        ]);
    }
    cx.table(&prefixes)?;
    cx.line("")?;
    let mut biggest = Table::new(&["database", "biggest keys", "type", "size", "expires"]);
    for key in &view.biggest {
        biggest.row(key.cells().into());
    }
    cx.table(&biggest)?;
    if view.prefix_floor > 0 {
        let most = human::size(view.prefix_floor);
        cx.remark(&format!("there are more prefixes than were kept; one that is not shown has at most {most}"));
    }
    Ok(())
}

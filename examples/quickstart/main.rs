//! `cargo run --example quickstart`
//!
//! A real PostgreSQL is backed up, changed, backed up again, loses the wrong rows, is destroyed, and restored three times, once to the
//! moment before the accident: no set-up, no server at hand.
//! The testkit fetches PostgreSQL 17 once and runs it unprivileged on a free port; at the end, also after Ctrl-C,
//! servers are stopped and directories removed.

mod moment;
mod report;
mod story;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use backup_core::engine::Work;
use backup_examples::cli::exit;
use backup_examples::progress::Bars;
use backup_examples::signals::cancel_on_signals;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use report::Narrator;

/// Back up a real PostgreSQL, destroy it, restore it, and prove it equal.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Args {
    /// Size of the database in MiB
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(8..=100_000))]
    size: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::from(exit::ENVIRONMENT) };
    let code = runtime.block_on(async {
        let cancel = CancellationToken::new();
        if cancel_on_signals(&cancel, exit::CANCELLED.into()).is_err() {
            return exit::ENVIRONMENT;
        }
        let mut work = Work::default().with_cancel(cancel.clone());
        let bars = std::io::stderr().is_terminal().then(|| Arc::new(Bars::on_stderr()));
        if let Some(bars) = &bars {
            work = work.with_observer(Arc::<Bars>::clone(bars));
        }
        let mut narrator = Narrator::new(bars);
        // Dropping the story stops its servers and removes its directories.
        match cancel.run_until_cancelled(story::tell(args.size << 20, &work, &mut narrator)).await {
            Some(Ok(())) => exit::DONE,
            Some(Err(error)) => narrator.failed(error.as_ref()),
            None => narrator.interrupted(),
        }
    });
    runtime.shutdown_background();
    ExitCode::from(code)
}

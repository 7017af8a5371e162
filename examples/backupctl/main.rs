//! `cargo run --release --example backupctl -- --help`
//!
//! Brings the process to [`backup_examples::cli`]: arguments, writers, terminals, environment and signals.

use std::io::IsTerminal;
use std::process::ExitCode;

use backup_examples::cli::{Host, Terminals, exit, main_with};
use backup_examples::signals::cancel_on_signals;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::from(exit::ENVIRONMENT) };
    let code = runtime.block_on(async {
        let cancel = CancellationToken::new();
        if cancel_on_signals(&cancel, exit::CANCELLED.into()).is_err() {
            return exit::ENVIRONMENT;
        }
        let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
        let terminals = Terminals { stdout: stdout.is_terminal(), stderr: stderr.is_terminal() };
        let mut host =
            Host::new(&mut stdout, &mut stderr).with_terminals(terminals).with_process_variables().with_cancel(cancel);
        main_with(std::env::args_os(), &mut host).await
    });
    // Threads that still read for work that was given up are not waited for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

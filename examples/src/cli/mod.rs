//! `backupctl`: one complete composition of the crates as a command-line application.
//!
//! [`main_with`] is the whole program as a function of its arguments and its [`Host`]; nothing here touches the process. The
//! rooms: `args` says what can be asked, `engines` is the registry of engines (one file each), `vault` opens the
//! repository, `commands` has one file per command, `view` the shapes of JSON output, `failure` the exit codes.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use backup_examples::cli::{Host, main_with};
//!
//! let (mut out, mut err) = (Vec::new(), Vec::new());
//! let mut host = Host::new(&mut out, &mut err).with_variable("BACKUP_PASSPHRASE", "correct horse");
//! let code = main_with(["backupctl", "--vault", "memory:///", "--service", "pg-1", "--json", "init"], &mut host).await;
//! assert_eq!(code, 0);
//! let created: serde_json::Value = serde_json::from_slice(&out).unwrap();
//! assert_eq!(created["service"], "pg-1");
//! # }
//! ```

mod args;
mod commands;
mod engines;
mod failure;
mod host;
mod keys;
mod passphrase;
mod secret;
mod target;
mod vault;
mod view;

pub use failure::exit;
pub use host::{Host, Terminals};

use std::ffi::OsString;

use clap::Parser;

use args::Cli;
use commands::Context;
use failure::Failure;

/// Runs the program with `args`, the first of which is its name, and returns its exit code (see [`exit`]).
///
/// Everything that it says goes to the writers of `host`. Cancelling the host's token makes the command end with
/// [`exit::CANCELLED`] as soon as its work is in order.
///
/// # Cancel safety
/// Dropping the future is as safe as cancelling, and says nothing.
pub async fn main_with<I, T>(args: I, host: &mut Host<'_>) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    // Asked for before parsing, because an error of parsing has to know.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let outcome = match Cli::try_parse_from(&args) {
        Ok(cli) => {
            let cx = Context::new(host, &cli.global);
            commands::run(cx, cli.command).await
        }
        Err(error) => Err(Failure::Usage(error)),
    };
    match outcome {
        Ok(()) => exit::DONE,
        Err(failure) => failure.report(host, json),
    }
}

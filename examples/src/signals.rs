//! The signals that ask a program to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `cancel` at the first SIGINT or SIGTERM and ends the process with `code` at the second one.
///
/// The first is a request: work is left in order and says that it was cancelled. Whoever asks twice does not want to wait.
/// The listener lives as long as the runtime.
///
/// # Errors
/// When the handlers cannot be installed. Must be called inside a runtime.
pub fn cancel_on_signals(cancel: &CancellationToken, code: i32) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cancel = cancel.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(code);
            }
            cancel.cancel();
        }
    });
    Ok(())
}

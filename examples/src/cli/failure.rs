//! How a run fails: one clear line or one JSON object on standard error, and an exit code that says what to do.

use std::io;

use backup_core::{Error, ErrorKind};
use serde_json::json;

use super::host::Host;

/// Exit codes. Scripts branch on them, so they never change.
pub mod exit {
    use backup_core::ErrorKind;

    /// Done.
    pub const DONE: u8 = 0;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The request is wrong: a name, a passphrase, a target that does not exist.
    pub const INVALID_INPUT: u8 = 10;
    /// The surroundings are wrong: a missing permission, a full disk, a server of the wrong version.
    pub const ENVIRONMENT: u8 = 11;
    /// Something did not answer: try again later.
    pub const UNAVAILABLE: u8 = 12;
    /// What is stored is damaged.
    pub const DAMAGED: u8 = 13;
    /// Somebody else was first.
    pub const CONFLICT: u8 = 14;
    /// The caller stopped it.
    pub const CANCELLED: u8 = 15;
    /// A bug.
    pub const INTERNAL: u8 = 70;

    /// The exit code of errors of `kind`.
    #[must_use]
    pub fn of(kind: ErrorKind) -> u8 {
        match kind {
            ErrorKind::InvalidInput => INVALID_INPUT,
            ErrorKind::Environment => ENVIRONMENT,
            ErrorKind::Unavailable => UNAVAILABLE,
            ErrorKind::Damaged => DAMAGED,
            ErrorKind::Conflict => CONFLICT,
            ErrorKind::Cancelled => CANCELLED,
            // A kind that this program does not know is as good as a bug of it.
            _ => INTERNAL,
        }
    }
}

/// Why a run did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong, or asks for help.
    Usage(clap::Error),
    /// The work failed.
    Work(Error),
    /// Nobody reads the output any more, or it cannot be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Work(error)
    }
}

impl From<backup_storage::error::Error> for Failure {
    fn from(error: backup_storage::error::Error) -> Self {
        Self::Work(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Says what happened and returns the exit code.
    pub(crate) fn report(self, host: &mut Host<'_>, json: bool) -> u8 {
        match self {
            Self::Usage(error) if !error.use_stderr() => {
                let text = error.render();
                let written = if host.terminals.stdout {
                    write!(host.stdout, "{}", text.ansi())
                } else {
                    write!(host.stdout, "{text}")
                };
                written.map_or_else(|error| Self::Output(error).report(host, json), |()| exit::DONE)
            }
            Self::Usage(error) if json => {
                say(host, &object("usage", &misuse(&error), &[]));
                exit::USAGE
            }
            Self::Usage(error) => {
                let text = error.render();
                let text = if host.terminals.stderr { text.ansi().to_string() } else { text.to_string() };
                say(host, text.trim_end());
                exit::USAGE
            }
            Self::Work(error) => {
                let line = if json {
                    object(error.kind().name(), error.message(), &error.causes())
                } else {
                    format!("error: {}", one_line(&error))
                };
                say(host, &line);
                exit::of(error.kind())
            }
            // Like `backupctl list | head -1`: whoever closed the pipe has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::DONE,
            Self::Output(error) => {
                Self::Work(Error::new(ErrorKind::Environment, format!("standard output: {error}"))).report(host, json)
            }
        }
    }
}

fn object(kind: &str, message: &str, causes: &[String]) -> String {
    json!({"error": {"kind": kind, "message": message, "causes": causes}}).to_string()
}

/// What is wrong with a command line, without advice and usage.
fn misuse(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "the command line is incomplete".to_owned();
    }
    let text = error.render().to_string();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = lines.join(" ");
    message.strip_prefix("error: ").map_or(message.clone(), str::to_owned)
}

/// The last words: when standard error is gone too, the exit code is all that is left.
fn say(host: &mut Host<'_>, line: &str) {
    let _ = writeln!(host.stderr, "{line}");
    let _ = host.stderr.flush();
}

/// The message with its causes. A cause whose words already stand there is left out: many errors repeat what is beneath them.
fn one_line(error: &Error) -> String {
    let mut line = error.message().to_owned();
    for cause in error.causes() {
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [(ErrorKind, u8); 7] = [
        (ErrorKind::InvalidInput, 10),
        (ErrorKind::Environment, 11),
        (ErrorKind::Unavailable, 12),
        (ErrorKind::Damaged, 13),
        (ErrorKind::Conflict, 14),
        (ErrorKind::Cancelled, 15),
        (ErrorKind::Internal, 70),
    ];

    fn reported(failure: Failure, json: bool) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = failure.report(&mut Host::new(&mut out, &mut err), json);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn every_kind_has_its_code_and_its_json() {
        for (kind, code) in KINDS {
            let error = || {
                let disk = Error::new(kind, "disk is full");
                let pack = Error::new(kind, "pack 7 cannot be stored: disk is full").with_source(disk);
                pack.context("backup failed")
            };
            let line = "error: backup failed: pack 7 cannot be stored: disk is full\n".to_owned();
            assert_eq!(reported(Failure::Work(error()), false), (code, String::new(), line));

            let (json_code, out, err) = reported(Failure::Work(error()), true);
            assert_eq!((json_code, out), (code, String::new()));
            let value: serde_json::Value = serde_json::from_str(&err).unwrap();
            let causes = ["pack 7 cannot be stored: disk is full", "disk is full"];
            assert_eq!(value, json!({"error": {"kind": kind.name(), "message": "backup failed", "causes": causes}}));
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(reported(Failure::Output(pipe), false), (0, String::new(), String::new()));
        assert_eq!(reported(Failure::Output(io::Error::from(io::ErrorKind::StorageFull)), false).0, 11);
    }
}

//! A program once for each of many names, as a database server calls its archive command.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

pub(super) fn run(list: &Path, program: &Path, arguments: &[String]) -> Result<(), Error> {
    for name in std::fs::read_to_string(list)?.lines() {
        let arguments = arguments.iter().map(|argument| argument.replace("{}", name));
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
        if !status.success() {
            return Err(format!("{} of {name}: {status}", program.display()).into());
        }
    }
    Ok(())
}

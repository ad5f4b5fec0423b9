//! The commands that talk to a running cluster, or clean up after one.

pub(crate) mod access;
pub(crate) mod alerts;
pub(crate) mod backup;
pub(crate) mod configuration;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod logs;
pub(crate) mod query;
mod remote;
pub(crate) mod scripts;
mod table;
mod time;
pub(crate) mod transfer;

use std::io::Write;
use std::process::ExitCode;

/// One line that says what went wrong and what to do. Exit code 1.
pub(crate) fn fail(e: &anyhow::Error) -> ExitCode {
    // A closed stderr leaves nobody to tell.
    drop(writeln!(std::io::stderr(), "binnacle: {e:#}"));
    ExitCode::FAILURE
}

/// Prints a line to stdout; a closed pipe (`| head`) ends the program quietly.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        r => Ok(r?),
    }
}

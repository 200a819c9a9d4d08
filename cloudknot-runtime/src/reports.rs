//! The channel on which a program answers an order ([`Order`](crate::contract::Order)).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::contract::Report;

/// The open channel. It is not inherited by other processes.
#[derive(Debug)]
pub struct Reports(File);

impl Reports {
    /// Opens the channel: this file, or the program's standard output. From now on, what user code prints to the standard output goes
    /// to the standard error, so that it cannot be taken for a report.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn open(file: Option<&Path>) -> io::Result<Self> {
        let channel = match file {
            Some(path) => OpenOptions::new().append(true).open(path)?,
            None => File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?),
        };
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Self(channel))
    }

    /// Writes a report at once.
    ///
    /// # Errors
    /// Returns an error if nobody reads the reports any more.
    pub fn send(&self, report: &Report<'_>) -> io::Result<()> {
        (&self.0).write_all(report.line().as_bytes())
    }
}

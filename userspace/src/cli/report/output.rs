//! Where a report goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::CliError;

/// Standard output, or a file that is there whole or not at all.
pub(super) struct Output {
    to: Box<dyn Write>,
    /// The file, and the one that becomes it.
    file: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// Opens standard output, or a file in the place of `path`, for its owner alone: a report names users and hosts.
    pub(super) fn open(path: Option<&Path>) -> Result<Output, CliError> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Output { to: Box::new(BufWriter::new(io::stdout().lock())), file: None });
        };
        let refused = |source| CliError::Write { what: path.display().to_string(), source };
        // A pipe or a device is written to, and not replaced.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new().write(true).open(path).map_err(refused)?;
            return Ok(Output { to: Box::new(BufWriter::new(file)), file: None });
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let half = PathBuf::from(name);
        let file: File =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half).map_err(refused)?;
        Ok(Output { to: Box::new(BufWriter::new(file)), file: Some((path.to_owned(), half)) })
    }

    /// The error of a write that failed.
    pub(super) fn failed(&self, source: io::Error) -> CliError {
        match &self.file {
            Some((path, _)) => CliError::Write { what: path.display().to_string(), source },
            None => CliError::Output(source),
        }
    }

    /// Ends it: what was written is there.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        self.to.flush().map_err(|error| self.failed(error))?;
        if let Some((path, half)) = self.file.take() {
            fs::rename(&half, &path)
                .map_err(|source| CliError::Write { what: path.display().to_string(), source })?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Drop for Output {
    /// Takes half a file away.
    fn drop(&mut self) {
        if let Some((_, half)) = &self.file {
            // What led here is told; that half a file is left beside it is the lesser evil.
            fs::remove_file(half).ok();
        }
    }
}

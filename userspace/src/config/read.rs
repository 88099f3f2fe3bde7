//! Reading configuration files, bounded in size.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::faults::{Faults, Place};

/// The largest file that is read, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Reads a whole file; none, and a fault, where it is too large or not UTF-8.
///
/// # Errors
/// What the system says, left to the caller, to whom a missing file may mean nothing.
pub(crate) fn file(path: &Path, faults: &mut Faults) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        faults.add(&Place::file(path), "the file is larger than 1 MiB");
        return Ok(None);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column =
                String::from_utf8_lossy(valid.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
            let column = column.chars().count() + 1;
            let place = Place { line: Some(line), column: Some(column), ..Place::file(path) };
            faults.add(&place, "the text is not UTF-8 here");
            Ok(None)
        }
    }
}

/// What to say of a file or directory that could not be read.
pub(crate) fn refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

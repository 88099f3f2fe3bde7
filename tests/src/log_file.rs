//! The file that the lab's syslog writes to, and what may happen to a log: rotation in its forms.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// A log, appended to by the lab's syslog and by tests.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    /// Creates the file.
    pub(crate) fn create(path: PathBuf) -> Result<LogFile> {
        let file = Mutex::new(open(&path)?);
        Ok(LogFile { path, file })
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, as text.
    pub fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Appends bytes as they are, by one write.
    pub fn append(&self, bytes: &[u8]) -> Result<()> {
        self.locked().write_all(bytes).with_context(|| format!("append to {}", self.path.display()))
    }

    /// Appends a line as sshd's, with the pid `pid` and the present time.
    pub fn sshd(&self, pid: u32, message: &str) -> Result<()> {
        self.append(format!("{}\n", sshd_line(pid, message)).as_bytes())
    }

    /// Appends what sshd, with the pid `pid`, logs first of a login from `from` as a user that does not exist.
    pub fn invalid_user(&self, pid: u32, from: &str) -> Result<()> {
        self.append(format!("{}\n", invalid_user_line(pid, from)).as_bytes())
    }

    /// Renames the file to `auth.log.1` and goes on in a new one, as logrotate's `create` does.
    pub fn rotate_by_rename(&self) -> Result<()> {
        let mut file = self.locked();
        fs::rename(&self.path, self.rotated()).with_context(|| format!("rename {}", self.path.display()))?;
        *file = open(&self.path)?;
        Ok(())
    }

    /// Renames the file to `auth.log.1`; what is logged goes on into that until [`LogFile::reopen`], as with a syslog daemon
    /// that has not been told yet.
    pub fn rename_only(&self) -> Result<()> {
        fs::rename(&self.path, self.rotated()).with_context(|| format!("rename {}", self.path.display()))
    }

    /// Goes on in the file of the proper name, creating it if need be.
    pub fn reopen(&self) -> Result<()> {
        *self.locked() = open(&self.path)?;
        Ok(())
    }

    /// Copies the file to `auth.log.1` and empties it, as logrotate's `copytruncate` does.
    pub fn rotate_by_copytruncate(&self) -> Result<()> {
        let file = self.locked();
        fs::copy(&self.path, self.rotated()).with_context(|| format!("copy {}", self.path.display()))?;
        file.set_len(0).with_context(|| format!("truncate {}", self.path.display()))
    }

    /// Deletes the file; [`LogFile::reopen`] brings an empty one back.
    pub fn delete(&self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("delete {}", self.path.display()))
    }

    fn rotated(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    fn locked(&self) -> MutexGuard<'_, File> {
        // A file is as good after a panic elsewhere as before.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of sshd's of the present, without its end, as rsyslog writes it by default since version 8.2302.
pub fn sshd_line(pid: u32, message: &str) -> String {
    format!("{} guarded sshd[{pid}]: {message}", jiff::Timestamp::now())
}

/// What sshd logs first of a login from `from` as a user that does not exist, and is another one for each `pid`: a name that
/// many sources try is an attack of its own.
pub fn invalid_user_line(pid: u32, from: &str) -> String {
    sshd_line(pid, &format!("Invalid user u{pid} from {from} port 40022"))
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

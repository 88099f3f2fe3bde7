//! Keeping an attacked local account out, and letting it in again: `lock-account`.
//!
//! The account is made to expire in the past. That keeps it out of ssh by whatever means, keys included, with PAM and without
//! (a locked password does not keep keys out where sshd uses PAM), and changes one field of shadow(5), which is put back as it
//! was. Before an account is touched a note of it is made, so that it is unlocked whatever happens to the controller.
//!
//! Left alone are: accounts that are not in `/etc/passwd`, that are root or the system's, whose password or expiry an
//! administrator has locked, that have an ssh session open, and the last one that may become root by sudo.

mod accounts;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use xdpban_engine::change::{Block, CommandRun, Origin};
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;
use xdpban_engine::time::{Now, Wall};

use crate::config::LOCK_ACCOUNT;
use crate::error::chain;
use accounts::Accounts;

/// The directory of notes within that of the store.
const NOTES: &str = "locked-accounts";

/// The status with which `lock-account` says that it left the account alone: EX_NOPERM of sysexits.h(3).
pub const LEFT_ALONE: u8 = 77;

/// The day of the epoch on which a locked account expired. Zero is not for certain the past to every program.
const EXPIRED: i64 = 1;

/// A locked account, as noted before it was locked.
#[derive(Debug, Deserialize, Serialize)]
pub struct Note {
    /// The account.
    pub user: String,
    /// The day of the epoch on which it was to expire; none: never.
    pub expires: Option<i64>,
    /// When it was locked, in microseconds since the epoch.
    pub at: i64,
    /// When it is to be unlocked, in the same way.
    pub until: i64,
    /// Whose attempt was the last.
    pub srcip: std::net::IpAddr,
}

/// Why an account was not locked or unlocked.
#[derive(Debug, thiserror::Error)]
pub enum LockoutError {
    /// It must not be locked.
    #[error("{0} is left alone: {1}")]
    LeftAlone(String, &'static str),
    /// The event on stdin is none.
    #[error("what is on stdin is no event of a `lock-account` response: {0}")]
    Event(String),
    /// A file of accounts, or a note, cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// usermod(8) did not do it.
    #[error("usermod: {0}")]
    Usermod(String),
}

/// What is on stdin.
#[derive(Deserialize)]
struct Event {
    command: String,
    user: Option<String>,
    srcip: std::net::IpAddr,
    timeout_s: Option<u64>,
}

/// Does what the event in `text` asks for; returns what it did, in words. `state` is the directory of the store.
///
/// # Errors
/// [`LockoutError`]. Where an account could not be locked it may be so all the same: see [`may_be_locked`].
pub fn answer(text: &str, state: &Path, now: Wall) -> Result<String, LockoutError> {
    let event: Event = serde_json::from_str(text).map_err(|error| LockoutError::Event(error.to_string()))?;
    let user = event.user.clone().ok_or_else(|| LockoutError::Event("it has no user".to_owned()))?;
    match event.command.as_str() {
        "add" => lock(&user, &event, state, now),
        "delete" => unlock(&user, state),
        other => Err(LockoutError::Event(format!("its command is `{other}`"))),
    }
}

fn lock(user: &str, event: &Event, state: &Path, now: Wall) -> Result<String, LockoutError> {
    let accounts = Accounts::read(Path::new("/etc"))?;
    let today = now.0 / 86_400_000_000;
    if let Some(why) = accounts.why_not(user, today) {
        return Err(LockoutError::LeftAlone(user.to_owned(), why));
    }
    if accounts.uid(user).is_some_and(accounts::has_ssh_session) {
        return Err(LockoutError::LeftAlone(user.to_owned(), "it has an ssh session open"));
    }
    let path = path(state, user);
    if path.exists() {
        return Err(LockoutError::LeftAlone(user.to_owned(), "it is being unlocked"));
    }
    let timeout = std::time::Duration::from_secs(event.timeout_s.unwrap_or(0));
    let note = Note {
        user: user.to_owned(),
        expires: accounts.expires(user),
        at: now.0,
        until: now.after(timeout).0,
        srcip: event.srcip,
    };
    write(&path, &note).map_err(|error| LockoutError::File(path.clone(), error))?;
    let locked = set_expiry(user, Some(EXPIRED));
    if locked.is_err() && is_as_noted(&note, Path::new("/etc")) {
        remove(&path)?;
    }
    locked.map(|()| format!("{user} is locked"))
}

/// Whether the account of a note is certain to be as it was before it was to be locked.
fn is_as_noted(note: &Note, etc: &Path) -> bool {
    Accounts::read(etc).is_ok_and(|accounts| accounts.expires(&note.user) == note.expires)
}

/// Whether `user` has to be unlocked after a run that was to lock the account and failed, or was killed: there is a note of it then.
pub fn may_be_locked(state: &Path, user: &str) -> bool {
    // Not to know is no reason to leave it locked.
    path(state, user).try_exists().unwrap_or(true)
}

fn unlock(user: &str, state: &Path) -> Result<String, LockoutError> {
    let path = path(state, user);
    let Some(note) = read(&path)? else { return Ok(format!("{user} is not locked by xdpban")) };
    let accounts = Accounts::read(Path::new("/etc"))?;
    if accounts.expires(user) != Some(EXPIRED) {
        remove(&path)?;
        return Ok(format!("{user} is left as it is: somebody has changed or removed it since"));
    }
    set_expiry(user, note.expires)?;
    remove(&path)?;
    Ok(format!("{user} is unlocked"))
}

/// Sets the day on which an account expires, and looks whether that took.
fn set_expiry(user: &str, day: Option<i64>) -> Result<(), LockoutError> {
    let text = day.map(|day| day.to_string()).unwrap_or_default();
    let output = Command::new("usermod")
        .args(["--expiredate", &text, "--", user])
        .output()
        .map_err(|error| LockoutError::Usermod(error.to_string()))?;
    if !output.status.success() {
        return Err(LockoutError::Usermod(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    if Accounts::read(Path::new("/etc"))?.expires(user) == day {
        return Ok(());
    }
    Err(LockoutError::Usermod("it said that it was done, and /etc/shadow says otherwise".to_owned()))
}

/// The accounts that are noted as locked. What cannot be read is said and left.
pub fn notes(state: &Path) -> Vec<Note> {
    let directory = state.join(NOTES);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            log::error!("{}: {error}; accounts that are noted there stay locked", directory.display());
            return Vec::new();
        }
    };
    let noted = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()).filter(noted))
        .filter_map(|path| {
            let unread = |error| log::error!("{}; unlock by hand", chain(&error));
            read(&path).map_err(unread).ok().flatten()
        })
        .collect()
}

impl Note {
    /// The run of `lock-account` that made it.
    pub fn into_run(self, now: &Now) -> CommandRun {
        let until = Wall(self.until);
        CommandRun {
            command: LOCK_ACCOUNT.into(),
            per_user: true,
            user: Some(self.user.as_str().into()),
            source: self.srcip,
            why: Block {
                target: Target::exact(self.srcip),
                created: Wall(self.at),
                expires: Some(now.expiry(now.mono_at(until))),
                measure: Measure::default(),
                rule: None,
                reason: "it was locked when the controller died".into(),
                origin: Origin::Adopted,
                offences: 1,
                attempts: 0,
                users: vec![self.user.as_str().into()],
                evidence: Vec::new(),
            },
            undo: None,
        }
    }
}

/// Where the note of `user` is. The name is that of an account, and so has no `/` in it.
fn path(state: &Path, user: &str) -> PathBuf {
    state.join(NOTES).join(format!("{}.json", user.replace('/', "_")))
}

/// The note at `path`, if there is one.
fn read(path: &Path) -> Result<Option<Note>, LockoutError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LockoutError::File(path.to_owned(), error)),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| LockoutError::File(path.to_owned(), error.into()))
}

/// Writes a note so that it is on disk, and whole, before the account is touched.
fn write(path: &Path, note: &Note) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let half = path.with_extension("new");
    let mut file = fs::File::create(&half)?;
    file.write_all(serde_json::to_string(note)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    fs::File::open(directory)?.sync_all()
}

fn remove(path: &Path) -> Result<(), LockoutError> {
    fs::remove_file(path).map_err(|error| LockoutError::File(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_outlives_a_failure_unless_the_account_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path();
        fs::write(etc.join("passwd"), "ann:x:1001:1001::/:/bin/sh\nben:x:1002:1002::/:/bin/sh\n").unwrap();
        fs::write(etc.join("group"), "").unwrap();
        let set = |ann: &str| {
            fs::write(etc.join("shadow"), format!("ann:x:1:0:9:7::{ann}:\nben:x:1:0:9:7:::\n")).unwrap();
        };
        let expires = Some(30_000);
        let note = Note { user: "ann".to_owned(), expires, at: 0, until: 9, srcip: [192, 0, 2, 1].into() };
        assert!(!is_as_noted(&note, etc), "that cannot be told");
        set("1");
        assert!(!is_as_noted(&note, etc));
        set("30000");
        assert!(is_as_noted(&note, etc));
        assert!(!may_be_locked(etc, "ann"));
        write(&path(etc, "ann"), &note).unwrap();
        assert!(may_be_locked(etc, "ann") && !may_be_locked(etc, "ben"));
    }
}

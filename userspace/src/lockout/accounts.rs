//! The host's own accounts, as `/etc/passwd`, `shadow`, `group` and `sudoers` have them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::LockoutError;

/// The groups whose members are administrators on one distribution or another.
const ADMINISTRATORS: [&str; 3] = ["sudo", "wheel", "admin"];

/// The first user id of a person where login.defs(5) does not say.
const UID_MIN: u32 = 1000;

/// The kernel's overflow id: `nobody`.
const NOBODY: u32 = 65_534;

/// Local accounts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    people: HashMap<String, Account>,
    uid_min: u32,
    administrators: HashSet<String>,
}

#[derive(Debug)]
struct Account {
    uid: u32,
    gid: u32,
    /// The password as shadow(5) has it; none where that has no such account.
    password: Option<String>,
    expires: Option<i64>,
}

impl Accounts {
    /// Reads them from the directory `etc`.
    pub(super) fn read(etc: &Path) -> Result<Accounts, LockoutError> {
        let file = |name: &str| {
            let path = etc.join(name);
            fs::read(&path)
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .map_err(|error| LockoutError::File(path, error))
        };
        let optional = |name: &str| match file(name) {
            Err(LockoutError::File(_, error)) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text,
        };
        let mut sudoers = optional("sudoers")?;
        if let Ok(entries) = fs::read_dir(etc.join("sudoers.d")) {
            for entry in entries.flatten() {
                sudoers.push('\n');
                sudoers.push_str(&optional(&format!("sudoers.d/{}", entry.file_name().to_string_lossy()))?);
            }
        }
        Ok(Accounts::of(
            &file("passwd")?,
            &file("shadow")?,
            &file("group")?,
            &sudoers,
            &optional("login.defs")?,
        ))
    }

    fn of(passwd: &str, shadow: &str, group: &str, sudoers: &str, login_defs: &str) -> Accounts {
        let mut this = Accounts { uid_min: UID_MIN, ..Accounts::default() };
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, uid, gid, ..] = fields[..]
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                this.people.insert(name.to_owned(), Account { uid, gid, password: None, expires: None });
            }
        }
        for line in shadow.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, password, _, _, _, _, _, expires, ..] = fields[..]
                && let Some(account) = this.people.get_mut(name)
            {
                account.password = Some(password.to_owned());
                account.expires = expires.parse().ok();
            }
        }
        for line in login_defs.lines() {
            if let Some(("UID_MIN", value)) = line.trim().split_once(char::is_whitespace) {
                this.uid_min = value.trim().parse().unwrap_or(UID_MIN);
            }
        }
        this.note_administrators(group, sudoers);
        this
    }

    /// Who may become root by sudo: the members of the usual groups, and the users and groups whom sudoers(5) names at the
    /// beginning of a line. Aliases and directories on the network are not looked into, so that there may be more of them.
    fn note_administrators(&mut self, group: &str, sudoers: &str) {
        let named: HashSet<&str> =
            sudoers.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let mut groups: HashSet<&str> = ADMINISTRATORS.into_iter().collect();
        groups.extend(named.iter().filter_map(|name| name.strip_prefix('%')));
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else { continue };
            if !groups.contains(name) {
                continue;
            }
            self.administrators.extend(members.split(',').map(str::to_owned));
            let gid: Option<u32> = gid.parse().ok();
            let primary = self.people.iter().filter(|(_, account)| Some(account.gid) == gid);
            self.administrators.extend(primary.map(|(name, _)| name.clone()));
        }
        let people = self.people.keys().filter(|name| named.contains(name.as_str()));
        self.administrators.extend(people.cloned());
    }

    pub(super) fn uid(&self, user: &str) -> Option<u32> {
        self.people.get(user).map(|account| account.uid)
    }

    /// The day of the epoch on which an account expires.
    pub(super) fn expires(&self, user: &str) -> Option<i64> {
        self.people.get(user)?.expires
    }

    /// Why `user` must not be locked, on this day of the epoch.
    pub(super) fn why_not(&self, user: &str, today: i64) -> Option<&'static str> {
        let Some(account) = self.people.get(user) else {
            return Some("there is no such account in /etc/passwd");
        };
        if account.uid == 0 {
            return Some("it is root");
        }
        if account.uid < self.uid_min || account.uid == NOBODY {
            return Some("it is an account of the system");
        }
        let Some(password) = &account.password else { return Some("/etc/shadow has no such account") };
        if password.starts_with(['!', '*']) {
            return Some("its password is locked already, so that guessing leads nowhere");
        }
        if account.expires.is_some_and(|day| day <= today) {
            return Some("it has expired already");
        }
        let others = self.administrators.iter().filter(|name| *name != user);
        let usable = |name: &String| {
            self.people.get(name).is_some_and(|account| {
                account.uid != 0
                    && account.password.as_ref().is_some_and(|password| !password.starts_with(['!', '*']))
                    && account.expires.is_none_or(|day| day > today)
            })
        };
        if self.administrators.contains(user) && !others.into_iter().any(usable) {
            return Some("it is the last account that may become root by sudo");
        }
        None
    }
}

/// Whether a process of sshd runs as this user, which is a session. One in another network namespace is that of a container,
/// whose users have the same ids by chance.
pub(super) fn has_ssh_session(uid: u32) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let ours = fs::metadata("/proc/self/ns/net").map(|data| data.ino()).ok();
    processes.flatten().any(|process| {
        process.metadata().is_ok_and(|data| data.uid() == uid)
            && fs::read(process.path().join("comm")).is_ok_and(|name| name.starts_with(b"sshd"))
            // A process that ended meanwhile is no session.
            && fs::metadata(process.path().join("ns/net")).is_ok_and(|data| Some(data.ino()) == ours)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nann:x:1001:1001::/:/bin/sh\n\
        ben:x:1002:1002::/:/bin/sh\ncid:x:1003:27::/:/bin/sh\ndot:x:1004:1004::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n";
    const SHADOW: &str = "root:$6$x:1:0:9:7:::\ndaemon:*:1:0:9:7:::\nann:$6$x:1:0:9:7:::\nben:$6$x:1:0:9:7::30000:\n\
        cid:!$6$x:1:0:9:7:::\ndot:$6$x:1:0:9:7::100:\ntoor:$6$x:1:0:9:7:::\n";

    fn why_not(group: &str, sudoers: &str, user: &str) -> Option<&'static str> {
        Accounts::of(PASSWD, SHADOW, group, sudoers, "# x\nUID_MIN  1000\n").why_not(user, 20_000)
    }

    #[test]
    fn who_is_left_alone() {
        for (user, why) in [
            ("root", "root"),
            ("toor", "root"),
            ("daemon", "system"),
            ("nosuch", "no such account"),
            ("cid", "password is locked"),
            ("dot", "expired"),
            ("", "no such account"),
            ("../ann", "no such account"),
        ] {
            assert!(why_not("", "", user).is_some_and(|found| found.contains(why)), "{user}");
        }
        assert_eq!(why_not("", "", "ann"), None);
        assert_eq!(why_not("", "", "ben"), None, "it expires some day");
    }

    #[test]
    fn the_last_who_may_become_root_is_left_alone() {
        let last = |group: &str, sudoers: &str| why_not(group, sudoers, "ann").is_some();
        assert!(last("sudo:x:27:ann\n", ""), "cid, whose group it is, is locked");
        assert!(last("wheel:x:10:ann,dot,gone\n", ""), "dot has expired");
        assert!(!last("wheel:x:10:ann,ben\n", ""));
        assert!(last("", "ann ALL=(ALL:ALL) ALL\n"));
        assert!(!last("ops:x:50:ben\n", "ann ALL=(ALL) ALL\n%ops ALL=(ALL) ALL\n"));
        assert!(!last("sudo:x:27:ben\n", ""), "ann is none of them");
    }
}

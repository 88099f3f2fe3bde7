//! fail2ban's configuration: the jails for sshd.
//!
//! Read as fail2ban 1.x reads it (jail.conf(5) and `client/configparserinc.py` in its sources).

mod ini;
mod jail;
mod time;

use std::path::{Path, PathBuf};

use self::ini::Files;
use self::jail::{Jail, Log};
use super::{Draft, draft, finish};
use crate::config::{Faults, duration};

/// The rule of the first jail; those of further ones follow. Wazuh leaves ids from 100000 to the user.
const FIRST_RULE: u32 = 100_500;

/// Failed logins, as fail2ban's filter `sshd` knows them.
const FAILED: [u32; 5] = [5710, 5716, 5718, 5758, 5760];

/// What the filter's mode `ddos` adds, and what `extra` adds; `aggressive` has both.
const DDOS: [u32; 2] = [5701, 5706];
const EXTRA: [u32; 4] = [5751, 5752, 5753, 5759];

/// Turns the configuration in `directory` into one of ours.
///
/// # Errors
/// A file cannot be read, or is faulty; with the line.
pub fn import(directory: &Path) -> Result<String, Faults> {
    let files = Files::read(directory)?;
    let enabled: Vec<Jail<'_>> =
        files.jails().map(|name| Jail::new(&files, name)).filter(Jail::is_enabled).collect();
    let (sshd, others): (Vec<_>, Vec<_>) = enabled.into_iter().partition(Jail::is_for_sshd);
    let (repeaters, others): (Vec<_>, Vec<_>) = others.into_iter().partition(Jail::is_for_repeaters);

    let mut draft = Draft::default();
    draft.comment(&format!("Imported from {}, a configuration of fail2ban.", directory.display()));
    draft.comment(
        "fail2ban counts lines of the log, and sshd writes several about one login. Here attempts are counted, each once.",
    );
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(Jail::name).collect();
        draft.comment(&format!(
            "Left out: the jails {}. Other programs than sshd need decoders and rules of your own; docs/rules.md has examples.",
            names.join(", ")
        ));
    }
    for jail in repeaters {
        draft.comment(&format!(
            "Left out: the jail {}, which bans for longer who was banned before. `repeat_offenders` in a response does that, such as \
             repeat_offenders = [\"1h\", \"1d\", \"1w\"].",
            jail.name()
        ));
    }
    if sshd.is_empty() {
        draft.comment("No jail for sshd is enabled. Without any response in this file the default ones hold, which do watch sshd.");
    }
    draft.blank();
    sources(&mut draft, &sshd);
    for (jail, id) in sshd.iter().zip(FIRST_RULE..) {
        response(&mut draft, jail, id);
    }
    allow(&mut draft, &sshd);
    finish(draft)
}

/// The logs of the jails, unless they are those that are found without being named.
fn sources(draft: &mut Draft, jails: &[Jail<'_>]) {
    let mut logs: Vec<Log> = Vec::new();
    for jail in jails {
        let found = jail.logs();
        for note in found.notes {
            draft.comment(&format!("Left out, of the jail {}: {note}.", jail.name()));
        }
        for log in found.logs {
            if !logs.contains(&log) {
                logs.push(log);
            }
        }
    }
    if logs.iter().all(Log::is_usual) {
        draft.comment("The log of sshd is found at start; a [[source]] would name another.");
        draft.blank();
        return;
    }
    for log in logs {
        draft.table("[[source]]");
        match log {
            Log::Journal => draft.key("kind", &draft::text("journal")),
            Log::File(path) => {
                draft.key("kind", &draft::text("file"));
                draft.key("path", &draft::text(&path));
            }
        }
        draft.blank();
    }
}

/// The rule that counts as the jail counts, and the response to it.
fn response(draft: &mut Draft, jail: &Jail<'_>, id: u32) {
    draft.comment(&format!("[{}]", jail.name()));
    let mut notes = jail.without_counterpart();
    let (retries, find_time, ban) =
        (jail.max_retry(&mut notes), jail.find_time(&mut notes), jail.ban(&mut notes));
    let mode = jail.mode();
    let mut base = FAILED.to_vec();
    match mode.as_str() {
        "normal" => {}
        "ddos" => base.extend(DDOS),
        "extra" => base.extend(EXTRA),
        "aggressive" => base.extend(DDOS.into_iter().chain(EXTRA)),
        other => {
            notes.push(format!("mode `{other}`, which is none of fail2ban's; failed logins are counted"))
        }
    }
    if matches!(mode.as_str(), "ddos" | "aggressive") {
        notes.push(
            "connections that are merely closed before a login: a network that breaks looks the same, and sshd's other messages \
             about such clients are counted"
                .to_owned(),
        );
    }
    for note in &notes {
        draft.comment(&format!("Left out: {note}."));
    }
    let answered = if retries > 1 {
        draft.table("[[rule]]");
        draft.key("id", &id.to_string());
        draft.key("level", "10");
        draft.key("groups", &draft::texts(["syslog", "sshd", "authentication_failures"]));
        let what = format!("{retries} failed logins, as in fail2ban's jail {}", jail.name());
        draft.key("description", &draft::text(&what));
        draft.key("base", &draft::list(base));
        draft.key("count", &retries.to_string());
        draft.key("window", &draft::text(&draft::duration(find_time)));
        draft.blank();
        vec![id]
    } else {
        base
    };
    draft.table("[[response]]");
    draft.key("rules", &draft::list(answered));
    match ban.first {
        Some(first) => {
            draft.key("timeout", &draft::text(&draft::duration(first.min(duration::LONGEST))));
            if !ban.repeated.is_empty() {
                let longer = ban.repeated.iter().map(|repeated| draft::duration(*repeated));
                draft.key("repeat_offenders", &draft::texts(longer));
            }
        }
        None => draft.comment("As in fail2ban it never ends by itself: it lasts until `xdpban unblock`."),
    }
    draft.blank();
}

fn allow(draft: &mut Draft, jails: &[Jail<'_>]) {
    let mut networks: Vec<String> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for entry in jails.iter().flat_map(Jail::ignored) {
        let (list, text) = match super::network(&entry) {
            Some(network) => (&mut networks, network.to_string()),
            None => (&mut others, entry),
        };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    if networks.is_empty() && others.is_empty() {
        return;
    }
    draft.comment("ignoreip; here it holds for every rule, and for blocks by hand, too.");
    for other in others {
        draft.comment(&format!(
            "Left out: `{other}`; only addresses and networks can be allowed, names cannot."
        ));
    }
    draft.table("[allow]");
    draft.key("networks", &draft::texts(networks));
}

/// The files of a directory whose names end so, sorted. A directory that is not there has none.
fn files_in(directory: &Path, extension: &str) -> std::io::Result<Vec<PathBuf>> {
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;

//! What a jail says.

use std::time::Duration;

use super::ini::Files;
use super::time;
use crate::config::duration;

/// What fail2ban itself holds where no file says anything.
const BAN_TIME: Duration = Duration::from_secs(600);
const FIND_TIME: Duration = Duration::from_secs(600);
const MAX_RETRY: u32 = 5;

/// How often bans become longer where nothing bounds them.
const STEPS: u32 = 10;

/// The logs that are found without being named.
const USUAL: [&str; 2] = ["/var/log/auth.log", "/var/log/secure"];

/// Options of a jail that have no counterpart, and why not; told where they are set.
const WITHOUT: [(&str, &str); 7] = [
    ("ignorecommand", "which runs a program for each address; name the networks in [allow]"),
    (
        "failregex",
        "an expression of the jail's own; a decoder of your own can take its place (docs/rules.md)",
    ),
    ("ignoreregex", "an expression of the jail's own"),
    ("bantime.formula", "a formula; the time doubles with each offence in its place"),
    ("bantime.rndtime", "a random part of the time"),
    ("journalmatch", "which selects entries of the journal; those of sshd are read"),
    ("protocol", "all packets of the source are dropped"),
];

/// A jail.
pub(super) struct Jail<'f> {
    files: &'f Files,
    name: &'f str,
}

/// How long a jail bans.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ban {
    /// The first time; none: for ever.
    pub(super) first: Option<Duration>,
    /// The second time, the third, and so on.
    pub(super) repeated: Vec<Duration>,
}

/// Where a jail reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Log {
    Journal,
    File(String),
}

impl Log {
    /// Whether it is found without being named.
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Log::File(path) if USUAL.contains(&path.as_str()))
    }
}

/// The logs of a jail, and what is said about those that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub(super) logs: Vec<Log>,
    pub(super) notes: Vec<String>,
}

impl<'f> Jail<'f> {
    pub(super) fn new(files: &'f Files, name: &'f str) -> Jail<'f> {
        Jail { files, name }
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.is_set("enabled")
    }

    /// Whether its filter is one of fail2ban's for sshd.
    pub(super) fn is_for_sshd(&self) -> bool {
        let (filter, _) = self.filter();
        filter == "sshd" || filter.starts_with("sshd-")
    }

    /// Whether it bans for longer who was banned by other jails.
    pub(super) fn is_for_repeaters(&self) -> bool {
        self.filter().0 == "recidive"
    }

    /// The filter's name, and the parameters in brackets behind it.
    fn filter(&self) -> (String, String) {
        let filter = self.text("filter").unwrap_or_else(|| self.name.to_owned());
        match filter.split_once('[') {
            Some((name, parameters)) => (name.trim().to_owned(), parameters.trim_end_matches(']').to_owned()),
            None => (filter, String::new()),
        }
    }

    /// The filter's mode: what its parameters say prevails.
    pub(super) fn mode(&self) -> String {
        let (filter, parameters) = self.filter();
        let given = parameters.split(',').filter_map(|parameter| parameter.split_once('='));
        let given = given.filter(|(name, _)| name.trim() == "mode").map(|(_, mode)| mode).next_back();
        let mode = match given {
            Some(mode) => mode.trim_matches([' ', '"', '\'']).to_owned(),
            // Filters of older versions, and jails without the usual filter.
            None if filter == "sshd-ddos" => "ddos".to_owned(),
            None if filter == "sshd-aggressive" => "aggressive".to_owned(),
            None => String::new(),
        };
        if mode.is_empty() { "normal".to_owned() } else { mode }
    }

    pub(super) fn max_retry(&self, notes: &mut Vec<String>) -> u32 {
        let Some(text) = self.text("maxretry") else { return MAX_RETRY };
        match text.parse() {
            Ok(retries @ 1..=10_000) => retries,
            _ => {
                notes.push(format!("maxretry `{text}`; {MAX_RETRY} is taken"));
                MAX_RETRY
            }
        }
    }

    pub(super) fn find_time(&self, notes: &mut Vec<String>) -> Duration {
        let Some(text) = self.text("findtime") else { return FIND_TIME };
        time::seconds(&text).and_then(whole).unwrap_or_else(|| {
            notes.push(format!("findtime `{text}`, which is not understood; 10m is taken"));
            FIND_TIME
        })
    }

    /// How long it bans, and those that come back, with `bantime.increment`.
    pub(super) fn ban(&self, notes: &mut Vec<String>) -> Ban {
        let first = match self.text("bantime").map(|text| (time::seconds(&text), text)) {
            None => BAN_TIME,
            Some((Some(seconds), _)) if seconds < 0.0 => return Ban { first: None, repeated: Vec::new() },
            Some((seconds, text)) => seconds.and_then(whole).unwrap_or_else(|| {
                notes.push(format!("bantime `{text}`, which is not understood; 10m is taken"));
                BAN_TIME
            }),
        };
        let repeated =
            if self.is_set("bantime.increment") { self.increments(first, notes) } else { Vec::new() };
        Ban { first: Some(first), repeated }
    }

    fn increments(&self, first: Duration, notes: &mut Vec<String>) -> Vec<Duration> {
        let number = |option: &str, read: &dyn Fn(&str) -> Option<f64>, notes: &mut Vec<String>| {
            let text = self.text(option).filter(|text| !text.is_empty())?;
            let number = read(&text).filter(|number| number.is_finite() && *number > 0.0);
            if number.is_none() {
                notes.push(format!("{option} `{text}`, which is not understood"));
            }
            number
        };
        let factor = number("bantime.factor", &|text| text.parse().ok(), notes).unwrap_or(1.0);
        let longest = number("bantime.maxtime", &time::seconds, notes).unwrap_or(f64::INFINITY);
        let multipliers: Vec<f64> = match self.multipliers() {
            // The first of them is for the first offence, which is not banned for longer.
            Some(text) => text.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect(),
            None => (1..=STEPS).map(|step| f64::from(1_u32 << step)).collect(),
        };
        let mut repeated: Vec<Duration> = Vec::new();
        for multiplier in multipliers {
            let seconds = first.as_secs_f64() * factor * multiplier;
            let Some(duration) = whole(seconds.min(longest)) else { continue };
            if repeated.last() == Some(&duration) {
                break;
            }
            repeated.push(duration);
        }
        notes.push(
            "the memory of earlier offences, dbpurgeage; here they are forgotten a day after the last block, or as \
             `forget_after` in the response says"
                .to_owned(),
        );
        repeated
    }

    fn multipliers(&self) -> Option<String> {
        self.text("bantime.multipliers").filter(|text| !text.is_empty())
    }

    /// `ignoreip`, one by one.
    pub(super) fn ignored(&self) -> Vec<String> {
        let list = self.text("ignoreip").unwrap_or_default();
        let entries = list.split([',', ' ', '\t', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::to_owned).collect()
    }

    pub(super) fn logs(&self) -> Logs {
        let mut found = Logs::default();
        if self.text("backend").is_some_and(|backend| backend.starts_with("systemd")) {
            found.logs.push(Log::Journal);
            return found;
        }
        match self.files.value(self.name, "logpath") {
            Ok(Some(paths)) => {
                for line in paths.lines() {
                    // `tail` and `head` say where to begin; here reading goes on where it stopped.
                    let path = line.trim().trim_end_matches(" tail").trim_end_matches(" head").trim_end();
                    if path.is_empty() {
                    } else if path.contains(['*', '?', '[']) {
                        found.notes.push(format!("logpath `{path}`; name each file in a [[source]]"));
                    } else if !path.starts_with('/') {
                        found.notes.push(format!("logpath `{path}`, which is no absolute path"));
                    } else {
                        found.logs.push(Log::File(path.to_owned()));
                    }
                }
            }
            Ok(None) => {}
            Err(why) => found.notes.push(format!("logpath: {why}")),
        }
        found
    }

    /// What is set and has no counterpart.
    pub(super) fn without_counterpart(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (option, why) in WITHOUT {
            let raw = self.files.raw(self.name, option).unwrap_or_default();
            // Where there are multipliers fail2ban takes them.
            let usual = option == "bantime.formula" && self.multipliers().is_some()
                || option == "protocol" && raw == "tcp"
                || option == "ignoreregex" && raw == "%(known/ignoreregex)s";
            if !raw.is_empty() && !usual {
                notes.push(format!("{option}, {why}"));
            }
        }
        if let Some(port) =
            self.text("port").filter(|port| !matches!(port.as_str(), "" | "all" | "any" | "0:65535"))
        {
            notes.push(format!(
                "port `{port}`; all packets of the source are dropped, to whatever port. `ports` in the response, such as \
                 `ports = [22]`, would leave the others alone"
            ));
        }
        match self.files.raw(self.name, "action") {
            None | Some("" | "%(action_)s") => {}
            Some(action) => {
                let action = action.split_whitespace().collect::<Vec<_>>().join(" ");
                notes.push(format!(
                    "action `{action}`; xdpban blocks in the kernel by itself. For a mail, a webhook or a command of \
                     your own beside that see docs/commands.md"
                ));
            }
        }
        for option in ["enabled", "filter", "maxretry", "findtime", "bantime", "ignoreip", "backend"] {
            if let Err(why) = self.files.value(self.name, option) {
                notes.push(format!("{option}: {why}"));
            }
        }
        notes
    }

    fn is_set(&self, option: &str) -> bool {
        let value = self.text(option).unwrap_or_default();
        matches!(value.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
    }

    /// What an option says; none where it says nothing, or where its references are wrong, of which
    /// [`Jail::without_counterpart`] tells.
    fn text(&self, option: &str) -> Option<String> {
        self.files.value(self.name, option).ok().flatten().map(|text| text.trim().to_owned())
    }
}

/// A duration of whole seconds, at least one, and at most the longest that there is.
fn whole(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.ceil().min(duration::LONGEST.as_secs_f64())))
}

//! Responses that run a command: `action = "run"`, and the ready-made `lock-account` and `notify`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{AccessFlags, User, access};
use toml::de::DeValue;
use xdpban_engine::rules::RuleId;

use super::document::Section;
use super::faults::Faults;
use super::values;

/// The rule that counts the failed logins of one user from anywhere. It exists where `lock-account` is asked for.
pub(super) const LOCKOUT_RULE: RuleId = RuleId(205_703);

/// The name of the command that `lock-account` runs.
pub const LOCK_ACCOUNT: &str = "lock-account";

/// What a response runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name on record, unlike that of every other.
    pub name: Arc<str>,
    /// What it is.
    pub what: What,
    /// The account that it runs as.
    pub user: String,
    /// How long it may run.
    pub time_limit: Duration,
    /// How many may run at once.
    pub at_most: u32,
    /// After how long it is tried again where it fails, time after time.
    pub retry: Vec<Duration>,
    /// Over how long events are gathered into one; none: each is told by itself.
    pub digest: Option<Duration>,
}

/// What there is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A program of the user's own by its absolute path, and its arguments.
    Own(Vec<String>),
    /// Locks the account that is attacked.
    LockAccount,
    /// Sends a mail to this address.
    Mail(String),
    /// Sends the event to this URL.
    Webhook(String),
}

impl Command {
    /// The programs that sending mail and calling a webhook take.
    pub const SENDMAIL: &str = "/usr/sbin/sendmail";
    /// See [`Command::SENDMAIL`].
    pub const CURL: &str = "/usr/bin/curl";

    /// The one that `lock-account` runs, the same in every configuration.
    pub fn lock_account() -> Command {
        Command {
            name: LOCK_ACCOUNT.into(),
            what: What::LockAccount,
            user: "root".to_owned(),
            time_limit: Duration::from_secs(30),
            // Accounts are changed one after the other, so that two of the last administrators cannot be locked at once.
            at_most: 1,
            retry: Vec::new(),
            digest: None,
        }
    }

    /// The program that is run; none where it is xdpban's own.
    pub fn program(&self) -> Option<PathBuf> {
        match &self.what {
            What::Own(argv) => argv.first().map(PathBuf::from),
            What::LockAccount => None,
            What::Mail(_) => Some(Command::SENDMAIL.into()),
            What::Webhook(_) => Some(Command::CURL.into()),
        }
    }

    /// What keeps it from being run on this host, as far as can be told without running it.
    pub fn trouble(&self) -> Option<String> {
        let program = self.program()?;
        let usable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
        let why = if !usable(&program) {
            format!("{} is no program on this host", program.display())
        } else if matches!(User::from_name(&self.user), Ok(None)) {
            format!("there is no user `{}` on this host", self.user)
        } else {
            return None;
        };
        Some(format!("the command `{}` cannot run: {why}", self.name))
    }
}

/// What a `[[response]]` does.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Block,
    Throttle,
    Run,
    LockAccount,
    Notify,
}

impl Kind {
    pub(super) const ALL: [(&str, Kind); 5] = [
        ("block", Kind::Block),
        ("throttle", Kind::Throttle),
        ("run", Kind::Run),
        (LOCK_ACCOUNT, Kind::LockAccount),
        ("notify", Kind::Notify),
    ];

    pub(super) fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A command, and what a response with it counts.
pub(super) struct RawCommand {
    pub(super) command: Command,
    /// For `lock-account`: after how many failed logins, within how long.
    pub(super) lockout: Option<(u32, Duration)>,
    /// Whether it is not run for sources that are never blocked.
    pub(super) guarded: bool,
}

/// Keys that go with some actions only, and with which.
const OF: [(&str, &[Kind]); 18] = [
    ("rules", &[Kind::Block, Kind::Throttle, Kind::Run, Kind::Notify]),
    ("groups", &[Kind::Block, Kind::Throttle, Kind::Run, Kind::Notify]),
    ("level", &[Kind::Block, Kind::Throttle, Kind::Run, Kind::Notify]),
    ("ports", &[Kind::Block, Kind::Throttle]),
    ("scope", &[Kind::Block, Kind::Throttle]),
    ("repeat_offenders", &[Kind::Block, Kind::Throttle]),
    ("forget_after", &[Kind::Block, Kind::Throttle]),
    ("aggregate", &[Kind::Block, Kind::Throttle]),
    ("timeout", &[Kind::Block, Kind::Throttle, Kind::Run, Kind::LockAccount]),
    ("command", &[Kind::Run]),
    ("user", &[Kind::Run]),
    ("name", &[Kind::Run, Kind::Notify]),
    ("time_limit", &[Kind::Run, Kind::Notify]),
    ("at_most", &[Kind::Run]),
    ("failures", &[Kind::LockAccount]),
    ("window", &[Kind::LockAccount]),
    ("digest", &[Kind::Notify]),
    ("retry", &[Kind::Notify]),
];

/// Notes the keys that do not go with the action.
pub(super) fn misplaced(section: &Section<'_>, kind: Kind, faults: &mut Faults) {
    let to_notify: &[Kind] = &[Kind::Notify];
    let keys = OF.into_iter().chain([("mail", to_notify), ("webhook", to_notify)]);
    for (key, _) in keys.filter(|(key, kinds)| section.has(key) && !kinds.contains(&kind)) {
        let message = format!("`{key}` does not go with `action = \"{}\"`", kind.name());
        faults.add(&section.place_of(key), message);
    }
}

/// What a response of this kind runs; none where it runs nothing, or is faulty.
pub(super) fn command(section: &Section<'_>, kind: Kind, faults: &mut Faults) -> Option<RawCommand> {
    match kind {
        Kind::Block | Kind::Throttle => None,
        Kind::Run => run(section, faults),
        Kind::LockAccount => lock_account(section, faults),
        Kind::Notify => notify(section, faults),
    }
}

fn run(section: &Section<'_>, faults: &mut Faults) -> Option<RawCommand> {
    if !section.has("command") {
        let message = "a response that runs a command needs `command`: the program by its absolute path, and its \
                       arguments, such as [\"/usr/local/bin/tell\", \"--quietly\"]";
        section.missing(message, faults);
    }
    let argv: Vec<String> =
        section.values("command", faults, argument).into_iter().map(|(_, word)| word).collect();
    let program = argv.first()?.clone();
    if !program.starts_with('/') {
        let message =
            format!("`command`: `{program}` is not the absolute path of a program; there is no shell");
        faults.add(&section.place_of("command"), message);
    }
    let own_name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    let command = Command {
        name: section
            .value("name", faults, |v| values::word(v, "the name of a command"))
            .unwrap_or(own_name)
            .into(),
        what: What::Own(argv),
        user: section
            .value("user", faults, |v| values::word(v, "the name of a user"))
            .unwrap_or_else(|| NOBODY.to_owned()),
        time_limit: time_limit(section, TIME_LIMIT, faults),
        at_most: section.value("at_most", faults, |v| values::whole(v, 1..=64)).unwrap_or(AT_MOST),
        retry: Vec::new(),
        digest: None,
    };
    Some(RawCommand { command, lockout: None, guarded: true })
}

fn time_limit(section: &Section<'_>, default: Duration, faults: &mut Faults) -> Duration {
    let time_limit = section.value("time_limit", faults, values::duration).unwrap_or(default);
    if time_limit > MOST_TIME {
        faults.add(&section.place_of("time_limit"), "`time_limit`: a command may run for an hour at most");
    }
    time_limit
}

fn lock_account(section: &Section<'_>, faults: &mut Faults) -> Option<RawCommand> {
    if !section.has("timeout") {
        section
            .missing("a response that locks accounts needs `timeout`, after which it unlocks them", faults);
    }
    let failures = section.value("failures", faults, |v| values::whole(v, 3..=256)).unwrap_or(10);
    let window = section.value("window", faults, values::duration).unwrap_or(Duration::from_secs(600));
    Some(RawCommand { command: Command::lock_account(), lockout: Some((failures, window)), guarded: false })
}

fn notify(section: &Section<'_>, faults: &mut Faults) -> Option<RawCommand> {
    let mail = section.value("mail", faults, |value| {
        let to = values::word(value, "an address of mail")?;
        let odd = |c: char| matches!(c, ',' | ';' | '<' | '>' | '"' | '(' | ')');
        if to.contains(odd) { Err("write one address, such as \"root\"".to_owned()) } else { Ok(to) }
    });
    let webhook = section.value("webhook", faults, |value| {
        let url = values::word(value, "a URL")?;
        let known = url.starts_with("https://") || url.starts_with("http://");
        if known { Ok(url) } else { Err("a URL begins with `https://` or `http://`".to_owned()) }
    });
    if section.has("mail") == section.has("webhook") {
        section.missing("a response that notifies needs either `mail` or `webhook`", faults);
    }
    let (name, what) = match (mail, webhook) {
        (Some(to), None) => ("mail", What::Mail(to)),
        (None, Some(url)) => ("webhook", What::Webhook(url)),
        _ => return None,
    };
    let command = Command {
        name: section
            .value("name", faults, |v| values::word(v, "the name of a command"))
            .unwrap_or_else(|| name.to_owned())
            .into(),
        what,
        user: NOBODY.to_owned(),
        time_limit: time_limit(section, NOTIFY_TIME_LIMIT, faults),
        at_most: 1,
        retry: retry(section, faults),
        digest: section.value("digest", faults, values::duration),
    };
    Some(RawCommand { command, lockout: None, guarded: false })
}

/// After how long a notification that failed is tried again, time after time.
fn retry(section: &Section<'_>, faults: &mut Faults) -> Vec<Duration> {
    if !section.has("retry") {
        return RETRY.to_vec();
    }
    let waits = section.values("retry", faults, values::duration);
    if waits.len() > MOST_RETRIES || waits.iter().any(|(_, wait)| *wait > MOST_TIME) {
        let message = format!("`retry`: at most {MOST_RETRIES} times, and each within an hour");
        faults.add(&section.place_of("retry"), message);
    }
    waits.into_iter().map(|(_, wait)| wait).collect()
}

const NOTIFY_TIME_LIMIT: Duration = Duration::from_secs(20);
const RETRY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
const MOST_RETRIES: usize = 8;
const NOBODY: &str = "nobody";
const TIME_LIMIT: Duration = Duration::from_secs(10);
const MOST_TIME: Duration = Duration::from_secs(3600);
const AT_MOST: u32 = 4;

/// A word of a command line.
fn argument(value: &DeValue<'_>) -> Result<String, String> {
    let text = values::string(value)?;
    if text.contains('\0') { Err("an argument has no NUL in it".to_owned()) } else { Ok(text.to_owned()) }
}

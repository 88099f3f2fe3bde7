//! Whole directories.

use std::fs;

use super::*;
use crate::config::Config;

/// What a distribution ships, in short.
const SHIPPED: &str = "
[INCLUDES]
before = paths-debian.conf

[DEFAULT]
ignorecommand =
bantime  = 10m
findtime  = 10m
maxretry = 5
backend = auto
enabled = false
mode = normal
filter = %(__name__)s[mode=%(mode)s]
protocol = tcp
port = 0:65535
action_ = %(banaction)s[port=\"%(port)s\"]
action_mw = %(action_)s
            %(mta)s-whois[dest=\"%(destemail)s\"]
action = %(action_)s

[sshd]
port    = ssh
logpath = %(sshd_log)s
backend = %(sshd_backend)s

[nginx-http-auth]
port = http,https
logpath = /var/log/nginx/error.log
";
const PATHS: &str = "
[DEFAULT]
default_backend = auto
sshd_log = %(syslog_authpriv)s
syslog_authpriv = /var/log/auth.log
sshd_backend = %(default_backend)s
";

fn imported(own: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("jail.conf", SHIPPED), ("paths-debian.conf", PATHS), ("jail.local", own)] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    import(dir.path()).unwrap()
}

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("x.toml"), &[]).unwrap()
}

fn settings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
}

/// The comments on one line each.
fn comments(text: &str) -> String {
    text.lines().filter_map(|line| line.strip_prefix('#')).collect::<Vec<_>>().concat()
}

#[test]
fn a_plain_jail() {
    let text =
        imported("[sshd]\nenabled = true\nbantime = 1h\nmaxretry = 3\n[nginx-http-auth]\nenabled = true\n");
    assert_eq!(
        settings(&text),
        [
            "[[rule]]",
            "id = 100500",
            "level = 10",
            "groups = [\"syslog\", \"sshd\", \"authentication_failures\"]",
            "description = \"3 failed logins, as in fail2ban's jail sshd\"",
            "base = [5710, 5716, 5718, 5758, 5760]",
            "count = 3",
            "window = \"10m\"",
            "[[response]]",
            "rules = [100500]",
            "timeout = \"1h\"",
        ],
        "{text}"
    );
    let comments = comments(&text);
    for left in ["the jails nginx-http-auth.", "port `ssh`; all packets", "found at start"] {
        assert!(comments.contains(left), "{left}: {text}");
    }
    assert!(!comments.contains("action") && !comments.contains("ignorecommand"), "{text}");
    assert_eq!(config(&text).policy.responses.len(), 1);
}

#[test]
fn everything_that_has_a_counterpart() {
    let text = imported(
        "[DEFAULT]
ignoreip = 127.0.0.1/8 ::1, 192.0.2.7/24
    office.example.com 192.0.2.0/24
bantime.increment = true
bantime.factor = 2
bantime.maxtime = 5h
bantime.rndtime = 60
[sshd]
enabled = yes
mode = aggressive
backend = systemd
action = %(action_mw)s
[ssh-once]
enabled = on
filter = sshd[mode=ddos, publickey=any]
maxretry = 1
bantime = -1
logpath = /srv/chroot/auth.log tail
    /var/log/auth*.log
",
    );
    let config = config(&text);
    let lines = settings(&text);
    for line in [
        "kind = \"journal\"",
        "path = \"/srv/chroot/auth.log\"",
        "base = [5710, 5716, 5718, 5758, 5760, 5701, 5706, 5751, 5752, 5753, 5759]",
        "timeout = \"10m\"",
        "repeat_offenders = [\"40m\", \"80m\", \"160m\", \"5h\"]",
        "rules = [5710, 5716, 5718, 5758, 5760, 5701, 5706]",
        "networks = [\"127.0.0.0/8\", \"::1\", \"192.0.2.0/24\"]",
    ] {
        assert!(lines.contains(&line), "{line}: {text}");
    }
    assert_eq!(config.sources.len(), 2);
    assert_eq!(config.policy.responses[1].timeout, None);
    let comments = comments(&text);
    for left in [
        "bantime.rndtime",
        "action `%(action_mw)s`",
        "`office.example.com`",
        "logpath `/var/log/auth*.log`",
        "dbpurgeage",
        "never ends by itself",
        "merely closed before a login",
    ] {
        assert!(comments.contains(left), "{left}: {text}");
    }
}

#[test]
fn growing_times() {
    let repeated = |own: &str| {
        let text = imported(&format!("[sshd]\nenabled = 1\nbantime.increment = true\n{own}"));
        let repeated = config(&text).policy.responses[0].repeat_offenders.clone();
        repeated.into_iter().flatten().map(|time| time.as_secs()).collect::<Vec<_>>()
    };
    assert_eq!(repeated("bantime = 1s\n")[..4], [2, 4, 8, 16]);
    assert_eq!(repeated("bantime = 1m\nbantime.multipliers = 1 5 30 60\n"), [300, 1800, 3600]);
    assert_eq!(repeated("bantime = 1m\nbantime.maxtime = 90\n"), [90]);
    assert_eq!(repeated("bantime = 100y\n").len(), 1);
    assert_eq!(repeated("bantime = 1m\nbantime.factor = x\nbantime.multipliers = 1 x 2\n"), [120]);
}

#[test]
fn nonsense_is_told_and_does_no_harm() {
    let text = imported(
        "[sshd]\nenabled = true\nbantime = soon\nfindtime = 60*60\nmaxretry = many\nmode = odd\nlogpath = %(gone)s\nport = %(x)s\n",
    );
    let comments = comments(&text);
    for left in [
        "bantime `soon`",
        "findtime `60*60`",
        "maxretry `many`",
        "mode `odd`",
        "`%(gone)s` refers to nothing",
    ] {
        assert!(comments.contains(left), "{left}: {text}");
    }
    assert_eq!(config(&text).policy.responses[0].timeout, Some(std::time::Duration::from_secs(600)));
    let none = imported("[nginx-http-auth]\nenabled = true\n");
    assert!(comments_of_none(&none), "{none}");
    assert!(settings(&none).is_empty());
}

fn comments_of_none(text: &str) -> bool {
    comments(text).contains("No jail for sshd is enabled")
}

#[test]
fn a_jail_for_repeaters_has_its_counterpart_in_the_responses() {
    let own = "[sshd]\nenabled = true\n[recidive]\nenabled = true\n[nginx-http-auth]\nenabled = true\n";
    let text = imported(own);
    assert!(
        text.contains("# Left out: the jail recidive, which bans for longer who was banned before."),
        "{text}"
    );
    assert!(text.contains("# Left out: the jails nginx-http-auth. Other programs"), "{text}");
}

#[test]
fn multipliers_go_before_a_formula() {
    let formula = "[sshd]\nenabled = true\nbantime.increment = true\nbantime.formula = ban.Time * 3\n";
    assert!(imported(formula).contains("the time doubles with each offence"));
    let text = imported(&format!("{formula}bantime.multipliers = 1 5 30\n"));
    assert!(text.contains("repeat_offenders = [\"50m\", \"5h\"]"), "{text}");
    assert!(!text.contains("the time doubles"), "{text}");
}

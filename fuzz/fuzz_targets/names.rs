//! Whatever a client calls itself or its program, the address that is found is the one that sshd wrote.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdpban::config::Config;
use xdpban_engine::Engine;
use xdpban_engine::policy::Policy;
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Mono, Now, Wall};

const NOW: Now = Now { mono: Mono(1 << 40), wall: Wall(1_800_000_000_000_000), utc_offset: 0 };
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// What stands before and after a text that the client chose.
const FORMS: [(&str, &str); 16] = [
    ("Invalid user ", " from 203.0.113.7 port 4711"),
    ("Failed password for ", " from 203.0.113.7 port 4711 ssh2"),
    ("Failed password for invalid user ", " from 203.0.113.7 port 4711 ssh2"),
    ("Failed none for invalid user ", " from 203.0.113.7 port 4711 ssh2"),
    ("Accepted password for ", " from 203.0.113.7 port 4711 ssh2"),
    (
        "error: maximum authentication attempts exceeded for invalid user ",
        " from 203.0.113.7 port 4711 ssh2 [preauth]",
    ),
    ("User ", " from 203.0.113.7 not allowed because not listed in AllowUsers"),
    ("error: PAM: Authentication failure for illegal user ", " from 203.0.113.7"),
    ("Connection closed by invalid user ", " 203.0.113.7 port 4711 [preauth]"),
    ("Connection reset by authenticating user ", " 203.0.113.7 port 4711 [preauth]"),
    ("Disconnecting invalid user ", " 203.0.113.7 port 4711: Too many authentication failures [preauth]"),
    (
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=",
        "",
    ),
    ("Bad protocol version identification '", "' from 203.0.113.7 port 4711"),
    ("Received disconnect from 203.0.113.7 port 4711:11: ", " [preauth]"),
    ("Unable to negotiate with 203.0.113.7 port 4711: no matching cipher found. Their offer: ", " [preauth]"),
    ("User ", " not allowed because account is locked"),
];

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let config = Config::parse("", Path::new("config.toml"), &[]).expect("the defaults are sound");
    config.policy
});

fuzz_target!(|data: &[u8]| {
    let Some((&form, text)) = data.split_first() else { return };
    let (before, after) = FORMS[usize::from(form) % FORMS.len()];
    // sshd writes other bytes than these in octal, and ends a user's name at a colon.
    let text: Vec<u8> =
        text.iter().copied().filter(|byte| (b' '..=b'~').contains(byte) && *byte != b':').take(900).collect();
    let line = [b"Nov 23 09:00:00 gw1 sshd[7]: ", before.as_bytes(), &text, after.as_bytes()].concat();
    let record = Record::parse(&line, Format::Syslog, &NOW);
    let mut engine = Engine::new(POLICY.clone());
    let outcome = engine.handle(&record, &line, NOW);
    assert!(outcome.source.is_none_or(|source| source == SOURCE), "{}", String::from_utf8_lossy(&line));
});

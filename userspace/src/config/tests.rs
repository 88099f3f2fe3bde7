//! Whole files: what they mean, and every fault with its line.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use xdpban_engine::event::EventKind;
use xdpban_engine::measure::Measure;
use xdpban_engine::policy::{Aggregate, Limits};
use xdpban_engine::rules::{Condition, Correlation, Distinct, Rule, RuleId, Same};

use super::*;

const FILE: &str = "/etc/xdpban/config.toml";
const PACKAGED: &str = include_str!("../../../packaging/config.toml");

fn own_rules(text: &str) -> Vec<RuleFile> {
    vec![RuleFile { path: "/etc/xdpban/rules.d/own.toml".into(), text: text.to_owned() }]
}

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse(text, Path::new(FILE), &[])
}

/// The faults of `text`, without the name of the file.
fn faults(text: &str) -> Vec<String> {
    let faults = parse(text).expect_err(text).to_string();
    faults.lines().map(|line| line.strip_prefix(&format!("{FILE}:")).unwrap_or(line).to_owned()).collect()
}

/// The faults of a file of rules, without its name.
fn rule_faults(text: &str) -> Vec<String> {
    let faults = Config::parse("", Path::new(FILE), &own_rules(text)).expect_err(text).to_string();
    let prefix = "/etc/xdpban/rules.d/own.toml:";
    faults.lines().map(|line| line.strip_prefix(prefix).unwrap_or(line).to_owned()).collect()
}

fn defaults() -> Config {
    parse("").expect("the defaults are sound")
}

#[test]
fn nothing_at_all_means_the_defaults() {
    let config = defaults();
    assert_eq!(config.mode, Mode::Auto);
    assert_eq!(config.paths, Paths::default());
    assert_eq!(config.interfaces, [Selector::DefaultRoute]);
    assert!(config.sources.is_empty());
    assert_eq!(config.policy.ipv6_prefix, 64);
    assert!(config.policy.protect_logins && config.policy.allow.is_empty());
    assert_eq!(config.policy.responses, Response::defaults());
    assert_eq!(config.policy.limits, Limits { blocks: 262_144, prefixes: 16_384, sources: 65_536 });
    assert!(config.policy.rules.rules().iter().any(|rule| rule.id == RuleId(5710)));
}

#[test]
fn the_packaged_file_states_the_defaults() {
    assert_eq!(parse(PACKAGED), Ok(defaults()), "as it is");
    let setting = |line: &str| line.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    let uncommented: String = PACKAGED
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| setting(rest)).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(parse(&uncommented), Ok(defaults()), "with every key taken from its comment");
    for keys in [keys::TOP, keys::PATHS, keys::SOURCE, keys::RESPONSE, keys::LIMITS, keys::ALLOW] {
        for name in keys.names {
            let set = |line: &str| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{name} =")) || line.contains(&format!("[{name}]"))
            };
            assert!(PACKAGED.lines().any(set), "`{name}` is not in the packaged file");
        }
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
            interfaces = ["eth0", "wan*"]
            mode = "tc"
            ipv6_prefix = 56
            enforce = false
            protect_logins = false
            forget_after = "2d"
            paths = { state = "/a", runtime = "/b", pins = "/c", rules = "/d" }
            [[source]]
            kind = "journal"
            [[source]]
            kind = "file"
            path = "/var/log/sshd"
            format = "bare"
            [[source]]
            kind = "file"
            path = "/var/log/nginx/access.log"
            format = "bare"
            program = "nginx"
            [[source]]
            kind = "wazuh-alerts"
            [[response]]
            level = 10
            groups = ["authentication_failures"]
            rules = [5710]
            action = "block"
            timeout = 3600
            repeat_offenders = ["1d", 172800, "permanent"]
            networks = ["198.51.100.0/24"]
            users = ["root", "adm*"]
            forget_after = "1w"
            aggregate = { v4 = 24, v6 = 56, hosts = 5 }
            [[response]]
            level = 3
            action = "throttle"
            rate = "20/s"
            burst = 40
            ports = [443, 22]
            scope = "new"
            [limits]
            blocks = 1_000_000
            prefixes = 1
            sources = 16777216
            [allow]
            networks = ["192.0.2.0/24", { network = "2001:db8::1", comment = "the monitor" }]
        "#,
    )
    .unwrap();
    assert_eq!(config.file.as_deref(), Some(Path::new(FILE)));
    assert_eq!(config.interfaces, [Selector::Name("eth0".into()), Selector::parse("wan*")]);
    assert_eq!(config.mode, Mode::Tc);
    assert!(!config.enforce && defaults().enforce);
    assert_eq!(config.paths.pins, Path::new("/c"));
    assert_eq!(
        config.sources,
        [
            SourceConfig::Journal { programs: Vec::new() },
            SourceConfig::File { path: "/var/log/sshd".into(), format: Format::Bare, program: None },
            SourceConfig::File {
                path: "/var/log/nginx/access.log".into(),
                format: Format::Bare,
                program: Some("nginx".to_owned())
            },
            SourceConfig::WazuhAlerts { path: SourceConfig::WAZUH_ALERTS.into() },
        ]
    );
    let [first, second] = &config.policy.responses[..] else { panic!("two responses") };
    assert_eq!(first.rules, [RuleId(5710)]);
    assert_eq!((first.groups.len(), first.level), (1, Some(10)));
    assert_eq!(first.timeout, Some(Duration::from_secs(3600)));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(first.repeat_offenders, [seconds(86_400), seconds(172_800), None]);
    assert_eq!((first.networks.len(), first.users.len()), (1, 2));
    assert_eq!(first.aggregate, Some(Aggregate { v4: Some(24), v6: Some(56), hosts: 5 }));
    assert_eq!(Some(first.forget_after), seconds(604_800));
    assert_eq!(
        (Some(second.forget_after), Some(config.policy.forget_after)),
        (seconds(172_800), seconds(172_800))
    );
    assert_eq!((second.level, second.timeout), (Some(3), None));
    assert_eq!(first.measure, Measure::default());
    assert_eq!(
        second.measure.to_string(),
        "throttle to 20/s (burst 40), new connections to ports 22, 443 only"
    );
    assert_eq!(config.policy.limits, Limits { blocks: 1_000_000, prefixes: 1, sources: 1 << 24 });
    assert_eq!(config.policy.allow.len(), 2);
    assert_eq!(config.allow[1].comment.as_deref(), Some("the monitor"));
    assert_eq!((config.policy.ipv6_prefix, config.policy.protect_logins), (56, false));
}

#[test]
fn with_alerts_of_wazuh_responses_may_name_its_rules() {
    let response = "[[response]]\nrules = [31151]\ngroups = [\"web\"]\ntimeout = \"1h\"\n";
    assert_eq!(faults(response), ["2: there is no rule 31151", "3: no rule is in the group `web`"]);
    let alerts = "[[source]]\nkind = \"wazuh-alerts\"\npath = \"/a\"\n";
    let config = Config::parse(&format!("{alerts}{response}"), Path::new(FILE), &[]).unwrap();
    assert_eq!(config.sources, [SourceConfig::WazuhAlerts { path: "/a".into() }]);
    assert_eq!(
        faults(&format!("{alerts}{alerts}")),
        ["4: this source is there twice, and each line would count twice"]
    );
}

#[test]
fn one_run_tells_every_fault() {
    let text = r#"interface = ["eth0"]
mode = "xdp"
ipv6_prefix = 129
protect_logins = "yes"

[[source]]
kind = "file"

[[response]]
rules = [
    5710,
    99999,
]
timeout = "10 minutes"

[limits]
blocks = 0

[allow]
networks = ["192.0.2.7/24", "example.org"]
"#;
    assert_eq!(
        faults(text),
        [
            "1: unknown key `interface`; did you mean `interfaces`?",
            "2: `mode`: `xdp` is unknown; there is `auto`, `native`, `generic`, `tc`",
            "3: `ipv6_prefix`: expected a whole number from 1 to 128, found 129",
            "4: `protect_logins`: expected true or false, found a string",
            "6: a source of kind \"file\" needs `path`",
            "12: there is no rule 99999",
            "14: `timeout`: `10 minutes` is not a duration; write it like 100s, 10m, 1h30m, 1d, 1w or 6y",
            "17: `blocks`: expected a whole number from 1 to 16777216, found 0",
            "20: `networks`: `192.0.2.7/24` has bits set beyond its prefix; write 192.0.2.0/24 for the network",
            "20: `networks`: `example.org` is neither an IPv4 or IPv6 address nor a prefix such as 203.0.113.0/24 \
             or 2001:db8::/32",
        ]
    );
}

#[test]
fn single_faults() {
    for (text, expected) in [
        ("interfaces = \"eth0\"", "1: `interfaces`: expected an array in brackets, found a string"),
        ("interfaces = [\n\"eth0\",\n\"\"]", "3: `interfaces`: the name of an interface is empty"),
        ("interfaces = [\"eth0\", \"eth0\"]", "1: `interfaces`: `eth0` is there twice"),
        ("interfaces = [\"a/b\"]", "1: `interfaces`: no interface can be called `a/b`"),
        ("interfaces = [7]", "1: `interfaces`: expected a string in quotes, found a whole number"),
        ("mode = \"nativ\"", "1: `mode`: `nativ` is unknown; did you mean `native`?"),
        (
            "ipv6_prefix = 64.0",
            "1: `ipv6_prefix`: expected a whole number from 1 to 128, found a decimal number",
        ),
        ("ipv6_prefix = 0", "1: `ipv6_prefix`: expected a whole number from 1 to 128, found 0"),
        ("blocks = 5", "1: unknown key `blocks`; it belongs in [limits]"),
        ("[limit]\nblocks = 5", "1: unknown key `limit`; did you mean `limits`?"),
        (
            "[limits]\nblocks = 16777217",
            "2: `blocks`: expected a whole number from 1 to 16777216, found 16777217",
        ),
        ("[limits]\nsources = -1", "2: `sources`: expected a whole number from 1 to 16777216, found -1"),
        (
            "[limits]\nsources = 99999999999999999999",
            "2: `sources`: expected a whole number from 1 to 16777216, found 99999999999999999999",
        ),
        ("limits = 3", "1: `limits` is a table: write [limits], not a whole number"),
        ("[[limits]]\nblocks = 3", "1: `limits` is a table: write [limits], not an array"),
        ("[source]\nkind = \"journal\"", "1: `source` may come several times: write [[source]], not a table"),
        ("source = [3]", "1: `source` may come several times: write [[source]], not a whole number"),
        ("[[source]]", "1: a source needs `kind`: \"file\", \"journal\" or \"wazuh-alerts\""),
        (
            "[[source]]\nkind = \"syslog\"",
            "2: `kind`: `syslog` is unknown; there is `file`, `journal`, `wazuh-alerts`",
        ),
        (
            "[[source]]\nkind = \"wazuh-alerts\"\nformat = \"bare\"",
            "3: a source of kind \"wazuh-alerts\" has no `format`",
        ),
        (
            "[[source]]\nkind = \"file\"\npath = \"auth.log\"",
            "3: `path`: `auth.log` is not an absolute path; it must begin with `/`",
        ),
        ("[[source]]\nkind = \"file\"\npath = \"/a\\u0000b\"", "3: `path`: a path has no NUL in it"),
        ("[[source]]\nkind = \"journal\"\npath = \"/x\"", "3: a source of kind \"journal\" has no `path`"),
        (
            "[[source]]\nkind = \"file\"\npath = \"/x\"\n[[source]]\nkind = \"file\"\npath = \"//x\"",
            "4: this source is there twice, and each line would count twice",
        ),
        (
            "[[source]]\nkind = \"journal\"\n[[source]]\nkind = \"journal\"",
            "3: this source is there twice, and each line would count twice",
        ),
        (
            "[[source]]\nkind = \"file\"\npath = \"/x\"\nformat = \"rfc\"",
            "4: `format`: `rfc` is unknown; there is `syslog`, `bare`",
        ),
        (
            "[[source]]\nkind = \"file\"\npath = \"/x\"\nprogram = \"nginx\"",
            "4: `program` goes with `format = \"bare\"`: other lines name their program",
        ),
        (
            "[[source]]\nkind = \"file\"\npath = \"/x\"\nformat = \"bare\"\nprogram = \"a b\"",
            "5: `program`: the name of a program has no spaces in it, `a b` has",
        ),
        (
            "[[response]]\ntimeout = \"1m\"",
            "1: this response selects nothing; give it `rules`, `groups` or `level`",
        ),
        (
            "[[response]]\nrules = []\ngroups = []",
            "1: this response selects nothing; give it `rules`, `groups` or `level`",
        ),
        (
            "[[response]]\nlevel = 3\nlocation = \"all\"",
            "3: `location`: `all` cannot be served: xdpban acts on the host that it runs on alone, which is \"local\"; write the \
             response into the configuration of each host that is to act",
        ),
        (
            "[[response]]\nlevel = 3\nlocation = \"locale\"",
            "3: `location`: `locale` is unknown; did you mean `local`?",
        ),
        ("[[response]]\nlevel = 16", "2: `level`: expected a whole number from 0 to 15, found 16"),
        (
            "[[response]]\nrules = [\"5710\"]",
            "2: `rules`: expected a whole number from 1 to 4294967295, found a string",
        ),
        (
            "[[response]]\nlevel = 3\naction = \"drop\"",
            "3: `action`: `drop` is unknown; there is `block`, `throttle`, `run`, `lock-account`, `notify`",
        ),
        (
            "[[response]]\nlevel = 3\naction = \"throttle\"",
            "1: a response that throttles needs `rate`, such as \"20/s\"",
        ),
        ("[[response]]\nlevel = 3\nrate = \"20/s\"", "3: `rate`: this goes with `action = \"throttle\"`"),
        (
            "[[response]]\nlevel = 3\naction = \"throttle\"\nrate = \"20/m\"",
            "4: `rate`: `20/m` is not a rate; write it like \"20/s\", packets in a second, 1 to 1000000",
        ),
        (
            "[[response]]\nlevel = 3\nports = [22, 0]",
            "3: `ports`: expected a whole number from 1 to 65535, found 0",
        ),
        (
            "[[response]]\nlevel = 3\nports = [1, 2, 3, 4, 5, 6, 7, 8, 9]",
            "3: `ports`: at most 8 can be named",
        ),
        ("[[response]]\nlevel = 3\nscope = \"old\"", "3: `scope`: `old` is unknown; there is `all`, `new`"),
        (
            "[[response]]\nlevel = 3\naction = \"run\"",
            "1: a response that runs a command needs `command`: the program by its absolute path, and its arguments, \
             such as [\"/usr/local/bin/tell\", \"--quietly\"]",
        ),
        (
            "[[response]]\nlevel = 3\naction = \"run\"\ncommand = [\"tell\"]",
            "4: `command`: `tell` is not the absolute path of a program; there is no shell",
        ),
        ("[[response]]\nlevel = 3\nuser = \"root\"", "3: `user` does not go with `action = \"block\"`"),
        (
            "[[response]]\naction = \"lock-account\"",
            "1: a response that locks accounts needs `timeout`, after which it unlocks them",
        ),
        (
            "[[response]]\naction = \"lock-account\"\ntimeout = 60\nlevel = 3",
            "4: `level` does not go with `action = \"lock-account\"`",
        ),
        (
            "[[response]]\nlevel = 3\naction = \"notify\"",
            "1: a response that notifies needs either `mail` or `webhook`",
        ),
        (
            "[[response]]\nlevel = 3\naction = \"notify\"\nwebhook = \"ftp://x\"",
            "4: `webhook`: a URL begins with `https://` or `http://`",
        ),
        ("[[response]]\nlevel = 3\ntimeout = 0", "3: `timeout`: a duration must be longer than zero"),
        ("[[response]]\nlevel = 3\ntimeout = -5", "3: `timeout`: a duration must be longer than zero"),
        ("[[response]]\nlevel = 3\ntimeout = \"-5m\"", "3: `timeout`: a duration must be longer than zero"),
        ("[[response]]\nlevel = 3\ntimeout = \"9999w\"", "3: `timeout`: a duration is at most 100 years"),
        (
            "[[response]]\nlevel = 3\ntimeout = 99999999999999999999",
            "3: `timeout`: a duration is at most 100 years",
        ),
        (
            "[[response]]\nlevel = 3\ntimeout = 1.5",
            "3: `timeout`: expected a duration such as \"10m\", or whole seconds, found a decimal number",
        ),
        (
            "[[response]]\nlevel = 3\ntimeout = \"1m\"\nrepeat_offenders = [\n\"1m\",\n\"x\"]",
            "6: `repeat_offenders`: `x` is not a duration; write it like 100s, 10m, 1h30m, 1d, 1w or 6y",
        ),
        (
            "[[response]]\nlevel = 3\nrepeat_offenders = [60]",
            "1: `repeat_offenders` needs `timeout`: without it the first block never ends",
        ),
        (
            "[[response]]\ngroups = [\"authentication_failure\"]",
            "2: no rule is in the group `authentication_failure`; did you mean `authentication_failures`?",
        ),
        ("[[response]]\ngroups = [\"recon*x\"]", "2: no rule is in a group like `recon*x`"),
        (
            "[[response]]\nlevel = 3\ntimeout = 60\nrepeat_offenders = [\n\"permanent\",\n\"1h\"]",
            "5: `repeat_offenders`: `permanent` is the last step, since it never ends",
        ),
        (
            "[[response]]\nlevel = 3\naggregate = { v4 = 24 }",
            "3: `aggregate` needs `hosts`, of which so many get the prefix blocked",
        ),
        (
            "[[response]]\nlevel = 3\naggregate = { hosts = 5 }",
            "3: `aggregate` needs `v4` or `v6`, the length of the prefix to block",
        ),
        (
            "[[response]]\nlevel = 3\naggregate = { v4 = 0, hosts = 5 }",
            "3: `v4`: expected a whole number from 8 to 31, found 0",
        ),
        (
            "[[response]]\nlevel = 3\nnetworks = [\"lan\"]",
            "3: `networks`: `lan` is neither an IPv4 or IPv6 address nor a prefix such as 203.0.113.0/24 or 2001:db8::/32",
        ),
        ("[[response]]\ngroups = [\"zzz\"]", "2: no rule is in the group `zzz`"),
        ("[allow]\nnetwork = []", "2: unknown key `network`; did you mean `networks`?"),
        (
            "[allow]\nnetworks = [\"1.2.3.4/33\"]",
            "2: `networks`: `1.2.3.4/33`: the prefix length is at most 32",
        ),
        ("[allow]\nnetworks = [{ comment = \"x\" }]", "2: `networks`: a table here needs `network`"),
        (
            "[allow]\nnetworks = [{ network = \"192.0.2.1\", coment = \"x\" }]",
            "2: `networks`: unknown key `coment`; did you mean `comment`?",
        ),
        ("[paths]\nstate = \"\"", "2: `state`: `` is not an absolute path; it must begin with `/`"),
    ] {
        assert_eq!(faults(text), [expected], "{text}");
    }
}

#[test]
fn there_is_an_end_to_lists() {
    let interfaces: String = (0..1000).map(|i| format!("\"eth{i}\", ")).collect();
    let sources: String =
        (1..1000).map(|i| format!("[[source]]\nkind = \"file\"\npath = \"/{i}\"\n")).collect();
    assert_eq!(
        faults(&format!("interfaces = [{interfaces}]\n{sources}")),
        ["1: `interfaces`: at most 256 can be guarded", "194: at most 64 sources can be watched"]
    );
}

#[test]
fn faults_of_syntax_have_a_column_and_hide_no_others() {
    assert_eq!(
        faults(
            "mode = auto\nipv6_prefix = 300\nmode = \"tc\"\n[[source]]\nkind = \"file\"\npath = /var/log/auth.log\n"
        ),
        [
            "1:8: not TOML: string values must be quoted, expected literal string",
            "2: `ipv6_prefix`: expected a whole number from 1 to 128, found 300",
            "3:1: not TOML: duplicate key",
            "6:8: not TOML: string values must be quoted, expected literal string",
        ]
    );
    // A table whose name is lost: what stands in it is not taken for something else.
    assert_eq!(
        faults("moed = 1\n[paths]\n[[response]\nrules = [5710]\n"),
        ["1: unknown key `moed`; did you mean `mode`?", "3:12: not TOML: unclosed array table, expected `]`",]
    );
    // An array that never ends swallows what follows.
    assert_eq!(
        faults("moed = 1\ninterfaces = [\"eth0\"\nmode = 3\n[paths]\n"),
        ["3:1: not TOML: missing comma between array elements, expected `,`"]
    );
    assert_eq!(
        faults("é = \"ä\" x"),
        ["1:1: not TOML: invalid unquoted key, expected letters, numbers, `-`, `_`"]
    );
}

#[test]
fn forms_of_text_that_are_no_fault() {
    assert_eq!(parse("\u{feff}mode = \"tc\"\r\n# é\r\n[paths]\r\n").unwrap().mode, Mode::Tc);
    let dotted = parse("limits.blocks = 5\n\"mode\" = 'tc'").unwrap();
    assert_eq!((dotted.policy.limits.blocks, dotted.mode), (5, Mode::Tc));
    assert_eq!(parse("response = []").unwrap().policy.responses, []);
}

#[test]
fn own_rules_add_replace_and_disable() {
    let rules = own_rules(
        r#"
            [[rule]]
            id = 5710
            level = 7
            groups = ["mine"]
            description = "nobody"
            events = ["invalid_user"]
            invalid_user = true

            [[rule]]
            id = 100100
            level = 12
            description = "many nobodies"
            base = 5710
            count = 3
            window = "1m"

            [[rule]]
            id = 5719
            disabled = true
        "#,
    );
    let text = "[[response]]\nrules = [100100]\ngroups = [\"mine\"]\n";
    let config = Config::parse(text, Path::new(FILE), &rules).unwrap();
    let ids = |config: &Config| config.policy.rules.rules().iter().map(|rule| rule.id.0).collect::<Vec<_>>();
    let mut expected = ids(&defaults());
    expected.retain(|id| *id != 5719);
    expected.push(100_100);
    assert_eq!(ids(&config), expected, "the order holds, the new rule is last");
    let replaced = config.policy.rules.rules().iter().find(|rule| rule.id == RuleId(5710)).unwrap();
    assert_eq!((replaced.level, replaced.description.as_str()), (7, "nobody"));
    assert_eq!(
        faults("[[response]]\nrules = [100100]\ngroups = [\"mine\"]\n"),
        ["2: there is no rule 100100", "3: no rule is in the group `mine`"]
    );
}

#[test]
fn rules_and_decoders_may_stand_in_the_configuration_itself() {
    let text = r#"
        [[decoder]]
        name = "door"
        program = "doord"
        regex = '^refused (?P<srcip>[^ ]+)$'

        [[rule]]
        id = 100001
        level = 5
        description = "refused at the door"
        decoder = "door"

        [[response]]
        rules = [100001, 100002]
    "#;
    let counted =
        "[[rule]]\nid = 100002\nlevel = 9\ndescription = \"x\"\nbase = 100001\ncount = 3\nwindow = 60\n";
    let config = Config::parse(text, Path::new(FILE), &own_rules(counted)).unwrap();
    let own: Vec<u32> = config
        .policy
        .rules
        .rules()
        .iter()
        .map(|rule| rule.id.0)
        .filter(|id| *id > 100_000 && *id < 200_000)
        .collect();
    assert_eq!(own, [100_001, 100_002]);
    assert_eq!(faults(text), ["14: there is no rule 100002"]);
    let twice = Config::parse(text, Path::new(FILE), &own_rules(&counted.replace("100002", "100001")));
    assert!(twice.unwrap_err().to_string().contains("rule 100001 is defined at /etc/xdpban/config.toml:7"));
}

#[test]
fn every_fault_of_a_rule() {
    assert_eq!(
        rule_faults(
            r#"title = "x"
[[rule]]
level = 3

[[rule]]
id = 100100
level = 16
groups = ["a", ""]
desciption = "x"
events = ["invalid_usr", "accepted"]
count = 3

[[rule]]
id = 100101
level = 5
description = "a\nb"
base = "5710"
detail = "x"

[[rule]]
id = 100102
level = 5
description = "x"

[[rule]]
id = 100103
level = 5
description = "x"
base = 100100
count = 2
window = "1m"

[[rule]]
id = 100104
disabled = true
"#
        ),
        [
            "1: unknown key `title`; a rules file has `decoder`, `rule`",
            "2: a rule needs `id`",
            "5: a rule needs `description`",
            "7: `level`: expected a whole number from 0 to 15, found 16",
            "8: `groups`: it is empty",
            "9: unknown key `desciption`; did you mean `description`?",
            "10: `events`: `invalid_usr` is unknown; did you mean `invalid_user`?",
            "11: `count` does not go with `events` in one rule",
            "13: a rule needs `count`",
            "13: a rule needs `window`",
            "16: `description`: it has line ends or other control characters in it",
            "17: `base`: expected a whole number from 1 to 4294967295, found a string",
            "18: `detail` does not go with `base` in one rule",
            "20: a rule needs `events`, or `decoder`, or else `base`, `count` and `window`",
            "33: there is no shipped rule 100104 to disable",
        ]
    );
}

#[test]
fn rules_that_do_not_fit_together() {
    let rule = |id: u32, base: u32| {
        format!(
            "[[rule]]\nid = {id}\nlevel = 5\ndescription = \"x\"\nbase = {base}\ncount = 2\nwindow = 60\n"
        )
    };
    assert_eq!(
        rule_faults(&(rule(100_100, 5710) + &rule(100_100, 5710))),
        ["8: rule 100100 is defined at /etc/xdpban/rules.d/own.toml:1 already"]
    );
    assert_eq!(
        rule_faults("[[rule]]\nid = 5710\ndisabled = true\n")[0],
        "1: rule 5710 is disabled here, but rule 5712 counts it; disable that, too"
    );
    // What counts others, too, goes on with those.
    let disabled = "[[rule]]\nid = 5710\ndisabled = true\n[[rule]]\nid = 5712\ndisabled = true\n";
    let config = Config::parse("[[response]]\nlevel = 9\n", Path::new(FILE), &own_rules(disabled)).unwrap();
    let spread = config.policy.rules.rules().iter().find(|rule| rule.id == RuleId(205_701)).unwrap();
    let Condition::Count(correlation) = &spread.when else { panic!("a correlated rule") };
    assert_eq!(correlation.base, [5716, 5718, 5758, 5760].map(RuleId));
    assert_eq!(
        rule_faults(&rule(100_100, 100_101)),
        ["1: rule 100100 counts rule 100101, which does not exist"]
    );
    assert_eq!(
        rule_faults(&(rule(5712, 5710) + "[[rule]]\nid = 5712\ndisabled = true\n")),
        ["8: rule 5712 is disabled here and defined at /etc/xdpban/rules.d/own.toml:1"]
    );
}

#[test]
fn own_decoders_and_the_rules_on_them() {
    let rules = own_rules(
        r#"
            [[decoder]]
            name = "nginx-auth"
            program = ["nginx", "sshd"]
            regex = '''user "(?P<user>.*)" .* client: (?P<srcip>[^,]*), '''

            [[decoder]]
            name = "visits"
            program = "nginx"
            regex = "^(?P<srcip>.*) (?P<method>GET)"
            attack = false

            [[rule]]
            id = 100100
            level = 5
            description = "wrong password"
            decoder = "nginx-auth"

            [[rule]]
            id = 100101
            level = 10
            description = "wrong passwords"
            base = [100100, 5710]
            count = 3
            window = "1m"
            same = "user"
            distinct = "source"
        "#,
    );
    let config = Config::parse("[[source]]\nkind = \"journal\"", Path::new(FILE), &rules)
        .unwrap_or_else(|f| panic!("{f}"));
    let names: Vec<&str> = config.policy.decoders.iter().map(|decoder| decoder.name()).collect();
    assert_eq!(names, ["nginx-auth", "visits"]);
    assert_eq!(config.sources, [SourceConfig::Journal { programs: vec!["nginx".to_owned()] }]);
    let rule = |id| config.policy.rules.rules().iter().find(|rule| rule.id == RuleId(id)).unwrap();
    let Condition::Event(wanted) = &rule(100_100).when else { panic!("a single rule") };
    assert_eq!(
        (&wanted.kinds[..], wanted.decoder.as_deref()),
        (&[EventKind::Custom][..], Some("nginx-auth"))
    );
    let expected = Correlation {
        base: vec![RuleId(100_100), RuleId(5710)],
        count: 3,
        window: Duration::from_secs(60),
        same: Same::User,
        distinct: Some(Distinct::Source),
    };
    assert_eq!(rule(100_101).when, Condition::Count(expected));
}

#[test]
fn every_fault_of_a_decoder() {
    assert_eq!(
        rule_faults(
            r#"[[decoder]]
name = "a b"
program = "nginx"
regex = "(?P<srcip>.*)"

[[decoder]]
name = "invalid_user"
program = []
regex = 7
attack = "yes"

[[decoder]]
name = "open"
program = ["nginx", "a b"]
regex = "^(?P<srcip>.*"

[[decoder]]
name = "nowhere"
program = "nginx"
regex = "^(.*)$"

[[decoder]]
name = "nowhere"
program = "nginx"
regex = "^(?P<srcip>.*)$"

[[decoder]]
name = "slip"
regexp = "^(?P<srcip>.*) (?P<usr>.*)$"
program = "nginx"
regex = "^(?P<srcip>.*) (?P<usr>.*)$"
"#
        ),
        [
            "2: `name`: a name is made of letters, digits and `-`, `_`, `.`; `a b` is not",
            "7: `name`: `invalid_user` has a meaning of its own; take another name, such as `my-invalid_user`",
            "8: `program`: it is empty",
            "9: `regex`: expected a string in quotes, found a whole number",
            "10: `attack`: expected true or false, found a string",
            "14: `program`: the name of a program has no spaces in it, `a b` has",
            "20: `regex`: the regular expression names no source; put `(?P<srcip>…)` around the address",
            "22: decoder `nowhere` is defined at /etc/xdpban/rules.d/own.toml:17 already",
            "29: unknown key `regexp`; did you mean `regex`?",
            "31: `regex`: the group `usr` means nothing; did you mean `user`?",
        ]
    );
    let decoder =
        |regex: &str| format!("[[decoder]]\nname = \"x\"\nprogram = \"nginx\"\nregex = '''{regex}'''\n");
    assert_eq!(
        rule_faults(&decoder("^(?P<srcip>.*")),
        ["4: `regex`: not a regular expression, at its character 2: unclosed group"]
    );
    let rule =
        "[[rule]]\nid = 100100\nlevel = 5\ndescription = \"x\"\ndecoder = \"y\"\ninvalid_user = true\n";
    assert_eq!(
        rule_faults(&(decoder("^(?P<srcip>.*)") + rule)),
        ["9: there is no decoder `y`", "10: `invalid_user` does not go with `decoder` in one rule"]
    );
}

#[test]
fn rules_that_can_never_fire() {
    let rule = |id: u32, rest: &str| format!("[[rule]]\nid = {id}\nlevel = 5\ndescription = \"x\"\n{rest}\n");
    let count = |id, base: &str, rest: &str| rule(id, &format!("base = {base}\nwindow = 60\n{rest}"));
    let own = "events = [\"accepted\"]";
    let prompts = "events = [\"postponed_keyboard_interactive\"]";
    for (text, expected) in [
        (
            rule(1, own) + &rule(2, own),
            "1: rule 1 can never fire: rule 2, which stands below it, takes every event that it could",
        ),
        (rule(1, "events = []"), "1: rule 1 can never fire: it names no events"),
        (
            rule(1, prompts) + &count(2, "1", "count = 5"),
            "6: rule 2 can never fire: what it counts is never an attempt",
        ),
        (count(1, "[1, 5710]", "count = 5"), "1: rule 1 counts itself"),
        (
            count(1, "2", "count = 5") + &count(2, "[5710, 1]", "count = 5") + &count(3, "2", "count = 5"),
            "1: rule 1 counts itself",
        ),
        (count(1, "[5710, 9]", "count = 5"), "1: rule 1 counts rule 9, which does not exist"),
        (count(1, "[]", "count = 5"), "5: `base`: it is empty"),
        (count(1, "5710", "count = 1"), "7: `count`: expected a whole number from 2 to 10000, found 1"),
        (
            count(1, "5710", "count = 300\nsame = \"user\""),
            "7: `count`: expected a whole number from 2 to 256, found 300",
        ),
        (
            count(1, "5710", "count = 5\ndistinct = \"source\""),
            "1: rule 1 can never fire: one source is never several",
        ),
        (
            count(1, "5710", "count = 5\nsame = \"user\"\ndistinct = \"user\""),
            "1: rule 1 can never fire: one user is never several",
        ),
        (rule(1, "events = [\"custom\"]"), "5: `events`: `custom` is unknown; there is"),
    ] {
        let found = rule_faults(&text);
        assert!(found[0].starts_with(expected), "{text}: {found:?}");
    }
    // What a shipped rule took may be taken from it.
    let shadowing = own_rules(&rule(1, own));
    assert!(Config::parse("", Path::new(FILE), &shadowing).is_ok());
}

#[test]
fn responses_to_rules_that_never_respond() {
    let parse = |text: &str, rules: &str| {
        Config::parse(text, Path::new(FILE), &own_rules(rules)).map_err(|faults| faults.to_string())
    };
    assert_eq!(
        parse("[[response]]\nrules = [5719]", "[[rule]]\nid = 5719\ndisabled = true\n"),
        Err(format!("{FILE}:2: rule 5719 is disabled at /etc/xdpban/rules.d/own.toml:1"))
    );
    let silent = "[[rule]]\nid = 100100\nlevel = 0\ndescription = \"x\"\nevents = [\"other\"]\n";
    assert_eq!(
        parse("[[response]]\nrules = [100100]", silent),
        Err(format!("{FILE}:2: rule 100100 has level 0, and such rules never lead to a response"))
    );
    // A response is not blamed for a rule that stands in a file that could not be read.
    let broken = own_rules("[[rule]\nid = 100100\n");
    let faults = Config::parse("[[response]]\nrules = [100100]\ngroups = [\"x\"]", Path::new(FILE), &broken);
    assert_eq!(faults.unwrap_err().len(), 1);
}

#[test]
fn a_file_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("config.toml");
    let faults = Config::load(Some(&missing)).unwrap_err();
    assert_eq!(faults.to_string(), format!("{}: it does not exist", missing.display()));
    let fallback = Config::load_or(None, &missing).unwrap();
    assert_eq!((fallback.file, fallback.policy), (None, defaults().policy));

    fs::write(&missing, "mode = \"tc\"").unwrap();
    let found = Config::load_or(None, &missing).unwrap();
    assert_eq!((found.file, found.mode), (Some(missing), Mode::Tc));
    let faults = Config::load_or(None, dir.path()).unwrap_err();
    assert!(faults.to_string().contains("it cannot be read: Is a directory"), "{faults}");
}

#[test]
fn a_file_that_is_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let faults = || Config::load(Some(&file)).unwrap_err().to_string();
    fs::write(&file, b"[paths]\n# \xc3\xa9\xff\nrules = 3").unwrap();
    assert_eq!(faults(), format!("{}:2:4: the text is not UTF-8 here", file.display()));
    fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(faults(), format!("{}: the file is larger than 1 MiB", file.display()));
}

#[test]
fn reads_the_rules_of_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let rules = dir.path().join("rules.d");
    let load = || Config::load(Some(&file)).map_err(|faults| faults.to_string());
    fs::write(&file, format!("[paths]\nrules = \"{}\"\n", rules.display())).unwrap();
    assert_eq!(
        load(),
        Err(format!("{}:2: the directory of rules, {}: it does not exist", file.display(), rules.display()))
    );

    fs::create_dir(&rules).unwrap();
    let disable = |id: u32| format!("[[rule]]\nid = {id}\ndisabled = true\n");
    for (name, text) in [
        ("b.toml", disable(5712)),
        ("a.toml", disable(5719)),
        (".#c.toml", "junk".to_owned()),
        ("d.toml~", "junk".to_owned()),
    ] {
        fs::write(rules.join(name), text).unwrap();
    }
    let ids: Vec<u32> = load().unwrap().policy.rules.rules().iter().map(|rule| rule.id.0).collect();
    assert!(ids.contains(&5710) && !ids.contains(&5712) && !ids.contains(&5719), "{ids:?}");

    fs::write(rules.join("c.toml"), "[[rule]]\nid = 0").unwrap();
    fs::create_dir(rules.join("e.toml")).unwrap();
    assert_eq!(
        load(),
        Err(format!(
            "{0}/c.toml:2: `id`: expected a whole number from 1 to 4294967295, found 0\n\
             {0}/e.toml: it is not a regular file",
            rules.display()
        ))
    );
}

/// Pieces of configurations, sound and broken, to be thrown together.
fn piece() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = [
        keys::TOP,
        keys::PATHS,
        keys::SOURCE,
        keys::RESPONSE,
        keys::LIMITS,
        keys::ALLOW,
        keys::RULE,
        keys::DECODER,
    ]
    .iter()
    .flat_map(|keys| keys.names)
    .copied()
    .collect();
    let key = prop_oneof![5 => proptest::sample::select(keys), 1 => Just("x.y"), 1 => Just("\"")];
    let value = prop_oneof![
        "[0-9]{1,3}",
        "\"[a-z0-9/.:]{0,8}\"",
        Just("[5710]".to_owned()),
        Just("[\"eth0\", ".to_owned()),
        Just("[[[".to_owned()),
        Just("{ a = 1 }".to_owned()),
        Just("true".to_owned()),
        Just("\"\"\"".to_owned()),
        "\\PC{0,10}",
    ];
    prop_oneof![
        6 => (key.clone(), value).prop_map(|(key, value)| format!("{key} = {value}\n")),
        1 => key.clone().prop_map(|key| format!("[{key}]\n")),
        2 => key.prop_map(|key| format!("[[{key}]]\n")),
        1 => "\\PC{0,20}\r?\n?",
    ]
}

proptest! {
    #[test]
    fn no_text_panics_and_faults_stand_in_the_file(
        pieces in proptest::collection::vec(piece(), 0..24),
        rules in proptest::collection::vec(piece(), 0..24),
    ) {
        let (text, rules) = (pieces.concat(), rules.concat());
        if let Err(faults) = Config::parse(&text, Path::new(FILE), &own_rules(&rules)) {
            prop_assert!(!faults.is_empty());
            for fault in faults.iter() {
                let text = if *fault.place.file == *Path::new(FILE) { &text } else { &rules };
                let line = fault.place.line.unwrap_or(0);
                prop_assert!(line >= 1 && line <= text.split('\n').count(), "{fault} in {text:?}");
                prop_assert!(!fault.to_string().contains(char::is_control));
            }
        }
    }

    #[test]
    fn no_characters_panic(text in "[\\[\\]={}\",.# \n\ra-c0-9é\u{0}-]{0,60}") {
        prop_assert!(parse(&text).is_ok() || parse(&text).is_err_and(|faults| !faults.is_empty()));
    }
}

#[test]
fn commands_stand_beside_blocks_and_keep_the_default_ones() {
    let text = "[[response]]\nlevel = 3\naction = \"run\"\ncommand = [\"/bin/tell\", \"-q\"]\n\
                [[response]]\naction = \"lock-account\"\nfailures = 5\ntimeout = \"30m\"\n";
    let config = Config::parse(text, Path::new(FILE), &[]).unwrap();
    assert_eq!(config.policy.responses, Response::defaults());
    let [tell, lock] = &config.commands[..] else { panic!("{:?}", config.commands) };
    assert_eq!((&*tell.name, &*tell.user, tell.at_most), ("tell", "nobody", 4));
    assert_eq!((&*lock.name, &*lock.user, lock.at_most), (LOCK_ACCOUNT, "root", 1));
    let [told, locked] = &config.policy.commands[..] else { panic!("{:?}", config.policy.commands) };
    assert!(told.guarded && !told.per_user && !locked.guarded && locked.per_user);
    let counting = |rule: &&Rule| locked.when.fits(rule);
    let rules: Vec<&Rule> = config.policy.rules.rules().iter().filter(counting).collect();
    let [Rule { when: Condition::Count(correlation), .. }] = rules[..] else { panic!("{rules:?}") };
    assert_eq!((correlation.count, correlation.same), (5, Same::User));
    let without = Config::parse("", Path::new(FILE), &[]).unwrap();
    assert!(without.policy.rules.rules().iter().all(|rule| rule.id.0 != 205_703), "only where asked for");
}

#[test]
fn no_other_command_has_the_name_of_the_one_that_locks_accounts() {
    for action in [
        "action = \"run\"\ncommand = [\"/usr/local/bin/lock-account\"]",
        "action = \"notify\"\nmail = \"root\"\nname = \"lock-account\"",
    ] {
        let text = format!("[[response]]\nlevel = 3\n{action}\n");
        let faults = Config::parse(&text, Path::new(FILE), &[]).unwrap_err().to_string();
        assert!(faults.contains("give this command another `name`"), "{faults}");
    }
}

#[test]
fn what_is_sound_may_still_be_doubted() {
    let text = "[[response]]\nlevel = 3\naction = \"run\"\ncommand = [\"/bin/sh\"]\nuser = \"no-such-user\"\n\
                [[response]]\nlevel = 4\naction = \"run\"\nname = \"gone\"\ncommand = [\"/no/such/program\"]\n\
                [[response]]\nlevel = 5\naction = \"run\"\nname = \"well\"\ncommand = [\"/bin/sh\"]\nuser = \"root\"\n\
                [allow]\nnetworks = [\"192.0.2.0/24\", \"0.0.0.0/0\"]\n";
    let doubts = Config::parse(text, Path::new(FILE), &[]).unwrap().doubts();
    assert_eq!(
        doubts,
        [
            "the command `sh` cannot run: there is no user `no-such-user` on this host",
            "the command `gone` cannot run: /no/such/program is no program on this host",
            "nothing in 0.0.0.0/0 is ever blocked: [allow] networks has all of that",
        ]
    );
}

#[test]
fn two_commands_do_not_share_a_name() {
    let one = "[[response]]\nlevel = 3\naction = \"run\"\ncommand = [\"/bin/tell\"]\n";
    let faults = Config::parse(&one.repeat(2), Path::new(FILE), &[]).unwrap_err().to_string();
    assert!(
        faults.contains("5: there is a command `tell` already; give each a `name` of its own"),
        "{faults}"
    );
    assert!(Config::parse(&format!("{one}{one}name = \"other\"\n"), Path::new(FILE), &[]).is_ok());
}

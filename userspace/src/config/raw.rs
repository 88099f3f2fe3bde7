//! `config.toml` as it is written: each value checked by itself, those that depend on others still with their place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;
use xdpban_engine::policy::{FORGET_AFTER, Limits};
use xdpban_engine::record::Format;

use super::document::{Section, Text};
use super::faults::{Faults, Place};
use super::record::RecordConfig;
use super::responses::{self, RawResponse};
use super::rules::RawRules;
use super::{Allowed, Mode, Paths, Selector, SourceConfig, keys, values};

/// The largest table of the gate, in entries.
const MAX_ENTRIES: u32 = 1 << 24;

/// The most interfaces, and the most sources, each of which has a thread of its own.
const MAX_INTERFACES: usize = 256;
const MAX_SOURCES: usize = 64;

/// What stands in `config.toml`, or holds by default.
pub(super) struct RawConfig {
    pub(super) interfaces: Vec<Selector>,
    pub(super) mode: Mode,
    pub(super) ipv6_prefix: u8,
    pub(super) enforce: bool,
    pub(super) protect_logins: bool,
    pub(super) forget_after: Duration,
    pub(super) paths: Paths,
    /// Where `paths.rules` is set.
    pub(super) rules_place: Option<Place>,
    pub(super) sources: Vec<SourceConfig>,
    /// None where the file has none: the defaults hold.
    pub(super) responses: Option<Vec<RawResponse>>,
    pub(super) limits: Limits,
    pub(super) allow: Vec<Allowed>,
    pub(super) record: RecordConfig,
    pub(super) rules: RawRules,
}

impl RawConfig {
    /// Reads the text of `config.toml`, and notes each fault; what is faulty has its default.
    pub(super) fn parse(text: &str, file: &Path, faults: &mut Faults) -> RawConfig {
        let text = Text::new(text, file, faults);
        let tables = text.tables();
        let root = Section::root(&text, &tables, &keys::TOP, faults);
        let paths_section = root.table("paths", &keys::PATHS, faults);
        RawConfig {
            interfaces: interfaces(&root, faults),
            mode: mode(&root, faults),
            ipv6_prefix: root.value("ipv6_prefix", faults, |v| values::whole(v, 1..=128)).unwrap_or(64),
            enforce: root.value("enforce", faults, values::boolean).unwrap_or(true),
            protect_logins: root.value("protect_logins", faults, values::boolean).unwrap_or(true),
            forget_after: root.value("forget_after", faults, values::duration).unwrap_or(FORGET_AFTER),
            rules_place: paths_section.as_ref().filter(|s| s.has("rules")).map(|s| s.place_of("rules")),
            paths: paths(paths_section.as_ref(), faults),
            sources: sources(&root, faults),
            responses: responses::read(&root, faults),
            limits: limits(&root, faults),
            allow: allow(&root, faults),
            record: super::record::read(&root, faults),
            rules: RawRules::read(&root, text.whole, faults),
        }
    }
}

fn interfaces(root: &Section<'_>, faults: &mut Faults) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (place, name) in root.values("interfaces", faults, values::interface) {
        let selector = Selector::parse(&name);
        if selectors.contains(&selector) {
            faults.add(&place, format!("`interfaces`: `{name}` is there twice"));
        } else if selectors.len() == MAX_INTERFACES {
            faults.add(&place, format!("`interfaces`: at most {MAX_INTERFACES} can be guarded"));
            break;
        } else {
            selectors.push(selector);
        }
    }
    if selectors.is_empty() {
        selectors.push(Selector::DefaultRoute);
    }
    selectors
}

fn mode(root: &Section<'_>, faults: &mut Faults) -> Mode {
    let modes = Mode::ALL.map(|mode| (mode.name(), mode));
    root.value("mode", faults, |v| values::choice(v, &modes)).unwrap_or_default()
}

fn paths(section: Option<&Section<'_>>, faults: &mut Faults) -> Paths {
    let mut path = |key: &str, default: PathBuf| {
        section.and_then(|section| section.value(key, faults, values::path)).unwrap_or(default)
    };
    let default = Paths::default();
    Paths {
        state: path("state", default.state),
        runtime: path("runtime", default.runtime),
        pins: path("pins", default.pins),
        rules: path("rules", default.rules),
    }
}

fn sources(root: &Section<'_>, faults: &mut Faults) -> Vec<SourceConfig> {
    let mut sources: Vec<SourceConfig> = Vec::new();
    for section in root.tables("source", &keys::SOURCE, faults).unwrap_or_default() {
        let Some(source) = source(&section, faults) else { continue };
        let same = |other: &SourceConfig| match (other, &source) {
            (SourceConfig::File { path: a, .. }, SourceConfig::File { path: b, .. }) => a == b,
            (SourceConfig::Journal { .. }, SourceConfig::Journal { .. }) => true,
            (SourceConfig::WazuhAlerts { path: a }, SourceConfig::WazuhAlerts { path: b }) => a == b,
            _ => false,
        };
        if sources.iter().any(same) {
            faults.add(&section.place, "this source is there twice, and each line would count twice");
        } else if sources.len() == MAX_SOURCES {
            faults.add(&section.place, format!("at most {MAX_SOURCES} sources can be watched"));
            break;
        } else {
            sources.push(source);
        }
    }
    sources
}

#[derive(Clone, Copy)]
enum SourceKind {
    File,
    Journal,
    WazuhAlerts,
}

fn source(section: &Section<'_>, faults: &mut Faults) -> Option<SourceConfig> {
    let kinds = [
        ("file", SourceKind::File),
        ("journal", SourceKind::Journal),
        ("wazuh-alerts", SourceKind::WazuhAlerts),
    ];
    let kind = if section.has("kind") {
        section.value("kind", faults, |v| values::choice(v, &kinds))
    } else {
        section.missing("a source needs `kind`: \"file\", \"journal\" or \"wazuh-alerts\"", faults);
        None
    };
    let path = section.value("path", faults, values::path);
    let formats = [("syslog", Format::Syslog), ("bare", Format::Bare)];
    let format = section.value("format", faults, |v| values::choice(v, &formats)).unwrap_or_default();
    // What the lines of sshd itself may have before them is known.
    let program = section.value("program", faults, values::program).filter(|program| program != "sshd");
    let place = section.place_of("program");
    let kind = kind?;
    let mut without = |kind: &str, keys: &[&str]| {
        for key in keys.iter().filter(|key| section.has(key)) {
            faults.add(&section.place_of(key), format!("a source of kind \"{kind}\" has no `{key}`"));
        }
    };
    match kind {
        SourceKind::File => {
            if !section.has("path") {
                section.missing("a source of kind \"file\" needs `path`", faults);
            }
            if section.has("program") && format != Format::Bare {
                faults.add(&place, "`program` goes with `format = \"bare\"`: other lines name their program");
            }
            Some(SourceConfig::File { path: path?, format, program })
        }
        SourceKind::Journal => {
            without("journal", &["path", "format", "program"]);
            Some(SourceConfig::Journal { programs: Vec::new() })
        }
        SourceKind::WazuhAlerts => {
            without("wazuh-alerts", &["format", "program"]);
            // A path that is faulty has been told of.
            let path = path.unwrap_or_else(|| SourceConfig::WAZUH_ALERTS.into());
            Some(SourceConfig::WazuhAlerts { path })
        }
    }
}

fn limits(root: &Section<'_>, faults: &mut Faults) -> Limits {
    let section = root.table("limits", &keys::LIMITS, faults);
    let mut limit = |key: &str, default: u32| {
        let read = |section: &Section<'_>| section.value(key, faults, |v| values::whole(v, 1..=MAX_ENTRIES));
        section.as_ref().and_then(read).unwrap_or(default)
    };
    Limits {
        blocks: limit("blocks", 262_144),
        prefixes: limit("prefixes", 16_384),
        sources: limit("sources", 65_536),
    }
}

fn allow(root: &Section<'_>, faults: &mut Faults) -> Vec<Allowed> {
    let section = root.table("allow", &keys::ALLOW, faults);
    let networks = section.map(|section| section.values("networks", faults, allowed));
    networks.unwrap_or_default().into_iter().map(|(_, allowed)| allowed).collect()
}

/// A network, or a table of it and a comment.
fn allowed(value: &DeValue<'_>) -> Result<Allowed, String> {
    let DeValue::Table(table) = value else {
        return values::target(value).map(|network| Allowed { network, comment: None });
    };
    let known = |name: &str| keys::ALLOWED.names.contains(&name);
    if let Some(unknown) = table.keys().find(|key| !known(key.get_ref())) {
        return Err(keys::unknown(&keys::ALLOWED, unknown.get_ref()));
    }
    let network = table.get("network").ok_or("a table here needs `network`")?;
    let comment = table.get("comment").map(|comment| values::line(comment.get_ref())).transpose()?;
    Ok(Allowed { network: values::target(network.get_ref())?, comment })
}

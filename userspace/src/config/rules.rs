//! Rules as TOML: the shipped ones, and the user's own, which add to them, replace or disable them by id, and read what
//! the user's own decoders find.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xdpban_engine::decode::Decoders;
use xdpban_engine::event::EventKind;
use xdpban_engine::policy::Response;
use xdpban_engine::rules::{
    Condition, Correlation, Distinct, EventMatch, MOST_ATTEMPTS, MOST_SHARED, Rule, RuleError, RuleId,
    RuleSet, Same,
};

use super::commands::LOCKOUT_RULE;
use super::document::{Section, Text};
use super::faults::{Faults, Place};
use super::responses::RawResponse;
use super::{decoders, keys, read, values};

/// The rules that come with the program, and what faults in them are told under.
const SHIPPED: [(&str, &str); 1] = [("shipped rules, sshd.toml", include_str!("../../rules/sshd.toml"))];

/// The most files of rules that are read from a directory.
const MAX_FILES: usize = 256;

/// A file of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// Its path.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// Rules and decoders as read, not yet checked against each other.
#[derive(Default)]
pub(super) struct Definitions {
    defined: Vec<Definition>,
    decoders: decoders::Definitions,
    /// The user's own among the rules.
    own: BTreeMap<RuleId, Place>,
    disabled: BTreeMap<RuleId, Place>,
    /// Whether every definition of every file is here, so that what is not here is nowhere.
    complete: bool,
}

/// The definition of one rule.
struct Definition {
    place: Place,
    id: RuleId,
    level: Option<u8>,
    groups: Vec<String>,
    /// The decoder that it names, and where.
    decoder: Option<(Place, String)>,
    /// None where something in the definition is faulty.
    rule: Option<Rule>,
}

/// What one file says of rules and decoders.
#[derive(Default)]
pub(super) struct RawRules {
    defined: Vec<Definition>,
    decoders: Vec<decoders::Definition>,
    disabled: Vec<(Place, RuleId)>,
    /// Whether nothing of the file had to be left out.
    complete: bool,
}

/// Reads `*.toml` in `directory`, in the order of their names. A directory that is missing is empty, unless
/// `place` says that the configuration names it.
///
/// The flag says whether every file could be read.
pub(super) fn read_directory(
    directory: &Path,
    place: Option<&Place>,
    faults: &mut Faults,
) -> (Vec<RuleFile>, bool) {
    let (paths, mut complete) = match names(directory) {
        Ok(paths) => (paths, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.is_none() => (Vec::new(), true),
        Err(error) => {
            let message =
                format!("the directory of rules, {}: {}", directory.display(), read::refused(&error));
            faults.add(place.unwrap_or(&Place::file(directory)), message);
            (Vec::new(), false)
        }
    };
    if paths.len() > MAX_FILES {
        let message = format!("there are {} files of rules here; at most {MAX_FILES} are read", paths.len());
        faults.add(&Place::file(directory), message);
        return (Vec::new(), false);
    }
    let mut files = Vec::new();
    for path in paths {
        match regular_file(&path, faults) {
            Ok(Some(text)) => files.push(RuleFile { path, text }),
            Ok(None) => complete = false,
            Err(error) => {
                faults.add(&Place::file(&path), read::refused(&error));
                complete = false;
            }
        }
    }
    (files, complete)
}

/// The files of rules in a directory, by name. Hidden ones are left to the editors that make them.
fn names(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The text of a file that is one: opening a pipe would wait for someone to write to it.
fn regular_file(path: &Path, faults: &mut Faults) -> io::Result<Option<String>> {
    if path.metadata()?.is_file() {
        return read::file(path, faults);
    }
    faults.add(&Place::file(path), "it is not a regular file");
    Ok(None)
}

impl Definitions {
    /// The shipped rules as the user's own leave them: those of `config.toml`, and then those of `files`. `complete`: the files
    /// are all that there are.
    pub(super) fn new(
        config: RawRules,
        files: &[RuleFile],
        complete: bool,
        faults: &mut Faults,
    ) -> Definitions {
        let mut this = Definitions { complete, ..Definitions::default() };
        for (name, text) in SHIPPED {
            this.defined.extend(RawRules::parse(text, Path::new(name), faults).defined);
        }
        let shipped: Vec<RuleId> = this.defined.iter().map(|definition| definition.id).collect();
        let files: Vec<RawRules> =
            files.iter().map(|file| RawRules::parse(&file.text, &file.path, faults)).collect();
        for raw in std::iter::once(config).chain(files) {
            this.complete &= raw.complete;
            for decoder in raw.decoders {
                this.decoders.define(decoder, faults);
            }
            for definition in raw.defined {
                this.define(definition, faults);
            }
            for (place, id) in raw.disabled {
                if !shipped.contains(&id) {
                    let message = format!("there is no shipped rule {} to disable", id.0);
                    faults.add(&place, message);
                }
                this.disabled.insert(id, place);
            }
        }
        for (id, place) in &this.disabled {
            if let Some(defined) = this.own.get(id) {
                faults.add(place, format!("rule {} is disabled here and defined at {defined}", id.0));
            }
        }
        this.defined.retain(|definition| !this.disabled.contains_key(&definition.id));
        for (place, name) in this.defined.iter().filter_map(|definition| definition.decoder.as_ref()) {
            let known: Vec<&str> = this.decoders.names().collect();
            if this.complete && !known.contains(&name.as_str()) {
                let remedy = keys::nearest(name, known).map(|near| format!("; did you mean `{near}`?"));
                let message =
                    format!("there is no decoder `{}`{}", keys::short(name), remedy.unwrap_or_default());
                faults.add(place, message);
            }
        }
        this
    }

    /// Takes up a definition of the user's: in the place of the shipped rule with its id, since the order of the
    /// rules has a meaning, or at the end.
    fn define(&mut self, definition: Definition, faults: &mut Faults) {
        if let Some(first) = self.own.get(&definition.id) {
            let message = format!("rule {} is defined at {first} already", definition.id.0);
            faults.add(&definition.place, message);
            return;
        }
        self.own.insert(definition.id, definition.place.clone());
        match self.defined.iter_mut().find(|other| other.id == definition.id) {
            Some(shipped) => *shipped = definition,
            None => self.defined.push(definition),
        }
    }

    /// Adds the rule that counts the failed logins of one user, from anywhere. A disabled base of it counts for nothing.
    pub(super) fn add_lockout(&mut self, count: u32, window: Duration) {
        let (id, level) = (LOCKOUT_RULE, 10);
        let groups: Vec<String> = ["syslog", "sshd", "authentication_failures"].map(str::to_owned).to_vec();
        let rule = Rule {
            id,
            level,
            groups: groups.clone(),
            description: "logins as one user fail again and again".to_owned(),
            when: Condition::Count(Correlation {
                base: [5716, 5758, 5760].map(RuleId).to_vec(),
                count,
                window,
                same: Same::User,
                distinct: None,
            }),
        };
        // Less specific than every rule for one source.
        let place = Place::file(Path::new("lock-account"));
        let definition =
            Definition { place, id, level: Some(level), groups, decoder: None, rule: Some(rule) };
        if !self.defined.iter().any(|other| other.id == id) {
            let first = self.defined.iter().position(|other| other.id == RuleId(205_701));
            self.defined.insert(first.unwrap_or(self.defined.len()), definition);
        }
    }

    /// The rules, checked against each other; none where they do not fit together.
    pub(super) fn resolve(&self, faults: &mut Faults) -> Option<RuleSet> {
        let (sound, rules): (Vec<&Definition>, Vec<Rule>) = self
            .defined
            .iter()
            .filter_map(|definition| Some((definition, self.without_disabled(definition.rule.clone()?))))
            .unzip();
        match RuleSet::new(rules) {
            Ok(rules) => {
                self.add_shadowed(&rules, &sound, faults);
                Some(rules)
            }
            Err(errors) => {
                for error in errors {
                    if let Some(definition) = sound.get(index(&error)) {
                        self.add(&error, &definition.place, faults);
                    }
                }
                None
            }
        }
    }

    /// A rule that counts several goes on with those that are not disabled; one that is left with none is a fault.
    fn without_disabled(&self, mut rule: Rule) -> Rule {
        let enabled = |id: &RuleId| !self.disabled.contains_key(id);
        if let Condition::Count(correlation) = &mut rule.when
            && correlation.base.iter().any(enabled)
        {
            correlation.base.retain(enabled);
        }
        rule
    }

    /// Notes the user's own rules that can never fire. That a shipped one is left without events may be the intention.
    fn add_shadowed(&self, rules: &RuleSet, sound: &[&Definition], faults: &mut Faults) {
        for (place, by) in rules.shadowed() {
            if let (Some(rule), Some(by)) = (sound.get(place), sound.get(by))
                && self.own.contains_key(&rule.id)
            {
                let message = format!(
                    "rule {} can never fire: rule {}, which stands below it, takes every event that it could",
                    rule.id.0, by.id.0
                );
                faults.add(&rule.place, message);
            }
        }
    }

    /// The user's own decoders.
    pub(super) fn decoders(&self) -> Decoders {
        Decoders::new(self.decoders.sound())
    }

    fn add(&self, error: &RuleError, place: &Place, faults: &mut Faults) {
        if let RuleError::UnknownBase { id, base, .. } = error {
            if let Some(disabled) = self.disabled.get(base) {
                let message = format!(
                    "rule {} is disabled here, but rule {} counts it; disable that, too",
                    base.0, id.0
                );
                return faults.add(disabled, message);
            }
            if !self.complete || self.defined.iter().any(|definition| definition.id == *base) {
                return;
            }
        }
        faults.add(place, error.to_string());
    }

    /// The response, once its rules and groups have been found. `foreign`: there are matches of other systems, whose rules
    /// and groups nobody here knows. `forget_after`: when offenders are forgotten, where the response does not say.
    pub(super) fn response(
        &self,
        raw: RawResponse,
        foreign: bool,
        forget_after: Duration,
        faults: &mut Faults,
    ) -> Response {
        let complete = self.complete && !foreign;
        for (place, id) in &raw.rules {
            if let Some(message) = self.unfit(*id, complete) {
                faults.add(place, message);
            }
        }
        let known: Vec<&str> = self.defined.iter().flat_map(|d| &d.groups).map(String::as_str).collect();
        for (place, group) in &raw.groups {
            if !complete || known.iter().any(|known| group.matches(known.as_bytes())) {
                continue;
            }
            let name = keys::short(group.as_str());
            let near = keys::nearest(group.as_str(), known.iter().copied());
            let message = match near.filter(|_| !group.is_pattern()) {
                _ if group.is_pattern() => format!("no rule is in a group like `{name}`"),
                Some(near) => format!("no rule is in the group `{name}`; did you mean `{near}`?"),
                None => format!("no rule is in the group `{name}`"),
            };
            faults.add(place, message);
        }
        Response {
            rules: raw.rules.into_iter().map(|(_, id)| id).collect(),
            groups: raw.groups.into_iter().map(|(_, group)| group).collect(),
            level: raw.level,
            networks: raw.networks,
            users: raw.users,
            measure: raw.measure,
            timeout: raw.timeout,
            repeat_offenders: raw.repeat_offenders,
            forget_after: raw.forget_after.unwrap_or(forget_after),
            aggregate: raw.aggregate,
            location: raw.location,
        }
    }

    /// Why no response can name this rule.
    fn unfit(&self, id: RuleId, complete: bool) -> Option<String> {
        if let Some(place) = self.disabled.get(&id) {
            return Some(format!("rule {} is disabled at {place}", id.0));
        }
        match self.defined.iter().find(|definition| definition.id == id) {
            Some(Definition { level: Some(0), .. }) => {
                Some(format!("rule {} has level 0, and such rules never lead to a response", id.0))
            }
            None if complete => Some(format!("there is no rule {}", id.0)),
            _ => None,
        }
    }
}

fn index(error: &RuleError) -> usize {
    match error {
        RuleError::Duplicate { index, .. }
        | RuleError::UnknownBase { index, .. }
        | RuleError::Cycle { index, .. }
        | RuleError::Dead { index, .. } => *index,
    }
}

impl RawRules {
    fn parse(text: &str, file: &Path, faults: &mut Faults) -> RawRules {
        let text = Text::new(text, file, faults);
        let tables = text.tables();
        let root = Section::root(&text, &tables, &keys::RULES, faults);
        RawRules::read(&root, text.whole, faults)
    }

    /// Reads the rules and decoders of a file. `whole`: nothing of it had to be left out.
    pub(super) fn read(root: &Section<'_>, whole: bool, faults: &mut Faults) -> RawRules {
        let mut rules = RawRules { complete: whole, ..RawRules::default() };
        for section in root.tables("decoder", &keys::DECODER, faults).unwrap_or_default() {
            match decoders::Definition::read(&section, faults) {
                Some(definition) => rules.decoders.push(definition),
                None => rules.complete = false,
            }
        }
        for section in root.tables("rule", &keys::RULE, faults).unwrap_or_default() {
            let Some(id) = required(&section, "a rule", "id", faults, |v| values::whole(v, 1..=u32::MAX))
            else {
                rules.complete = false;
                continue;
            };
            let id = RuleId(id);
            if section.value("disabled", faults, values::boolean) == Some(true) {
                rules.disabled.push((section.place.clone(), id));
            } else {
                rules.defined.push(definition(&section, id, faults));
            }
        }
        rules
    }
}

fn definition(section: &Section<'_>, id: RuleId, faults: &mut Faults) -> Definition {
    let before = faults.len();
    let level = required(section, "a rule", "level", faults, |v| values::whole(v, 0..=15));
    let groups: Vec<String> =
        section.values("groups", faults, values::line).into_iter().map(|(_, group)| group).collect();
    let description = required(section, "a rule", "description", faults, values::line);
    let when = condition(section, faults);
    let decoder = match &when {
        Some(Condition::Event(wanted)) => wanted.decoder.clone(),
        _ => None,
    };
    let rule = level.zip(description).zip(when).map(|((level, description), when)| Rule {
        id,
        level,
        groups: groups.clone(),
        description,
        when,
    });
    let sound = faults.len() == before;
    let decoder = decoder.map(|name| (section.place_of("decoder"), name));
    Definition { place: section.place.clone(), id, level, groups, decoder, rule: rule.filter(|_| sound) }
}

/// What makes the rule fire: `events` and what narrows them, a `decoder`, or `base`, `count` and `window`.
fn condition(section: &Section<'_>, faults: &mut Faults) -> Option<Condition> {
    const EVENTS: [&str; 3] = ["events", "invalid_user", "detail"];
    const DECODER: [&str; 1] = ["decoder"];
    const COUNT: [&str; 5] = ["base", "count", "window", "same", "distinct"];
    let forms: [&[&str]; 3] = [&COUNT, &DECODER, &EVENTS];
    let Some(form) = forms.into_iter().find(|form| form.first().is_some_and(|key| section.has(key))) else {
        let message = "a rule needs `events`, or `decoder`, or else `base`, `count` and `window`";
        section.missing(message, faults);
        return None;
    };
    let &[of, ..] = form else { return None };
    for key in forms.into_iter().flatten().filter(|key| section.has(key) && !form.contains(key)) {
        faults.add(&section.place_of(key), format!("`{key}` does not go with `{of}` in one rule"));
    }
    match of {
        "base" => correlation(section, faults).map(Condition::Count),
        "decoder" => {
            let decoder = section.value("decoder", faults, values::line)?;
            let kinds = vec![EventKind::Custom];
            Some(Condition::Event(EventMatch { kinds, decoder: Some(decoder), ..EventMatch::default() }))
        }
        _ => Some(Condition::Event(events(section, faults))),
    }
}

fn events(section: &Section<'_>, faults: &mut Faults) -> EventMatch {
    let kinds = section.values("events", faults, |value| {
        let name = values::string(value)?;
        EventKind::from_name(name).ok_or_else(|| {
            let kinds = EventKind::ALL.iter().filter(|kind| **kind != EventKind::Custom);
            let known: Vec<&str> = kinds.map(|kind| kind.name()).collect();
            keys::unknown_name(name, &known)
        })
    });
    EventMatch {
        kinds: kinds.into_iter().map(|(_, kind)| kind).collect(),
        decoder: None,
        invalid_user: section.value("invalid_user", faults, values::boolean),
        detail: section.value("detail", faults, values::line),
    }
}

fn correlation(section: &Section<'_>, faults: &mut Faults) -> Option<Correlation> {
    let same = [("source", Same::Source), ("user", Same::User), ("network", Same::Network)];
    let distinct = [("source", Distinct::Source), ("user", Distinct::User)];
    let id = |value| values::whole(value, 1..=u32::MAX).map(RuleId);
    let base = section.value("base", faults, |v| values::several(v, id));
    let same = section.value("same", faults, |v| values::choice(v, &same)).unwrap_or_default();
    let distinct = section.value("distinct", faults, |v| values::choice(v, &distinct));
    let by_source = same == Same::Source && distinct.is_none();
    let most = if by_source { MOST_ATTEMPTS } else { MOST_SHARED };
    let count = required(section, "a rule", "count", faults, |v| values::whole(v, 2..=most));
    let window = required(section, "a rule", "window", faults, values::duration);
    Some(Correlation { base: base?, count: count?, window: window?, same, distinct })
}

/// A value that a table, called `what`, cannot do without.
pub(super) fn required<'d, T>(
    section: &Section<'d>,
    what: &str,
    key: &str,
    faults: &mut Faults,
    read: impl FnOnce(&'d toml::de::DeValue<'d>) -> Result<T, String>,
) -> Option<T> {
    if !section.has(key) {
        section.missing(&format!("{what} needs `{key}`"), faults);
    }
    section.value(key, faults, read)
}

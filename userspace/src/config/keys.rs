//! The keys that there are, and what to say of one that is not among them.

/// The keys of one table.
#[derive(Debug)]
pub(super) struct Keys {
    /// The table as it is written, or what the file is called where the keys stand above all tables.
    pub(super) table: &'static str,
    /// Its keys.
    pub(super) names: &'static [&'static str],
}

pub(super) const TOP: Keys = Keys {
    table: "config.toml",
    names: &[
        "interfaces",
        "mode",
        "ipv6_prefix",
        "enforce",
        "protect_logins",
        "forget_after",
        "paths",
        "source",
        "response",
        "limits",
        "allow",
        "record",
        "decoder",
        "rule",
    ],
};
pub(super) const PATHS: Keys = Keys { table: "[paths]", names: &["state", "runtime", "pins", "rules"] };
pub(super) const SOURCE: Keys = Keys { table: "[[source]]", names: &["kind", "path", "format", "program"] };
pub(super) const RESPONSE: Keys = Keys {
    table: "[[response]]",
    names: &[
        "rules",
        "groups",
        "level",
        "networks",
        "users",
        "action",
        "rate",
        "burst",
        "ports",
        "scope",
        "timeout",
        "repeat_offenders",
        "forget_after",
        "aggregate",
        "location",
        "command",
        "name",
        "user",
        "time_limit",
        "at_most",
        "failures",
        "window",
        "mail",
        "webhook",
        "digest",
        "retry",
    ],
};
pub(super) const AGGREGATE: Keys = Keys { table: "aggregate", names: &["v4", "v6", "hosts"] };
pub(super) const LIMITS: Keys = Keys { table: "[limits]", names: &["blocks", "prefixes", "sources"] };
pub(super) const ALLOW: Keys = Keys { table: "[allow]", names: &["networks"] };
pub(super) const RECORD: Keys = Keys { table: "[record]", names: &["keep", "max_size", "stream"] };

/// An entry of `networks` in [`ALLOW`].
pub(super) const ALLOWED: Keys = Keys { table: "an allowed network", names: &["network", "comment"] };

pub(super) const RULES: Keys = Keys { table: "a rules file", names: &["decoder", "rule"] };
pub(super) const DECODER: Keys =
    Keys { table: "[[decoder]]", names: &["name", "program", "regex", "attack"] };
pub(super) const RULE: Keys = Keys {
    table: "[[rule]]",
    names: &[
        "id",
        "level",
        "groups",
        "description",
        "events",
        "decoder",
        "invalid_user",
        "detail",
        "base",
        "count",
        "window",
        "same",
        "distinct",
        "disabled",
    ],
};

/// The tables of the two kinds of file.
const FILES: [&[&Keys]; 2] = [
    &[&TOP, &PATHS, &SOURCE, &RESPONSE, &AGGREGATE, &LIMITS, &ALLOW, &RECORD, &DECODER, &RULE],
    &[&RULES, &DECODER, &RULE],
];

/// What to say of `name`, which is not a key of `keys`.
pub(super) fn unknown(keys: &Keys, name: &str) -> String {
    let near = nearest(name, keys.names.iter().copied());
    let tables = FILES.iter().find(|tables| tables.iter().any(|other| other.table == keys.table));
    let elsewhere = tables
        .and_then(|tables| tables.iter().find(|other| other.names.contains(&name)).map(|other| other.table));
    let plural = |one: &str, several: &str| several.strip_suffix('s') == Some(one);
    let remedy = match (elsewhere, near) {
        // `rule` is a table, too; but here it is a slip of the pen.
        (_, Some(near)) if plural(name, near) || plural(near, name) => format!("did you mean `{near}`?"),
        (Some(table), _) => format!("it belongs in {table}"),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!("{} has {}", keys.table, list(keys.names)),
    };
    format!("unknown key `{}`; {remedy}", short(name))
}

/// What to say of `name`, which is none of `known`.
pub(super) fn unknown_name(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("`{}` is unknown; did you mean `{near}`?", short(name)),
        None => format!("`{}` is unknown; there is {}", short(name), list(known)),
    }
}

/// The name that looks most like `name`, if any looks like it at all.
pub(super) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // Where slips of the pen end and other words begin, by trial on the names of this file.
    const ALIKE: f64 = 0.8;
    // The comparison takes the product of both lengths.
    let name = short(name);
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name, known), known))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Names as a list for a sentence.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// As much of a text from a file as is worth repeating.
pub(super) fn short(text: &str) -> String {
    const MAX: usize = 64;
    if text.chars().nth(MAX).is_none() {
        return text.to_owned();
    }
    text.chars().take(MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_key() {
        assert_eq!(unknown(&TOP, "interface"), "unknown key `interface`; did you mean `interfaces`?");
        assert_eq!(unknown(&LIMITS, "bloks"), "unknown key `bloks`; did you mean `blocks`?");
        assert_eq!(unknown(&RESPONSE, "time_out"), "unknown key `time_out`; did you mean `timeout`?");
        assert_eq!(unknown(&RESPONSE, "rule"), "unknown key `rule`; did you mean `rules`?");
        assert_eq!(unknown(&TOP, "limit"), "unknown key `limit`; did you mean `limits`?");
        assert_eq!(unknown(&TOP, "blocks"), "unknown key `blocks`; it belongs in [limits]");
        assert_eq!(unknown(&PATHS, "mode"), "unknown key `mode`; it belongs in config.toml");
        assert_eq!(unknown(&ALLOW, "xyz"), "unknown key `xyz`; [allow] has `networks`");
        assert_eq!(unknown(&RULES, "level"), "unknown key `level`; it belongs in [[rule]]");
    }

    #[test]
    fn cuts_what_it_repeats() {
        let long = "x".repeat(1 << 20);
        assert!(unknown(&TOP, &long).len() < 400);
    }
}

//! Which interfaces to guard: by name, by pattern, or those with a default route.

use std::fmt;

/// What selects interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those with a default route.
    DefaultRoute,
    /// The one of that name.
    Name(String),
    /// Those whose names match.
    Pattern(Pattern),
}

impl Selector {
    /// The word that stands for the interfaces with a default route.
    pub const DEFAULT_ROUTE: &str = "default-route";

    /// Reads a name, a pattern, or the word for those with a default route.
    pub fn parse(text: &str) -> Selector {
        if text == Selector::DEFAULT_ROUTE {
            Selector::DefaultRoute
        } else if text.contains(['*', '?', '[']) {
            Selector::Pattern(Pattern(text.to_owned()))
        } else {
            Selector::Name(text.to_owned())
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Selector::DefaultRoute => Selector::DEFAULT_ROUTE,
            Selector::Name(name) | Selector::Pattern(Pattern(name)) => name,
        })
    }
}

/// A pattern as shells know them: `*` is any text, `?` any character, `[0-3]` one of these, `[!0-3]` one that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let name: Vec<char> = name.chars().collect();
        matches(&pattern, &name)
    }
}

/// Names and patterns are short, so that trying each length of a `*` costs nothing.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
    if *first == '*' {
        let rest = rest.iter().position(|c| *c != '*').map_or(&[][..], |at| rest.split_at(at).1);
        return (0..=name.len()).any(|taken| matches(rest, name.split_at(taken).1));
    }
    let Some((character, name)) = name.split_first() else { return false };
    match (first, set(rest)) {
        ('?', _) => matches(rest, name),
        ('[', Some((set, rest))) => is_in(set, *character) && matches(rest, name),
        (literal, _) => literal == character && matches(rest, name),
    }
}

/// The characters up to the `]` that ends a set, and what follows; none where nothing ends it, and the `[` stands for itself.
fn set(pattern: &[char]) -> Option<(&[char], &[char])> {
    // A `]` right at the beginning is one of the set.
    let start = usize::from(pattern.first() == Some(&'!')) + 1;
    let end = start + pattern.get(start..)?.iter().position(|c| *c == ']')?;
    Some((pattern.get(..end)?, pattern.get(end + 1..)?))
}

fn is_in(set: &[char], character: char) -> bool {
    let (negated, mut set) = match set.split_first() {
        Some(('!', rest)) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    while let Some((from, rest)) = set.split_first() {
        (found, set) = match rest {
            ['-', to, rest @ ..] => (found || (*from..=*to).contains(&character), rest),
            _ => (found || *from == character, rest),
        };
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_names_and_patterns() {
        assert_eq!(Selector::parse("default-route"), Selector::DefaultRoute);
        assert_eq!(Selector::parse("eth0.100"), Selector::Name("eth0.100".into()));
        for text in ["eth*", "eth?", "eth[01]", "eth0", "default-route"] {
            assert_eq!(Selector::parse(text).to_string(), text);
        }
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let cases = [
            ("eth*", "eth0", true),
            ("eth*", "eth", true),
            ("eth*", "veth0", false),
            ("*", "", true),
            ("*.100", "eth0.100", true),
            ("*.100", "eth0.1000", false),
            ("e*h*0", "eth10", true),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("eth?", "eth", false),
            ("eth[0-3]", "eth2", true),
            ("eth[0-3]", "eth4", false),
            ("eth[!0-3]", "eth4", true),
            ("eth[!0-3]", "eth", false),
            ("eth[13a-c]", "ethb", true),
            ("eth[]]", "eth]", true),
            ("eth[", "eth[", true),
            ("wan?[0-9]*", "wan-1x", true),
            ("é*", "éx", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern(pattern.into()).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_stars_ends() {
        let pattern = "*a".repeat(7) + "b";
        assert!(!Pattern(pattern).matches(&"a".repeat(15)));
    }
}

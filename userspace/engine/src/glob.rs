//! Names with `*` in them.

use std::fmt;

/// A name, or a pattern of names: `*` stands for any characters, also none; all else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Whether it is a pattern and not simply a name.
    pub fn is_pattern(&self) -> bool {
        self.0.contains('*')
    }

    /// The text that it was made from.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is it, or one of those that it stands for.
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut parts = self.0.split('*').map(str::as_bytes);
        // What is split has one part at least.
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // The earliest place for each part leaves the most to those after it.
        for part in parts {
            let Some(at) = find(rest, part) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() { Some(0) } else { text.windows(part.len()).position(|window| window == part) }
}

impl From<&str> for Glob {
    fn from(text: &str) -> Glob {
        Glob(text.into())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (glob, names, others) in [
            ("admin", &["admin"][..], &["admin1", "Admin", "", "xadmin"][..]),
            ("authentication_*", &["authentication_failed", "authentication_"], &["authentication", "x"]),
            ("*admin*", &["admin", "sysadmin2"], &["admi"]),
            ("a*b*b", &["abb", "axbxxb", "abbb"], &["ab", "abbx", "bab"]),
            ("*", &["", "x"], &[]),
            ("", &[""], &["x"]),
            ("aa*aa", &["aaaa", "aaxaa"], &["aaa"]),
        ] {
            let matches = |name: &&str| Glob::from(glob).matches(name.as_bytes());
            assert!(names.iter().all(matches), "{glob}");
            assert!(!others.iter().any(matches), "{glob}");
        }
    }
}

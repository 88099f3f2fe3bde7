//! What was written, for the record: a digest of all that was read, and the settings as lines, so that the record can tell
//! in words what changed.

use sha2::{Digest, Sha256};

use super::RuleFile;

/// Lines of settings that go on record; of a longer file the rest stands in the digest alone.
const MAX_LINES: usize = 500;

/// The longest line of them, in characters.
const MAX_LINE: usize = 200;

/// What a configuration and its rules said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of all files, in hexadecimal.
    pub digest: String,
    /// The settings of the configuration, each with the table that it stands in, and the files of rules with their
    /// digests.
    pub settings: Vec<String>,
}

impl Written {
    pub(super) fn of(text: &str, rules: &[RuleFile]) -> Written {
        let mut all = Sha256::new();
        all.update(text);
        let mut settings = settings(text);
        for RuleFile { path, text } in rules {
            let digest = hex(&Sha256::digest(text));
            settings.push(format!("{} sha256:{digest}", path.display()));
            all.update(path.as_os_str().as_encoded_bytes());
            all.update([0]);
            all.update(digest);
        }
        settings.truncate(MAX_LINES);
        Written { digest: hex(&all.finalize()), settings }
    }

    /// What `self` says and `before`, the settings of an earlier one, did not (`+ …`), and the other way round (`- …`).
    pub fn changes_since(&self, before: &[String]) -> Vec<String> {
        let without = |all: &[String], others: &[String], sign: &str| -> Vec<String> {
            let mut others: Vec<&String> = others.iter().collect();
            let mut left = Vec::new();
            for line in all {
                match others.iter().position(|other| *other == line) {
                    Some(place) => drop(others.swap_remove(place)),
                    None => left.push(format!("{sign} {line}")),
                }
            }
            left
        };
        let mut changes = without(before, &self.settings, "-");
        changes.extend(without(&self.settings, before, "+"));
        changes
    }
}

/// The lines of `text` that set something, each with the header of its table. A value on several lines is several of them.
fn settings(text: &str) -> Vec<String> {
    let mut table = "";
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') && line.ends_with(']') {
            table = line;
            continue;
        }
        let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
        settings.push(if table.is_empty() { line } else { format!("{table} {line}") });
    }
    settings
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_in_the_words_of_the_file() {
        let before = Written::of("mode = \"tc\"\n# a remark\n[limits]\nblocks = 1\nprefixes = 2\n", &[]);
        let rules = RuleFile { path: "/etc/own.toml".into(), text: "[[rule]]".to_owned() };
        let after = Written::of("mode = \"tc\"\n\n[limits]\n blocks = 3\nprefixes = 2\n", &[rules]);
        let changes = after.changes_since(&before.settings);
        assert_eq!(changes[..2], ["- [limits] blocks = 1", "+ [limits] blocks = 3"]);
        assert!(changes[2].starts_with("+ /etc/own.toml sha256:"), "{changes:?}");
        assert_ne!(before.digest, after.digest);
        let remark = Written::of("mode = \"tc\"\n[limits]\nblocks = 1\nprefixes = 2", &[]);
        assert_eq!(remark.changes_since(&before.settings), [""; 0]);
        assert_ne!(remark.digest, before.digest);
    }
}

//! A configuration in the making: TOML with comments.

use std::time::Duration;

/// The width of comments.
const WIDTH: usize = 110;

/// The units of durations, the largest first, with their seconds.
const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];

/// A configuration in the making.
#[derive(Debug, Default)]
pub(super) struct Draft(String);

impl Draft {
    /// A comment, broken into lines. Whatever the text is, it stays a comment.
    pub(super) fn comment(&mut self, text: &str) {
        let mut line = "#".to_owned();
        for word in text.split_whitespace() {
            if line.len() > 1 && line.len() + word.len() > WIDTH {
                self.line(&line);
                "#".clone_into(&mut line);
            }
            line.push(' ');
            line.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        }
        self.line(&line);
    }

    /// The head of a table, such as `[[response]]`.
    pub(super) fn table(&mut self, head: &str) {
        self.line(head);
    }

    /// A key with its value, which [`text`], [`texts`], [`duration`] and their like have written.
    pub(super) fn key(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }

    pub(super) fn blank(&mut self) {
        self.line("");
    }

    pub(super) fn text(self) -> String {
        self.0.trim_end().to_owned() + "\n"
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

/// A string of TOML.
pub(super) fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// An array of strings.
pub(super) fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    list(items.into_iter().map(|item| text(item.as_ref())))
}

/// An array of what is written already.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// A duration of whole seconds in the largest unit that fits: `100s`, `10m`, `1d`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (size, unit) = UNITS.into_iter().find(|(size, _)| seconds.is_multiple_of(*size)).unwrap_or((1, "s"));
    format!("{}{unit}", seconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_stay_comments() {
        let mut draft = Draft::default();
        draft.comment("one\n[[response]]\r\ntwo\u{b}\u{1b} \u{85}x\u{0}");
        draft.comment(&"word ".repeat(60));
        draft.comment(&"x".repeat(300));
        let text = draft.text();
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
        assert!(text.parse::<toml::Table>().unwrap().is_empty());
        assert!(text.lines().nth(1).unwrap().len() <= WIDTH + 1);
    }

    #[test]
    fn values_are_read_as_they_were_meant() {
        let written = format!("a = {}\nb = {}", text("x\"\\\n\u{7f}'"), texts(["1", "two"]));
        let table: toml::Table = written.parse().unwrap();
        assert_eq!(table["a"].as_str(), Some("x\"\\\n\u{7f}'"));
        assert_eq!(table["b"].as_array().unwrap().len(), 2);
        for (seconds, written) in
            [(100, "100s"), (600, "10m"), (5400, "90m"), (86_400, "1d"), (604_800, "7d")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), written);
        }
    }
}

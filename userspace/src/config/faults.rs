//! What is wrong with the configuration: every fault, each with its place.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, from 1; none where the file as a whole is meant.
    pub line: Option<usize>,
    /// The column in characters, from 1; only where the syntax is wrong and the line alone does not show it.
    pub column: Option<usize>,
}

impl Place {
    /// The file as a whole.
    pub(crate) fn file(file: &Path) -> Place {
        Place { file: file.into(), line: None, column: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it is.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    /// Writes `FILE:LINE: message` on one line, whatever characters the file put into the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("{}: {}", self.place, self.message);
        for c in line.chars() {
            if c.is_control() { write!(f, "{}", c.escape_debug())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Every fault of a configuration, in the order of files and lines. Printed one a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub(crate) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.0.push(Fault { place: place.clone(), message: message.into() });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The faults, in the order of files and lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// The same faults in the order of files and lines, each once.
    pub(super) fn sorted(mut self) -> Faults {
        self.0.sort();
        self.0.dedup();
        self
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_line_a_fault_in_the_order_of_the_files() {
        let at = |line| Place { file: Path::new("/etc/a.toml").into(), line, column: None };
        let mut faults = Faults::default();
        faults.add(&at(Some(10)), "ten");
        faults.add(&at(Some(9)), "nine\nand \u{1b}[31mred");
        faults.add(&at(None), "whole");
        faults.add(&at(Some(10)), "ten");
        faults.add(&Place { column: Some(3), ..at(Some(9)) }, "column");
        assert_eq!(
            faults.sorted().to_string(),
            "/etc/a.toml: whole\n/etc/a.toml:9: nine\\nand \\u{1b}[31mred\n/etc/a.toml:9:3: column\n/etc/a.toml:10: ten"
        );
    }
}

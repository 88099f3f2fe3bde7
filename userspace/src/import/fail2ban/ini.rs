//! fail2ban's files: sections with options, several files on top of each other, and options that refer to others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::fault;
use super::files_in;
use crate::config::{Faults, read};

/// How many files are read at most, those that include each other included.
const MAX_FILES: usize = 256;

/// How far options may refer to options that refer to options.
const MAX_DEPTH: usize = 10;

/// How long a value may become by that, in bytes.
const MAX_VALUE: usize = 64 << 10;

/// The section whose options hold for all others.
const DEFAULT: &str = "DEFAULT";

type Section = BTreeMap<String, String>;

/// All files, merged.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// In the order in which they first occur.
    names: Vec<String>,
    sections: BTreeMap<String, Section>,
    /// What stood in a section before a later file changed it: `%(known/option)s`.
    known: BTreeMap<String, Section>,
    read: usize,
}

impl Files {
    /// Reads `jail.conf`, `jail.d/*.conf`, `jail.local` and `jail.d/*.local`, in this order: later ones prevail.
    pub(super) fn read(directory: &Path) -> Result<Files, Faults> {
        let main = directory.join("jail.conf");
        let local = directory.join("jail.local");
        let in_directory = |extension| {
            let path = directory.join("jail.d");
            files_in(&path, extension).map_err(|error| fault(&path, None, read::refused(&error)))
        };
        let mut paths = vec![main.clone()];
        paths.extend(in_directory("conf")?);
        paths.push(local);
        paths.extend(in_directory("local")?);
        if !paths.iter().any(|path| path.exists()) {
            return Err(fault(
                &main,
                None,
                "it does not exist; name the directory of fail2ban's configuration",
            ));
        }
        let mut files = Files::default();
        for path in paths.iter().filter(|path| path.exists()) {
            files.include(path, &mut Vec::new())?;
        }
        Ok(files)
    }

    /// Reads a file with those that it includes. `within`: the files that include it.
    fn include(&mut self, path: &Path, within: &mut Vec<PathBuf>) -> Result<(), Faults> {
        if within.iter().any(|other| other == path) {
            return Ok(());
        }
        self.read += 1;
        if self.read > MAX_FILES {
            return Err(fault(path, None, format!("more than {MAX_FILES} files are not read")));
        }
        let sections = parse(path)?;
        let includes = sections.iter().find(|(name, _)| name == "INCLUDES").map(|(_, section)| section);
        let included = |key: &str| -> Vec<PathBuf> {
            let names = includes.and_then(|section| section.get(key)).map(String::as_str).unwrap_or_default();
            let beside = path.parent().unwrap_or(Path::new(""));
            // What stands beside a file with the ending `.local` changes it.
            let found =
                names.lines().map(str::trim).filter(|name| !name.is_empty()).map(|name| beside.join(name));
            found
                .flat_map(|path| [path.clone(), path.with_extension("local")])
                .filter(|path| path.exists())
                .collect()
        };
        let (before, after) = (included("before"), included("after"));
        within.push(path.to_owned());
        for path in before {
            self.include(&path, within)?;
        }
        for (name, section) in sections {
            self.merge(name, section);
        }
        for path in after {
            self.include(&path, within)?;
        }
        within.pop();
        Ok(())
    }

    fn merge(&mut self, name: String, section: Section) {
        if !self.names.contains(&name) {
            self.names.push(name.clone());
        }
        let merged = self.sections.entry(name.clone()).or_default();
        for (option, value) in section {
            if let Some(before) = merged.insert(option.clone(), value) {
                self.known.entry(name.clone()).or_default().insert(option, before);
            }
        }
    }

    /// The names of the jails.
    pub(super) fn jails(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| !matches!(*name, DEFAULT | "INCLUDES"))
    }

    /// What an option says in a section, or by default, with references as they are written.
    pub(super) fn raw(&self, section: &str, option: &str) -> Option<&str> {
        let of = |section: &str| self.sections.get(section)?.get(option).map(String::as_str);
        of(section).or_else(|| of(DEFAULT))
    }

    /// What an option says in a section, or by default, with references replaced by what they refer to.
    ///
    /// # Errors
    /// What is wrong with the references, in words.
    pub(super) fn value(&self, section: &str, option: &str) -> Result<Option<String>, String> {
        self.raw(section, option).map(|text| self.resolve(section, text, 0)).transpose()
    }

    fn resolve(&self, section: &str, text: &str, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("its references go in a circle".to_owned());
        }
        let mut resolved = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            resolved.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                resolved.push('%');
                rest = after;
                continue;
            }
            let reference = after.strip_prefix('(').and_then(|after| after.split_once(")s"));
            let (name, after) = reference.ok_or("a `%` begins no reference")?;
            let value = self.refer(section, name).ok_or_else(|| format!("`%({name})s` refers to nothing"))?;
            resolved.push_str(&self.resolve(section, value, depth + 1)?);
            rest = after;
            if resolved.len() > MAX_VALUE {
                return Err("it is too long".to_owned());
            }
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    /// What `%(name)s` stands for in a section: an option, or one of another section, or what it said before.
    fn refer<'s>(&'s self, section: &'s str, name: &str) -> Option<&'s str> {
        let name = name.trim();
        match name.split_once('/') {
            None if name == "__name__" => Some(section),
            None => self.raw(section, &name.to_lowercase()),
            Some(("known", option)) => {
                let before = self.known.get(section).and_then(|known| known.get(option));
                before
                    .map(String::as_str)
                    .or_else(|| self.sections.get(DEFAULT)?.get(option).map(String::as_str))
            }
            Some(("default", option)) => self.raw(DEFAULT, option),
            Some((other, option)) => self.raw(other, option),
        }
    }
}

/// The sections of one file.
fn parse(path: &Path) -> Result<Vec<(String, Section)>, Faults> {
    let mut faults = Faults::default();
    let text = read::file(path, &mut faults).map_err(|error| fault(path, None, read::refused(&error)))?;
    let Some(text) = text else { return Err(faults) };
    let mut sections: Vec<(String, Section)> = Vec::new();
    // The option that an indented line continues.
    let mut open: Option<String> = None;
    for (line, number) in text.lines().zip(1..) {
        let content = without_comment(line);
        if content.is_empty() {
            continue;
        }
        let section = sections.last_mut().map(|(_, section)| section);
        if line.starts_with([' ', '\t'])
            && let (Some(section), Some(option)) = (section, &open)
        {
            let value = section.entry(option.clone()).or_default();
            value.push('\n');
            value.push_str(content);
            continue;
        }
        if let Some(name) =
            content.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name)
        {
            open = None;
            sections.push((name.to_owned(), Section::new()));
            continue;
        }
        let Some((_, section)) = sections.last_mut() else {
            return Err(fault(
                path,
                Some(number),
                "this stands in no section; a file begins with one, such as [DEFAULT]",
            ));
        };
        let Some((option, value)) = content.split_once(['=', ':']) else {
            return Err(fault(path, Some(number), "this is neither a section nor an option with a value"));
        };
        let option = option.trim().to_lowercase();
        section.insert(option.clone(), value.trim().to_owned());
        open = Some(option);
    }
    Ok(sections)
}

/// A line without its comment: a whole line that begins with `#` or `;`, or what follows a `;` after a space.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return "";
    }
    let comment = line.match_indices(';').find(|(at, _)| line[..*at].ends_with(char::is_whitespace));
    comment.map_or(line, |(at, _)| line[..at].trim_end())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn files(texts: &[(&str, &str)]) -> (TempDir, Result<Files, Faults>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in texts {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = Files::read(dir.path());
        (dir, files)
    }

    fn value(texts: &[(&str, &str)], section: &str, option: &str) -> Result<Option<String>, String> {
        files(texts).1.unwrap().value(section, option)
    }

    #[test]
    fn later_files_prevail() {
        let all = [
            (
                "jail.conf",
                "[INCLUDES]\nbefore = paths.conf\nafter = last.conf\n[a]\nx = 1\ny = 1\nz = 1\nw = 1\nv = 1\n",
            ),
            ("paths.conf", "[DEFAULT]\nlog = /from/paths\n[a]\nx = 0\n"),
            ("paths.local", "[DEFAULT]\nlog = /from/local\n"),
            ("last.conf", "[a]\nv = 2\n"),
            ("jail.d/b.conf", "[a]\ny = 3\nz = 3\n"),
            ("jail.d/a.conf", "[a]\ny = 2\n"),
            ("jail.local", "[a]\nz = 4\nw = 4\n"),
            ("jail.d/a.local", "[a]\nw = 5\n"),
            ("jail.d/a.txt", "[a]\nw = 6\n"),
        ];
        let got = ["x", "y", "z", "w", "v", "log"].map(|option| value(&all, "a", option).unwrap().unwrap());
        assert_eq!(got, ["1", "3", "4", "5", "2", "/from/local"]);
    }

    #[test]
    fn options_refer_to_others() {
        let all = [
            (
                "jail.conf",
                "[DEFAULT]\nx = default\nPath = %(base)s/log\nbase = /var\n[a]\nn = %(__name__)s[m=%(x)s]\n[b]\nx = b\n",
            ),
            (
                "jail.local",
                "[DEFAULT]\nx = local\n[a]\ny = %(b/x)s %(path)s 100%%\nz = %(nothing)s\nround = %(round)s\nbad = 5%\n[b]\nx = %(known/x)s+\n",
            ),
        ];
        let value = |section, option| value(&all, section, option);
        assert_eq!(value("a", "n").unwrap().as_deref(), Some("a[m=local]"));
        assert_eq!(value("b", "x").unwrap().as_deref(), Some("b+"));
        assert_eq!(value("a", "path").unwrap().as_deref(), Some("/var/log"));
        assert_eq!(value("a", "none"), Ok(None));
        assert!(value("a", "z").unwrap_err().contains("`%(nothing)s` refers to nothing"));
        assert!(value("a", "round").is_err() && value("a", "bad").is_err());
    }

    #[test]
    fn comments_continuations_and_faults() {
        let text = "# c\n[a] \n; c\nx = 1 ; one\n\ny: a;b\n  # no\n  c\n\n  d\nz =\n";
        let value = |option| value(&[("jail.conf", text)], "a", option).unwrap().unwrap();
        assert_eq!((value("x").as_str(), value("y").as_str(), value("z").as_str()), ("1", "a;b\nc\nd", ""));
        for (text, line, why) in [("x = 1\n", 1, "in no section"), ("[a]\n\nx\n", 3, "neither a section")] {
            let (dir, read) = files(&[("jail.local", text)]);
            let said = read.unwrap_err().to_string();
            let place = format!("{}:{line}: ", dir.path().join("jail.local").display());
            assert!(said.starts_with(&place) && said.contains(why), "{said}");
        }
        assert!(files(&[]).1.unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn files_that_include_each_other_come_to_an_end() {
        let all = [
            ("jail.conf", "[INCLUDES]\nbefore = b.conf\n[a]\nx = 1\n"),
            ("b.conf", "[INCLUDES]\nbefore = jail.conf\n"),
        ];
        assert_eq!(value(&all, "a", "x").unwrap().as_deref(), Some("1"));
    }
}

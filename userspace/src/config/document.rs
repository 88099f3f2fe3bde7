//! A TOML file as tables of values, each of which knows its line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::faults::{Faults, Place};
use super::keys::{self, Keys};
use super::values;

/// The text of a file, without what cannot be read as TOML.
pub(super) struct Text<'t> {
    file: Arc<Path>,
    text: Cow<'t, str>,
    /// The offset at which each line begins.
    lines: Vec<usize>,
    /// Whether all of the file is in it, so that what is missing from it is missing from the file.
    pub(super) whole: bool,
}

impl<'t> Text<'t> {
    /// Takes out of `text` what is not TOML, and notes the faults.
    ///
    /// A fault that stays within its line takes that line with it, and the rest is still checked for what it means. A
    /// fault in the structure leaves only what stands before it: what an array that was never closed swallowed,
    /// or a key whose table nobody knows, would be faults that the user never made.
    pub(super) fn new(text: &'t str, file: &Path, faults: &mut Faults) -> Text<'t> {
        let lines = [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut this = Text { file: file.into(), text: Cow::Borrowed(text), lines, whole: true };
        let (_, errors) = DeTable::parse_recoverable(text);
        let mut by_line = BTreeMap::new();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let first = by_line.entry(this.line(at)).or_insert_with(|| (at, error.clone()));
            if at < first.0 {
                *first = (at, error);
            }
        }
        let Some(first) = by_line.keys().next().copied() else { return this };
        this.whole = false;
        let without = this.without(by_line.keys().copied());
        if let Some(without) = without.filter(|text| DeTable::parse(text).is_ok()) {
            for (at, error) in by_line.values() {
                this.add_syntax(*at, error, faults);
            }
            this.text = Cow::Owned(without);
            return this;
        }
        if let Some((at, error)) = by_line.get(&first) {
            this.add_syntax(*at, error, faults);
        }
        let before = text.get(..this.lines.get(first - 1).copied().unwrap_or(0)).unwrap_or_default();
        this.text = Cow::Borrowed(if DeTable::parse(before).is_ok() { before } else { "" });
        this
    }

    /// The text with each of `lines` made blank, offsets kept; none where one of them heads a table.
    fn without(&self, lines: impl Iterator<Item = usize>) -> Option<String> {
        let mut text = self.text.clone().into_owned();
        for line in lines {
            let range = self.range(line);
            let content = text.get(range.clone())?;
            if content.trim_start().starts_with('[') {
                return None;
            }
            let blank = " ".repeat(content.trim_end_matches('\n').len());
            text.replace_range(range.start..range.start + blank.len(), &blank);
        }
        Some(text)
    }

    fn add_syntax(&self, at: usize, error: &Error, faults: &mut Faults) {
        let line = self.line(at);
        let before = self.text.get(self.range(line).start..at).unwrap_or_default();
        let place = Place { column: Some(before.chars().count() + 1), ..self.place(at) };
        faults.add(&place, format!("not TOML: {}", error.message()));
    }

    /// The number of the line that holds the byte at `offset`, from 1.
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// The bytes of a line, its end included.
    fn range(&self, line: usize) -> Range<usize> {
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        start..self.lines.get(line).copied().unwrap_or(self.text.len())
    }

    fn place(&self, offset: usize) -> Place {
        Place { file: Arc::clone(&self.file), line: Some(self.line(offset)), column: None }
    }

    /// The tables of the text. [`Section::root`] begins to read them.
    pub(super) fn tables(&self) -> Spanned<DeTable<'_>> {
        DeTable::parse_recoverable(&self.text).0
    }
}

/// One table of a file.
pub(super) struct Section<'d> {
    text: &'d Text<'d>,
    table: &'d DeTable<'d>,
    /// Where it begins.
    pub(super) place: Place,
    keys: &'static Keys,
}

impl<'d> Section<'d> {
    /// The table that the file is.
    pub(super) fn root(
        text: &'d Text<'d>,
        tables: &'d Spanned<DeTable<'d>>,
        keys: &'static Keys,
        faults: &mut Faults,
    ) -> Section<'d> {
        Section::open(text, tables.get_ref(), text.place(0), keys, faults)
    }

    fn open(
        text: &'d Text<'d>,
        table: &'d DeTable<'d>,
        place: Place,
        keys: &'static Keys,
        faults: &mut Faults,
    ) -> Section<'d> {
        for key in table.keys().filter(|key| !keys.names.contains(&key.get_ref().as_ref())) {
            faults.add(&text.place(key.span().start), keys::unknown(keys, key.get_ref()));
        }
        Section { text, table, place, keys }
    }

    /// The table called `key`, if it is there.
    pub(super) fn table(&self, key: &str, keys: &'static Keys, faults: &mut Faults) -> Option<Section<'d>> {
        let (place, value) = self.entry(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::open(self.text, table, place, keys, faults)),
            other => {
                let found = values::describe(other);
                faults.add(&place, format!("`{key}` is a table: write {}, not {found}", keys.table));
                None
            }
        }
    }

    /// Each table of the array of tables called `key`, in order; none where the key is missing.
    pub(super) fn tables(
        &self,
        key: &str,
        keys: &'static Keys,
        faults: &mut Faults,
    ) -> Option<Vec<Section<'d>>> {
        let (place, value) = self.entry(key)?;
        let wrong = |other: &DeValue<'_>| {
            format!("`{key}` may come several times: write {}, not {}", keys.table, values::describe(other))
        };
        let DeValue::Array(array) = value.get_ref() else {
            faults.add(&place, wrong(value.get_ref()));
            return Some(Vec::new());
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            let place = self.text.place(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::open(self.text, table, place, keys, faults));
                }
                other => faults.add(&place, wrong(other)),
            }
        }
        Some(sections)
    }

    /// The value of `key` as `read` understands it; none where it is missing or faulty.
    pub(super) fn value<T>(
        &self,
        key: &str,
        faults: &mut Faults,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, String>,
    ) -> Option<T> {
        let (place, value) = self.entry(key)?;
        read(value.get_ref()).map_err(|message| faults.add(&place, format!("`{key}`: {message}"))).ok()
    }

    /// The values of the array `key`, each as `read` understands it and with its place; without those that are
    /// faulty; empty where the key is missing.
    pub(super) fn values<T>(
        &self,
        key: &str,
        faults: &mut Faults,
        mut read: impl FnMut(&'d DeValue<'d>) -> Result<T, String>,
    ) -> Vec<(Place, T)> {
        let Some((place, value)) = self.entry(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let found = values::describe(value.get_ref());
            faults.add(&place, format!("`{key}`: expected an array in brackets, found {found}"));
            return Vec::new();
        };
        let mut values = Vec::new();
        for item in array.iter() {
            let place = self.text.place(item.span().start);
            match read(item.get_ref()) {
                Ok(value) => values.push((place, value)),
                Err(message) => faults.add(&place, format!("`{key}`: {message}")),
            }
        }
        values
    }

    /// Whether `key` is there, faulty or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The line of `key`, or of the table where the key is missing.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.entry(key).map_or_else(|| self.place.clone(), |(place, _)| place)
    }

    /// Notes that a key is missing, unless it may have stood on a line that could not be read.
    pub(super) fn missing(&self, message: &str, faults: &mut Faults) {
        if self.text.whole {
            faults.add(&self.place, message);
        }
    }

    fn entry(&self, key: &str) -> Option<(Place, &'d Spanned<DeValue<'d>>)> {
        debug_assert!(
            self.keys.names.contains(&key),
            "{key} is not in the table of the keys of {}",
            self.keys.table
        );
        let (key, value) = self.table.get_key_value(key)?;
        Some((self.text.place(key.span().start), value))
    }
}

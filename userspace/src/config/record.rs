//! `[record]`: what is kept, for how long, and where else it goes.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::faults::Faults;
use super::{keys, values};

/// The smallest bound of the record: less would hardly hold what is in force.
const LEAST: u64 = 10_000_000;

/// The most streams, each of which has a thread of its own.
const MAX_STREAMS: usize = 8;

/// What is kept, for how long, and where else it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// For how long it is kept; none: for good.
    pub keep: Option<Duration>,
    /// How large the store may grow, in bytes; none: without end.
    pub max_size: Option<u64>,
    /// Where else incidents go.
    pub streams: Vec<StreamConfig>,
}

/// Where incidents go as they happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamConfig {
    /// To the systemd journal.
    Journal,
    /// To the syslog daemon.
    Syslog,
    /// To this file, a line each.
    File(PathBuf),
}

impl StreamConfig {
    /// Its name, as written.
    pub fn name(&self) -> String {
        match self {
            StreamConfig::Journal => "journal".to_owned(),
            StreamConfig::Syslog => "syslog".to_owned(),
            StreamConfig::File(path) => path.display().to_string(),
        }
    }
}

impl Default for RecordConfig {
    /// Six years, as 45 CFR 164.316(b)(2)(i) wants documentation to be kept.
    fn default() -> RecordConfig {
        RecordConfig {
            keep: Some(Duration::from_secs(6 * 365 * 86_400)),
            max_size: Some(4_000_000_000),
            streams: Vec::new(),
        }
    }
}

pub(super) fn read(root: &Section<'_>, faults: &mut Faults) -> RecordConfig {
    let default = RecordConfig::default();
    let Some(section) = root.table("record", &keys::RECORD, faults) else { return default };
    let mut streams = Vec::new();
    for (place, stream) in section.values("stream", faults, stream) {
        if streams.contains(&stream) {
            faults.add(&place, format!("`stream`: `{}` is there twice", keys::short(&stream.name())));
        } else if streams.len() == MAX_STREAMS {
            faults.add(&place, format!("`stream`: at most {MAX_STREAMS} can be written"));
            break;
        } else {
            streams.push(stream);
        }
    }
    RecordConfig {
        keep: section.value("keep", faults, keep).unwrap_or(default.keep),
        max_size: section.value("max_size", faults, max_size).unwrap_or(default.max_size),
        streams,
    }
}

fn keep(value: &DeValue<'_>) -> Result<Option<Duration>, String> {
    if value.as_str() == Some("forever") {
        return Ok(None);
    }
    values::duration(value).map(Some).map_err(|error| match value {
        DeValue::String(_) => format!("{error}, or \"forever\""),
        _ => error,
    })
}

fn max_size(value: &DeValue<'_>) -> Result<Option<u64>, String> {
    if value.as_str() == Some("none") {
        return Ok(None);
    }
    match values::size(value)? {
        size if size < LEAST => Err("it must be at least 10MB".to_owned()),
        size => Ok(Some(size)),
    }
}

fn stream(value: &DeValue<'_>) -> Result<StreamConfig, String> {
    match values::string(value)? {
        "journal" => Ok(StreamConfig::Journal),
        "syslog" => Ok(StreamConfig::Syslog),
        text if text.starts_with('/') => values::path(value).map(StreamConfig::File),
        text => Err(format!(
            "`{}` is neither \"journal\" nor \"syslog\" nor the absolute path of a file",
            keys::short(text)
        )),
    }
}

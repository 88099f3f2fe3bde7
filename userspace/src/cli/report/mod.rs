//! `xdpban report`: what is on record, for people.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::{Uid, User};

use self::output::Output;
use super::args::{self, ReportFormat};
use super::{CliError, complain, complain_of_unrecorded};
use crate::clock;
use crate::config::Paths;
use crate::host;
use crate::report::{self, Asked, Period};
use crate::store::{Archive, Interrupted};

mod output;

pub(super) fn run(paths: &Paths, args: &args::Report, json: bool) -> Result<(), CliError> {
    let format = format(args, json)?;
    let now = clock::now().wall;
    let zone = if args.utc { TimeZone::UTC } else { TimeZone::system() };
    let present = Timestamp::from_microsecond(now.0).unwrap_or(Timestamp::MAX).to_zoned(zone);
    let period = Period::new(args.from.as_deref(), args.to.as_deref(), &present)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let mut output = Output::open(args.output.as_deref())?;
    complain_of_unrecorded(paths);
    if format == ReportFormat::Csv {
        csv(&Archive::open(&paths.state)?, &period, &mut output)?;
        return output.finish();
    }
    let asked = Asked {
        period,
        listed: args.list,
        host: host::name().unwrap_or_else(|| "unknown".to_owned()),
        by: asker(),
        now,
        name_of: &name_of,
    };
    let report = report::gather(&paths.state, &asked)?;
    let document = match format {
        ReportFormat::Text => report::text(&report),
        ReportFormat::Markdown => report::markdown(&report),
        ReportFormat::Html => report::html(&report),
        ReportFormat::Json | ReportFormat::Csv => {
            serde_json::to_string_pretty(&report).map_err(io::Error::from)? + "\n"
        }
    };
    output.write_all(document.as_bytes()).map_err(|error| output.failed(error))?;
    output.finish()?;
    if !report.record.verified {
        complain("the record is not what was written; the report says what was found");
        return Err(CliError::Told);
    }
    Ok(())
}

/// The format that was asked for, by its name or by that of the file, which must not say otherwise.
fn format(args: &args::Report, json: bool) -> Result<ReportFormat, CliError> {
    let ending = args.output.as_deref().and_then(|path| path.extension()).and_then(|ending| ending.to_str());
    let by_file = ending.and_then(|ending| match ending.to_ascii_lowercase().as_str() {
        "txt" => Some(ReportFormat::Text),
        "md" | "markdown" => Some(ReportFormat::Markdown),
        "html" | "htm" => Some(ReportFormat::Html),
        "json" => Some(ReportFormat::Json),
        "csv" => Some(ReportFormat::Csv),
        _ => None,
    });
    let asked_for = match (args.format, json) {
        (Some(format), true) if format != ReportFormat::Json => {
            return Err(CliError::Usage(
                "--json and --format ask for different formats; leave one of them out".to_owned(),
            ));
        }
        (_, true) => Some(ReportFormat::Json),
        (format, false) => format,
    };
    match (asked_for, by_file, ending) {
        (Some(format), Some(by_file), Some(ending)) if format != by_file => Err(CliError::Usage(format!(
            "the name of the file ends in .{ending}, and another format is asked for; name it otherwise"
        ))),
        (Some(format), ..) | (None, Some(format), _) => Ok(format),
        (None, None, Some(ending)) => Err(CliError::Usage(format!(
            "no format of a report ends in .{ending}; name the file .txt, .md, .html, .json or .csv, or say which by --format"
        ))),
        (None, None, None) => Ok(ReportFormat::Text),
    }
}

/// Writes every incident, a line each, as it is read.
fn csv(archive: &Archive, period: &Period, output: &mut Output) -> Result<(), CliError> {
    output.write_all(report::csv::HEADER.as_bytes()).map_err(|error| output.failed(error))?;
    let mut line = String::new();
    report::each_incident(archive, period, false, |incident| {
        line.clear();
        report::csv::line(&incident, &mut line);
        output.write_all(line.as_bytes())
    })
    .map_err(|interrupted| match interrupted {
        Interrupted::Store(error) => error.into(),
        Interrupted::Taker(error) => output.failed(error),
    })
}

/// The user who asks, and who became them by sudo, if they say so.
fn asker() -> String {
    let name = name_of(Uid::current().as_raw());
    match std::env::var("SUDO_USER") {
        Ok(sudo) if !sudo.is_empty() => {
            format!("{name}, by sudo from {}", sudo.chars().take(64).collect::<String>())
        }
        _ => name,
    }
}

fn name_of(uid: u32) -> String {
    // A user that is gone, or whose directory does not answer, has a number still.
    match User::from_uid(Uid::from_raw(uid)).ok().flatten() {
        Some(user) => format!("{} (uid {uid})", user.name),
        None => format!("uid {uid}"),
    }
}

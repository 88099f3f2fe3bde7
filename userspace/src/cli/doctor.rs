//! `xdpban doctor`

use std::path::Path;

use super::table::{BAD, DIM, GOOD, STRONG, Table, WARN, styled};
use super::{CliError, print, print_json};
use crate::doctor::{self, Check, Report, State};

pub(super) fn run(config: Option<&Path>, json: bool) -> Result<(), CliError> {
    let report = doctor::examine(config);
    if json {
        print_json(&report)?
    } else {
        print(&text(&report))?
    }
    if report.ready { Ok(()) } else { Err(CliError::Told) }
}

fn text(report: &Report) -> String {
    let mut table = Table::default();
    let mut area = "";
    for check in &report.checks {
        // Each area is named once.
        let heading = if check.area == area { "" } else { check.area };
        area = check.area;
        let (style, state) = state(check);
        table.row([
            (style, state.to_owned()),
            (DIM, heading.to_owned()),
            (STRONG, check.name.clone()),
            (anstyle::Style::new(), check.finding.clone()),
        ]);
        if let Some(remedy) = &check.remedy {
            table.row([
                (DIM, String::new()),
                (DIM, String::new()),
                (DIM, String::new()),
                (DIM, format!("→ {remedy}")),
            ]);
        }
    }
    let mut text = table.render();
    text.push('\n');
    let unseen = report.checks.iter().any(|check| check.state == State::Unknown);
    text.push_str(&match (report.ready, unseen) {
        (true, false) => styled(GOOD, "xdpban can run here"),
        (true, true) => styled(GOOD, "nothing is in the way of xdpban, as far as this user can see"),
        (false, _) => styled(BAD, "xdpban cannot run here as it is configured"),
    });
    text.push('\n');
    text
}

fn state(check: &Check) -> (anstyle::Style, &'static str) {
    match check.state {
        State::Ok => (GOOD, "ok"),
        State::Warning => (WARN, "warning"),
        State::Obstacle => (BAD, "obstacle"),
        State::Unknown => (DIM, "unknown"),
    }
}

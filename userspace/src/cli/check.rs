//! `xdpban check`

use std::path::Path;

use super::{CliError, complain, print, print_json};
use crate::config::{Config, Fault, Faults};
use crate::human;

pub(super) fn run(file: Option<&Path>, json: bool) -> Result<(), CliError> {
    let loaded = Config::load(file);
    if json {
        let faults: Vec<_> = loaded.as_ref().err().into_iter().flat_map(Faults::iter).map(fault).collect();
        let faults_told = !faults.is_empty();
        let warnings = loaded.as_ref().map(Config::doubts).unwrap_or_default();
        print_json(&serde_json::json!({ "valid": !faults_told, "faults": faults, "warnings": warnings }))?;
        return if faults_told { Err(CliError::Faulty) } else { Ok(()) };
    }
    let config = loaded?;
    config.doubts().iter().for_each(|doubt| complain(doubt));
    let from = match &config.file {
        Some(file) => file.display().to_string(),
        None => "no configuration; the defaults hold".to_owned(),
    };
    print(&format!(
        "{from}: sound, {} and {}\n",
        human::counted(config.policy.rules.rules().len() as u64, "rule"),
        human::counted((config.policy.responses.len() + config.commands.len()) as u64, "response")
    ))
}

fn fault(fault: &Fault) -> serde_json::Value {
    let file = fault.place.file.display().to_string();
    serde_json::json!({ "file": file, "line": fault.place.line, "message": fault.message })
}

//! A configuration and a file of rules of any text: they are taken, or refused with faults that can be printed.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use xdpban::config::{Config, RuleFile};
use xdpban_engine::Engine;

fuzz_target!(|text: &str| {
    // The rules stand after the first form feed, which TOML does not know.
    let (config, rules) = text.split_once('\u{c}').unwrap_or((text, ""));
    let rules = RuleFile { path: Path::new("rules.d/fuzz.toml").to_path_buf(), text: rules.to_owned() };
    match Config::parse(config, Path::new("config.toml"), &[rules]) {
        Ok(config) => drop(Engine::new(config.policy)),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
});

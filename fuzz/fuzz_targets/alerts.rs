//! Wazuh's alerts of any bytes, as the controller takes them: nothing panics, what is kept of an alert is bounded, and no
//! block is decided for another address than the alert's.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdpban::config::Config;
use xdpban::source::Alert;
use xdpban_engine::policy::Policy;
use xdpban_engine::time::{Mono, Now, Wall};
use xdpban_engine::{Decision, Engine};

const NOW: Now = Now { mono: Mono(1 << 40), wall: Wall(1_800_000_000_000_000), utc_offset: 3600 };

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let config = Config::parse("", Path::new("config.toml"), &[]).expect("the defaults are sound");
    config.policy
});

fuzz_target!(|alerts: &[u8]| {
    let mut engine = Engine::new(POLICY.clone());
    for line in alerts.split(|byte| *byte == b'\n') {
        let Some(alert) = Alert::parse(line, &NOW) else { continue };
        assert!(alert.groups.len() <= 64 && alert.description.chars().count() <= 200, "{alert:?}");
        let Some(found) = alert.found() else { continue };
        if let Some(Decision::Block { target, .. }) = engine.handle_match(&found, line, NOW) {
            assert!(target.contains(found.source), "{target} for {}", found.source);
        }
    }
});

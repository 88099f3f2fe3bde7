//! A log of any bytes, through header, decoder, rules and responses, as the controller takes it. Nothing panics, and no
//! block is decided for a source that the engine itself does not name.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdpban::config::Config;
use xdpban::source::JournalEntry;
use xdpban_engine::change::Change;
use xdpban_engine::policy::Policy;
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Mono, Now, Wall};
use xdpban_engine::{Applied, Decision, Engine};

const NOW: Now = Now { mono: Mono(1 << 40), wall: Wall(1_800_000_000_000_000), utc_offset: 3600 };

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let config = Config::parse("", Path::new("config.toml"), &[]).expect("the defaults are sound");
    config.policy
});

fuzz_target!(|log: &[u8]| {
    let mut engine = Engine::new(POLICY.clone());
    for line in log.split(|byte| *byte == b'\n') {
        let entry = JournalEntry::parse(line);
        let record = entry.as_ref().map(JournalEntry::record);
        for record in [
            record,
            Some(Record::parse(line, Format::Syslog, &NOW)),
            Some(Record::parse(line, Format::Bare, &NOW)),
        ]
        .into_iter()
        .flatten()
        {
            let outcome = engine.handle(&record, line, NOW);
            let source = outcome.source;
            if let Some(event) = &outcome.event {
                assert!(event.source.is_none_or(|own| source == Some(own)), "{event:?} of {source:?}");
            }
            if let Some(Decision::Block { target, .. }) = outcome.decision {
                assert!(source.is_some_and(|source| target.contains(source)), "{target} for {source:?}");
            }
            while let Some(change) = engine.next_change() {
                if let Change::Block(block) = change {
                    engine.applied(&block.target, Applied::Done, NOW);
                }
            }
        }
    }
});

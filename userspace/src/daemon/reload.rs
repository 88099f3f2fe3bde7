//! Reading configuration and rules again while the controller runs.

use super::carry_out::Cause;
use super::{Daemon, start};
use crate::config::{Config, Faults};
use crate::human;
use crate::store::Act;

impl Daemon {
    /// Reads configuration and rules again. Where they are faulty the running ones stay in force.
    pub(super) async fn reload(&mut self) {
        let file = self.config_file.clone();
        let load = move || Config::load(file.as_deref()).map(|config| (config.doubts(), config));
        let (doubts, mut config) = match tokio::task::spawn_blocking(load).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(faults)) => return self.reload_failed(&faults),
            Err(error) => {
                let trouble = format!("reload: {error}; the running configuration stays in force");
                log::error!("{trouble}");
                self.reload_trouble = Some(trouble);
                return;
            }
        };
        self.reload_trouble = None;
        for key in needs_restart(&self.config, &config) {
            log::warn!("reload: {key} changed, which takes effect at the next start");
        }
        keep_until_restart(&self.config, &mut config);
        self.engine.reload(config.policy.clone());
        self.runner.replace(&config.commands);
        self.command_troubles.keep(&config.commands);
        self.carry_out(Cause::Other);
        if self.sources.replace(start::sources_of(&config)) {
            self.sources.announce();
            self.sources.begun().await;
        }
        let enforced = self.enforcing();
        self.store.keep(start::keep(&config));
        if self.config.record.streams != config.record.streams {
            self.end_streams().await;
            self.start_streams(&config);
        }
        let before = std::mem::replace(&mut self.config, config);
        self.record_config(false, Some(&before.written.settings));
        self.announce_responses(&doubts);
        if enforced != self.enforcing() {
            let dry_run = !self.enforcing();
            self.gate.set_dry_run(dry_run);
            self.announce_enforcement();
            self.act(None, Act::Enforcement { dry_run });
            self.record_switch();
        }
        if let Err(error) = self.set_allow() {
            log::error!("{error}");
        }
        self.keep_guard();
        log::info!(
            "configuration and rules read again; {} rules in force",
            self.config.policy.rules.rules().len()
        );
    }

    fn reload_failed(&mut self, faults: &Faults) {
        log::error!("the configuration is faulty, and the running one stays in force:\n{faults}");
        let first = faults.iter().next().map(ToString::to_string).unwrap_or_default();
        self.act(None, Act::ConfigRefused { faults: faults.len(), first: first.clone() });
        self.reload_trouble = Some(format!(
            "the configuration on disk is faulty and was not taken ({}, the first: {first}); see `xdpban check`",
            human::counted(faults.len() as u64, "fault")
        ));
    }
}

/// What of a new configuration only a restart can bring about.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let limits = (&old.policy.limits, &new.policy.limits);
    [
        ("[paths]", old.paths != new.paths),
        (
            "[limits] blocks and prefixes",
            (limits.0.blocks, limits.0.prefixes) != (limits.1.blocks, limits.1.prefixes),
        ),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}

/// Takes over into `new` what only a restart can change.
fn keep_until_restart(old: &Config, new: &mut Config) {
    new.paths.clone_from(&old.paths);
    new.policy.limits.blocks = old.policy.limits.blocks;
    new.policy.limits.prefixes = old.policy.limits.prefixes;
}

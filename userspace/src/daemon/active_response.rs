//! What Wazuh's Active Response asks for, through [`crate::wazuh`].

use std::sync::Arc;
use std::time::Duration;

use xdpban_engine::change::Origin;
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::target::Target;
use xdpban_engine::time::Now;
use xdpban_engine::{Decision, ForeignRequest, Lasts, Standing};

use super::Daemon;
use super::carry_out::Cause;
use crate::clock;
use crate::control::wire::{ActiveCommand, ActiveResponse, Responded};
use crate::human;

impl Daemon {
    pub(super) fn active_response(&mut self, request: &ActiveResponse) -> Responded {
        let now = clock::now();
        let (done, message) = match request.command {
            ActiveCommand::Add => self.add(request, now),
            ActiveCommand::Renew => self.renew(request, now),
            ActiveCommand::Delete => self.delete(request, now),
        };
        Responded { done, message }
    }

    fn add(&mut self, request: &ActiveResponse, now: Now) -> (bool, String) {
        let decision = self.engine.block_for(&foreign(request), evidence(request), now);
        self.carry_out(Cause::Line(now.mono));
        self.outcome(decision, request)
    }

    fn renew(&mut self, request: &ActiveResponse, now: Now) -> (bool, String) {
        let decision = self.engine.renew_for(&foreign(request), evidence(request), now);
        self.carry_out(Cause::Line(now.mono));
        match decision {
            Some(decision) => self.outcome(decision, request),
            None => (true, format!("left {} as it is: Wazuh has no block of it here", request.source)),
        }
    }

    fn delete(&mut self, request: &ActiveResponse, now: Now) -> (bool, String) {
        let why = Arc::from("Wazuh's timeout is over");
        let lifted = self.engine.lift_for(request.source, Origin::Wazuh, why, now);
        self.carry_out(Cause::Other);
        let message = match lifted {
            Some(target) => format!("unblocked {target}"),
            None => match self.standing(request, now) {
                Some(target) => format!("left {target} blocked, since it was not Wazuh that asked for it"),
                None => format!("{} is not blocked any longer", request.source),
            },
        };
        (true, message)
    }

    fn outcome(&self, decision: Decision, request: &ActiveResponse) -> (bool, String) {
        match decision {
            Decision::Block { target, timeout } if self.engine.block_of(&target).is_some() => {
                let how_long = timeout.map(human::duration).unwrap_or_default();
                let at_most = if request.timeout_known { "" } else { "until Wazuh lifts it, at most " };
                (true, format!("blocked {target} {at_most}for {how_long}"))
            }
            Decision::Block { target, .. } => (
                false,
                format!(
                    "did not block {target}: its table is full, or the kernel refused it; the controller's log says which"
                ),
            ),
            Decision::Standing { target } => (true, format!("{target} is blocked already")),
            Decision::Late { target } => (false, format!("did not block {target}: its time is over")),
            Decision::Refused { because, .. } => (false, format!("did not block: {because}")),
        }
    }

    /// The block that the source lies in, whoever asked for it.
    fn standing(&self, request: &ActiveResponse, now: Now) -> Option<Target> {
        match self.engine.check(request.source, now) {
            Standing::Blocked(block) => Some(block.target),
            _ => None,
        }
    }
}

fn foreign(request: &ActiveResponse) -> ForeignRequest<'_> {
    let longest = Duration::from_secs(request.timeout_s);
    ForeignRequest {
        source: request.source,
        lasts: if request.timeout_known {
            Lasts::For(longest)
        } else {
            Lasts::UntilLifted { at_most: longest }
        },
        rule: request.rule.as_ref().map(|rule| RuleRef {
            id: RuleId(rule.id),
            level: rule.level,
            description: Arc::from(rule.description.as_str()),
        }),
        reason: Arc::from(request.reason.as_str()),
        user: request.user.as_deref().map(str::as_bytes),
        origin: Origin::Wazuh,
    }
}

/// What is shown as the reason: the log line, or what Wazuh says in its place.
fn evidence(request: &ActiveResponse) -> &[u8] {
    request.evidence.as_deref().unwrap_or(&request.reason).as_bytes()
}

//! The engine: lines in, changes out.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::attempts::{ConnectionId, Connections, Tally};
use crate::change::{Block, Change, End, Origin, Protection, Refusal};
use crate::crowds::{Attempt, Crowds};
use crate::decode::{self, Decoded, Found};
use crate::enforce::{
    Applied, BlockRequest, Decision, Enforcer, Evidence, LiftAll, Offence, ResponseCounts, Standing,
};
use crate::event::{Event, EventKind, Trace};
use crate::header;
use crate::measure::{Action, Strictness};
use crate::moment::Moment;
use crate::offenders::Offender;
use crate::policy::Policy;
use crate::protect::{HostAddresses, Login};
use crate::record::Record;
use crate::rules::{Condition, Rule, RuleId, RuleRef};
use crate::runs::Runs;
use crate::sources::{SourceId, Sources};
use crate::target::Target;
use crate::time::{Mono, Now};
use crate::unexplained::{Shapes, Unexplained};

/// What was understood of a line, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// What the decoder understood; none where no decoder knows the line.
    pub event: Option<Event<'a>>,
    /// The source: the line's own or, where it names none, that of its connection.
    pub source: Option<IpAddr>,
    /// The attempts that the line is the first to tell of.
    pub attempts: u32,
    /// The most specific rule that fired, with correlation.
    pub rule: Option<&'a Rule>,
    /// What is done about it; none where no response fits, or where the line tells of nothing new.
    pub decision: Option<Decision>,
    /// The block that would have kept this from happening; only with [`Engine::for_past`].
    pub stopped: Option<Target>,
}

impl<'a> Outcome<'a> {
    fn nothing() -> Outcome<'a> {
        Outcome { event: None, source: None, attempts: 0, rule: None, decision: None, stopped: None }
    }
}

/// What the engine has seen and done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines.
    pub lines: u64,
    /// Lines that a decoder understood.
    pub events: u64,
    /// Lines that look like failures and that no known form explains: a new version of sshd words them anew.
    pub unexplained: u64,
    /// Lines that are evidence of an attack.
    pub attacks: u64,
    /// Attempts to log in that attacks told of.
    pub attempts: u64,
    /// Sources that are tracked at present.
    pub tracked: usize,
    /// Sources forgotten for want of room.
    pub forgotten: u64,
    /// What matches led to.
    pub responses: ResponseCounts,
}

/// What came of an event.
#[derive(Debug, Default)]
struct Told {
    source: Option<IpAddr>,
    attempts: u32,
    /// The place of the most specific rule that fired.
    rule: Option<usize>,
    decision: Option<Decision>,
    /// See [`Outcome::stopped`].
    stopped: Option<Target>,
}

impl Told {
    /// What came of this, which waited for a source, and of `next`, the line that named it. The line's own rule holds
    /// unless it says nothing of an attack, or what is done is done for the other.
    fn and(self, next: Told, attack: bool) -> Told {
        let own = attack && (self.decision.is_none() || next.decision.is_some());
        Told {
            source: next.source,
            attempts: self.attempts.saturating_add(next.attempts),
            rule: if own { next.rule } else { self.rule },
            decision: next.decision.or(self.decision),
            stopped: next.stopped.or(self.stopped),
        }
    }
}

/// What a rule means for the engine, worked out once.
#[derive(Debug)]
struct Plan {
    reference: RuleRef,
    /// The places of the responses that answer it, if they are for the source and the user.
    answers: Vec<usize>,
    /// The places of the commands that answer it, if they are.
    commands: Vec<usize>,
    /// Whether its matches are counted or answered, so that its source must be remembered.
    watched: bool,
    matches: u64,
}

/// The core of the controller. It decides, and the caller carries out.
///
/// The caller hands in lines with the present time, takes what is to be done from [`Engine::next_change`] until there is
/// no more, tells what came of it by [`Engine::applied`], and calls [`Engine::handle_timeout`] when
/// [`Engine::poll_timeout`] is reached.
///
/// Memory is bounded by [`crate::policy::Limits`], whatever the lines say.
///
/// Invariant: `plans` has one for each rule of the policy, and `fired` holds places of rules, so that indexing the one by
/// the other cannot fail.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    /// By the place of the rule.
    plans: Vec<Plan>,
    connections: Connections,
    sources: Sources,
    crowds: Crowds,
    enforcer: Enforcer,
    runs: Runs,
    /// What a line fired, with the attempts that led to it, the most specific last. Kept for its memory.
    fired: Vec<(usize, u32)>,
    counts: Counts,
    unexplained: Shapes,
    /// See [`Engine::for_past`].
    past: bool,
}

impl Engine {
    /// An engine that decides by `policy` and has seen nothing yet.
    pub fn new(policy: Policy) -> Engine {
        let sources = policy.limits.sources as usize;
        Engine {
            plans: plans(&policy),
            connections: Connections::new(sources),
            sources: Sources::new(sources),
            crowds: Crowds::new(),
            enforcer: Enforcer::new(&policy),
            runs: Runs::new(),
            policy,
            fired: Vec::new(),
            counts: Counts::default(),
            unexplained: Shapes::default(),
            past: false,
        }
    }

    /// An engine that goes over a past log as if it had guarded the host then: what a line tells of a source while its
    /// block is in force would not have happened, so it counts for no rule and leads to nothing.
    pub fn for_past(policy: Policy) -> Engine {
        Engine { past: true, ..Engine::new(policy) }
    }

    /// Takes a line: `record` is what it says, `line` what is shown of it as evidence.
    ///
    /// A line counts when it was written, by its own timestamp; see [`Decision::Late`] for what that means for a log that
    /// is read late. To learn what a line would have led to at its time, hand in that time as `now`.
    pub fn handle<'a>(&'a mut self, record: &Record<'a>, line: &[u8], now: Now) -> Outcome<'a> {
        self.counts.lines += 1;
        let decoded = decode::understand(record);
        if !matches!(decoded, Decoded::Event(_))
            && let Some(Found { event, time }) = self.policy.decoders.decode(record)
        {
            let time = time.and_then(|text| header::time(text, &now)).or(record.time);
            return self.handle_event(event, &Record { time, ..*record }, line, now);
        }
        match decoded {
            Decoded::Event(event) => return self.handle_event(event, record, line, now),
            Decoded::Unexplained(words) => {
                self.counts.unexplained += 1;
                self.unexplained.add(words, Moment::of_line(record.time, &now));
            }
            Decoded::Nothing => {}
        }
        Outcome::nothing()
    }

    fn handle_event<'a>(
        &'a mut self,
        mut event: Event<'a>,
        record: &Record<'_>,
        line: &[u8],
        now: Now,
    ) -> Outcome<'a> {
        self.counts.events += 1;
        let at = Moment::of_line(record.time, &now);
        let id = self.connections.id(&event, record);
        let earlier = self.connections.attributed(id, &event, at);
        let waited = earlier
            .as_ref()
            .map(|earlier| self.tell(id, &earlier.attributed_to(&event), record, line, at, &now));
        let mut told = self.tell(id, &event, record, line, at, &now);
        if let Some(waited) = waited {
            told = waited.and(told, event.attack);
        }
        if told.source.is_none() && event.attack {
            // Nobody to hold it against.
            self.connections.wait(id, &event, at);
            event.attack = !event.sourceless;
        }
        if let Some(earlier) = earlier {
            event.attack = true;
            event.user = event.user.or(earlier.into_user().map(Cow::Owned));
        }
        self.counts.attacks += u64::from(event.attack);
        self.counts.attempts += u64::from(told.attempts);
        Outcome {
            event: Some(event),
            source: told.source,
            attempts: told.attempts,
            rule: told.rule.and_then(|place| self.policy.rules.rules().get(place)),
            decision: told.decision,
            stopped: told.stopped,
        }
    }

    /// Counts what an event tells of its source, and responds.
    fn tell(
        &mut self,
        id: Option<ConnectionId>,
        event: &Event<'_>,
        record: &Record<'_>,
        line: &[u8],
        at: Moment,
        now: &Now,
    ) -> Told {
        let tally = self.connections.observe(id, event, at);
        let mut told = Told {
            source: tally.map(|tally| tally.source),
            attempts: tally.map_or(0, |tally| tally.attempts),
            ..Told::default()
        };
        if self.past
            && let Some(tally) = tally
            && let Some(block) = self.enforcer.blocking(tally.source, now)
            // A throttle lets an attempt through now and then.
            && block.measure.action == Action::Block
        {
            told.stopped = Some(block.target);
            return told;
        }
        self.note_login(id, event, record, at, now);
        self.fired.clear();
        self.fired.extend(self.policy.rules.single(event).map(|place| (place, 0)));
        if let Some(tally) = tally {
            self.correlate(&tally, event.user.as_deref(), line, at);
            told.decision = self.respond(&tally, event.user.as_deref(), at, now);
            self.run_commands(&tally, event.user.as_deref(), at, now);
        }
        for &(place, _) in &self.fired {
            self.plans[place].matches += 1;
        }
        told.rule = self.fired.last().map(|&(place, _)| place);
        told
    }

    /// Blocks what an operator asks for, or makes the block that stands end when the operator says.
    ///
    /// # Errors
    /// What protects the target, or that there is no room.
    pub fn block(&mut self, request: BlockRequest, now: Now) -> Result<(), Refusal> {
        self.enforcer.block(request, &now)
    }

    /// Ends the blocks of exactly `target`, also those that rest; false where there are none.
    pub fn unblock(&mut self, target: &Target, end: End, now: Now) -> bool {
        self.enforcer.unblock(target, end, &now)
    }

    /// All that is blocked, also what rests, for [`Engine::lift_some`].
    pub fn lift_all(&self) -> LiftAll {
        self.enforcer.lift_all()
    }

    /// Ends some of these blocks, some hundreds at most, and returns how many targets that freed; none where there are no
    /// more. What came after [`Engine::lift_all`] stays.
    pub fn lift_some(&mut self, all: &mut LiftAll, now: Now) -> Option<usize> {
        self.enforcer.lift_some(all, &now)
    }

    /// Takes the kernel's answer to a [`Change::Block`] or [`Change::Resume`]. A block that it did not take is removed and ends as
    /// [`End::Failed`]; when its table was full, the block that would expire first gives way and it is tried once more.
    pub fn applied(&mut self, block: &Block, result: Applied, now: Now) {
        self.enforcer.applied(block, result, &now);
    }

    /// Takes over what was kept. Blocks go on until their ends on the monotonic clock, and are to be put into the gate as
    /// if they were new; those whose time is over end as [`End::Expired`].
    pub fn restore(&mut self, blocks: Vec<Arc<Block>>, offenders: Vec<(Target, Offender)>, now: Now) {
        self.enforcer.restore(blocks, offenders, &now);
    }

    /// Takes the kernel's answer that it has all that was restored, but for what [`Engine::applied`] was told of. To look each of
    /// very many blocks up for that would take a good part of a start.
    pub fn restored(&mut self, now: Now) {
        self.enforcer.restored(&now);
    }

    /// Takes over a login that the store kept.
    pub fn restore_login(&mut self, login: &Login, now: Now) {
        let id = self.connections.id_of_login(login);
        self.enforcer.logins.note(Some(id), login, Moment::of_line(Some(login.at), &now));
    }

    /// Goes on with another policy. Blocks stay, except those that the new allowlist covers; what was counted stays for
    /// the rules that still exist. The capacities of the tables stay, too: those of the kernel are what they were.
    pub fn reload(&mut self, policy: Policy) {
        let mut plans = plans(&policy);
        for (plan, old) in plans.iter_mut().flat_map(|plan| {
            let old = self.plans.iter().find(|old| old.reference.id == plan.reference.id);
            old.map(|old| (plan, old))
        }) {
            plan.matches = old.matches;
        }
        let sources = policy.limits.sources as usize;
        self.connections.set_capacity(sources);
        self.sources.set_capacity(sources);
        if policy.ipv6_prefix != self.policy.ipv6_prefix {
            self.sources.forget_ipv6();
        }
        let counting: HashSet<RuleId> = policy.rules.correlated().collect();
        self.sources.retain_windows(|rule| counting.contains(&rule));
        let old = self.policy.rules.rules();
        let same = |rule: &&Rule| old.iter().any(|other| other.id == rule.id && other.when == rule.when);
        let unchanged: HashSet<RuleId> =
            policy.rules.rules().iter().filter(same).map(|rule| rule.id).collect();
        self.crowds.retain(|rule| unchanged.contains(&rule));
        self.enforcer.reload(&policy);
        self.plans = plans;
        self.policy = policy;
    }

    /// Takes note of the addresses that the host needs, and lifts blocks that cover one.
    pub fn set_host(&mut self, host: &HostAddresses) {
        self.enforcer.set_host(host);
    }

    /// Takes note of the networks that operators put on the allowlist, beside those of the policy, and lifts blocks that
    /// overlap one.
    pub fn set_allowed_by_hand(&mut self, networks: Vec<Target>) {
        self.enforcer.set_allowed_by_hand(networks);
    }

    /// Forgets the sessions whose process does not live: not every end of a session is logged.
    pub fn retain_sessions(&mut self, alive: impl FnMut(u32) -> bool) {
        self.enforcer.logins.retain(alive);
    }

    /// Ends blocks whose time is over, some hundreds at once at most: [`Engine::poll_timeout`] says whether more are due.
    /// Whoever is asked about meanwhile is treated as if all had ended.
    pub fn handle_timeout(&mut self, now: Now) {
        self.enforcer.handle_timeout(now.mono);
        self.runs.handle_timeout(now.mono);
    }

    /// When [`Engine::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        [self.enforcer.poll_timeout(), self.runs.poll_timeout()].into_iter().flatten().min()
    }

    /// The next change to carry out. They are to be taken after every call, until there is none.
    pub fn next_change(&mut self) -> Option<Change> {
        self.enforcer.next_change().or_else(|| self.runs.next_change())
    }

    /// What is blocked, in no order: what is to stand in the gate, a block for a target.
    pub fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.enforcer.blocks()
    }

    /// The blocks that rest while stricter ones stand, in no order.
    pub fn resting(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.enforcer.resting()
    }

    /// Who has been blocked because of a rule, in no order, as [`Engine::restore`] takes them; some may be forgotten by now.
    pub fn offenders(&self, now: Now) -> impl Iterator<Item = (Target, Offender)> {
        self.enforcer.offenders(now)
    }

    /// How many places [`Engine::all_in`] has.
    pub fn places(&self) -> usize {
        self.enforcer.places()
    }

    /// The target of the stricter block beneath which `block` rests, if it does.
    pub fn beneath(&self, block: &Block) -> Option<Target> {
        self.enforcer.beneath(block)
    }

    /// The blocks at these places, and whether each rests. Who looks at them
    /// from the last places to the first, some at a time, misses none that stays while others come and go in between.
    pub fn all_in(&self, places: Range<usize>) -> impl Iterator<Item = (&Arc<Block>, bool)> {
        self.enforcer.all_in(places)
    }

    /// How many blocks there are, at rest or not: of IPv4 addresses, of IPv6 addresses and /64s, of other IPv4 prefixes, of other
    /// IPv6 prefixes.
    pub fn block_counts(&self) -> [u32; 4] {
        self.enforcer.block_counts()
    }

    /// The place of the block of exactly `target` and this strictness, at rest or not; none where there is no such block. When
    /// one ends, the block at the last place gets its place.
    pub fn place(&self, target: Target, strictness: Strictness) -> Option<usize> {
        self.enforcer.place(&(target, strictness))
    }

    /// The block of exactly `target` that is to stand in the gate.
    pub fn in_gate(&self, target: &Target) -> Option<&Block> {
        self.enforcer.in_gate(target)
    }

    /// The blocks that rest and that `address` lies in, the most specific first.
    pub fn resting_at(&self, address: IpAddr) -> impl Iterator<Item = &Block> {
        self.enforcer.resting_at(address.to_canonical())
    }

    /// The strictest block of exactly `target`.
    pub fn block_of(&self, target: &Target) -> Option<&Block> {
        self.enforcer.block_of(target)
    }

    /// How an address stands.
    pub fn check(&self, address: IpAddr, now: Now) -> Standing<'_> {
        self.enforcer.check(address.to_canonical(), &now)
    }

    /// All that protects an address, from rules at least; empty where nothing does.
    pub fn protections(&self, address: IpAddr, now: Now) -> Vec<Protection> {
        self.enforcer.protections(address.to_canonical(), &now)
    }

    /// What has been seen and done.
    pub fn counts(&self) -> Counts {
        Counts {
            tracked: self.sources.len(),
            forgotten: self.sources.forgotten(),
            responses: ResponseCounts { crowded: self.runs.crowded, ..self.enforcer.counts },
            ..self.counts
        }
    }

    /// What sshd said in the last hour that looks like a failure and matches no known form.
    pub fn unexplained(&self, now: Now) -> Unexplained {
        self.unexplained.last_hour(Moment::now(&now))
    }

    /// How often each rule fired.
    pub fn matches(&self) -> impl Iterator<Item = (&RuleRef, u64)> {
        self.plans.iter().map(|plan| (&plan.reference, plan.matches))
    }

    /// What the engine decides by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Remembers what a line says of its source, and finds the correlated rules that it makes fire.
    fn correlate(&mut self, tally: &Tally, user: Option<&[u8]>, line: &[u8], at: Moment) {
        let Some(single) = self.fired.first_mut().filter(|&&mut (place, _)| self.plans[place].watched) else {
            return;
        };
        single.1 = tally.weight;
        let id = SourceId::of(tally.source, self.policy.ipv6_prefix);
        let source = self.sources.note(id, user, line);
        if tally.weight == 0 {
            return;
        }
        let rules = &self.policy.rules;
        let mut times = tally.weight;
        let mut next = 0;
        // No rule counts itself, so this ends.
        while let Some(&(place, _)) = self.fired.get(next) {
            for &counter in rules.counters(place) {
                let Some(Rule { id: rule, when: Condition::Count(correlation), .. }) =
                    rules.rules().get(counter)
                else {
                    continue;
                };
                // It may count several of the rules that the line fired.
                if self.fired.iter().take(next).any(|&(place, _)| rules.counters(place).contains(&counter)) {
                    continue;
                }
                let attempts = if correlation.is_by_source() {
                    source.count(*rule, at, times, correlation.count, correlation.window)
                } else {
                    let attempt = Attempt { address: tally.source, source: id, user, at, times };
                    self.crowds.count(*rule, correlation, &attempt).then_some(times)
                };
                self.fired.extend(attempts.map(|attempts| (counter, attempts)));
            }
            times = 1;
            next += 1;
        }
    }

    /// Responds to the most specific of the rules that fired for which there is a response. A line that tells of nothing
    /// new is not answered: its connection has been, and may have ended long ago.
    fn respond(&mut self, tally: &Tally, user: Option<&[u8]>, at: Moment, now: &Now) -> Option<Decision> {
        if tally.weight == 0 {
            return None;
        }
        let (plan, response, attempts) = self.fired.iter().rev().find_map(|&(place, attempts)| {
            let plan = &self.plans[place];
            let mut answers = plan.answers.iter().filter_map(|&answer| self.policy.responses.get(answer));
            Some((plan, answers.find(|response| response.concerns(tally.source, user))?, attempts))
        })?;
        let offence = Offence {
            source: tally.source,
            at,
            began: tally.began,
            attempts,
            rule: Some(&plan.reference),
            reason: &plan.reference.description,
            response,
            origin: Origin::Rule,
        };
        let id = SourceId::of(tally.source, self.policy.ipv6_prefix);
        let sources = &self.sources;
        let evidence = || Evidence { users: sources.users(id), lines: sources.evidence(id) };
        Some(self.enforcer.respond(&offence, evidence, now))
    }

    /// Takes note of logins and of the ends of sessions.
    fn note_login(
        &mut self,
        id: Option<ConnectionId>,
        event: &Event<'_>,
        record: &Record<'_>,
        at: Moment,
        now: &Now,
    ) {
        let logins = &mut self.enforcer.logins;
        match event.kind {
            EventKind::Accepted => {
                if let Some(login) = Login::of(event, record, now) {
                    logins.note(id, &login, at);
                }
            }
            EventKind::SessionClosed | EventKind::Disconnected if event.trace == Trace::None => {
                if let Some(id) = id {
                    logins.close(id);
                }
                if let (Some(source), Some(port)) = (event.source, event.port) {
                    logins.close_from(source, port);
                }
            }
            _ => {}
        }
    }
}

/// Works out what each rule of `policy` means.
fn plans(policy: &Policy) -> Vec<Plan> {
    let rules = policy.rules.rules();
    let plan = |(place, rule): (usize, &Rule)| {
        let responses = policy.responses.iter().enumerate();
        let answers: Vec<usize> =
            responses.filter(|(_, response)| response.fits(rule)).map(|(place, _)| place).collect();
        let commands = policy.commands.iter().enumerate();
        let commands: Vec<usize> =
            commands.filter(|(_, run)| run.when.fits(rule)).map(|(place, _)| place).collect();
        Plan {
            reference: RuleRef {
                id: rule.id,
                level: rule.level,
                description: Arc::from(rule.description.as_str()),
            },
            watched: !answers.is_empty() || !commands.is_empty() || !policy.rules.counters(place).is_empty(),
            answers,
            commands,
            matches: 0,
        }
    };
    rules.iter().enumerate().map(plan).collect()
}

mod commands;
mod foreign;
mod request;
#[cfg(test)]
mod tests;

pub use foreign::ForeignMatch;
pub use request::{ForeignRequest, Lasts};

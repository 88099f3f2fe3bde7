//! Answers to what peers ask on the control socket.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use xdpban_common::Outcome;
use xdpban_engine::change::{Block, End};
use xdpban_engine::measure::{Action, Measure};
use xdpban_engine::target::Target;
use xdpban_engine::time::Now;
use xdpban_engine::{BlockRequest, Standing, Unexplained};

use super::carry_out::{Cause, reading};
use super::{Daemon, MANY_WRITES, NOT_ENFORCED};
use crate::clock;
use crate::control::{Call, ListPart, Place, Reply, Request, wire};
use crate::error::chain;
use crate::gate::Entry;
use crate::human;
use crate::store::{Act, IncidentQuery, StoreError, Targets};

/// Incidents that `show` tells of, the latest.
const INCIDENTS: u32 = 20;

/// Blocks in one part of the list.
const LISTED: usize = 2048;

/// Shapes of what is not understood that are named, the commonest.
const SHAPES: usize = 3;

/// The longest reason of an operator that is kept, in characters.
const MAX_REASON: usize = 200;

impl Daemon {
    pub(super) fn answer(&mut self, call: Call) {
        let record_wait = call.request.record_wait();
        let reply = match call.request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::List(end) => Reply::List(self.list(end)),
            Request::Show(address) => return self.show(address, call.reply),
            Request::Incidents(query) => return self.incidents(&query, call.reply),
            Request::Head => Reply::Head(self.store.head().into()),
            Request::Block(request) => Reply::Done(self.block_by_hand(&request, call.uid)),
            Request::Unblock(request) if request.all => {
                return self.unblock_all(request, call.uid, call.reply, record_wait);
            }
            Request::Unblock(request) => Reply::Done(self.unblock_by_hand(&request, call.uid, 0)),
            Request::ActiveResponse(request) => Reply::Responded(self.active_response(&request)),
            Request::Allowed => Reply::Allowed(self.allowed()),
            Request::AllowCheck(address) => Reply::AllowCheck(self.allow_check(address)),
            Request::Allow(request) => self.allow(&request, call.uid),
            Request::Disallow(request) => self.disallow(&request, call.uid),
            Request::Confirm => self.confirm(call.uid),
            Request::Unlock(request) => Reply::Done(self.unlock(&request.user, call.uid)),
            Request::Metrics => Reply::Metrics(self.metrics()),
        };
        self.reply(call.reply, reply, record_wait);
    }

    /// Answers, where something was done once it is on record or after `record_wait`.
    pub(super) fn reply(&mut self, to: oneshot::Sender<Reply>, reply: Reply, record_wait: Option<Duration>) {
        match record_wait {
            Some(limit) => self.send_once_on_record(to, reply, limit),
            None => send(to, reply),
        }
    }

    /// Answers when what was done is on record, or after `limit`: whoever is told that it was done finds it done and
    /// on record after a crash, too. Where so much waits that it would take long, that is the answer.
    fn send_once_on_record(&mut self, to: oneshot::Sender<Reply>, mut reply: Reply, limit: Duration) {
        let on_record = self.store.record_awaited(self.writes.drain(..));
        let waiting = self.store.waiting();
        if waiting > MANY_WRITES {
            reply.not_on_record(format!("{} wait to be written", human::counted(waiting as u64, "record")));
            return send(to, reply);
        }
        while self.answers.try_join_next().is_some() {}
        self.answers.spawn(async move {
            let why_not = match tokio::time::timeout(limit, on_record).await {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(trouble))) => Some(trouble),
                Ok(Err(_)) => Some("the controller is stopping".to_owned()),
                Err(_) => Some(format!("the store took longer than {}", human::duration(limit))),
            };
            if let Some(why_not) = why_not {
                reply.not_on_record(why_not);
            }
            send(to, reply);
        });
    }

    fn status(&mut self) -> wire::Status {
        let now = clock::now();
        let totals = self.gate.totals().unwrap_or_else(|error| {
            log::warn!("{}", chain(&error));
            Default::default()
        });
        self.rate.sample(now.mono, totals.dropped());
        let memory = self.gate.memory();
        let locks = self.locks();
        wire::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: now.mono.since(self.started).as_secs(),
            interfaces: self.interfaces.status(),
            sources: self.sources.status(),
            blocked: self.blocked(),
            enforcing: self.enforcing(),
            trial_left_s: self.trial.map(|trial| wire::seconds_up(trial.until().since(now.mono))),
            locked_accounts: locks.iter().map(|lock| lock.user.clone()).collect(),
            locks,
            packets: wire::Packets {
                passed: totals.passed(),
                dropped: totals.dropped(),
                dropped_per_s: self.rate.per_second,
            },
            memory: wire::Memory { tables: memory.at_start, tables_full: memory.at_most },
            unrecorded: self.store_trouble.clone(),
            health: self.health(),
        }
    }

    fn blocked(&self) -> wire::Blocked {
        let [v4, v6, prefixes4, prefixes6] = self.engine.block_counts();
        wire::Blocked { v4, v6, prefixes: prefixes4 + prefixes6 }
    }

    /// What an operator should know.
    fn health(&self) -> Vec<String> {
        let mut health = self.interfaces.health(&self.config);
        health.extend(self.sources.health());
        health.extend(self.set_aside.clone());
        health.extend(self.store_trouble.clone());
        let given_up = self.store.given_up();
        if given_up > 0 {
            health.push(format!(
                "{given_up} records were given up, because the store could not be written for long"
            ));
        }
        health.extend(self.streams.troubles().cloned());
        health.extend(self.command_troubles.told());
        health.extend(self.reload_trouble.clone());
        health.extend((!self.enforcing()).then(|| NOT_ENFORCED.to_owned()));
        health.extend(self.trial_health());
        health.extend(self.host.trouble().cloned());
        health.extend(self.config.allows_most().chain(self.allowlist.allows_most()));
        if self.tampered > 0 {
            health.push(format!(
                "someone else changed {} in the kernel's tables since the start; they were mended, and the log names them",
                human::counted(self.tampered as u64, "block")
            ));
        }
        health.extend(unexplained(&self.engine.unexplained(clock::now())));
        let counts = self.engine.counts().responses;
        for (table, evicted) in self.evicted().into_iter().filter(|(_, evicted)| *evicted > 0) {
            health.push(format!(
                "the table of {table} was full: {evicted} of the soonest to expire gave way since the start. Raise [limits] {table}"
            ));
        }
        if counts.crowded > 0 {
            health.push(format!(
                "{} runs of commands were given up since the start, because too many wait to be undone",
                counts.crowded
            ));
        }
        if counts.failed > 0 {
            health.push(format!(
                "the kernel refused {} blocks since the start; the log says why",
                counts.failed
            ));
        }
        health
    }

    /// How many blocks have given way in a full table, by the key that sets its capacity.
    pub(super) fn evicted(&self) -> [(&'static str, u64); 2] {
        let counts = self.engine.counts().responses;
        [("blocks", counts.evicted), ("prefixes", counts.evicted_prefixes)]
    }

    fn list(&self, Place(end): Place) -> ListPart {
        let now = clock::now();
        let end = end.min(self.engine.places());
        let start = end.saturating_sub(LISTED);
        let in_gate = self.engine.all_in(start..end).filter(|(_, rests)| !rests);
        let mut blocks: Vec<&Block> = in_gate.map(|(block, _)| &**block).collect();
        blocks.sort_by_key(|block| (std::cmp::Reverse(block.created), block.target));
        let told =
            |block: &Block| entry(block, self.gate.entry(&block.target).as_ref(), self.enforcing(), &now);
        ListPart {
            entries: blocks.into_iter().map(told).collect(),
            next: (start > 0).then_some(Place(start)),
        }
    }

    fn show(&mut self, address: IpAddr, reply: oneshot::Sender<Reply>) {
        let now = clock::now();
        let verdict = match self.gate.verdict(address) {
            Ok(verdict) => verdict,
            Err(error) => return send(reply, Reply::Error(wire::Error { error: chain(&error) })),
        };
        let (block, because) = match self.engine.check(address, now) {
            Standing::Blocked(block) => {
                let why = match &block.rule {
                    Some(rule) => format!("rule {}: {}", rule.id.0, block.reason),
                    None => block.reason.to_string(),
                };
                (Some(block), why)
            }
            Standing::Protected(protection) => (None, protection.to_string()),
            Standing::Open => (None, verdict.meaning().to_owned()),
        };
        let counted = block.and_then(|block| self.gate.entry(&block.target));
        let mut show = Box::new(wire::Show {
            target: address.to_string(),
            verdict: verdict_of(block, verdict, self.enforcing()).to_owned(),
            because,
            entry: block.map(|block| entry(block, counted.as_ref(), self.enforcing(), &now)),
            resting: self
                .engine
                .resting_at(address)
                .map(|block| self::entry(block, None, self.enforcing(), &now))
                .collect(),
            evidence: block.iter().flat_map(|block| &block.evidence).map(|line| line.to_string()).collect(),
            incidents: Vec::new(),
        });
        // The store may be busy, and the loop does not wait for it.
        let store = self.store.reader();
        let query = IncidentQuery {
            target: Some(Target::exact(address)),
            limit: Some(INCIDENTS),
            ..IncidentQuery::default()
        };
        while self.answers.try_join_next().is_some() {}
        self.answers.spawn(async move {
            match store.incidents(query).await {
                Ok(incidents) => show.incidents = incidents.into_iter().map(wire::Incident::from).collect(),
                Err(error) => log::warn!("{}", chain(&error)),
            }
            send(reply, Reply::Show(show));
        });
    }

    fn incidents(&mut self, query: &wire::IncidentsQuery, reply: oneshot::Sender<Reply>) {
        let store = self.store.reader();
        let query = IncidentQuery::from(query);
        while self.answers.try_join_next().is_some() {}
        self.answers.spawn(async move {
            let answer = match store.incidents(query).await {
                Ok(incidents) => Reply::Incidents(incidents.into_iter().map(wire::Incident::from).collect()),
                // Without an answer the peer is told that the controller is stopping.
                Err(StoreError::Closed) => return,
                Err(error) => Reply::Error(wire::Error { error: chain(&error) }),
            };
            send(reply, answer);
        });
    }

    fn block_by_hand(&mut self, request: &wire::BlockRequest, uid: u32) -> wire::Done {
        let now = clock::now();
        let given = given(request.reason.as_deref());
        let reason = given.clone().unwrap_or_else(|| format!("by hand, by uid {uid}"));
        let timeout = request.timeout_s.map(Duration::from_secs);
        let mut done = wire::Done { dry_run: !self.enforcing(), ..wire::Done::default() };
        let measure = request.measure.as_ref().map(wire::Measure::read).transpose();
        let asked_for = measure.clone().ok().flatten().filter(|measure| *measure != Measure::default());
        let mut asked = Vec::with_capacity(request.targets.len());
        for text in &request.targets {
            let blocked = text.parse::<Target>().map_err(|error| error.to_string()).and_then(|target| {
                let measure = measure.clone()?.unwrap_or_default();
                let reason = reason.as_str().into();
                let request = BlockRequest { target, timeout, measure, reason };
                self.engine
                    .block(request, now)
                    .map_err(|refusal| refusal.to_string())
                    .map(|()| (target, measure))
            });
            match blocked {
                Ok(target) => asked.push(target),
                Err(reason) => done.refused.push(wire::Refusal { target: text.clone(), reason }),
            }
        }
        self.carry_out(Cause::Operator { uid, reason: given.as_deref() });
        for (target, measure) in asked {
            if self.engine.block_of(&target).is_some_and(|block| block.measure == measure) {
                done.done += 1;
                done.notes.extend(self.covered(&target, &now).map(|network| {
                    format!("{target} has that at rest: {network}, in which it lies, has a stricter block")
                }));
            } else {
                let reason = format!(
                    "{target} is not blocked: its table is full, or the kernel refused it; the controller's log says which"
                );
                done.refused.push(wire::Refusal { target: target.to_string(), reason });
            }
        }
        let act = Act::Block {
            targets: Targets::of(request.targets.iter().map(String::as_str)),
            timeout_s: request.timeout_s,
            measure: asked_for.map(|measure| measure.to_string()),
            dry_run: done.dry_run,
            reason: given,
            done: done.done,
            refused: done.refused.len(),
        };
        self.act(Some(uid), act);
        done
    }

    /// Lifts the blocks of the targets that the request names; where it is for all, those are `freed` already.
    pub(super) fn unblock_by_hand(
        &mut self,
        request: &wire::UnblockRequest,
        uid: u32,
        freed: usize,
    ) -> wire::Done {
        let now = clock::now();
        let given = given(request.reason.as_deref());
        let mut done = wire::Done { done: freed, ..wire::Done::default() };
        let mut unblocked = Vec::new();
        for text in &request.targets {
            match text.parse::<Target>() {
                Ok(target) if self.engine.unblock(&target, End::Lifted, now) => {
                    done.done += 1;
                    unblocked.push(target);
                }
                Ok(target) => {
                    let reason = self.not_blocked(&target, &now);
                    done.refused.push(wire::Refusal { target: text.clone(), reason });
                }
                Err(error) => {
                    done.refused.push(wire::Refusal { target: text.clone(), reason: error.to_string() });
                }
            }
        }
        self.carry_out(Cause::Operator { uid, reason: given.as_deref() });
        for target in unblocked {
            done.notes.extend(
                self.covered(&target, &now)
                    .map(|network| format!("{target} is still blocked as part of {network}; unblock that")),
            );
        }
        let act = Act::Unblock {
            targets: Targets::of(request.targets.iter().map(String::as_str)),
            all: request.all,
            reason: given,
            done: done.done,
            refused: done.refused.len(),
        };
        self.act(Some(uid), act);
        done
    }

    /// The network around `target` that has the block in force for it.
    fn covered(&self, target: &Target, now: &Now) -> Option<Target> {
        match self.engine.check(target.address(), *now) {
            Standing::Blocked(block) if block.target != *target && block.target.covers(target) => {
                Some(block.target)
            }
            _ => None,
        }
    }

    /// Says that `target` is not blocked, and by what it is covered if it is.
    fn not_blocked(&self, target: &Target, now: &Now) -> String {
        match self.covered(target, now) {
            Some(network) => {
                format!("{target} is not blocked by itself but as part of {network}; unblock that")
            }
            None => format!("{target} is not blocked"),
        }
    }

    fn metrics(&mut self) -> String {
        let status = self.status();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            text.push_str(&format!("# HELP xdpban_{name} {help}\n# TYPE xdpban_{name} {kind}\n"));
            for (labels, value) in values {
                text.push_str(&format!("xdpban_{name}{labels} {value}\n"));
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floats")]
        let number = |n: u64| n as f64;
        if let Ok(totals) = self.gate.totals() {
            let outcomes = Outcome::ALL.map(|outcome| {
                let verdict = if outcome.drops() { "drop" } else { "pass" };
                (
                    format!("{{verdict=\"{verdict}\",outcome=\"{}\"}}", outcome.name()),
                    number(totals.of(outcome)),
                )
            });
            metric("packets_total", "counter", "Packets seen by the gate.", &outcomes);
            metric(
                "dropped_bytes_total",
                "counter",
                "Bytes of dropped packets.",
                &[(String::new(), number(totals.dropped_bytes))],
            );
        }
        let tables =
            [("v4", status.blocked.v4), ("v6", status.blocked.v6), ("prefixes", status.blocked.prefixes)];
        metric(
            "blocked",
            "gauge",
            "Targets that are blocked.",
            &tables.map(|(table, n)| (format!("{{table=\"{table}\"}}"), f64::from(n))),
        );
        metric(
            "evicted_total",
            "counter",
            "Blocks that gave way to others in a full table.",
            &self.evicted().map(|(table, n)| (format!("{{table=\"{table}\"}}"), number(n))),
        );
        let memory = [("now", status.memory.tables), ("full", status.memory.tables_full)];
        metric(
            "table_memory_bytes",
            "gauge",
            "Memory of the kernel that the tables take, and would take if all were full.",
            &memory.map(|(when, bytes)| (format!("{{when=\"{when}\"}}"), number(bytes))),
        );
        let per_source = |value: fn(&wire::Source) -> u64| {
            status
                .sources
                .iter()
                .map(|source| {
                    let name = source.path.as_deref().unwrap_or(&source.kind);
                    let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    (format!("{{source=\"{name}\"}}"), number(value(source)))
                })
                .collect::<Vec<_>>()
        };
        metric("lines_total", "counter", "Lines read.", &per_source(|source| source.lines));
        metric(
            "attacks_total",
            "counter",
            "Lines that told of an attack.",
            &per_source(|source| source.attacks),
        );
        metric(
            "enforcing",
            "gauge",
            "Whether packets are dropped, and not only counted.",
            &[(String::new(), f64::from(u8::from(status.enforcing)))],
        );
        metric(
            "troubles",
            "gauge",
            "Things that an operator should know; see `xdpban status`.",
            &[(String::new(), number(status.health.len() as u64))],
        );
        text
    }
}

/// An operator's reason, as it goes on record.
pub(super) fn given(reason: Option<&str>) -> Option<String> {
    let reason = reason?.chars().filter(|c| !human::misleads(*c)).take(MAX_REASON).collect::<String>();
    Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty())
}

/// What sshd says that nobody here understands.
fn unexplained(heard: &Unexplained) -> Option<String> {
    let what = match heard.count {
        0 => return None,
        1 => "1 thing in the last hour that looks like a failure and matches".to_owned(),
        n => format!("{} things in the last hour that look like failures and match", human::count(n)),
    };
    let shapes = heard.shapes.iter().take(SHAPES);
    let shapes: Vec<String> =
        shapes.map(|(shape, count)| format!("`{shape}` ({})", human::count(*count))).collect();
    Some(format!("sshd said {what} no known form; the commonest: {}", shapes.join(", ")))
}

fn send(to: oneshot::Sender<Reply>, reply: Reply) {
    if to.send(reply).is_err() {
        log::debug!("a peer on the control socket left before it had its answer");
    }
}

/// What becomes of packets. The one that the program was asked about has no ports, and opens nothing; what is dropped of
/// others is in the entry.
fn verdict_of(block: Option<&Block>, verdict: Outcome, enforcing: bool) -> &'static str {
    match block.map(|block| block.measure) {
        _ if !enforcing => "pass",
        Some(Measure { action: Action::Throttle(_), .. }) => "throttle",
        Some(Measure { scope, .. }) if !scope.is_everything() => "drop",
        _ if verdict.drops() => "drop",
        _ => "pass",
    }
}

fn entry(block: &Block, counted: Option<&Entry>, enforced: bool, now: &Now) -> wire::Entry {
    let (dropped_packets, dropped_bytes) = reading(counted);
    wire::Entry {
        target: block.target.to_string(),
        action: block.measure.action.name().to_owned(),
        measure: wire::Measure::of(block.measure),
        enforced,
        expires_at: block.expires.map(|expiry| clock::rfc3339(now.wall_of(expiry))),
        expires_in_s: block.expires.map(|expiry| wire::seconds_up(expiry.mono.since(now.mono))),
        created_at: Some(clock::rfc3339(block.created)),
        rule: block.rule.as_ref().map(wire::Rule::from),
        reason: block.reason.to_string(),
        origin: block.origin.name().to_owned(),
        offences: block.offences,
        dropped_packets,
        dropped_bytes,
    }
}

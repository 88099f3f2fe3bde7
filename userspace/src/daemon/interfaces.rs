//! Which interfaces are guarded, and keeping it so: as they come, go, change their names, and as the configuration and the
//! default routes change.

use std::time::Duration;

use xdpban_engine::time::Mono;

use super::Daemon;
use crate::clock;
use crate::config::{Config, Mode, Selector};
use crate::control::wire;
use crate::error::chain;
use crate::gate::{self, Gate, GateError, Held};
use crate::host::{self, Fitness, HostError, Link, Selected};

/// For how long an interface keeps its gate after another one has taken its default route over: links that come and go
/// hand the route to and fro.
const GRACE: Duration = Duration::from_secs(600);

/// Why it is not known which interfaces stand.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// The interfaces that are guarded, or should be.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    guarded: Vec<Guarded>,
    /// Whether they have been looked at before. What fails at the first look is told by whoever asked for it.
    known: bool,
    /// Why the last look at them failed.
    trouble: Option<String>,
}

/// An interface that is guarded, or should be.
#[derive(Debug)]
struct Guarded {
    name: String,
    /// None where there is no such interface.
    index: Option<u32>,
    by_route: bool,
    state: State,
    /// The mode that was asked for.
    mode: Mode,
    /// What the driver's answer may have depended on.
    seen: Circumstances,
    /// Since when it is not selected any longer.
    unselected: Option<Mono>,
}

/// How the gate stands on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Attached(gate::Attached),
    /// Not on it, and rightly so.
    Aside(String),
    Failed(String),
}

/// What, when it changes, is worth another attempt where XDP was refused: the MTU, and another's program.
type Circumstances = Option<(u32, Option<u32>)>;

/// What there is at the time of one look.
struct Scene<'a> {
    links: Vec<Link>,
    held: Vec<Held>,
    mode: Mode,
    now: Mono,
    gate: &'a mut Gate,
}

impl Interfaces {
    /// Attaches the gate where the configuration wants it and it does not stand, and takes it off where nobody wants it
    /// any longer. To be called again whenever something may have changed.
    pub(super) fn keep(&mut self, gate: &mut Gate, config: &Config, now: Mono) {
        let trouble = self.try_keep(gate, config, now).err().map(|error| chain(&error));
        if let Some(trouble) = trouble.as_ref().filter(|trouble| self.trouble.as_ref() != Some(trouble)) {
            log::error!("{trouble}; the interfaces stay guarded as they are");
        }
        self.trouble = trouble;
        self.known = true;
    }

    fn try_keep(&mut self, gate: &mut Gate, config: &Config, now: Mono) -> Result<(), KeepError> {
        let links = host::links()?;
        let routes = host::default_route_interfaces()?;
        let selected = host::select(&config.interfaces, &links, &routes);
        let mut held = gate.held()?;
        for stray in strays(&mut held, &links) {
            gate.release(&stray)?;
            log::info!("{} is gone, and the gate with it", stray.interface);
        }
        let mut before = std::mem::take(&mut self.guarded);
        let mut scene = Scene { links, held, mode: config.mode, now, gate };
        let has_route =
            selected.iter().any(|one| one.by_route && !matches!(one.fitness, Fitness::Unfit { .. }));
        for one in &selected {
            let previous =
                before
                    .iter()
                    .position(|other| {
                        if one.index.is_some() { other.index == one.index } else { other.name == one.name }
                    })
                    .map(|at| before.swap_remove(at));
            let state = match self.aside(one, has_route, &scene.links) {
                Some(note) => State::Aside(note),
                None => scene.stand(&one.name, one.index, previous.as_ref()),
            };
            let guarded = scene.guarded(one.name.clone(), one.index, one.by_route, state);
            if self.known || !matches!(guarded.state, State::Failed(_)) {
                tell(previous.as_ref(), &guarded);
            }
            self.guarded.push(guarded);
        }
        let by_route = config.interfaces.contains(&Selector::DefaultRoute);
        self.settle_unselected(&mut scene, before, by_route, has_route)?;
        Ok(())
    }

    /// Why the gate is not to stand on a selected interface, if so.
    fn aside(&self, one: &Selected, has_route: bool, links: &[Link]) -> Option<String> {
        if let Fitness::Unfit { why, .. } = one.fitness {
            return (one.by_route && has_route).then(|| format!("it {why}"));
        }
        // A packet that were judged twice would be counted twice.
        let covers = |index: &u32| {
            self.guarded
                .iter()
                .any(|other| other.index == Some(*index) && matches!(other.state, State::Attached(_)))
        };
        if one.entrances.is_empty() || !one.entrances.iter().all(covers) {
            return None;
        }
        let names: Vec<&str> = links
            .iter()
            .filter(|link| one.entrances.contains(&link.index))
            .map(|link| link.name.as_str())
            .collect();
        Some(format!("guarded by way of {}", names.join(", ")))
    }

    /// Takes the gate off what is not selected: what left the configuration, at once, but never the last one that stands;
    /// what lost its default route, when another one has had that for a while.
    fn settle_unselected(
        &mut self,
        scene: &mut Scene<'_>,
        mut before: Vec<Guarded>,
        by_route: bool,
        has_route: bool,
    ) -> Result<(), GateError> {
        let stands = self.guarded.iter().any(|one| matches!(one.state, State::Attached(_)));
        let mut released: Vec<String> = Vec::new();
        for held in scene.gate.held()? {
            let Some(link) = scene.links.iter().find(|link| Some(link.index) == held.index) else { continue };
            let selected = self.guarded.iter().find(|one| one.index == held.index);
            // One that failed keeps what an earlier controller left there.
            if selected.is_some_and(|one| one.unselected.is_some() || !matches!(one.state, State::Aside(_))) {
                continue;
            }
            let (name, index) = (link.name.clone(), Some(link.index));
            let previous = before.iter().position(|one| one.index == index).map(|at| before.swap_remove(at));
            // What an earlier controller left may well have been there for its default route.
            let by_route = by_route && previous.as_ref().is_none_or(|one| one.by_route);
            let since = previous.as_ref().and_then(|one| one.unselected);
            let since = if by_route && !has_route { scene.now } else { since.unwrap_or(scene.now) };
            let lapsed = !by_route || scene.now.since(since) >= GRACE;
            if selected.is_some() || (stands && lapsed) {
                scene.gate.release(&held)?;
                if selected.is_none() && !released.contains(&name) {
                    log::info!("{name} is no longer to be guarded, and the gate is taken off it");
                    released.push(name);
                }
                continue;
            }
            let state = scene.stand(&name, index, previous.as_ref());
            let mut guarded = scene.guarded(name, index, by_route, state);
            guarded.unselected = Some(since);
            if previous.is_none_or(|one| one.unselected.is_none()) {
                log::info!("{} {}", guarded.name, guarded.kept());
            }
            self.guarded.push(guarded);
        }
        Ok(())
    }

    /// The interfaces that the gate stands on, with the mode of each.
    pub(super) fn attached(&self) -> impl Iterator<Item = (&str, gate::AttachedMode)> {
        self.guarded.iter().filter_map(|one| match &one.state {
            State::Attached(attached) => Some((one.name.as_str(), attached.mode)),
            State::Aside(_) | State::Failed(_) => None,
        })
    }

    /// What keeps the gate off interfaces that it should stand on.
    pub(super) fn failures(&self) -> impl Iterator<Item = &str> {
        let trouble = self.trouble.as_deref();
        self.guarded
            .iter()
            .filter_map(|one| match &one.state {
                State::Failed(trouble) => Some(trouble.as_str()),
                State::Attached(_) | State::Aside(_) => None,
            })
            .chain(trouble)
    }

    /// What an operator should know.
    pub(super) fn health(&self, config: &Config) -> Vec<String> {
        let mut health: Vec<String> = self
            .guarded
            .iter()
            .filter_map(|one| match &one.state {
                State::Attached(attached) => attached.warning.clone(),
                State::Failed(trouble) => Some(format!("{} is not guarded: {trouble}", one.name)),
                State::Aside(_) => None,
            })
            .collect();
        if self.attached().next().is_none() && self.failures().next().is_none() {
            let selectors: Vec<String> = config.interfaces.iter().map(ToString::to_string).collect();
            health.push(format!("nothing is guarded: no interface is {}", selectors.join(" or ")));
        }
        health.extend(self.trouble.clone());
        health
    }

    /// How each stands.
    pub(super) fn status(&self) -> Vec<wire::Interface> {
        self.guarded.iter().map(Guarded::status).collect()
    }
}

impl Daemon {
    /// Keeps the gate where the configuration wants it.
    pub(super) fn keep_guard(&mut self) {
        self.interfaces.keep(&mut self.gate, &self.config, clock::now().mono);
    }
}

impl Scene<'_> {
    /// Has the gate stand on an interface, unless it does.
    fn stand(&mut self, name: &str, index: Option<u32>, previous: Option<&Guarded>) -> State {
        let seen = self.circumstances(index);
        let before = previous.and_then(|previous| match &previous.state {
            State::Attached(attached) => Some((attached, previous)),
            State::Aside(_) | State::Failed(_) => None,
        });
        // Another's hold of the same mode would be ours, too: the directory of pins belongs to one controller.
        let still = before.filter(|(attached, _)| {
            self.held.iter().any(|held| held.index == index && held.mode == attached.mode)
        });
        if let Some((attached, previous)) = still
            && previous.mode == self.mode
            && (attached.warning.is_none() || previous.seen == seen)
        {
            return State::Attached(gate::Attached { interface: name.to_owned(), ..attached.clone() });
        }
        match (self.gate.attach(name, self.mode), still) {
            (Ok(attached), _) => {
                if before.is_some() && still.is_none() {
                    log::warn!("the gate was taken off {name}; it stands again, in mode {}", attached.mode);
                }
                State::Attached(attached)
            }
            (Err(error), Some((attached, _))) => State::Attached(gate::Attached {
                warning: Some(format!("{name} stays guarded in mode {}: {}", attached.mode, chain(&error))),
                ..attached.clone()
            }),
            (Err(error), None) => State::Failed(chain(&error)),
        }
    }

    fn guarded(&self, name: String, index: Option<u32>, by_route: bool, state: State) -> Guarded {
        let (mode, seen) = (self.mode, self.circumstances(index));
        Guarded { name, index, by_route, state, mode, seen, unselected: None }
    }

    fn circumstances(&self, index: Option<u32>) -> Circumstances {
        let link = self.links.iter().find(|link| Some(link.index) == index)?;
        Some((link.mtu, link.xdp_program))
    }
}

impl Guarded {
    fn status(&self) -> wire::Interface {
        let (mode, note) = match &self.state {
            State::Attached(attached) => (Some(attached.mode.name().to_owned()), attached.warning.clone()),
            State::Aside(note) => (None, Some(note.clone())),
            // Among what needs attention.
            State::Failed(_) => (None, None),
        };
        let note = note.or_else(|| self.unselected.map(|_| self.kept()));
        wire::Interface { name: self.name.clone(), attached: mode.is_some(), mode, note }
    }

    /// Why it is still guarded although it is not selected.
    fn kept(&self) -> String {
        match self.by_route {
            true => "has no default route any longer, and keeps its gate for the time being".to_owned(),
            false => {
                "is no longer to be guarded, and keeps its gate until another interface has one".to_owned()
            }
        }
    }
}

/// Takes out of `held` what holds the gate to no interface of this namespace: those that are gone, and those that went to
/// another namespace, where they may have the number of one that is here.
fn strays(held: &mut Vec<Held>, links: &[Link]) -> Vec<Held> {
    let is_called_so =
        |one: &Held| links.iter().any(|link| Some(link.index) == one.index && link.name == one.interface);
    let (stray, here): (Vec<Held>, Vec<Held>) = held.iter().cloned().partition(|one| {
        let is_here = links.iter().any(|link| Some(link.index) == one.index);
        let is_second = !is_called_so(one)
            && held
                .iter()
                .any(|other| (other.index, other.mode) == (one.index, one.mode) && is_called_so(other));
        !is_here || is_second
    });
    *held = here;
    stray
}

/// Logs what changed about an interface.
fn tell(before: Option<&Guarded>, after: &Guarded) {
    let name = &after.name;
    let was = before.map(|before| &before.state);
    if was == Some(&after.state) {
        return;
    }
    match (was, &after.state) {
        (Some(State::Attached(was)), State::Attached(attached)) if was.mode == attached.mode => {
            if was.interface != attached.interface {
                log::info!("{} is called {name}; it stays guarded", was.interface);
            }
        }
        (_, State::Attached(attached)) => log::info!("guards {name} in mode {}", attached.mode),
        (_, State::Aside(note)) => log::info!("{name} itself is left alone: {note}"),
        (_, State::Failed(trouble)) => log::error!("{name} is not guarded: {trouble}"),
    }
    if let State::Attached(gate::Attached { warning: Some(warning), .. }) = &after.state {
        log::warn!("{warning}");
    }
}

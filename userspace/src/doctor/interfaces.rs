//! The interfaces of the configuration: the driver of each, and the mode that the gate would get there.

use super::setup::Setup;
use super::{Check, Interface, State};
use crate::config::{Config, Mode};
use crate::error::chain;
use crate::gate::{self, AttachedMode};
use crate::host::{self, Fitness, Link, Selected, XdpFeatures};

/// The largest MTU that drivers take a program with that knows no packets in several buffers: a page less its headroom
/// (XDP_PACKET_HEADROOM), the end of the buffer (`struct skb_shared_info`) and the Ethernet header with a tag.
const ONE_BUFFER: u32 = 4096 - 256 - 320 - 18;

/// From this kernel on a program can take packets in several buffers, where the driver can.
const FRAGS_SINCE: (u8, u8) = (5, 18);

/// Offloads that join packets, which some drivers do not do beside XDP.
const JOINING: [&str; 2] = ["rx-lro", "rx-gro-hw"];

/// Drivers that run XDP, for kernels before 6.3, which do not say: from `ndo_bpf` in the kernel's drivers/net.
const WITH_XDP: [&str; 24] = [
    "atlantic",
    "bnxt_en",
    "bonding",
    "dpaa2-eth",
    "ena",
    "fec",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "qede",
    "sfc",
    "stmmac",
    "veth",
    "virtio_net",
];

/// What is known of one interface.
struct Facts<'a> {
    link: &'a Link,
    fitness: &'a Fitness,
    driver: Option<String>,
    features: Option<XdpFeatures>,
    offloads: Option<Vec<String>>,
    held: Option<AttachedMode>,
    /// Whether this user may look at the pins, which alone tell a program of ours from another's.
    pins_seen: bool,
}

pub(super) fn examine(setup: &Setup, checks: &mut Vec<Check>) -> Vec<Interface> {
    let Some(config) = &setup.config else { return Vec::new() };
    let found = host::links().and_then(|links| Ok((links, host::default_route_interfaces()?)));
    let (links, routes) = match found {
        Ok(found) => found,
        Err(error) => {
            checks.push(Check::new("interface", "all", State::Unknown, chain(&error)));
            return Vec::new();
        }
    };
    let selected = host::select(&config.interfaces, &links, &routes);
    if selected.is_empty() {
        let names: Vec<String> = config.interfaces.iter().map(ToString::to_string).collect();
        checks.push(
            Check::new("interface", names.join(", "), State::Obstacle, "there is no such interface")
                .remedy(format!("interfaces = [\"{}\"]", links.get(1).map_or("eth0", |link| &link.name))),
        );
    }
    // Whoever may not look at the pins sees all the rest.
    let held = gate::pinned_holds(&setup.paths.pins).ok();
    let has_route = selected.iter().any(|one| one.by_route && !matches!(one.fitness, Fitness::Unfit { .. }));
    let mut interfaces = Vec::new();
    for one in &selected {
        let link = links.iter().find(|link| Some(link.index) == one.index);
        let (interface, check) = judge(one, link, held.as_deref(), config, has_route);
        interfaces.push(interface);
        checks.push(check);
    }
    interfaces
}

fn judge(
    one: &Selected,
    link: Option<&Link>,
    held: Option<&[(u32, AttachedMode)]>,
    config: &Config,
    has_route: bool,
) -> (Interface, Check) {
    let mut interface = Interface {
        name: one.name.clone(),
        driver: None,
        mtu: None,
        mode: None,
        attached: false,
        offloads: None,
    };
    let Some(link) = link else {
        let check = Check::new("interface", one.name.as_str(), State::Obstacle, "there is no such interface")
            .remedy("ip link, and name one of those in `interfaces`");
        return (interface, check);
    };
    let facts = Facts {
        link,
        fitness: &one.fitness,
        driver: host::driver(link),
        features: host::xdp_features(link),
        offloads: host::offloads(link),
        held: held
            .and_then(|held| held.iter().find(|(index, _)| *index == link.index))
            .map(|(_, mode)| *mode),
        pins_seen: held.is_some(),
    };
    let (mode, check) = facts.expect(config.mode, one.by_route && has_route);
    interface.mtu = Some(link.mtu);
    interface.mode = mode.map(AttachedMode::name);
    interface.attached = facts.held.is_some();
    interface.offloads = facts.joining();
    interface.driver = facts.driver;
    (interface, check)
}

impl Facts<'_> {
    /// The mode that the gate would get, and what is to be said of it. `passed_over`: another interface is guarded where
    /// this one cannot be.
    fn expect(&self, mode: Mode, passed_over: bool) -> (Option<AttachedMode>, Check) {
        let name = self.link.name.as_str();
        let check = |state, finding: String| Check::new("interface", name, state, finding);
        if let Fitness::Unfit { why, instead } = self.fitness {
            let state = if passed_over { State::Ok } else { State::Obstacle };
            let check = check(state, format!("it {why}"));
            let check = match instead.first().filter(|_| !passed_over) {
                Some(instead) => check.remedy(format!("interfaces = [\"{instead}\"]")),
                None => check,
            };
            return (None, check);
        }
        let what = self.describe();
        if let Some(held) = self.held {
            return (Some(held), check(State::Ok, format!("guarded in mode {held}; {what}")));
        }
        if let (Some(id), false) = (self.link.xdp_program, self.pins_seen) {
            let finding = format!("an XDP program (id {id}) is there, of xdpban or of another; {what}");
            return (None, check(State::Unknown, finding).remedy("xdpban doctor, as root, who can tell"));
        }
        let native = self.obstacle_to_native();
        match (mode, native) {
            (Mode::Tc, _) => {
                (Some(AttachedMode::Tc), check(State::Ok, format!("would be guarded in mode tc; {what}")))
            }
            (Mode::Auto | Mode::Native, None) => {
                let finding = format!("would be guarded in mode native; {what}");
                (Some(AttachedMode::Native), self.with_offloads(check(State::Ok, finding)))
            }
            (Mode::Generic, _) if self.link.xdp_program.is_none() => (
                Some(AttachedMode::Generic),
                check(State::Ok, format!("would be guarded in mode generic; {what}")),
            ),
            (Mode::Auto, Some((why, remedy))) => {
                let finding = format!("would be guarded in mode tc: {why}; {what}");
                (Some(AttachedMode::Tc), Check { remedy, ..check(State::Warning, finding) })
            }
            (_, native) => {
                let why = native.map_or_else(|| "another XDP program is there".to_owned(), |(why, _)| why);
                let finding = format!("mode {} is not to be had: {why}; {what}", mode.name());
                (None, check(State::Obstacle, finding).remedy("mode = \"auto\""))
            }
        }
    }

    /// What keeps XDP out of the driver, and what removes it.
    fn obstacle_to_native(&self) -> Option<(String, Option<String>)> {
        let name = &self.link.name;
        if let Some(id) = self.link.xdp_program {
            let remedy = format!("ip link set dev {name} xdp off");
            return Some((format!("another XDP program (id {id}) is there"), Some(remedy)));
        }
        let native = match self.features {
            Some(features) => features.native,
            None => self
                .driver
                .as_deref()
                .is_some_and(|driver| WITH_XDP.contains(&driver) || matches!(driver, "bond" | "tun")),
        };
        if !native {
            let entrances = match self.fitness {
                Fitness::Above { entrances } if !entrances.is_empty() => entrances,
                _ => return Some(("its driver has no XDP".to_owned(), None)),
            };
            let quoted: Vec<String> = entrances.iter().map(|name| format!("\"{name}\"")).collect();
            return Some((
                format!("its driver has no XDP, and its frames come in by {}", entrances.join(", ")),
                Some(format!("interfaces = [{}]", quoted.join(", "))),
            ));
        }
        let has_frags = gate::kernel_version().is_some_and(|(major, minor, _)| (major, minor) >= FRAGS_SINCE);
        let several = self.features.map_or(has_frags, |features| features.several_buffers && has_frags);
        (self.link.mtu > ONE_BUFFER && !several).then(|| {
            let why = format!("its MTU of {} is too large for XDP in this driver", self.link.mtu);
            (why, Some(format!("ip link set dev {name} mtu {ONE_BUFFER}")))
        })
    }

    fn describe(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("unknown");
        let known = if self.features.is_some() { "" } else { ", by its name: this kernel does not say" };
        format!("driver {driver}{known}, MTU {}", self.link.mtu)
    }

    fn joining(&self) -> Option<Vec<String>> {
        let mut offloads = self.offloads.clone()?;
        offloads.retain(|name| JOINING.contains(&name.as_str()));
        Some(offloads)
    }

    fn with_offloads(&self, check: Check) -> Check {
        let joining = self.joining().unwrap_or_default();
        if joining.is_empty() {
            return check;
        }
        let off: Vec<String> = joining.iter().map(|name| format!("{name} off")).collect();
        let remedy = format!("ethtool -K {} {}", self.link.name, off.join(" "));
        let finding =
            format!("{}; {} is on, and some drivers refuse XDP then", check.finding, joining.join(" and "));
        Check { state: State::Warning, finding, ..check }.remedy(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: Option<XdpFeatures> = Some(XdpFeatures { native: true, several_buffers: false });

    fn expected(
        change: impl FnOnce(&mut Link, &mut Facts<'static>),
        mode: Mode,
    ) -> (Option<AttachedMode>, Check) {
        let link = Link { index: 2, name: "eth0".into(), mtu: 1500, ..Link::default() };
        let link: &'static mut Link = Box::leak(Box::new(link));
        let seen: &'static Link = Box::leak(Box::new(link.clone()));
        let mut facts = Facts {
            link: seen,
            fitness: &Fitness::Fit,
            driver: Some("e1000".into()),
            features: NATIVE,
            offloads: Some(Vec::new()),
            held: None,
            pins_seen: true,
        };
        change(link, &mut facts);
        facts.link = link;
        facts.expect(mode, false)
    }

    #[test]
    fn the_mode_is_foretold_with_what_would_better_it() {
        let (mode, check) = expected(|_, _| {}, Mode::Auto);
        assert_eq!((mode, check.state, check.remedy), (Some(AttachedMode::Native), State::Ok, None));

        let (mode, check) = expected(|link, _| link.xdp_program = Some(7), Mode::Auto);
        assert_eq!((mode, check.state), (Some(AttachedMode::Tc), State::Warning));
        assert_eq!(check.remedy.as_deref(), Some("ip link set dev eth0 xdp off"));
        let (mode, check) = expected(|link, _| link.xdp_program = Some(7), Mode::Native);
        assert_eq!((mode, check.state), (None, State::Obstacle));

        let unseen = |link: &mut Link, facts: &mut Facts<'static>| {
            link.xdp_program = Some(7);
            facts.pins_seen = false;
        };
        let (mode, check) = expected(unseen, Mode::Auto);
        assert_eq!((mode, check.state), (None, State::Unknown), "it may be xdpban's own");
        assert!(check.remedy.is_some_and(|remedy| remedy.contains("as root")));

        let (mode, check) = expected(|link, _| link.mtu = 9000, Mode::Auto);
        assert_eq!(mode, Some(AttachedMode::Tc));
        assert_eq!(check.remedy.as_deref(), Some("ip link set dev eth0 mtu 3502"));

        let (mode, check) = expected(|_, facts| facts.offloads = Some(vec!["rx-lro".into()]), Mode::Auto);
        assert_eq!((mode, check.state), (Some(AttachedMode::Native), State::Warning));
        assert_eq!(check.remedy.as_deref(), Some("ethtool -K eth0 rx-lro off"));

        let none = Some(XdpFeatures { native: false, several_buffers: false });
        let (mode, _) = expected(|_, facts| facts.features = none, Mode::Auto);
        assert_eq!(mode, Some(AttachedMode::Tc));
        let (mode, _) = expected(|_, facts| facts.features = none, Mode::Generic);
        assert_eq!(mode, Some(AttachedMode::Generic));
    }

    #[test]
    fn old_kernels_are_judged_by_the_drivers_name() {
        let (mode, check) = expected(|_, facts| facts.features = None, Mode::Auto);
        assert_eq!(mode, Some(AttachedMode::Tc));
        assert!(check.finding.contains("this kernel does not say"));
        let known = |_: &mut Link, facts: &mut Facts<'static>| {
            facts.features = None;
            facts.driver = Some("ixgbe".into());
        };
        assert_eq!(expected(known, Mode::Auto).0, Some(AttachedMode::Native));
    }
}

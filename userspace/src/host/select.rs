//! Which of the host's interfaces the configuration selects.

use super::fitness::{Fitness, base, depth, entrances, fitness};
use super::links::Link;
use crate::config::Selector;

/// An interface that the configuration selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its name, or the name in the configuration where there is none of that name.
    pub name: String,
    /// Its number; none where there is no such interface.
    pub index: Option<u32>,
    /// Whether it can be guarded.
    pub fitness: Fitness,
    /// Whether it was selected for its default route alone. One that cannot be guarded is then passed over, where there
    /// is another.
    pub by_route: bool,
    /// The numbers of the interfaces by which its frames come in, where those are not itself.
    pub entrances: Vec<u32>,
}

/// What of `links` the `selectors` select, given the names of the interfaces with a default route: each once, those
/// beneath before those above. A pattern passes over what cannot be guarded.
pub fn select(selectors: &[Selector], links: &[Link], routes: &[String]) -> Vec<Selected> {
    let mut selected: Vec<Selected> = Vec::new();
    let mut add = |found: Selected| match selected.iter_mut().find(|other| other.name == found.name) {
        // One that is named, too, is told of in any case.
        Some(other) => other.by_route &= found.by_route,
        None => selected.push(found),
    };
    for selector in selectors {
        match selector {
            Selector::Name(name) => match links.iter().find(|link| link.is_called(name)) {
                Some(link) => add(describe(link, links, false)),
                None => add(missing(name)),
            },
            Selector::Pattern(pattern) => links
                .iter()
                .filter(|link| {
                    pattern.matches(&link.name) || link.other_names.iter().any(|name| pattern.matches(name))
                })
                .map(|link| describe(link, links, false))
                .filter(|found| !matches!(found.fitness, Fitness::Unfit { .. }))
                .for_each(&mut add),
            Selector::DefaultRoute => links
                .iter()
                .filter(|link| routes.contains(&link.name))
                .map(|link| describe(base(link, links), links, true))
                .for_each(&mut add),
        }
    }
    selected.sort_by_cached_key(|found| {
        links.iter().find(|link| Some(link.index) == found.index).map_or(0, |link| depth(link, links))
    });
    selected
}

fn describe(link: &Link, links: &[Link], by_route: bool) -> Selected {
    Selected {
        name: link.name.clone(),
        index: Some(link.index),
        fitness: fitness(link, links),
        by_route,
        entrances: entrances(link, links).into_iter().map(|link| link.index).collect(),
    }
}

fn missing(name: &str) -> Selected {
    let (fitness, entrances) = (Fitness::Fit, Vec::new());
    Selected { name: name.to_owned(), index: None, fitness, by_route: false, entrances }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        let kind = kind.map(str::to_owned);
        Link { index, name: name.into(), hardware: libc::ARPHRD_ETHER, up: true, kind, ..Link::default() }
    }

    fn host() -> Vec<Link> {
        vec![
            Link { hardware: libc::ARPHRD_LOOPBACK, ..link(1, "lo", None) },
            Link { beneath: Some(4), ..link(2, "eth1.100", Some("vlan")) },
            link(3, "eth0", None),
            Link { other_names: vec!["wan0".into()], ..link(4, "eth1", None) },
            Link { hardware: libc::ARPHRD_NONE, ..link(5, "wg0", Some("wireguard")) },
        ]
    }

    fn selected(selectors: &[&str], routes: &[&str]) -> Vec<(String, Option<u32>)> {
        let selectors: Vec<Selector> = selectors.iter().map(|text| Selector::parse(text)).collect();
        let routes: Vec<String> = routes.iter().map(|name| (*name).to_owned()).collect();
        select(&selectors, &host(), &routes).into_iter().map(|found| (found.name, found.index)).collect()
    }

    fn named(names: &[(&str, u32)]) -> Vec<(String, Option<u32>)> {
        names.iter().map(|(name, index)| ((*name).to_owned(), Some(*index))).collect()
    }

    #[test]
    fn by_name_by_another_name_and_by_pattern() {
        assert_eq!(selected(&["eth0"], &[]), named(&[("eth0", 3)]));
        assert_eq!(selected(&["wan0"], &[]), named(&[("eth1", 4)]));
        assert_eq!(selected(&["wan*", "eth1"], &[]), named(&[("eth1", 4)]), "once");
        assert_eq!(selected(&["eth7"], &[]), [("eth7".to_owned(), None)]);
        assert_eq!(selected(&["ppp*"], &[]), []);
        assert_eq!(
            selected(&["*"], &[]),
            named(&[("eth0", 3), ("eth1", 4), ("eth1.100", 2)]),
            "neither lo nor wg0; what lies beneath comes first"
        );
    }

    #[test]
    fn by_default_route() {
        assert_eq!(selected(&["default-route"], &["eth0"]), named(&[("eth0", 3)]));
        assert_eq!(selected(&["default-route"], &["eth1.100"]), named(&[("eth1", 4)]), "what lies beneath");
        assert_eq!(selected(&["default-route"], &[]), []);
        let by_route = |selectors: &[&str]| {
            let selectors: Vec<Selector> = selectors.iter().map(|text| Selector::parse(text)).collect();
            let found = select(&selectors, &host(), &["wg0".to_owned()]);
            found.iter().map(|found| (found.fitness.clone(), found.by_route)).collect::<Vec<_>>()
        };
        assert!(matches!(by_route(&["default-route"])[..], [(Fitness::Unfit { .. }, true)]));
        assert!(matches!(by_route(&["default-route", "wg0"])[..], [(Fitness::Unfit { .. }, false)]));
    }
}

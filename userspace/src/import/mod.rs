//! Configurations of other programs, turned into one of ours: what has a counterpart as settings, what has none as comments.

use std::path::Path;

use crate::config::{Config, Faults, Place};

mod draft;
pub mod fail2ban;
pub mod wazuh;

use draft::Draft;

/// The text of a draft, which must be a sound configuration.
fn finish(draft: Draft) -> Result<String, Faults> {
    let text = draft.text();
    // What the importers write is checked as what a user writes is; a fault is one of theirs.
    Config::parse(&text, Path::new("the imported configuration"), &[])?;
    Ok(text)
}

fn fault(file: &Path, line: Option<usize>, message: impl Into<String>) -> Faults {
    let mut faults = Faults::default();
    faults.add(&Place { line, ..Place::file(file) }, message);
    faults
}

/// An address or a network as other programs write them: with bits of the host set, or with a mask in place of a length.
fn network(text: &str) -> Option<xdpban_engine::target::Target> {
    use std::net::{IpAddr, Ipv4Addr};
    use xdpban_engine::target::Target;

    let Some((address, length)) = text.split_once('/') else {
        return text.parse().ok().map(Target::exact);
    };
    let address: IpAddr = address.parse().ok()?;
    let length = match length.parse::<Ipv4Addr>().map(u32::from) {
        Ok(mask) if mask.leading_ones() == mask.count_ones() => u8::try_from(mask.leading_ones()).ok()?,
        Ok(_) => return None,
        Err(_) => length.parse().ok()?,
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if length > longest {
        return None;
    }
    // Written out and read again, so that nothing passes here that the configuration refuses.
    Target::prefix(address, length).to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_others() {
        for (text, target) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("2001:db8::1/48", "2001:db8::/48"),
            ("::1", "::1"),
        ] {
            assert_eq!(network(text).map(|target| target.to_string()).as_deref(), Some(target), "{text}");
        }
        for text in
            ["", "localhost", "192.0.2.0/33", "192.0.2.0/255.0.255.0", "192.0.2.", "/8", "192.0.2.0/-1"]
        {
            assert_eq!(network(text), None, "{text}");
        }
    }
}

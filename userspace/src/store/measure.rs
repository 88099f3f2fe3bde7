//! What befalls a target's packets, as the store keeps it: nothing for a plain block, else an object in JSON.

use serde::{Deserialize, Serialize};
use xdpban_engine::measure::{Action, Measure, Ports, Rate, Scope};

#[derive(Serialize, Deserialize)]
struct Written {
    /// Of a throttle, packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<std::num::NonZeroU32>,
    /// Of a throttle, packets at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<std::num::NonZeroU32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<u16>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    new_only: bool,
}

pub(super) fn to_json(measure: &Measure) -> Option<String> {
    if *measure == Measure::default() {
        return None;
    }
    let rate = match measure.action {
        Action::Block => None,
        Action::Throttle(rate) => Some(rate),
    };
    let written = Written {
        rate: rate.map(|rate| rate.per_second),
        burst: rate.map(|rate| rate.burst),
        ports: measure.scope.ports.iter().collect(),
        new_only: measure.scope.new_only,
    };
    // Numbers alone, which cannot fail to be written.
    serde_json::to_string(&written).ok()
}

pub(super) fn from_json(text: &str) -> Result<Measure, Box<dyn std::error::Error + Send + Sync>> {
    let written: Written = serde_json::from_str(text)?;
    let action = match (written.rate, written.burst) {
        (Some(per_second), Some(burst)) => Action::Throttle(Rate { per_second, burst }),
        (None, None) => Action::Block,
        _ => return Err(format!("`{text}` is no measure").into()),
    };
    let ports = Ports::new(&written.ports).ok_or_else(|| format!("`{text}` has odd ports"))?;
    Ok(Measure { action, scope: Scope { ports, new_only: written.new_only } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_comes_back_as_it_was() {
        let number = |n| std::num::NonZeroU32::new(n).unwrap();
        let rate = Rate { per_second: number(20), burst: number(40) };
        let scope = Scope { ports: Ports::new(&[22, 443]).unwrap(), new_only: true };
        assert_eq!(to_json(&Measure::default()), None);
        for measure in [
            Measure { action: Action::Throttle(rate), scope },
            Measure { action: Action::Throttle(rate), scope: Scope::default() },
            Measure { action: Action::Block, scope },
        ] {
            assert_eq!(from_json(&to_json(&measure).unwrap()).unwrap(), measure);
        }
        for odd in ["", "[]", "{\"rate\":1}", "{\"rate\":0,\"burst\":1}", "{\"ports\":[0]}"] {
            assert!(from_json(odd).is_err(), "{odd}");
        }
    }
}

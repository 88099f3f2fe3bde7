//! The licences of everything that is linked or built with: each dependency's expression must be one that its user may take
//! under a licence in [`ALLOWED`].

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Licences that go with `MIT OR Apache-2.0`.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks every package that `cargo metadata` names.
pub(crate) fn check(metadata: &Value) -> Result<()> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    let refused: Vec<String> = packages.iter().filter_map(refusal).collect();
    if refused.is_empty() {
        return Ok(());
    }
    bail!("licences that do not go with xdpban's:\n  {}", refused.join("\n  "))
}

fn refusal(package: &Value) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    let Some(expression) = package["license"].as_str() else { return Some(format!("{name}: names none")) };
    // Before SPDX expressions, crates wrote a slash for a choice.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    match (choice(&mut words), words.next()) {
        (Some(true), None) => None,
        (Some(false), None) => Some(format!("{name}: {expression}")),
        _ => Some(format!("{name}: `{expression}` is no SPDX expression")),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Whether `A OR B …` can be taken; none where the text makes no sense.
fn choice(words: &mut Words<'_>) -> Option<bool> {
    let mut allowed = all(words)?;
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all(words)?;
    }
    Some(allowed)
}

/// Whether `A AND B …` can be taken: `AND` binds closer than `OR`.
fn all(words: &mut Words<'_>) -> Option<bool> {
    let mut allowed = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words)?;
    }
    Some(allowed)
}

fn one(words: &mut Words<'_>) -> Option<bool> {
    let licence = words.next()?;
    if licence == "(" {
        let inner = choice(words)?;
        return (words.next()? == ")").then_some(inner);
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next()?;
        return Some(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()));
    }
    Some(ALLOWED.contains(&licence))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allowed(license: &str) -> bool {
        let package = json!({"name": "x", "version": "1.0.0", "license": license});
        check(&json!({ "packages": [package] })).is_ok()
    }

    #[test]
    fn takes_what_leaves_an_allowed_choice() {
        for license in [
            "MIT",
            "MIT OR GPL-2.0-only",
            "Unlicense/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-3.0-only OR MIT AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        ] {
            assert!(allowed(license), "{license}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for license in [
            "GPL-2.0-only",
            "MIT AND GPL-2.0-only",
            "(MIT OR Apache-2.0) AND MPL-2.0",
            "GPL-2.0-only WITH LLVM-exception",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "",
        ] {
            assert!(!allowed(license), "{license}");
        }
        assert!(check(&json!({"packages": [{"name": "x", "version": "1.0.0", "license": null}]})).is_err());
    }
}

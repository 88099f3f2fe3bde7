//! How single values are read: from TOML to the type that they stand for, or to a sentence that says what is wrong.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;
use xdpban_engine::target::Target;

use super::Selector;
use super::duration;
use super::keys;

/// What a value is, in words.
pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn expected(what: impl Display, found: &DeValue<'_>) -> String {
    format!("expected {what}, found {}", describe(found))
}

/// A string.
pub(super) fn string<'d>(value: &'d DeValue<'_>) -> Result<&'d str, String> {
    value.as_str().ok_or_else(|| expected("a string in quotes", value))
}

/// The name of a program, as the header of a record gives it.
pub(super) fn program(value: &DeValue<'_>) -> Result<String, String> {
    word(value, "the name of a program")
}

/// `what`, which has no spaces in it.
pub(super) fn word(value: &DeValue<'_>, what: &str) -> Result<String, String> {
    let word = line(value)?;
    if word.contains(char::is_whitespace) {
        return Err(format!("{what} has no spaces in it, `{}` has", keys::short(&word)));
    }
    Ok(word)
}

/// A name or a description: a string with something in it, on one line.
pub(super) fn line(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it has line ends or other control characters in it".to_owned());
    }
    Ok(text.to_owned())
}

/// One value, or several in an array, each as `read` understands it.
pub(super) fn several<'d, T>(
    value: &'d DeValue<'d>,
    read: impl Fn(&'d DeValue<'d>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match value {
        DeValue::Array(values) if values.is_empty() => Err("it is empty".to_owned()),
        DeValue::Array(values) => values.iter().map(|value| read(value.get_ref())).collect(),
        one => Ok(vec![read(one)?]),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

/// A whole number within `range`.
pub(super) fn whole<T>(value: &DeValue<'_>, range: RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + Display + PartialOrd + TryFrom<i64>,
{
    let what = format!("a whole number from {} to {}", range.start(), range.end());
    let DeValue::Integer(integer) = value else { return Err(expected(what, value)) };
    i64::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("expected {what}, found {}", keys::short(&integer.to_string())))
}

/// One of `choices`, by its name.
pub(super) fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, String> {
    let name = string(value)?;
    choices.iter().find(|(known, _)| *known == name).map(|(_, choice)| *choice).ok_or_else(|| {
        let known: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
        keys::unknown_name(name, &known)
    })
}

/// A duration: a string such as `10m`, or a whole number of seconds.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match value {
        DeValue::String(text) => duration::parse(text).map_err(|error| error.to_string()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if number <= 0 => Err(duration::DurationError::NotPositive.to_string()),
            Ok(number) => u64::try_from(number)
                .map_err(|_| duration::DurationError::TooLong)
                .and_then(duration::seconds)
                .map_err(|error| error.to_string()),
            Err(_) => Err(duration::DurationError::TooLong.to_string()),
        },
        other => Err(expected("a duration such as \"10m\", or whole seconds", other)),
    }
}

/// A size in bytes: a string such as `4GB`, in powers of ten, or a whole number.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] =
        [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1)];
    let what = "a size such as \"500MB\" or \"4GB\"";
    let (number, unit) = match value {
        DeValue::String(text) => {
            let unit = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
            let (number, unit) = unit.unwrap_or((text, 1));
            (number.trim_end().parse::<u64>().ok(), unit)
        }
        DeValue::Integer(integer) => (u64::from_str_radix(integer.as_str(), integer.radix()).ok(), 1),
        other => return Err(expected(what, other)),
    };
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("expected {what}, in B, kB, MB, GB or TB"))
}

/// The absolute path of a file or directory.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let text = string(value)?;
    if text.contains('\0') {
        return Err("a path has no NUL in it".to_owned());
    }
    let path = PathBuf::from(text);
    if path.is_relative() {
        return Err(format!("`{}` is not an absolute path; it must begin with `/`", keys::short(text)));
    }
    Ok(path)
}

/// An address or a prefix.
pub(super) fn target(value: &DeValue<'_>) -> Result<Target, String> {
    string(value)?.parse::<Target>().map_err(|error| error.to_string())
}

/// The name of a network interface, as the kernel allows them (`dev_valid_name` in its `net/core/dev.c`), or a pattern.
pub(super) fn interface(value: &DeValue<'_>) -> Result<String, String> {
    const MAX: usize = 15;
    /// A pattern says more than the name that it matches.
    const MAX_PATTERN: usize = 64;
    let name = string(value)?;
    if name.is_empty() {
        return Err("the name of an interface is empty".to_owned());
    }
    let max = if matches!(Selector::parse(name), Selector::Pattern(_)) { MAX_PATTERN } else { MAX };
    let odd = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name.len() > max || name == "." || name == ".." || name.contains(odd) {
        return Err(format!("no interface can be called `{}`", keys::short(name)));
    }
    Ok(name.to_owned())
}

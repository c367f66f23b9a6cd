//! Reading values, in the forms that Felix takes: booleans in many words, durations as seconds or in Go's
//! notation, masks in hex.

use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use tortie_api::net::PortRange;

/// A value of one of the types that can be read from text.
pub(super) fn parse<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not {expected}"))
}

/// `true 1 yes y t`, `false 0 no n f`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "f" => Ok(false),
        _ => Err(format!("{text:?} is not true or false")),
    }
}

/// One of some words, in any case.
pub(super) fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        format!("{text:?} is not one of {}", words.join(", "))
    })
}

/// The longest duration that makes sense in a setting.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// Seconds (`90`, `0.5`) or Go's notation (`1m30s`, `500ms`), at most a year; `none` is zero. A bare number is in
/// `unit` seconds.
pub(super) fn duration(text: &str, unit: f64) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration like 90, 0.5 or 1m30s, of at most a year");
    let text = text.trim();
    if is_none(text) {
        return Ok(Duration::ZERO);
    }
    let seconds = match text.parse::<f64>() {
        Ok(number) => number * unit,
        Err(_) => go_duration(text).ok_or_else(bad)?,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= LONGEST).ok_or_else(bad)
}

fn go_duration(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] =
        [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * seconds;
    }
    (!text.is_empty()).then_some(total)
}

/// A number, decimal or with `0x`.
pub(super) fn mask(text: &str) -> Result<u32, String> {
    let trimmed = text.trim();
    let parsed = match trimmed.strip_prefix("0x").or_else(|| trimmed.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => trimmed.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a 32-bit mask like 0xffff0000"))
}

/// `first:last`.
pub(super) fn port_range(text: &str) -> Result<PortRange, String> {
    let bad = || format!("{text:?} is not a port range like 32768:65535");
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let port = |t: &str| t.trim().parse::<u16>().map_err(|_| bad());
    PortRange::new(port(first)?, port(last)?).ok_or_else(bad)
}

/// The entries of a list: with commas between, or as a `FelixConfiguration` holds it, in JSON. `none` has none.
pub(super) fn list(text: &str) -> Vec<String> {
    if is_none(text) {
        return Vec::new();
    }
    if let Ok(Value::Array(entries)) = serde_json::from_str(text) {
        let text = |entry: Value| match entry {
            Value::String(text) => text,
            other => other.to_string(),
        };
        return entries.into_iter().map(text).collect();
    }
    text.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

/// `none` in any case, which stands for no value.
pub(super) fn is_none(text: &str) -> bool {
    text.trim().is_empty() || text.trim().eq_ignore_ascii_case("none")
}

/// A value, or nothing for `none`.
pub(super) fn optional<T: FromStr>(text: &str, expected: &str) -> Result<Option<T>, String> {
    if is_none(text) { Ok(None) } else { parse(text, expected).map(Some) }
}

//! Lengths of time as kubectl takes them: `20s`, `1m30s`, `1.5h`, `500ms`.

use std::time::Duration;

/// The longest that makes sense: a year.
const MAX: Duration = Duration::from_hours(365 * 24);

/// Reads a length of time; a bare number counts seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time; write it like 20s, 1m30s or 500ms");
    if let Ok(secs) = text.parse::<u64>() {
        return within_bounds(Duration::from_secs(secs));
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let secs = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * secs;
        rest = tail;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(sum).map_err(|_| too_long()).and_then(within_bounds)
}

/// A length of time in its largest unit: `20s`, `1.5s`, `500ms`, `0s`.
pub(crate) fn show(duration: Duration) -> String {
    if duration.is_zero() { "0s".to_owned() } else { format!("{duration:?}") }
}

fn within_bounds(duration: Duration) -> Result<Duration, String> {
    if duration > MAX { Err(too_long()) } else { Ok(duration) }
}

fn too_long() -> String {
    "is longer than a year".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_kubectl_does() {
        for (text, millis) in [
            ("20s", 20_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("0s", 0),
            ("7", 7_000),
            ("1h2m3s4ms", 3_723_004),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "20 s",
            "20x",
            "1m30",
            "1..5s",
            ".",
            "99999999999999999999",
            "1e9h",
            "9999999h",
            "∞",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

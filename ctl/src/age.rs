//! Ages as kubectl shows them.

use std::time::{SystemTime, UNIX_EPOCH};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Seconds since 1970 of the system's clock.
pub(crate) fn now_secs() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The age of something that came to be at `timestamp` (RFC 3339).
pub(crate) fn age(timestamp: Option<&str>, now_secs: i64) -> String {
    match timestamp {
        None => "<unknown>".to_owned(),
        Some(timestamp) => match parse(timestamp) {
            Some(secs) => human(now_secs - secs),
            None => "<invalid>".to_owned(),
        },
    }
}

/// About two digits of precision, in one or two units. Clocks may differ by a second.
fn human(secs: i64) -> String {
    let two = |unit: i64, name: &str, small: i64, small_name: &str| {
        let rest = secs % unit / small;
        if rest == 0 {
            format!("{}{name}", secs / unit)
        } else {
            format!("{}{name}{rest}{small_name}", secs / unit)
        }
    };
    match secs {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if secs < 2 * MINUTE => format!("{secs}s"),
        _ if secs < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        _ if secs < 3 * HOUR => format!("{}m", secs / MINUTE),
        _ if secs < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        _ if secs < 2 * DAY => format!("{}h", secs / HOUR),
        _ if secs < 8 * DAY => two(DAY, "d", HOUR, "h"),
        _ if secs < 2 * YEAR => format!("{}d", secs / DAY),
        _ if secs < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", secs / YEAR),
    }
}

/// Seconds since 1970 of a time like `2026-01-31T12:00:00.5+01:00` (RFC 3339, section 5.6).
fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let is_valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let secs = days_since_1970(year, month, day) * DAY + hour * HOUR + minute * MINUTE + second;
    is_valid.then_some(secs - offset(zone)?)
}

/// Seconds that a time zone is east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, clock) = zone.split_at_checked(1)?;
    let [hours, minutes] = numbers(clock, ':', [2, 2])?;
    let secs = hours * HOUR + minutes * MINUTE;
    Some(if sign == "-" { -secs } else { secs })
}

fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part =
            parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day is the
/// last day of a year, and in eras of 400 years, which all have the same number of days.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-07-01T00:00:00Z", 1_782_864_000),
            ("2026-07-01T02:00:00.25+02:00", 1_782_864_000),
            ("2026-06-30T19:00:00-05:00", 1_782_864_000),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(parse(text), Some(secs), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "T",
            "yesterday",
            "2026-07-01",
            "2026-07-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-7-1T0:0:0Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn ages_read_as_kubectls() {
        for (secs, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (14_700, "4h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_244_800, "2y2d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human(secs), text, "{secs}");
        }
    }

    #[test]
    fn an_object_without_a_time_has_no_age() {
        assert_eq!(age(None, 0), "<unknown>");
        assert_eq!(age(Some("?"), 0), "<invalid>");
        assert_eq!(age(Some("1970-01-01T00:00:00Z"), 5), "5s");
    }
}

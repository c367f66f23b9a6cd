//! Plain scalars by the core schema of YAML 1.2: what is null, a boolean, a number or a text.
//!
//! One deviation: a number that begins with 0 is octal (`defaultMode: 0644`), as it is for kubectl.

use serde_json::{Number, Value};

/// What an unquoted text stands for.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(text)? {
            Some(number) => Value::Number(number),
            None => Value::String(text.to_owned()),
        },
    })
}

fn number(text: &str) -> Result<Option<Number>, String> {
    let (is_negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("{text} is no number that a field can hold"));
    }
    if let Some(radix_and_digits) = radix(digits) {
        let (radix, digits) = radix_and_digits;
        return integer(digits, radix, is_negative)
            .map(Some)
            .ok_or_else(|| format!("{text} is outside the range of 64-bit numbers"));
    }
    if !is_float(digits) {
        return Ok(None);
    }
    if digits.bytes().all(|b| b.is_ascii_digit())
        && let Some(number) = integer(digits, 10, is_negative)
    {
        return Ok(Some(number));
    }
    let float = text.parse().ok().and_then(Number::from_f64);
    float.map(Some).ok_or_else(|| format!("{text} is outside the range of numbers"))
}

/// Radix and digits of `0x1f`, `0o17`, `0b11` and `017`.
fn radix(digits: &str) -> Option<(u32, &str)> {
    let (radix, digits) = if let Some(rest) = digits.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = digits.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = digits.strip_prefix("0b") {
        (2, rest)
    } else {
        (8, digits.strip_prefix('0')?)
    };
    (!digits.is_empty() && digits.chars().all(|c| c.is_digit(radix))).then_some((radix, digits))
}

fn integer(digits: &str, radix: u32, is_negative: bool) -> Option<Number> {
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if is_negative { -magnitude } else { magnitude };
    u64::try_from(value).map(Number::from).or_else(|_| i64::try_from(value).map(Number::from)).ok()
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let exponent_is_good = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && all_digits(digits)
    });
    has_digits && all_digits(whole) && all_digits(fraction) && exponent_is_good
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_the_core_schema_are_no_texts() {
        for (text, value) in [
            ("~", json!(null)),
            ("null", json!(null)),
            ("True", json!(true)),
            ("false", json!(false)),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("nil", json!("nil")),
        ] {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn numbers_are_numbers() {
        for (text, value) in [
            ("0", json!(0)),
            ("80", json!(80)),
            ("+80", json!(80)),
            ("-5", json!(-5)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("0644", json!(420)),
            ("08", json!(8)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
        ] {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_a_text() {
        for text in [
            "1.2.3",
            "10.0.0.1",
            "10.0.0.0/8",
            "8000:8010",
            "-",
            "+",
            ".",
            "1e",
            "e5",
            "0x",
            "0xg",
            "1_000",
            "--1",
            "fd00::1",
        ] {
            assert_eq!(resolve(text), Ok(json!(text)), "{text}");
        }
    }

    #[test]
    fn what_no_field_can_hold_is_refused() {
        for text in [".nan", ".inf", "-.Inf", "1e999", "0xffffffffffffffffff"] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}

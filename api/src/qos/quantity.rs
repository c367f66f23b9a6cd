//! Kubernetes' notation of numbers: `100`, `1.5k`, `4Gi`, `2e3`, `500m`.

/// Digits that are taken; more could not be told from 10^20 by anything that is limited here.
const DIGITS_MAX: usize = 18;

/// The whole number that the text stands for, rounded up as Kubernetes does. None if it is no quantity, or has more
/// than 18 digits.
pub(super) fn quantity(text: &str) -> Option<i128> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let mantissa = sign * digits.parse::<i128>().ok()?;
    let (factor, divisor) = scale(suffix)?;
    let divisor = divisor * power_of_ten(u32::try_from(fraction.len()).ok()?);
    let product = mantissa.checked_mul(factor)?;
    let (quotient, is_exact) = (product.div_euclid(divisor), product.rem_euclid(divisor) == 0);
    Some(if is_exact { quotient } else { quotient + 1 })
}

/// What a suffix multiplies with, and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = ["", "k", "M", "G", "T", "P", "E"];
    let binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let small = ["", "m", "u", "n"];
    let place = |list: &[&str]| list.iter().position(|s| *s == suffix).and_then(|at| u32::try_from(at).ok());
    if let Some(at) = place(&decimal) {
        return Some((power_of_ten(3 * at), 1));
    }
    if let Some(at) = place(&binary) {
        return Some((1 << (10 * at), 1));
    }
    if let Some(at) = place(&small) {
        return Some((1, power_of_ten(3 * at)));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = (exponent.unsigned_abs() <= 18).then(|| power_of_ten(exponent.unsigned_abs()))?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

/// `exponent` is at most 18, so this cannot overflow.
fn power_of_ten(exponent: u32) -> i128 {
    10_i128.pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("0", 0),
            ("100", 100),
            ("1k", 1000),
            ("1.5k", 1500),
            ("1.1k", 1100),
            ("4Gi", 4 << 30),
            ("2e3", 2000),
            ("2E", 2_000_000_000_000_000_000),
            ("500m", 1),
            ("2500m", 3),
            (".5", 1),
            ("5.", 5),
            ("-3", -3),
            ("-1500m", -1),
            ("+7", 7),
        ];
        for (text, number) in cases {
            assert_eq!(quantity(text), Some(number), "{text}");
        }
        for text in ["", "k", "1K", "1 k", "1.2.3", "ten", "1e", "1e99", "--1", "9999999999999999999"] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }
}

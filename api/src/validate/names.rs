//! Forms of names, label keys and label values (Kubernetes' `apimachinery/pkg/util/validation`).

/// Longest DNS label (RFC 1123).
pub const LABEL_MAX: usize = 63;

/// Longest DNS subdomain (RFC 1123).
pub const SUBDOMAIN_MAX: usize = 253;

/// Lower-case letters, digits and `-`, not at the ends, at most 63.
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && is_label_of_any_length(text)
}

/// Lower-case labels of any length joined by dots, at most 253 in all.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(is_label_of_any_length)
}

fn is_label_of_any_length(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(is_inner)
}

/// A name of at most 63 letters, digits, `-`, `_` and `.` that begins and ends with a letter or digit.
fn is_plain_name(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    (1..=LABEL_MAX).contains(&bytes.len())
        && bytes.iter().all(|b| is_inner(*b))
        && is_end(bytes.first())
        && is_end(bytes.last())
}

/// The key of a label or annotation: a plain name, after a DNS subdomain and `/` if need be.
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_plain_name(name),
        None => is_plain_name(text),
    }
}

/// The value of a label: empty or a plain name.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_plain_name(text)
}

/// The name of a port in Kubernetes (RFC 6335): at most 15 lower-case letters, digits and `-`, a letter
/// among them, no `-` at the ends or doubled.
pub fn is_service_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_label_of_any_length(text)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_63_characters_and_no_dash_at_the_ends() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "a-b", "default", &longest] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "A", "a_b", &"a".repeat(64), "ä"] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn subdomains_have_253_characters_and_no_empty_part() {
        for good in ["a.b", "node-1.example.com", &"a".repeat(253)] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", ".", "a..b", ".a", "a.", "a.-b", &"a".repeat(254)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn label_keys_may_have_a_prefix() {
        for good in ["app", "App_1.x", "example.com/app", "projectcalico.org/namespace"] {
            assert!(is_qualified_name(good), "{good}");
        }
        for bad in ["", "/app", "a/", "a/b/c", "Example.com/app", "-app", "app-", "a b", &"a".repeat(64)] {
            assert!(!is_qualified_name(bad), "{bad}");
        }
    }

    #[test]
    fn label_values_may_be_empty() {
        assert!(is_label_value("") && is_label_value("v1.2_x"));
        assert!(!is_label_value(".x") && !is_label_value("a/b") && !is_label_value(&"a".repeat(64)));
    }

    #[test]
    fn port_names_have_a_letter_and_no_double_dash() {
        assert!(is_service_port_name("http") && is_service_port_name("p-80"));
        for bad in ["80", "a--b", "-a", "HTTP", "a-very-long-name", ""] {
            assert!(!is_service_port_name(bad), "{bad}");
        }
    }
}

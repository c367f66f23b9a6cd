//! Names and ids that are digests of longer texts: ip-set ids, and chain names that must fit the kernel's limits.
//!
//! Base64 is the URL-safe alphabet without padding throughout. The rules are Felix's, so that chains and sets
//! of a node keep their names when Tortie takes over from it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha224, Sha256};

/// Base64 of the SHA-224 of `content`: 38 characters.
pub fn sha224_b64(content: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(Sha224::digest(content.as_ref()))
}

/// The id of the thing that `content` describes: `prefix`, a colon, and 38 characters of digest.
///
/// The digest covers the prefix too, so kinds of things with the same content have unrelated ids.
pub fn unique_id(prefix: &str, content: &str) -> String {
    format!("{prefix}:{}", sha224_b64(format!("{prefix}:{content}")))
}

/// `prefix` and `suffix` joined to a name of at most `max` bytes.
///
/// A suffix that does not fit is replaced by `_` and as much of its digest (SHA-256) as fits. A name that
/// fits exactly and whose suffix begins with `_` is replaced as well: nobody can choose a suffix that reads
/// like the digest of another. An empty suffix counts as `_`.
///
/// `max` should leave room after `prefix`; if it does not, the prefix itself is cut.
pub fn length_limited(prefix: &str, suffix: &str, max: usize) -> String {
    let suffix = if suffix.is_empty() { "_" } else { suffix };
    let length = prefix.len() + suffix.len();
    if length < max || (length == max && !suffix.starts_with('_')) {
        return format!("{prefix}{suffix}");
    }
    let mut name = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(Sha256::digest(suffix)));
    name.truncate(name.floor_char_boundary(max));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_ids_are_those_of_felix() {
        assert_eq!(unique_id("s", "all()"), "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug");
        assert_eq!(unique_id("s", "role == \"client\""), "s:Djx4jfRE_TwnMVpqaxS1NR3o9coFLerM7iAUzw");
    }

    #[test]
    fn the_prefix_is_part_of_the_digest() {
        let (selector, service) = (unique_id("s", "x"), unique_id("svc", "x"));
        assert_eq!(selector.len(), 2 + 38);
        assert_ne!(selector.strip_prefix("s:"), service.strip_prefix("svc:"));
    }

    #[test]
    fn sha224_is_the_standard_one() {
        // FIPS 180-4 example: SHA-224("abc") = 23097d22 3405d822 8642a477 bda255b3 2aadbce4 bda0b3f7 e36c9da7
        assert_eq!(sha224_b64("abc"), "Iwl9IjQF2CKGQqR3vaJVsyqtvOS9oLP342ydpw");
    }

    #[test]
    fn a_name_that_fits_is_kept() {
        assert_eq!(length_limited("cali-tw-", "cali1234", 28), "cali-tw-cali1234");
        assert_eq!(length_limited("felix", "12345", 10), "felix12345");
        assert_eq!(length_limited("felix", "_234", 10), "felix_234");
    }

    #[test]
    fn a_name_that_is_too_long_ends_in_a_digest() {
        assert_eq!(length_limited("felix", "12345678910", 13), "felix_Y2QCZIS");
        assert_eq!(length_limited("felix", "123456", 10).len(), 10);
    }

    #[test]
    fn a_name_of_exactly_the_limit_cannot_pass_for_a_digest() {
        assert_eq!(length_limited("felix", "_2345", 10), "felix_kMQI");
    }

    #[test]
    fn an_empty_suffix_is_an_underscore() {
        assert_eq!(length_limited("cali-pi-", "", 28), "cali-pi-_");
        assert_eq!(length_limited("felix", "", 6), length_limited("felix", "_", 6));
    }

    #[test]
    fn no_limit_is_exceeded_even_if_the_prefix_is_longer() {
        for max in 0..60 {
            assert!(length_limited("préfix-", "some-long-suffix-of-a-policy", max).len() <= max, "{max}");
        }
    }
}

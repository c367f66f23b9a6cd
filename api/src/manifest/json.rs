//! The one escape of JSON that is none of YAML: a character beyond the basic plane as a pair of surrogates.

/// A JSON text with such pairs replaced by their characters. `None` if there are none or it is no JSON.
pub(super) fn joined_surrogates(text: &str) -> Option<String> {
    text.trim_start().starts_with(['{', '[']).then_some(())?;
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_changed = false;
    while let Some(at) = rest.find('\\') {
        joined.push_str(&rest[..at]);
        rest = &rest[at..];
        let width = if let Some(character) = pair(rest) {
            joined.push(character);
            is_changed = true;
            PAIR_BYTES
        } else {
            // A backslash and what it escapes, which may be a backslash itself.
            let width = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            joined.push_str(&rest[..width]);
            width
        };
        rest = &rest[width..];
    }
    joined.push_str(rest);
    is_changed.then_some(joined)
}

/// Length of `\ud83d\ude00`.
const PAIR_BYTES: usize = 12;

fn pair(text: &str) -> Option<char> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
    };
    let units = [unit(text)?, unit(text.get(6..)?)?];
    char::decode_utf16(units).next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_characters() {
        assert_eq!(joined_surrogates(r#"{"a": "x\ud83d\ude00y"}"#).as_deref(), Some(r#"{"a": "x😀y"}"#));
    }

    #[test]
    fn an_escaped_backslash_begins_no_pair() {
        assert_eq!(joined_surrogates(r#"{"a": "\\ud83d\\ude00"}"#), None);
    }

    #[test]
    fn half_a_pair_stays_an_error() {
        assert_eq!(joined_surrogates(r#"{"a": "\ud83d"}"#), None);
        assert_eq!(joined_surrogates(r#"{"a": "\ude00\ud83d"}"#), None);
        assert_eq!(joined_surrogates("{\"a\": \"\\"), None);
    }

    #[test]
    fn only_json_is_changed() {
        assert_eq!(joined_surrogates(r"a: '\ud83d\ude00'"), None);
    }
}

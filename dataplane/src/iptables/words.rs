//! The words of a rule as `iptables-save` prints it and `iptables-restore` reads it.

/// Splits at blanks; a word in double quotes is one word, handed out without the quotes. Backslashes stay.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    rest: &'a str,
}

/// The words of a line.
pub(super) fn words(line: &str) -> Words<'_> {
    Words { rest: line }
}

impl<'a> Words<'a> {
    /// What was not split yet, without blanks at its ends.
    pub(super) fn rest(&self) -> &'a str {
        self.rest.trim_matches(' ')
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start_matches(' ');
        if let Some(body) = text.strip_prefix('"') {
            let end = closing_quote(body);
            self.rest = body.get(end + 1..).unwrap_or("");
            return Some(&body[..end]);
        }
        let end = text.find(' ').unwrap_or(text.len());
        self.rest = &text[end..];
        (end > 0).then(|| &text[..end])
    }
}

fn closing_quote(body: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    body.len()
}

/// The chain or target that a rule jumps or goes to.
pub(super) fn target(rule: &str) -> Option<&str> {
    let mut words = words(rule);
    while let Some(word) = words.next() {
        if is_jump(word) {
            return words.next();
        }
    }
    None
}

/// Whether the word after this one is a target.
pub(super) fn is_jump(word: &str) -> bool {
    matches!(word, "-j" | "-g" | "--jump" | "--goto")
}

/// Into how many rules of the kernel this rule's lists of addresses make `iptables` expand it.
pub(super) fn address_copies(rule: &str) -> usize {
    let mut words = words(rule);
    let mut copies = 1;
    while let Some(word) = words.next() {
        if matches!(word, "-s" | "--source" | "--src" | "-d" | "--destination" | "--dst") {
            copies *= 1 + words.next().map_or(0, |list| list.matches(',').count());
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_are_one_word() {
        let line = r#"-A FORWARD -m comment --comment "a \"b\" -j DROP" -j cali-FORWARD"#;
        let all: Vec<&str> = words(line).collect();
        assert_eq!(
            all,
            ["-A", "FORWARD", "-m", "comment", "--comment", r#"a \"b\" -j DROP"#, "-j", "cali-FORWARD"]
        );
        assert_eq!(target(line), Some("cali-FORWARD"));
    }

    #[test]
    fn an_open_quote_runs_to_the_end() {
        assert_eq!(words(r#"a "b c"#).collect::<Vec<_>>(), ["a", "b c"]);
        assert_eq!(words("").next(), None);
        assert_eq!(words("  ").next(), None);
    }

    #[test]
    fn address_lists_multiply() {
        assert_eq!(address_copies("-s 1.1.1.1 -j DROP"), 1);
        assert_eq!(address_copies("--source 1.1.1.1,2.2.2.2 -d 3.3.3.3,4.4.4.4,5.5.5.5 -j DROP"), 6);
        assert_eq!(address_copies("-m multiport --dports 1,2,3 -j DROP"), 1);
    }
}

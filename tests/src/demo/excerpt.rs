//! What a user would look for in the kernel, cut out of what `iptables-save` and `ipset list` print. Pure.

/// The rules of a chain, as printed, in order.
pub fn rules<'a>(save: &'a str, chain: &str) -> Vec<&'a str> {
    let start = format!("-A {chain} ");
    save.lines().filter(|line| line.starts_with(&start)).collect()
}

/// The first chain whose name begins with `prefix` and ends with `suffix`.
pub fn find_chain<'a>(save: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    let names = save.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    names.into_iter().find(|name| name.starts_with(prefix) && name.ends_with(suffix))
}

/// The first IP set that one of the rules matches.
pub fn first_set<'a>(rules: &[&'a str]) -> Option<&'a str> {
    rules.iter().find_map(|rule| {
        let mut words = rule.split(' ').skip_while(|word| *word != "--match-set");
        words.nth(1)
    })
}

/// What `ipset list` printed, without the lines that only a debugger reads and with at most `most` members.
pub fn shorten_set(list: &str, most: usize) -> Vec<String> {
    let wanted = ["Name:", "Type:", "Number of entries:"];
    let (header, members) = list.split_once("Members:\n").unwrap_or((list, ""));
    let mut lines: Vec<String> =
        header.lines().filter(|line| wanted.iter().any(|w| line.starts_with(w))).map(str::to_owned).collect();
    lines.push("Members:".to_owned());
    lines.extend(members.lines().take(most).map(str::to_owned));
    let left = members.lines().count().saturating_sub(most);
    if left > 0 {
        lines.push(format!("… {left} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVE: &str = "*filter\n:cali-pi-a - [0:0]\n:cali-po-b - [0:0]\n-A cali-pi-a -m set --match-set s1 src -j X\n\
                        -A cali-pi-ab -j X\n-A cali-pi-a -j Y\nCOMMIT\n";

    #[test]
    fn the_rules_of_a_chain_are_not_those_of_one_with_a_longer_name() {
        assert_eq!(rules(SAVE, "cali-pi-a").len(), 2);
        assert_eq!(rules(SAVE, "cali-pi-"), [""; 0]);
    }

    #[test]
    fn a_chain_is_found_by_both_ends_of_its_name() {
        assert_eq!(find_chain(SAVE, "cali-p", "-b"), Some("cali-po-b"));
        assert_eq!(find_chain(SAVE, "cali-pi-", "-b"), None);
    }

    #[test]
    fn the_set_of_a_rule_is_the_word_after_its_match() {
        assert_eq!(first_set(&rules(SAVE, "cali-pi-a")), Some("s1"));
        assert_eq!(first_set(&["-A c -j X", "-A c --match-set"]), None);
    }

    #[test]
    fn a_long_set_is_shortened_and_says_so() {
        let list = "Name: s\nType: hash:ip\nRevision: 6\nNumber of entries: 3\nMembers:\n1.1.1.1\n1.1.1.2\n1.1.1.3\n";
        let expected =
            ["Name: s", "Type: hash:ip", "Number of entries: 3", "Members:", "1.1.1.1", "… 2 more"];
        assert_eq!(shorten_set(list, 1), expected);
        assert_eq!(shorten_set(list, 3).len(), 7);
    }
}

//! What `iptables-save` prints, and the smallest `iptables-restore --noflush` input that turns one such state into
//! another: what a person who knew exactly what changed would type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// All tables of one IP version: rules by table and chain, as `-A …` lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ruleset(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl Ruleset {
    /// Reads the output of `iptables-save`.
    pub(super) fn parse(saved: &str) -> Self {
        let mut tables: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
        let mut table = String::new();
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
                tables.entry(table.clone()).or_default();
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or(chain);
                tables.entry(table.clone()).or_default().entry(name.to_owned()).or_default();
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let name = rule.split(' ').next().unwrap_or(rule);
                let chains = tables.entry(table.clone()).or_default();
                chains.entry(name.to_owned()).or_default().push(line.to_owned());
            }
        }
        Self(tables)
    }

    /// The tables in which `other` differs.
    pub(super) fn changed_tables(&self, other: &Self) -> usize {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).count()
    }

    /// The chains of `next` that are new or different, by table.
    fn written<'a>(&self, next: &'a Self) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a [String]>> {
        let none = BTreeMap::new();
        let mut written: BTreeMap<&str, BTreeMap<&str, &[String]>> = BTreeMap::new();
        for (table, chains) in &next.0 {
            let old = self.0.get(table).unwrap_or(&none);
            let changed = chains.iter().filter(|(name, rules)| old.get(*name) != Some(rules));
            let changed: BTreeMap<&str, &[String]> =
                changed.map(|(name, rules)| (name.as_str(), rules.as_slice())).collect();
            if !changed.is_empty() {
                written.insert(table, changed);
            }
        }
        written
    }

    /// Input for `iptables-restore --noflush` that makes this ruleset `next`, but for chains that are to go. Empty
    /// when there is nothing to write.
    pub(super) fn difference(&self, next: &Self) -> String {
        let mut text = String::new();
        for (table, chains) in self.written(next) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "*{table}");
            for name in chains.keys() {
                let _ = writeln!(text, ":{name} - -");
            }
            for rule in chains.values().copied().flatten() {
                let _ = writeln!(text, "{rule}");
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// The chains with rules that [`difference`](Self::difference) writes.
    pub(super) fn changed_chains<'a>(&self, next: &'a Self) -> BTreeSet<&'a str> {
        let chains = self.written(next).into_values().flatten();
        chains.filter(|(_, rules)| !rules.is_empty()).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "*filter\n:INPUT ACCEPT [0:0]\n:cali-a - [0:0]\n:cali-b - [0:0]\n-A INPUT -j cali-a\n\
         -A cali-a -j cali-b\nCOMMIT\n*nat\n:cali-n - [0:0]\nCOMMIT\n";

    #[test]
    fn a_ruleset_does_not_differ_from_itself() {
        let rules = Ruleset::parse(BEFORE);
        assert_eq!(rules.difference(&rules), "");
        assert_eq!(rules.changed_tables(&rules), 0);
    }

    #[test]
    fn the_difference_holds_the_whole_of_each_chain_that_changed() {
        let before = Ruleset::parse(BEFORE);
        let after =
            Ruleset::parse(&BEFORE.replace("-A cali-a -j cali-b", "-A cali-a -j cali-b\n-A cali-a -j DROP"));
        assert_eq!(
            before.difference(&after),
            "*filter\n:cali-a - -\n-A cali-a -j cali-b\n-A cali-a -j DROP\nCOMMIT\n"
        );
        assert_eq!(before.changed_tables(&after), 1);
        assert_eq!(before.changed_chains(&after).into_iter().collect::<Vec<_>>(), ["cali-a"]);
    }
}

//! Reads the output of `iptables-save -t TABLE`: which chains are ours, which rules they hold.
//!
//! Line by line as it comes; of foreign rules nothing is kept but their number and whether they refer to
//! a chain of ours. Rules of ours are known by the id in their comment, never by their text, which the
//! kernel and the back ends print in their own ways.

use std::collections::{BTreeMap, BTreeSet};

use tortie_rules::render::{RuleId, Table};

use super::words::{is_jump, words};

/// Chains whose names begin so are ours. The last seven are those of older Calico releases.
const OUR_PREFIXES: [&str; 8] =
    ["cali-", "califw-", "calitw-", "califh-", "calith-", "calipi-", "calipo-", "felix-"];

/// Whether a chain of this name is ours.
pub fn is_ours(chain: &str) -> bool {
    OUR_PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// A position in a chain of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A rule with an id.
    Rule(RuleId),
    /// A rule that is not ours or has lost its id.
    Unknown,
}

/// A position in a chain of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookSlot {
    /// Somebody else's rule.
    Foreign,
    /// A rule of ours, or left behind by an older release.
    Ours {
        /// `None` for one without an id that we could have written.
        id: Option<RuleId>,
        /// The rule without `-A CHAIN `: deletion is by value.
        text: String,
    },
}

/// What one chain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A chain of ours.
    Ours(Vec<Slot>),
    /// A chain of the kernel.
    Kernel(&'static str, Vec<HookSlot>),
    /// There is no such chain.
    Nothing,
}

/// What a table holds, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Our chains.
    pub chains: BTreeMap<String, Vec<Slot>>,
    /// The kernel's chains that exist.
    pub kernel: BTreeMap<&'static str, Vec<HookSlot>>,
    /// Chains of ours that foreign chains refer to, with one such chain each. They cannot be deleted.
    pub pinned: BTreeMap<String, String>,
    /// The table holds what only `nft` can show; the rest of this snapshot is then incomplete.
    pub incompatible: bool,
}

/// Takes the output in pieces, cut anywhere.
#[derive(Debug)]
pub struct SaveParser {
    table: Table,
    in_table: bool,
    partial: Vec<u8>,
    snapshot: Snapshot,
    /// Names of foreign chains, one copy each, for `pinned`.
    foreign: BTreeSet<String>,
}

impl SaveParser {
    /// A parser of this table's part.
    pub fn new(table: Table) -> Self {
        Self {
            table,
            in_table: false,
            partial: Vec::new(),
            snapshot: Snapshot::default(),
            foreign: BTreeSet::new(),
        }
    }

    /// A parser of rules that are known to be this table's, as `iptables -S` prints them.
    pub fn inside(table: Table) -> Self {
        Self { in_table: true, ..Self::new(table) }
    }

    /// The next piece of the output.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.line(&String::from_utf8_lossy(&piece[..end]));
            } else {
                self.partial.extend_from_slice(&piece[..end]);
                let line = std::mem::take(&mut self.partial);
                self.line(&String::from_utf8_lossy(&line));
            }
            piece = &piece[end + 1..];
        }
        self.partial.extend_from_slice(piece);
    }

    /// What was read.
    pub fn finish(mut self) -> Snapshot {
        let rest = std::mem::take(&mut self.partial);
        self.line(&String::from_utf8_lossy(&rest));
        self.snapshot
    }

    fn line(&mut self, line: &str) {
        match line.as_bytes().first() {
            Some(b'*') => self.in_table = line[1..].trim_end() == self.table.name(),
            Some(b':') if self.in_table => {
                if let Some(name) = words(&line[1..]).next() {
                    self.chain(name);
                }
            }
            Some(b'-') if self.in_table => self.rule(line),
            Some(b'#') if is_incompatible(line, self.table) => self.snapshot.incompatible = true,
            _ => {}
        }
    }

    fn chain(&mut self, name: &str) {
        if let Some(kernel) = self.kernel_chain(name) {
            self.snapshot.kernel.entry(kernel).or_default();
        } else if is_ours(name) {
            self.snapshot.chains.entry(name.to_owned()).or_default();
        } else {
            self.foreign.insert(name.to_owned());
        }
    }

    fn rule(&mut self, line: &str) {
        let mut words = words(line);
        let (Some("-A"), Some(chain)) = (words.next(), words.next()) else { return };
        let text = words.rest();
        let rule = read_rule(text);
        if let Some(kernel) = self.kernel_chain(chain) {
            let slot = if rule.ours || is_left_over(&rule, kernel, self.table) {
                HookSlot::Ours { id: rule.id, text: text.to_owned() }
            } else {
                HookSlot::Foreign
            };
            self.snapshot.kernel.entry(kernel).or_default().push(slot);
        } else if is_ours(chain) {
            let slot = rule.id.map_or(Slot::Unknown, Slot::Rule);
            self.snapshot.chains.entry(chain.to_owned()).or_default().push(slot);
        } else if let Some(target) = rule.target.filter(|target| is_ours(target)) {
            self.snapshot.pinned.entry(target.to_owned()).or_insert_with(|| chain.to_owned());
        }
    }

    fn kernel_chain(&self, name: &str) -> Option<&'static str> {
        self.table.kernel_chains().iter().copied().find(|chain| *chain == name)
    }
}

/// ``# Table `filter' is incompatible, use 'nft' tool.`` of the nft back end.
fn is_incompatible(line: &str, table: Table) -> bool {
    line.contains("is incompatible, use 'nft' tool") && line.contains(&format!("`{}'", table.name()))
}

struct RuleFacts<'a> {
    ours: bool,
    id: Option<RuleId>,
    target: Option<&'a str>,
    text: &'a str,
}

fn read_rule(text: &str) -> RuleFacts<'_> {
    let mut facts = RuleFacts { ours: false, id: None, target: None, text };
    let mut words = words(text);
    while let Some(word) = words.next() {
        if word == "--comment" && !facts.ours {
            if let Some(mark) = words.next().and_then(|comment| comment.strip_prefix("cali:")) {
                let end = mark.find(|c: char| !is_id_char(c)).unwrap_or(mark.len());
                facts.ours = end > 0;
                facts.id = RuleId::parse(&mark[..end]);
            }
        } else if is_jump(word) {
            facts.target = words.next();
        }
    }
    facts
}

fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// Rules in the kernel's chains that older releases wrote without an id.
fn is_left_over(rule: &RuleFacts<'_>, chain: &str, table: Table) -> bool {
    if rule.target.is_some_and(is_ours) {
        return true;
    }
    let nat_postrouting = table == Table::Nat && chain == "POSTROUTING";
    let has = |wanted: &str| words(rule.text).any(|word| word == wanted);
    nat_postrouting
        && (has("felix-masq-ipam-pools")
            || (rule.target == Some("MASQUERADE") && has("tunl0") && has("--limit-iface-out")))
}

#[cfg(test)]
mod tests;

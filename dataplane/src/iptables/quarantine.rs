//! Chains that could not be programmed, and what stands in for them.
//!
//! A chain that the kernel refuses is written closed: what it guards gets no traffic until it is right.
//! Some kinds cannot be closed by a plain DROP. In `nat` the kernel allows none, and nothing is guarded
//! there, so such a chain lets packets pass unchanged. So does one that only marks packets, and the one that
//! spares some the check of their source, which all of them then get. A chain that a hook jumps to sees the host's own
//! traffic as well; it drops what goes to and comes from workloads, so that the node can still be reached
//! and repaired. For the same reason dispatch to host endpoints lets packets pass, a host endpoint stays
//! open at its failsafe ports, and where these are not known yet, at every port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tortie_rules::render::{RenderedChain, RenderedHook, RenderedRule, RuleId, Table};

use super::words::target;

/// Why a chain is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What the kernel or the program said.
    pub(super) error: String,
    /// When to try again.
    pub(super) retry: Retry,
}

/// When a closed chain is tried again. A change of the chain always tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// At the next apply: the table has been read again since it failed.
    Due,
    /// After the table is read again.
    AfterResync,
    /// The chain itself is malformed.
    Never,
}

/// The closed chains of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine {
    faults: BTreeMap<String, Fault>,
}

impl Quarantine {
    /// Whether the chain is closed.
    pub(super) fn has(&self, chain: &str) -> bool {
        self.faults.contains_key(chain)
    }

    /// Closes a chain.
    pub(super) fn close(&mut self, chain: &str, error: String, retry: Retry) {
        self.faults.insert(chain.to_owned(), Fault { error, retry });
    }

    /// The chain is no longer closed: it was programmed, or changed, or is not wanted any more.
    pub(super) fn release(&mut self, chain: &str) {
        self.faults.remove(chain);
    }

    /// The table was read again: every chain that may be tried again is due.
    pub(super) fn set_due(&mut self) {
        for fault in self.faults.values_mut() {
            if fault.retry == Retry::AfterResync {
                fault.retry = Retry::Due;
            }
        }
    }

    /// The chains to try now; they are not due afterwards.
    pub(super) fn take_due(&mut self) -> Vec<String> {
        let mut due = Vec::new();
        for (chain, fault) in &mut self.faults {
            if fault.retry == Retry::Due {
                fault.retry = Retry::AfterResync;
                due.push(chain.clone());
            }
        }
        due
    }

    /// The chains that wait for the next apply.
    pub(super) fn due(&self) -> impl Iterator<Item = &str> {
        self.faults.iter().filter(|(_, fault)| fault.retry == Retry::Due).map(|(chain, _)| chain.as_str())
    }

    /// All closed chains with their errors.
    pub(super) fn faults(&self) -> impl Iterator<Item = (&str, &Fault)> {
        self.faults.iter().map(|(chain, fault)| (chain.as_str(), fault))
    }
}

/// Dispatch to host endpoints, for which no chain is there yet or which cannot be told apart.
const HOST_DISPATCH: [&str; 2] = ["cali-from-host-endpoint", "cali-to-host-endpoint"];
/// Chains that guard nothing: exceptions from the check of sources, and DSCP values.
const GUARDS_NOTHING: [&str; 2] = ["cali-rpf-skip", "cali-egress-dscp"];
/// What no policy of host endpoints closes. Whoever has the chain of a host endpoint has these.
const FAILSAFE: [&str; 2] = ["cali-failsafe-in", "cali-failsafe-out"];
/// Host endpoints, what comes in; forwarded traffic has other names.
const FROM_HOST: &str = "cali-fh-";
/// The same, what goes out.
const TO_HOST: &str = "cali-th-";

/// What stands in for a chain of this name. `workloads` are interface patterns such as `cali+`.
pub(super) fn closed_chain(
    name: &str,
    table: Table,
    hooks: &[RenderedHook],
    workloads: &[String],
) -> Arc<RenderedChain> {
    let is_any = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let drop = || stand_in(*b"quarantine-drop-", "-j DROP");
    let rules = if table == Table::Nat || is_any(HOST_DISPATCH) || GUARDS_NOTHING.contains(&name) {
        vec![stand_in(*b"quarantine-pass-", "-j RETURN")]
    } else if is_any(FAILSAFE) {
        vec![stand_in(*b"quarantine-open-", "-j ACCEPT")]
    } else if name.starts_with(FROM_HOST) {
        vec![stand_in(*b"quarantine-safe-", "-j cali-failsafe-in"), drop()]
    } else if name.starts_with(TO_HOST) {
        vec![stand_in(*b"quarantine-safe-", "-j cali-failsafe-out"), drop()]
    } else if hook_targets(hooks).any(|target| target == name) {
        let sides = workloads.iter().flat_map(|interface| [("-i", interface), ("-o", interface)]);
        sides
            .zip(0..=u8::MAX)
            .map(|((side, interface), index)| drop_at_interface(side, interface, index))
            .collect()
    } else {
        vec![drop()]
    };
    Arc::new(RenderedChain { name: name.to_owned(), rules })
}

fn drop_at_interface(side: &str, interface: &str, index: u8) -> RenderedRule {
    let mut id = *b"quarantine-wl---";
    for (place, digit) in id[13..].iter_mut().zip([index / 100, index / 10 % 10, index % 10]) {
        *place = b'0' + digit;
    }
    stand_in(id, &format!("{side} {interface} -j DROP"))
}

fn stand_in(id: [u8; 16], action: &str) -> RenderedRule {
    let id = RuleId(id);
    let text = format!(
        "-m comment --comment \"cali:{id}\" -m comment --comment \"closed: its rules were refused\" {action}"
    );
    RenderedRule { id, text }
}

fn hook_targets(hooks: &[RenderedHook]) -> impl Iterator<Item = &str> {
    hooks
        .iter()
        .flat_map(|hook| hook.inserted.iter().chain(&hook.appended))
        .filter_map(|rule| target(&rule.text))
}

/// Names of chains in the order in which a packet can meet them from the hooks, each once. Chains that
/// no hook leads to are not among them.
pub(super) fn top_down<'a>(
    hooks: &'a [RenderedHook],
    chains: &'a BTreeMap<String, Arc<RenderedChain>>,
) -> Vec<&'a str> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut order = Vec::new();
    let mut queue: VecDeque<&str> = hook_targets(hooks).collect();
    while let Some(name) = queue.pop_front() {
        let Some(chain) = chains.get(name) else { continue };
        if seen.insert(name) {
            order.push(name);
            queue.extend(chain.rules.iter().filter_map(|rule| target(&rule.text)));
        }
    }
    order
}

/// Why a chain cannot even be handed to `iptables-restore`; each would break the input's lines apart.
pub(super) fn malformation(chain: &RenderedChain) -> Option<String> {
    let broken = |rule: &RenderedRule| rule.text.contains(['\n', '\r', '\0']);
    let index = chain.rules.iter().position(broken)?;
    Some(format!("rule {} contains a line break", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> RenderedRule {
        RenderedRule { id: RuleId(*b"aaaaaaaaaaaaaaaa"), text: text.to_owned() }
    }

    fn forward_hook() -> Vec<RenderedHook> {
        let inserted = vec![rule("--jump cali-FORWARD")];
        vec![RenderedHook { chain: "FORWARD".to_owned(), inserted, appended: Vec::new() }]
    }

    #[test]
    fn an_ordinary_chain_is_closed_by_one_drop() {
        let closed = closed_chain("cali-tw-x", Table::Filter, &forward_hook(), &["cali+".to_owned()]);
        assert_eq!(closed.rules.len(), 1);
        assert!(closed.rules[0].text.ends_with("-j DROP"));
    }

    #[test]
    fn a_chain_behind_a_hook_spares_the_host() {
        let closed = closed_chain("cali-FORWARD", Table::Filter, &forward_hook(), &["cali+".to_owned()]);
        let ends: Vec<&str> = closed.rules.iter().filter_map(|r| r.text.rsplit("\" ").next()).collect();
        assert_eq!(ends, ["-i cali+ -j DROP", "-o cali+ -j DROP"]);
        assert_eq!(closed.rules[1].id.as_str(), "quarantine-wl001");
    }

    #[test]
    fn nobody_is_locked_out_of_a_host() {
        let ends = |name: &str| -> Vec<String> {
            let closed = closed_chain(name, Table::Filter, &forward_hook(), &["cali+".to_owned()]);
            closed.rules.iter().filter_map(|r| r.text.rsplit("\" ").next().map(str::to_owned)).collect()
        };
        assert_eq!(ends("cali-from-host-endpoint-1"), ["-j RETURN"]);
        assert_eq!(ends("cali-failsafe-in"), ["-j ACCEPT"]);
        assert_eq!(ends("cali-fh-eth0"), ["-j cali-failsafe-in", "-j DROP"]);
        assert_eq!(ends("cali-th-any-interface-at-all"), ["-j cali-failsafe-out", "-j DROP"]);
        assert_eq!(ends("cali-fhfw-eth0"), ["-j DROP"], "forwarded traffic is not the host's");
    }

    #[test]
    fn nothing_is_dropped_in_nat() {
        let closed = closed_chain("cali-nat-outgoing", Table::Nat, &[], &[]);
        assert!(closed.rules[0].text.ends_with("-j RETURN"));
    }

    #[test]
    fn what_guards_nothing_lets_packets_pass() {
        for (name, table) in [("cali-rpf-skip", Table::Raw), ("cali-egress-dscp", Table::Mangle)] {
            assert!(closed_chain(name, table, &[], &[]).rules[0].text.ends_with("-j RETURN"), "{name}");
        }
    }

    #[test]
    fn a_failed_chain_is_due_only_after_a_resync() {
        let mut quarantine = Quarantine::default();
        quarantine.close("cali-a", "bad".to_owned(), Retry::AfterResync);
        quarantine.close("cali-b", "broken".to_owned(), Retry::Never);
        assert!(quarantine.take_due().is_empty());
        quarantine.set_due();
        assert_eq!(quarantine.take_due(), ["cali-a"]);
        assert!(quarantine.take_due().is_empty());
        assert_eq!(quarantine.faults().count(), 2);
    }

    #[test]
    fn chains_are_met_parents_first() {
        let chain = |name: &str, rules: &[&str]| {
            let rules = rules.iter().map(|text| rule(text)).collect();
            (name.to_owned(), Arc::new(RenderedChain { name: name.to_owned(), rules }))
        };
        let chains = BTreeMap::from([
            chain("cali-FORWARD", &["--jump cali-b", "--goto cali-a"]),
            chain("cali-a", &["-j DROP"]),
            chain("cali-b", &["-j cali-a", "-j cali-FORWARD"]),
            chain("cali-unreached", &["-j cali-a"]),
        ]);
        assert_eq!(top_down(&forward_hook(), &chains), ["cali-FORWARD", "cali-b", "cali-a"]);
    }
}

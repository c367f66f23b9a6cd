//! Which back end a node uses: that of Kubernetes' own rules, else that with more rules, legacy at a tie. On a node
//! without any rule there is nothing to go by; Felix takes legacy, we take what the node's own `iptables` is, so
//! that its `iptables-save` shows our rules.

use tortie_api::net::IpVersion;
use tortie_rules::render::Table;

use super::{Backend, BackendChoice};

/// Chains of table mangle by which kubelet tells which back end it uses.
const KUBELET_CHAINS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// What the decision needs to know of a node.
pub trait BackendProbe {
    /// What the back end's save program prints for one table, or for all. `None` when it does not work.
    fn save(&mut self, backend: Backend, version: IpVersion, table: Option<Table>) -> Option<String>;

    /// Whether legacy can be looked at without loading its modules into the kernel.
    fn is_legacy_loaded(&mut self) -> bool;

    /// Whether the back end's programs are there and its tables can be had. May load modules.
    fn is_usable(&mut self, backend: Backend) -> bool;

    /// The back end that the programs of generic name (`iptables-save`) work on, if there are any.
    fn node_default(&mut self) -> Option<Backend>;
}

/// A decision and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The back end to use.
    pub backend: Backend,
    /// Why, for the log.
    pub reason: String,
    /// What a person should know, e.g. that the rest of the node seems to use the other one.
    pub warning: Option<String>,
}

/// Decides on the back end. A configured one is taken as it is: looking at all rules to contradict it would cost a
/// large node a second.
pub fn detect_backend(wanted: BackendChoice, probe: &mut dyn BackendProbe) -> Detection {
    match wanted {
        BackendChoice::Fixed(backend) => {
            Detection { backend, reason: "configured".to_owned(), warning: None }
        }
        BackendChoice::Auto => {
            let (found, reason) = detect(probe);
            choose(found, &reason, probe)
        }
    }
}

/// A node without rules gets the back end of its own programs. The kernel may not have that at all.
fn choose(found: Backend, reason: &Reason, probe: &mut dyn BackendProbe) -> Detection {
    if !reason.is_default() {
        return Detection { backend: found, reason: reason.to_string(), warning: None };
    }
    let preferred = probe.node_default().unwrap_or(found);
    if !probe.is_usable(preferred) && probe.is_usable(preferred.other()) {
        let backend = preferred.other();
        let reason = format!("this node has no iptables rules yet and {preferred} does not work here");
        return Detection { backend, warning: Some(format!("using {backend}: {reason}")), reason };
    }
    let reason = "this node has no iptables rules yet, and its iptables is of this back end".to_owned();
    Detection { backend: preferred, reason, warning: None }
}

#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Kubelet,
    Rules { legacy: usize, nft: usize },
}

impl Reason {
    /// There was nothing to go by.
    fn is_default(&self) -> bool {
        matches!(self, Self::Rules { legacy: 0, nft: 0 })
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubelet => f.write_str("kubelet's chains are there"),
            Self::Rules { legacy, nft } => write!(f, "it holds {legacy} legacy rules and {nft} nft rules"),
        }
    }
}

fn detect(probe: &mut dyn BackendProbe) -> (Backend, Reason) {
    if has_kubelet_chain(Backend::Nft, probe) {
        return (Backend::Nft, Reason::Kubelet);
    }
    let is_legacy_loaded = probe.is_legacy_loaded();
    if is_legacy_loaded && has_kubelet_chain(Backend::Legacy, probe) {
        return (Backend::Legacy, Reason::Kubelet);
    }
    let legacy = if is_legacy_loaded { count_rules(Backend::Legacy, probe) } else { 0 };
    let nft = count_rules(Backend::Nft, probe);
    let backend = if legacy >= nft { Backend::Legacy } else { Backend::Nft };
    (backend, Reason::Rules { legacy, nft })
}

fn has_kubelet_chain(backend: Backend, probe: &mut dyn BackendProbe) -> bool {
    [IpVersion::V6, IpVersion::V4].into_iter().any(|version| {
        let saved = probe.save(backend, version, Some(Table::Mangle)).unwrap_or_default();
        saved.lines().filter_map(chain_name).any(|name| KUBELET_CHAINS.contains(&name))
    })
}

fn chain_name(line: &str) -> Option<&str> {
    line.strip_prefix(':')?.split(' ').next()
}

fn count_rules(backend: Backend, probe: &mut dyn BackendProbe) -> usize {
    let saved = |version| probe.save(backend, version, None).unwrap_or_default();
    let count = |text: String| text.lines().filter(|line| line.starts_with('-')).count();
    IpVersion::BOTH.map(saved).into_iter().map(count).sum()
}

#[cfg(test)]
mod tests;

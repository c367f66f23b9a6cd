use super::*;

const CANARY: &str = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
const HINT: &str = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
const RULE: &str = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n";

/// A node: what its save programs print, for both IP versions or IPv4 only.
#[derive(Default)]
struct Node {
    legacy_mangle: &'static str,
    legacy_all: &'static str,
    legacy_loaded: bool,
    legacy_broken: bool,
    nft_mangle: &'static str,
    nft_all: &'static str,
    nft_broken: bool,
    /// What `iptables-save` is.
    generic: Option<Backend>,
    /// Saves of legacy that were asked for.
    legacy_saves: usize,
}

impl BackendProbe for Node {
    fn save(&mut self, backend: Backend, version: IpVersion, table: Option<Table>) -> Option<String> {
        self.legacy_saves += usize::from(backend == Backend::Legacy);
        let text = match (backend, table) {
            (Backend::Legacy, Some(_)) => self.legacy_mangle,
            (Backend::Legacy, None) => self.legacy_all,
            (Backend::Nft, Some(_)) => self.nft_mangle,
            (Backend::Nft, None) => self.nft_all,
        };
        (version == IpVersion::V4).then(|| text.to_owned())
    }

    fn is_legacy_loaded(&mut self) -> bool {
        self.legacy_loaded
    }

    fn is_usable(&mut self, backend: Backend) -> bool {
        !(if backend == Backend::Legacy { self.legacy_broken } else { self.nft_broken })
    }

    fn node_default(&mut self) -> Option<Backend> {
        self.generic
    }
}

fn auto(mut node: Node) -> Backend {
    detect_backend(BackendChoice::Auto, &mut node).backend
}

#[test]
fn kubelets_chains_decide_nft_first() {
    let both = Node {
        nft_mangle: HINT,
        legacy_mangle: CANARY,
        legacy_loaded: true,
        legacy_all: RULE,
        ..Node::default()
    };
    assert_eq!(auto(both), Backend::Nft);
    let legacy = Node { legacy_mangle: CANARY, legacy_loaded: true, nft_all: RULE, ..Node::default() };
    assert_eq!(auto(legacy), Backend::Legacy);
}

#[test]
fn legacy_is_not_looked_at_unless_its_modules_are_loaded() {
    let mut node = Node { legacy_mangle: CANARY, legacy_all: RULE, nft_all: RULE, ..Node::default() };
    assert_eq!(detect_backend(BackendChoice::Auto, &mut node).backend, Backend::Nft);
    assert_eq!(node.legacy_saves, 0);
}

#[test]
fn more_rules_win_and_legacy_wins_a_tie() {
    let tie = Node { legacy_loaded: true, legacy_all: RULE, nft_all: RULE, ..Node::default() };
    assert_eq!(auto(tie), Backend::Legacy);
    let nft = Node { nft_all: RULE, ..Node::default() };
    assert_eq!(auto(nft), Backend::Nft);
    assert_eq!(auto(Node::default()), Backend::Legacy);
}

#[test]
fn an_empty_node_without_legacy_tables_uses_nft_and_says_so() {
    let mut node = Node { legacy_broken: true, ..Node::default() };
    let detection = detect_backend(BackendChoice::Auto, &mut node);
    assert_eq!(detection.backend, Backend::Nft);
    assert!(detection.warning.is_some_and(|warning| warning.contains("legacy does not work")));
    let neither = Node { legacy_broken: true, nft_broken: true, ..Node::default() };
    assert_eq!(auto(neither), Backend::Legacy);
}

#[test]
fn an_empty_node_uses_what_its_own_iptables_is() {
    for generic in [Backend::Nft, Backend::Legacy] {
        assert_eq!(auto(Node { generic: Some(generic), ..Node::default() }), generic);
    }
    let ruled =
        Node { generic: Some(Backend::Nft), legacy_loaded: true, legacy_all: RULE, ..Node::default() };
    assert_eq!(auto(ruled), Backend::Legacy);
    let broken = Node { generic: Some(Backend::Nft), nft_broken: true, ..Node::default() };
    assert_eq!(auto(broken), Backend::Legacy);
}

#[test]
fn a_configured_back_end_is_taken_without_a_look() {
    let mut node = Node { nft_mangle: CANARY, legacy_loaded: true, ..Node::default() };
    let detection = detect_backend(BackendChoice::Fixed(Backend::Legacy), &mut node);
    assert_eq!((detection.backend, detection.warning), (Backend::Legacy, None));
    assert_eq!(node.legacy_saves, 0);
}

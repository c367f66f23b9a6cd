//! What of a cluster can make a difference to a flow, in numbers that mean the same before and after.
//!
//! Selectors look at some labels only: what has the same values there is alike (of the same *class*), however
//! many other labels differ. Policies are compared by what they say, not by where they are written.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use tortie_api::endpoint::ANY_INTERFACE;
use tortie_api::labels::{
    NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_LABEL_PREFIX,
};
use tortie_api::net::{IpNet, Port};
use tortie_api::policy::{DefaultAction, EntityRule, PolicyType, Rule};
use tortie_api::selector::{Expr, Selector};

use super::super::cluster::Cluster;
use super::super::derived::{Derived, Endpoint, Item};
use super::super::policy::{Flavour, Policy, RuleEntry};

/// Numbers for values, the same for equal ones.
#[derive(Debug)]
pub(super) struct Numbers<T>(FxHashMap<T, u32>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<T: Hash + Eq> Numbers<T> {
    pub(super) fn of(&mut self, value: T) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(value).or_insert(next)
    }
}

/// What selectors and rules of both clusters ask for, and the numbers that both share.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// Labels that some selector looks at.
    labels: BTreeSet<String>,
    /// Names of ports that some rule mentions.
    port_names: BTreeSet<String>,
    /// Services that some rule mentions: namespace and name.
    pub(super) services: BTreeSet<(String, String)>,
    /// Networks that some rule mentions.
    pub(super) nets: BTreeSet<Vec<IpNet>>,
    texts: Numbers<String>,
    classes: Numbers<Vec<(String, String)>>,
    lists: Numbers<Vec<u32>>,
}

impl Common {
    pub(super) fn new(clusters: [&Cluster; 2]) -> Self {
        let mut common = Self::default();
        common.labels.extend([NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL].map(str::to_owned));
        for derived in clusters.map(Cluster::derived) {
            for policy in &derived.policies {
                for (_, prefix, selector) in policy.subject_selectors() {
                    common.take_selector(selector, prefix);
                }
                for direction in [PolicyType::Ingress, PolicyType::Egress] {
                    let rules = policy.rules(direction).unwrap_or_default();
                    rules.iter().for_each(|entry| common.take_rule(&entry.rule, policy.namespace()));
                }
            }
            for profile in derived.profiles.values() {
                let rules = profile.ingress.iter().chain(&profile.egress);
                rules.for_each(|entry| common.take_rule(&entry.rule, ""));
            }
        }
        common
    }

    fn take_rule(&mut self, rule: &Rule, namespace: &str) {
        for entity in [&rule.source, &rule.destination] {
            self.take_entity(entity, namespace);
        }
    }

    fn take_entity(&mut self, entity: &EntityRule, namespace: &str) {
        let accounts = entity.service_accounts.as_ref().and_then(|accounts| accounts.selector.as_ref());
        for (selector, prefix) in [
            (entity.selector.as_ref(), ""),
            (entity.not_selector.as_ref(), ""),
            (entity.namespace_selector.as_ref(), NAMESPACE_LABEL_PREFIX),
            (accounts, SERVICE_ACCOUNT_LABEL_PREFIX),
            (entity.nodes.as_ref(), ""),
        ] {
            if let Some(selector) = selector {
                self.take_selector(selector, prefix);
            }
        }
        for port in entity.ports.iter().chain(&entity.not_ports) {
            if let Port::Named(name) = port {
                self.port_names.insert(name.clone());
            }
        }
        if let Some(service) = &entity.services {
            let named = service.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            self.services.insert((named.unwrap_or(namespace).to_owned(), service.name.clone()));
        }
        for nets in [&entity.nets, &entity.not_nets] {
            if !nets.is_empty() && !self.nets.contains(nets) {
                self.nets.insert(nets.clone());
            }
        }
    }

    fn take_selector(&mut self, selector: &Selector, prefix: &str) {
        labels_of(selector.expr(), &mut |label| {
            self.labels.insert(format!("{prefix}{label}"));
        });
    }

    /// The number of a text.
    pub(super) fn text(&mut self, text: String) -> u32 {
        self.texts.of(text)
    }

    fn class(&mut self, item: &Item) -> u32 {
        let seen = item.labels.iter().filter(|(key, _)| self.labels.contains(*key));
        // No label has an empty key.
        let node = item.is_node.then(Default::default);
        self.classes.of(seen.map(|(key, value)| (key.clone(), value.clone())).chain(node).collect())
    }

    /// What rules see of an item: its class and the ports that they name.
    fn appearance(&mut self, class: u32, item: &Item) -> u32 {
        let mut ports: Vec<String> = item
            .ports
            .iter()
            .filter(|port| self.port_names.contains(&port.name))
            .map(|port| format!("{}/{}/{}", port.name, port.protocol.number(), port.port))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        self.text(format!("{class} {}", ports.join(" ")))
    }
}

/// Rules as a text that says all of them.
fn rules_text(ingress: Option<&[RuleEntry]>, egress: Option<&[RuleEntry]>) -> String {
    let rules = [ingress, egress]
        .map(|rules| rules.map(|rules| rules.iter().map(|entry| text_of(&entry.rule)).collect::<Vec<_>>()));
    format!("{rules:?}")
}

/// A rule as a text that says all of it.
fn text_of(rule: &Rule) -> String {
    // Nodes are no field of the API, and not written with the others.
    let nodes = [&rule.source, &rule.destination].map(|side| side.nodes.as_ref().map(Selector::canonical));
    // The types of a rule can always be written.
    format!("{} {nodes:?}", serde_json::to_string(rule).unwrap_or_default())
}

fn labels_of(expr: &Expr, take: &mut dyn FnMut(&str)) {
    match expr {
        Expr::All | Expr::Global => {}
        Expr::Has(label)
        | Expr::Eq(label, _)
        | Expr::NotEq(label, _)
        | Expr::Contains(label, _)
        | Expr::StartsWith(label, _)
        | Expr::EndsWith(label, _)
        | Expr::In(label, _)
        | Expr::NotIn(label, _) => take(label),
        Expr::Not(x) => labels_of(x, take),
        Expr::And(all) | Expr::Or(all) => all.iter().for_each(|x| labels_of(x, take)),
    }
}

/// One of the two clusters.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) derived: &'a Derived,
    /// By item.
    classes: Vec<u32>,
    /// By item.
    appearances: Vec<u32>,
    /// By policy: what it says, with what its tier does in the end.
    contents: Vec<u32>,
    /// By class.
    lists: FxHashMap<u32, Rc<Vec<usize>>>,
    /// How many workloads claim an interface of a node.
    claims: FxHashMap<(&'a str, &'a str), usize>,
    /// By node: see [`View::hosting`].
    hosting: FxHashMap<&'a str, u32>,
    /// Whether traffic that is only forwarded may meet policy.
    pub(super) filters_forwarded: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(cluster: &'a Cluster, common: &mut Common) -> Self {
        let derived = cluster.derived();
        let classes: Vec<u32> = derived.items.iter().map(|item| common.class(item)).collect();
        let appearances =
            classes.iter().zip(&derived.items).map(|(class, item)| common.appearance(*class, item)).collect();
        let contents = derived.policies.iter().map(|policy| content(derived, policy, common)).collect();
        let mut claims = FxHashMap::default();
        for workload in &derived.workloads {
            *claims.entry((workload.node.as_str(), workload.interface.as_str())).or_default() += 1;
        }
        let is_early = |p: &&Policy| p.flavour != Flavour::Normal && p.staged.is_none();
        let filters_forwarded = !derived.hosts.is_empty() && derived.policies.iter().any(|p| is_early(&p));
        Self {
            cluster,
            derived,
            classes,
            appearances,
            contents,
            lists: FxHashMap::default(),
            claims,
            hosting: FxHashMap::default(),
            filters_forwarded,
        }
    }

    /// The class of an item.
    pub(super) fn class(&self, item: usize) -> u32 {
        self.classes[item]
    }

    /// What rules see of an item.
    pub(super) fn appearance(&self, item: usize) -> u32 {
        self.appearances[item]
    }

    /// The workload whose policy is in force for this one.
    pub(super) fn in_force(&self, workload: &'a Endpoint) -> &'a Endpoint {
        match self.claims.get(&(workload.node.as_str(), workload.interface.as_str())) {
            Some(2..) => self.derived.in_force(workload),
            _ => workload,
        }
    }

    /// The policies in force that select what is of an endpoint's class, in order.
    pub(super) fn policies(&mut self, endpoint: &Endpoint) -> Rc<Vec<usize>> {
        let (derived, class) = (self.derived, self.class(endpoint.item));
        let list = self.lists.entry(class).or_insert_with(|| {
            let labels = &derived.items[endpoint.item].labels;
            let candidates = derived.candidates(labels);
            let selects = |at: &usize| {
                let policy = &derived.policies[*at];
                policy.staged.is_none() && policy.selects(labels)
            };
            Rc::new(candidates.filter(selects).collect())
        });
        Rc::clone(list)
    }

    /// What an endpoint's policies and profiles say, in their order.
    pub(super) fn policing(&mut self, endpoint: &Endpoint, common: &mut Common) -> u32 {
        let policies = self.policies(endpoint);
        let mut said: Vec<u32> = policies.iter().map(|policy| self.contents[*policy]).collect();
        for name in &endpoint.profiles {
            let text = match self.derived.profiles.get(name) {
                Some(profile) => rules_text(Some(&profile.ingress), Some(&profile.egress)),
                None => "missing".to_owned(),
            };
            said.push(common.text(format!("profile {text}")));
        }
        common.lists.of(said)
    }

    /// The host endpoints of a node, and the settings for them.
    pub(super) fn hosting(&mut self, node: &'a str, common: &mut Common) -> u32 {
        if let Some(known) = self.hosting.get(node) {
            return *known;
        }
        let derived = self.derived;
        let mut said = Vec::new();
        for host in derived.hosts.iter().filter(|host| host.node == node) {
            let policing = self.policing(host, common);
            // Which interface such a one is on depends on the node's own addresses.
            let own = if host.interface.is_empty() {
                format!("{node} {:?}", host.addresses)
            } else {
                String::new()
            };
            said.push(common.text(format!("host {} {policing} {own}", host.interface)));
        }
        if !said.is_empty() {
            let settings = self.cluster.settings(node);
            let ports = (&settings.failsafe_inbound, &settings.failsafe_outbound);
            said.push(common.text(format!("{ports:?}")));
        }
        *self.hosting.entry(node).or_insert_with(|| common.lists.of(said))
    }

    /// The settings for workloads of a node.
    pub(super) fn workload_settings(&self, node: &str, common: &mut Common) -> u32 {
        let settings = self.cluster.settings(node);
        let (vxlan, ipip) = (settings.allow_vxlan_from_workloads, settings.allow_ipip_from_workloads);
        common.text(format!("{:?} {vxlan} {ipip} {}", settings.endpoint_to_host, settings.vxlan_port))
    }

    /// The interfaces of a node that have a host endpoint of their own, and whether there is one for the others.
    pub(super) fn interfaces(&self, node: &str) -> (BTreeSet<&'a str>, bool) {
        let of_node = || self.derived.hosts.iter().filter(|host| host.node == node);
        let named =
            of_node().map(|host| host.interface.as_str()).filter(|i| !["", ANY_INTERFACE].contains(i));
        (named.collect(), of_node().any(|host| ["", ANY_INTERFACE].contains(&host.interface.as_str())))
    }
}

fn content(derived: &Derived, policy: &Policy, common: &mut Common) -> u32 {
    let end = match derived.tier(&policy.tier).0 {
        DefaultAction::Deny => "deny",
        DefaultAction::Pass => "pass",
    };
    let rules = rules_text(policy.ingress.as_deref(), policy.egress.as_deref());
    let (tier, namespace, flavour) = (&policy.tier, policy.namespace(), policy.flavour);
    common.text(format!("policy {tier} {end} {namespace} {flavour:?} {rules}"))
}

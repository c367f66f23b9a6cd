//! Policies of all kinds in one shape, and what they select.
//!
//! A new kind of policy needs one function here, from the resource to [`Policy`].

use std::sync::OnceLock;

use tortie_api::convert;
use tortie_api::labels::{NAMESPACE_LABEL, NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX};
use tortie_api::meta::Metadata;
use tortie_api::policy::{Action, GlobalNetworkPolicySpec, NetworkPolicySpec, PolicyType, Rule};
use tortie_api::resource::Resource;
use tortie_api::selector::{Expr, Labels, Selector};
use tortie_api::staged::{Staged, StagedAction};

use super::derived::LabelMap;
use super::explain::PolicyId;
use super::matching::Selection;

/// What the kinds of staged policies begin with; the rest is the kind that is in force.
const STAGED: &str = "Staged";

/// A policy.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) id: PolicyId,
    pub(super) tier: String,
    pub(super) order: Option<f64>,
    /// What it would do if it were no longer staged; `None` if it is in force.
    pub(super) staged: Option<StagedAction>,
    pub(super) flavour: Flavour,
    subject: Subject,
    /// `None` if it does not apply to traffic to its endpoints.
    pub(super) ingress: Option<Vec<RuleEntry>>,
    /// `None` if it does not apply to traffic from its endpoints.
    pub(super) egress: Option<Vec<RuleEntry>>,
}

/// To which traffic of host endpoints a policy applies; workloads know the first two only, as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Of the host itself.
    Normal,
    /// Of the host itself, and forwarded.
    ApplyOnForward,
    /// Before DNAT.
    PreDnat,
    /// Before connection tracking.
    Untracked,
}

/// Which endpoints a policy is for. All that is there must hold.
#[derive(Debug, Default)]
struct Subject {
    namespace: Option<String>,
    selector: Option<Selector>,
    namespace_selector: Option<Selector>,
    service_account_selector: Option<Selector>,
}

/// A rule, with what its sides select once that has been asked.
#[derive(Debug)]
pub(super) struct RuleEntry {
    pub(super) rule: Rule,
    pub(super) source: OnceLock<Selection>,
    pub(super) destination: OnceLock<Selection>,
}

impl RuleEntry {
    pub(super) fn all(rules: &[Rule]) -> Vec<Self> {
        let entry =
            |rule: &Rule| Self { rule: rule.clone(), source: OnceLock::new(), destination: OnceLock::new() };
        rules.iter().map(entry).collect()
    }
}

impl Policy {
    /// The policy that a resource is, if it is one.
    pub(super) fn of(resource: &Resource) -> Option<Self> {
        match resource {
            Resource::NetworkPolicy(o) => Some(network_policy("NetworkPolicy", &o.metadata, &o.spec)),
            Resource::GlobalNetworkPolicy(o) => {
                Some(global_policy("GlobalNetworkPolicy", &o.metadata, &o.spec))
            }
            Resource::KubeNetworkPolicy(o) => {
                let (spec, _) = convert::network_policy(o);
                Some(network_policy("KubernetesNetworkPolicy", &o.metadata, &spec))
            }
            Resource::StagedNetworkPolicy(o) => {
                let policy = network_policy("StagedNetworkPolicy", &o.metadata, &o.spec.policy);
                policy.staged(&o.spec)
            }
            Resource::StagedGlobalNetworkPolicy(o) => {
                let policy = global_policy("StagedGlobalNetworkPolicy", &o.metadata, &o.spec.policy);
                policy.staged(&o.spec)
            }
            Resource::StagedKubernetesNetworkPolicy(o) => {
                let (spec, _) = convert::staged_network_policy(o);
                network_policy("StagedKubernetesNetworkPolicy", &o.metadata, &spec).staged(&o.spec)
            }
            Resource::ClusterNetworkPolicy(o) => {
                let (spec, _) = convert::cluster_network_policy(o);
                Some(cluster_policy("KubernetesClusterNetworkPolicy", &o.metadata, &spec))
            }
            Resource::AdminNetworkPolicy(o) => {
                let (spec, _) = convert::admin_network_policy(o);
                Some(cluster_policy("KubernetesAdminNetworkPolicy", &o.metadata, &spec))
            }
            Resource::BaselineAdminNetworkPolicy(o) => {
                let (spec, _) = convert::baseline_admin_network_policy(o);
                Some(cluster_policy("KubernetesBaselineAdminNetworkPolicy", &o.metadata, &spec))
            }
            _ => None,
        }
    }

    /// The policy as a staged one, unless it is not to be looked at.
    fn staged<S>(self, staged: &Staged<S>) -> Option<Self> {
        match staged.staged_action {
            action @ (StagedAction::Set | StagedAction::Delete) => {
                Some(Self { staged: Some(action), ..self })
            }
            StagedAction::Learn | StagedAction::Ignore => None,
        }
    }

    /// Takes a staged policy for the one that it would be.
    pub(super) fn put_in_force(&mut self) {
        self.staged = None;
        self.id.kind = self.id.kind.strip_prefix(STAGED).unwrap_or(self.id.kind);
    }

    /// Whether it is for an endpoint with these labels.
    pub(super) fn selects(&self, labels: &LabelMap) -> bool {
        let subject = &self.subject;
        let in_namespace = subject
            .namespace
            .as_ref()
            .is_none_or(|namespace| labels.get(NAMESPACE_LABEL).is_some_and(|own| own == namespace));
        in_namespace
            && subject.selector.as_ref().is_none_or(|s| s.matches(labels))
            && subject.namespace_selector.as_ref().is_none_or(|s| namespace_selected(s, labels))
            && subject.service_account_selector.as_ref().is_none_or(|s| service_account_selected(s, labels))
    }

    /// What it selects endpoints by: the field, what its labels are inherited with, the selector.
    pub(super) fn subject_selectors(&self) -> impl Iterator<Item = (&'static str, &'static str, &Selector)> {
        let Subject { selector, namespace_selector, service_account_selector, .. } = &self.subject;
        let fields = [
            ("selector", "", selector),
            ("namespaceSelector", NAMESPACE_LABEL_PREFIX, namespace_selector),
            ("serviceAccountSelector", SERVICE_ACCOUNT_LABEL_PREFIX, service_account_selector),
        ];
        fields.into_iter().filter_map(|(field, prefix, selector)| Some((field, prefix, selector.as_ref()?)))
    }

    /// The rules for one direction.
    pub(super) fn rules(&self, direction: PolicyType) -> Option<&[RuleEntry]> {
        match direction {
            PolicyType::Ingress => self.ingress.as_deref(),
            PolicyType::Egress => self.egress.as_deref(),
        }
    }

    /// The namespace that a rule means where it names none; empty for a global policy.
    pub(super) fn namespace(&self) -> &str {
        self.id.namespace.as_deref().unwrap_or_default()
    }

    /// Whether this is the enforced counterpart of a staged policy.
    pub(super) fn is_counterpart(&self, staged: &PolicyId) -> bool {
        let kind = staged.kind.strip_prefix(STAGED);
        self.staged.is_none()
            && kind == Some(self.id.kind)
            && self.id.namespace == staged.namespace
            && self.id.name == staged.name
    }
}

fn network_policy(kind: &'static str, metadata: &Metadata, spec: &NetworkPolicySpec) -> Policy {
    let namespace = metadata.namespace_text().to_owned();
    Policy {
        id: PolicyId { kind, namespace: Some(namespace.clone()), name: metadata.name.clone() },
        tier: spec.tier.clone(),
        order: spec.order,
        staged: None,
        flavour: Flavour::Normal,
        subject: Subject {
            namespace: Some(namespace),
            selector: spec.selector.clone(),
            namespace_selector: None,
            service_account_selector: spec.service_account_selector.clone(),
        },
        ingress: rules(&spec.types, PolicyType::Ingress, &spec.ingress),
        egress: rules(&spec.types, PolicyType::Egress, &spec.egress),
    }
}

fn global_policy(kind: &'static str, metadata: &Metadata, spec: &GlobalNetworkPolicySpec) -> Policy {
    let flavour = match (spec.do_not_track, spec.pre_dnat, spec.apply_on_forward) {
        (true, _, _) => Flavour::Untracked,
        (_, true, _) => Flavour::PreDnat,
        (_, _, true) => Flavour::ApplyOnForward,
        _ => Flavour::Normal,
    };
    Policy {
        id: PolicyId { kind, namespace: None, name: metadata.name.clone() },
        tier: spec.tier.clone(),
        order: spec.order,
        staged: None,
        flavour,
        subject: Subject {
            namespace: None,
            selector: spec.selector.clone(),
            namespace_selector: spec.namespace_selector.clone(),
            service_account_selector: spec.service_account_selector.clone(),
        },
        ingress: rules(&spec.types, PolicyType::Ingress, &spec.ingress),
        egress: rules(&spec.types, PolicyType::Egress, &spec.egress),
    }
}

/// A policy of the whole cluster in Kubernetes' terms: a direction without rules is left alone.
fn cluster_policy(kind: &'static str, metadata: &Metadata, spec: &GlobalNetworkPolicySpec) -> Policy {
    let some = |rules: &[Rule]| (!rules.is_empty()).then(|| RuleEntry::all(rules));
    let (ingress, egress) = (some(&spec.ingress), some(&spec.egress));
    Policy { ingress, egress, ..global_policy(kind, metadata, spec) }
}

/// A policy that names no types, as only one can that no API server has seen, applies to both directions.
fn rules(types: &[PolicyType], direction: PolicyType, rules: &[Rule]) -> Option<Vec<RuleEntry>> {
    (types.is_empty() || types.contains(&direction)).then(|| RuleEntry::all(rules))
}

/// What a rule does when its terms hold. One that asks for HTTP is never sure to hold: it must not allow, and
/// anything else denies.
pub(super) fn effective_action(rule: &Rule) -> Action {
    match (&rule.http, rule.action) {
        (Some(_), Action::Deny | Action::Pass) => Action::Deny,
        (_, action) => action,
    }
}

/// Whether something with these labels is in a namespace that the selector selects. `all()` asks for any
/// namespace, `global()` for none.
pub(super) fn namespace_selected(selector: &Selector, labels: &LabelMap) -> bool {
    let has_namespace = labels.contains_key(NAMESPACE_LABEL);
    let inherited = Inherited { labels, prefix: NAMESPACE_LABEL_PREFIX };
    holds(selector.expr(), &|all| all == has_namespace, &inherited)
}

/// Whether something with these labels runs as a service account that the selector selects.
pub(super) fn service_account_selected(selector: &Selector, labels: &LabelMap) -> bool {
    let inherited = Inherited { labels, prefix: SERVICE_ACCOUNT_LABEL_PREFIX };
    holds(selector.expr(), &|_| true, &inherited)
}

/// Evaluates an expression; `constant` says what `all()` (true) and `global()` (false) stand for.
fn holds(expr: &Expr, constant: &dyn Fn(bool) -> bool, labels: &Inherited<'_>) -> bool {
    match expr {
        Expr::All => constant(true),
        Expr::Global => constant(false),
        Expr::Not(x) => !holds(x, constant, labels),
        Expr::And(all) => all.iter().all(|x| holds(x, constant, labels)),
        Expr::Or(any) => any.iter().any(|x| holds(x, constant, labels)),
        test => test.matches(labels),
    }
}

/// Labels that an endpoint has from its namespace or service account.
struct Inherited<'a> {
    labels: &'a LabelMap,
    prefix: &'static str,
}

impl Labels for Inherited<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.labels.get(&format!("{}{key}", self.prefix)).map(String::as_str)
    }
}

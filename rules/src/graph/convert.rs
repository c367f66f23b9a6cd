//! From a rule as the API has it to a rule in terms of ip sets.
//!
//! All that selects endpoints on one side of a rule (selector, namespace selector, service accounts) becomes
//! one selector text, put together as Calico does: the text decides the id of the set, and so its name.

use std::sync::Arc;

use tortie_api::id::unique_id;
use tortie_api::labels::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_LABEL_PREFIX};
use tortie_api::net::{IpVersion, Port, Protocol};
use tortie_api::policy::{Action, EntityRule, Icmp, Rule};
use tortie_api::selector::{Selector, SelectorError};

use super::model::{Problem, RuleSpec, SetId, SetKind, SideSpec};

/// What an ip set is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetDefinition {
    /// Addresses of what the selector selects.
    Selected(Selector),
    /// (address, protocol, port) of a named port of the endpoints that the selector selects.
    NamedPort { selector: Selector, protocol: PortProtocol, port: Arc<str> },
    /// (address, protocol, port) of a service's endpoints.
    Service { namespace: Arc<str>, name: Arc<str> },
    /// Addresses of a service's endpoints.
    ServiceAddresses { namespace: Arc<str>, name: Arc<str> },
    /// Addresses of the cluster's nodes that the selector selects.
    Nodes(Selector),
}

/// An ip set that a rule refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetNeed {
    pub(crate) id: SetId,
    pub(crate) definition: SetDefinition,
}

/// Which endpoint ports a named port means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortProtocol {
    Any,
    Only(Protocol),
}

impl PortProtocol {
    /// Of a rule's protocol. Numbers mean the same as names.
    fn of(protocol: Option<Protocol>) -> Self {
        match protocol.map(|p| (p, p.number())) {
            None => Self::Any,
            Some((_, 6)) => Self::Only(Protocol::Tcp),
            Some((_, 17)) => Self::Only(Protocol::Udp),
            Some((_, 132)) => Self::Only(Protocol::Sctp),
            Some((p, _)) => Self::Only(p),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Only(protocol) => protocol.dataplane_text(),
        }
    }

    /// Whether a port of an endpoint counts.
    pub(crate) fn admits(self, protocol: Protocol) -> bool {
        match self {
            Self::Any => protocol.has_ports(),
            Self::Only(wanted) => wanted.number() == protocol.number(),
        }
    }
}

impl SetDefinition {
    /// Calico's id.
    pub(crate) fn id(&self) -> SetId {
        let id = match self {
            Self::Selected(selector) => selector.id(),
            Self::NamedPort { selector, protocol, port } => {
                unique_id("n", &format!("{},{},{port}", selector.id(), protocol.text()))
            }
            Self::Service { namespace, name } => unique_id("svc", &format!("{namespace}/{name}")),
            Self::ServiceAddresses { namespace, name } => {
                unique_id("svcnoport", &format!("{namespace}/{name}"))
            }
            Self::Nodes(selector) => unique_id("nodes", selector.canonical()),
        };
        SetId(id.into())
    }

    /// What its members are.
    pub(crate) fn kind(&self) -> SetKind {
        match self {
            Self::Selected(_) | Self::ServiceAddresses { .. } | Self::Nodes(_) => SetKind::Net,
            Self::NamedPort { .. } | Self::Service { .. } => SetKind::AddressPort,
        }
    }
}

/// A rule cannot be followed, and was left out or made stricter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConvertError {
    #[error("this dataplane cannot look into HTTP; the rule is left out, so that it allows nothing")]
    Http,
    #[error("{field}: the selectors together make no selector: {source}")]
    Selector { field: &'static str, source: SelectorError },
}

/// Converts a rule of a policy in `namespace` (empty for global ones). Sets it needs go to `sets`.
pub(crate) fn rule(rule: &Rule, namespace: &str, sets: &mut Vec<SetNeed>) -> Result<RuleSpec, ConvertError> {
    if rule.http.is_some() {
        return Err(ConvertError::Http);
    }
    let implied = |p: Option<Protocol>| match p {
        Some(Protocol::Icmp) => Some(IpVersion::V4),
        Some(Protocol::IcmpV6) => Some(IpVersion::V6),
        _ => None,
    };
    Ok(RuleSpec {
        action: rule.action,
        version: rule.ip_version.or_else(|| implied(rule.protocol)),
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp.and_then(icmp),
        not_icmp: rule.not_icmp.and_then(icmp),
        source: side(&rule.source, "source", namespace, rule.protocol, sets)?,
        destination: side(&rule.destination, "destination", namespace, rule.protocol, sets)?,
        annotations: rule
            .metadata
            .iter()
            .flat_map(|m| m.annotations.iter().map(|(k, v)| format!("{k}={v}")))
            .collect(),
    })
}

/// Converts the rules of one direction. What cannot be followed is made stricter and goes to `problems`.
pub(crate) fn rules(
    list: &[Rule],
    direction: &str,
    object: &str,
    namespace: &str,
    definitions: &mut Vec<SetNeed>,
    problems: &mut Vec<Problem>,
) -> Vec<RuleSpec> {
    let mut converted = Vec::with_capacity(list.len());
    for (at, asked) in list.iter().enumerate() {
        let known = definitions.len();
        match rule(asked, namespace, definitions) {
            Ok(spec) => converted.push(spec),
            Err(error) => {
                definitions.truncate(known);
                problems.push(Problem {
                    object: object.to_owned(),
                    key: None,
                    field: format!("spec.{direction}[{at}]"),
                    message: error.to_string(),
                });
                converted.extend(fail_closed(asked));
            }
        }
    }
    converted
}

/// What stands in for a rule that cannot be followed: nothing for one that allows, a denial of everything for
/// one that denies or passes on.
fn fail_closed(refused: &Rule) -> Option<RuleSpec> {
    match refused.action {
        Action::Allow | Action::Log => None,
        Action::Deny | Action::Pass => {
            let bare = Rule { ip_version: refused.ip_version, ..Rule::new(Action::Deny) };
            rule(&bare, "", &mut Vec::new()).ok()
        }
    }
}

/// A code without a type says nothing.
fn icmp(icmp: Icmp) -> Option<(u8, Option<u8>)> {
    icmp.icmp_type.map(|t| (t, icmp.code))
}

fn side(
    entity: &EntityRule,
    field: &'static str,
    namespace: &str,
    protocol: Option<Protocol>,
    sets: &mut Vec<SetNeed>,
) -> Result<SideSpec, ConvertError> {
    let mut spec =
        SideSpec { nets: entity.nets.clone(), not_nets: entity.not_nets.clone(), ..SideSpec::default() };
    let mut need = |definition: SetDefinition| {
        let id = definition.id();
        sets.push(SetNeed { id: id.clone(), definition });
        id
    };
    let parse = |text: &str| Selector::parse(text).map_err(|source| ConvertError::Selector { field, source });
    let not = entity.not_selector.as_ref().map(Selector::canonical);
    let join = || -> Result<Option<Selector>, ConvertError> {
        let positive = positive_selector(entity, namespace)
            .map_err(|source| ConvertError::Selector { field, source })?;
        match (positive, not) {
            (Some(p), Some(n)) => parse(&format!("({p}) && (!({n}))")).map(Some),
            (Some(p), None) => parse(&p).map(Some),
            (None, _) => Ok(None),
        }
    };
    let positive = match lone_selector(entity, namespace) {
        Some(selector) => Some(selector.clone()),
        None => join()?,
    };
    if let (None, Some(n)) = (&positive, not) {
        spec.not_sets.push(need(SetDefinition::Selected(parse(n)?)));
    }
    let named = |port: &str| SetDefinition::NamedPort {
        selector: positive.clone().unwrap_or_else(Selector::all),
        protocol: PortProtocol::of(protocol),
        port: port.into(),
    };
    for port in &entity.ports {
        match port {
            Port::Range(range) => spec.ports.push(*range),
            Port::Named(name) => spec.named_ports.push(need(named(name))),
        }
    }
    for port in &entity.not_ports {
        match port {
            Port::Range(range) => spec.not_ports.push(*range),
            Port::Named(name) => spec.not_named_ports.push(need(named(name))),
        }
    }
    // Sets of named ports hold only what the selector selects; asking twice would be waste.
    let only_named = spec.ports.is_empty() && !spec.named_ports.is_empty();
    if let Some(selector) = positive.filter(|_| !only_named) {
        spec.sets.push(need(SetDefinition::Selected(selector)));
    }
    if let Some(nodes) = &entity.nodes {
        spec.sets.push(need(SetDefinition::Nodes(nodes.clone())));
    }
    if let Some(service) = &entity.services {
        let namespace: Arc<str> =
            service.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace).into();
        let name: Arc<str> = service.name.as_str().into();
        if field == "destination" {
            spec.services.push(need(SetDefinition::Service { namespace, name }));
        } else {
            spec.sets.push(need(SetDefinition::ServiceAddresses { namespace, name }));
        }
    }
    Ok(spec)
}

/// The selector of one side of a rule, where nothing is to be joined to it.
fn lone_selector<'a>(entity: &'a EntityRule, namespace: &str) -> Option<&'a Selector> {
    let EntityRule { selector, namespace_selector, service_accounts, not_selector, .. } = entity;
    let is_alone = namespace.is_empty()
        && namespace_selector.is_none()
        && service_accounts.is_none()
        && not_selector.is_none();
    selector.as_ref().filter(|selector| is_alone && is_written(selector))
}

/// The selector for one side of a rule, but for `notSelector`. `None` when anything goes.
fn positive_selector(entity: &EntityRule, namespace: &str) -> Result<Option<String>, SelectorError> {
    let selector = entity.selector.as_ref().filter(|s| is_written(s)).map(|s| s.canonical().to_owned());
    let accounts = match &entity.service_accounts {
        Some(m) => {
            let selected =
                m.selector.as_ref().filter(|s| is_written(s)).map(service_account_clause).transpose()?;
            let named = (!m.names.is_empty()).then(|| {
                let names: Vec<String> = m.names.iter().map(|n| format!("\"{n}\"")).collect();
                format!("{SERVICE_ACCOUNT_LABEL} in {{{}}}", names.join(", "))
            });
            both(selected, named)
        }
        None => None,
    };
    let endpoint = both(accounts, selector);
    let asked = entity.namespace_selector.as_ref().filter(|s| is_written(s));
    let clause = match asked {
        Some(selector) => Some(namespace_clause(selector)?),
        None if !namespace.is_empty() => Some(format!("{NAMESPACE_LABEL} == '{namespace}'")),
        None => None,
    };
    let selects = endpoint.is_some() || entity.not_selector.is_some() || asked.is_some();
    Ok(match (clause.filter(|_| selects), endpoint) {
        (Some(clause), Some(endpoint)) => Some(format!("({clause}) && ({endpoint})")),
        (clause, endpoint) => clause.or(endpoint),
    })
}

fn both(a: Option<String>, b: Option<String>) -> Option<String> {
    match (a, b) {
        (Some(a), Some(b)) => Some(format!("({a}) && ({b})")),
        (a, b) => a.or(b),
    }
}

/// A namespace selector in terms of the labels that endpoints inherit from their namespace.
fn namespace_clause(selector: &Selector) -> Result<String, SelectorError> {
    Ok(selector.namespace_clause()?.canonical().to_owned())
}

/// A service account selector in terms of the labels that endpoints inherit from their service account.
fn service_account_clause(selector: &Selector) -> Result<String, SelectorError> {
    Ok(selector.prefix_labels(SERVICE_ACCOUNT_LABEL_PREFIX)?.canonical().to_owned())
}

/// The selector of a namespaced policy: its own, inside its namespace.
pub(crate) fn namespaced_policy_selector(
    selector: Option<&Selector>,
    service_accounts: Option<&Selector>,
    namespace: &str,
) -> Result<Selector, SelectorError> {
    let namespace = format!("{NAMESPACE_LABEL} == '{namespace}'");
    let own = selector.filter(|s| !s.is_all()).map(|s| s.canonical().to_owned());
    let own = match own {
        Some(own) => format!("({own}) && {namespace}"),
        None => namespace,
    };
    restricted(own, service_accounts.filter(|s| is_written(s)).map(service_account_clause).transpose()?)
}

/// The selector of a global policy: its own, inside the namespaces and service accounts that it names.
pub(crate) fn global_policy_selector(
    selector: Option<&Selector>,
    namespaces: Option<&Selector>,
    service_accounts: Option<&Selector>,
) -> Result<Selector, SelectorError> {
    let own = selector.cloned().unwrap_or_else(Selector::all);
    if !namespaces.is_some_and(is_written) && !service_accounts.is_some_and(is_written) {
        return Ok(own);
    }
    let own = own.canonical().to_owned();
    let own = match namespaces.filter(|s| is_written(s)).map(namespace_clause).transpose()? {
        Some(clause) => format!("({own}) && {clause}"),
        None => own,
    };
    restricted(own, service_accounts.filter(|s| is_written(s)).map(service_account_clause).transpose()?)
}

fn restricted(own: String, clause: Option<String>) -> Result<Selector, SelectorError> {
    Selector::parse(&match clause {
        Some(clause) => format!("({own}) && {clause}"),
        None => own,
    })
}

/// Whether a selector is more than an empty text.
fn is_written(selector: &Selector) -> bool {
    !selector.source().trim().is_empty()
}

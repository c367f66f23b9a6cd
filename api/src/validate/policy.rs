//! Policies, profiles and tiers.

use super::names::is_dns_label;
use super::rule::{self, Direction};
use super::{Result, at_most, ensure, metadata};
use crate::policy::{
    BUILT_IN_TIERS, DEFAULT_TIER_ORDER, GlobalNetworkPolicySpec, NetworkPolicySpec, PerformanceHint,
    PolicyType, ProfileSpec, Rule, TierSpec,
};
use crate::resource::FieldError;
use crate::selector::Selector;

/// The most rules that a policy or profile may have in one direction.
const RULES_MAX: usize = 1024;

pub(super) fn network_policy(spec: &NetworkPolicySpec) -> Result {
    tier_name(&spec.tier)?;
    no_global("selector", spec.selector.as_ref())?;
    no_global("serviceAccountSelector", spec.service_account_selector.as_ref())?;
    types(&spec.types)?;
    hints(&spec.performance_hints)?;
    rules(&spec.ingress, &spec.egress)?;
    service_sides(&spec.ingress, &spec.egress)
}

pub(super) fn global_network_policy(spec: &GlobalNetworkPolicySpec) -> Result {
    tier_name(&spec.tier)?;
    no_global("selector", spec.selector.as_ref())?;
    no_global("serviceAccountSelector", spec.service_account_selector.as_ref())?;
    no_global("namespaceSelector", spec.namespace_selector.as_ref())?;
    types(&spec.types)?;
    hints(&spec.performance_hints)?;
    host_only(spec)?;
    rules(&spec.ingress, &spec.egress)?;
    service_sides(&spec.ingress, &spec.egress)?;
    service_namespaces(&spec.ingress, "ingress")?;
    service_namespaces(&spec.egress, "egress")
}

pub(super) fn profile(spec: &ProfileSpec) -> Result {
    rules(&spec.ingress, &spec.egress)?;
    metadata::labels(spec.labels_to_apply.iter()).map_err(|error| error.within("labelsToApply"))
}

pub(super) fn tier(name: &str, spec: &TierSpec) -> Result {
    let Some((_, order, action)) = BUILT_IN_TIERS.into_iter().find(|(built_in, ..)| *built_in == name) else {
        return Ok(());
    };
    let is_same = spec.order.unwrap_or(DEFAULT_TIER_ORDER).total_cmp(&order).is_eq();
    ensure(is_same, "order", || format!("the built-in tier {name} has order {order}"))?;
    ensure(spec.default_action == action, "defaultAction", || {
        format!("the built-in tier {name} has default action {action:?}")
    })
}

fn tier_name(name: &str) -> Result {
    ensure(is_dns_label(name), "tier", || format!("{name:?} is no name of a tier"))
}

pub(super) fn no_global(field: &str, selector: Option<&Selector>) -> Result {
    ensure(!selector.is_some_and(Selector::contains_global), field, || {
        "global() may stand in the namespaceSelector of a rule only".to_owned()
    })
}

fn types(types: &[PolicyType]) -> Result {
    match types {
        [first, rest @ ..] if rest.contains(first) => {
            Err(FieldError::new("types", format!("{first:?} is there twice")))
        }
        _ => at_most(types, 2, "types"),
    }
}

fn hints(hints: &[PerformanceHint]) -> Result {
    ensure(hints.len() <= 1, "performanceHints", || "the same hint is there twice".to_owned())
}

/// Rules of policies that act on host endpoints before other policy does.
fn host_only(spec: &GlobalNetworkPolicySpec) -> Result {
    ensure(!(spec.pre_dnat && spec.do_not_track), "preDNAT", || {
        "preDNAT and doNotTrack cannot both be true".to_owned()
    })?;
    ensure(!spec.pre_dnat || spec.egress.is_empty(), "egress", || {
        "a policy with preDNAT cannot have egress rules".to_owned()
    })?;
    ensure(!spec.pre_dnat || !spec.types.contains(&PolicyType::Egress), "types", || {
        "a policy with preDNAT cannot have the type Egress".to_owned()
    })?;
    ensure(spec.apply_on_forward || !(spec.pre_dnat || spec.do_not_track), "applyOnForward", || {
        "must be true for a policy with preDNAT or doNotTrack".to_owned()
    })
}

fn rules(ingress: &[Rule], egress: &[Rule]) -> Result {
    for (field, rules, direction) in
        [("ingress", ingress, Direction::Ingress), ("egress", egress, Direction::Egress)]
    {
        at_most(rules, RULES_MAX, field)?;
        for (index, rule) in rules.iter().enumerate() {
            rule::check(rule, direction).map_err(|error| error.within_item(field, index))?;
        }
    }
    Ok(())
}

/// A service stands for the other side only: the source of ingress, the destination of egress.
fn service_sides(ingress: &[Rule], egress: &[Rule]) -> Result {
    for (index, rule) in ingress.iter().enumerate() {
        ensure(rule.destination.services.is_none(), "destination.services", || {
            "services cannot be the destination of an ingress rule".to_owned()
        })
        .map_err(|error| error.within_item("ingress", index))?;
    }
    for (index, rule) in egress.iter().enumerate() {
        ensure(rule.source.services.is_none(), "source.services", || {
            "services cannot be the source of an egress rule".to_owned()
        })
        .map_err(|error| error.within_item("egress", index))?;
    }
    Ok(())
}

/// A policy without a namespace cannot mean "my own namespace".
fn service_namespaces(rules: &[Rule], field: &str) -> Result {
    for (index, rule) in rules.iter().enumerate() {
        for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
            let is_open =
                entity.services.as_ref().is_some_and(|s| s.namespace.as_deref().unwrap_or("").is_empty());
            ensure(!is_open, &format!("{side}.services.namespace"), || {
                "is required in a GlobalNetworkPolicy".to_owned()
            })
            .map_err(|error| error.within_item(field, index))?;
        }
    }
    Ok(())
}

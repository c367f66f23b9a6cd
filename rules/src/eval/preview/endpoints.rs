//! Endpoints whose list of policies changes.

use std::collections::BTreeMap;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use tortie_api::policy::PolicyType;

use super::super::derived::Endpoint;
use super::super::explain::Point;
use super::super::policy::Flavour;
use super::sites::Both;
use super::view::View;
use super::{Change, EndpointChange, ListChange, ListedPolicy};

/// The places of an endpoint's policies among all, none if it is not there.
type Lists = Both<Option<Rc<Vec<usize>>>>;

/// What changes for an endpoint: for traffic to it and from it.
type Changes = Both<Option<ListChange>>;

/// The changes; endpoints with the same one together.
pub(super) fn changes(views: &mut Both<View<'_>>) -> Vec<EndpointChange> {
    // Kinds of endpoints apart, and by full name.
    let mut points: BTreeMap<(bool, &str, &str), Both<Option<&Endpoint>>> = BTreeMap::new();
    for (at, view) in views.iter().enumerate() {
        for workload in &view.derived.workloads {
            let (namespace, _) = workload.point.workload();
            points.entry((false, namespace, &workload.full_name)).or_default()[at] = Some(workload);
        }
        for host in &view.derived.hosts {
            let Point::Host { name } = &host.point else { continue };
            points.entry((true, "", name)).or_default()[at] = Some(host);
        }
    }
    let mut known: FxHashMap<(Lists, bool), Option<usize>> = FxHashMap::default();
    let mut changes: Vec<(Change, Changes, Vec<Point>)> = Vec::new();
    for ((is_host, ..), endpoints) in points {
        let lists = [0, 1].map(|at| {
            let view = &mut views[at];
            endpoints[at].map(|own| {
                let in_force = if is_host { own } else { view.in_force(own) };
                view.policies(in_force)
            })
        });
        let place = *known.entry((lists.clone(), is_host)).or_insert_with(|| {
            let (change, lists) = change(views, &lists, is_host)?;
            let same = changes.iter().position(|(c, l, _)| *c == change && *l == lists);
            Some(same.unwrap_or_else(|| {
                changes.push((change, lists, Vec::new()));
                changes.len() - 1
            }))
        });
        if let (Some(place), Some(endpoint)) = (place, endpoints[1].or(endpoints[0])) {
            changes[place].2.push(endpoint.point.clone());
        }
    }
    let told = |(change, [ingress, egress], endpoints): (Change, Changes, Vec<Point>)| EndpointChange {
        endpoints,
        change,
        ingress,
        egress,
    };
    changes.into_iter().map(told).collect()
}

fn change(views: &Both<View<'_>>, lists: &Lists, is_host: bool) -> Option<(Change, Changes)> {
    let change = match lists {
        [None, Some(_)] => Change::Added,
        [Some(_), None] => Change::Removed,
        _ => Change::Changed,
    };
    let changes = [PolicyType::Ingress, PolicyType::Egress].map(|direction| {
        let [before, after] = [0, 1].map(|at| {
            let places = lists[at].as_ref().map(|list| list.as_slice()).unwrap_or_default();
            listed(&views[at], places, direction, is_host)
        });
        list_change(&before, after)
    });
    (change != Change::Changed || changes.iter().any(Option::is_some)).then_some((change, changes))
}

fn listed(view: &View<'_>, places: &[usize], direction: PolicyType, is_host: bool) -> Vec<ListedPolicy> {
    let policies = places.iter().map(|place| &view.derived.policies[*place]);
    let is_for_it = |flavour| is_host || matches!(flavour, Flavour::Normal | Flavour::ApplyOnForward);
    policies
        .filter(|policy| policy.rules(direction).is_some() && is_for_it(policy.flavour))
        .map(|policy| ListedPolicy { tier: policy.tier.clone(), policy: policy.id.clone() })
        .collect()
}

fn list_change(before: &[ListedPolicy], after: Vec<ListedPolicy>) -> Option<ListChange> {
    if before == after {
        return None;
    }
    let is_in =
        |list: &[ListedPolicy], one: &ListedPolicy| list.iter().any(|other| other.policy == one.policy);
    let only = |list: &[ListedPolicy], other: &[ListedPolicy]| {
        list.iter().filter(|one| !is_in(other, one)).cloned().collect::<Vec<_>>()
    };
    let common_before = before.iter().filter(|one| is_in(&after, one));
    let common_after = after.iter().filter(|one| is_in(before, one));
    let is_reordered = !common_before.eq(common_after);
    let (begin, cease) = (only(&after, before), only(before, &after));
    Some(ListChange { begin, cease, is_reordered, after })
}

//! Policies in force that come, go or change.

use std::collections::BTreeMap;

use tortie_api::policy::{PolicyType, Rule};

use super::super::explain::PolicyId;
use super::super::policy::{Flavour, Policy, RuleEntry};
use super::rule_line::rule_line;
use super::sites::Both;
use super::view::View;
use super::{Change, FieldChange, PolicyChange, RuleAt, RuleChange};

/// The changes, by policy.
pub(super) fn changes(views: &Both<View<'_>>) -> Vec<PolicyChange> {
    let mut policies: BTreeMap<&PolicyId, Both<Option<&Policy>>> = BTreeMap::new();
    for (at, view) in views.iter().enumerate() {
        for policy in view.derived.policies.iter().filter(|policy| policy.staged.is_none()) {
            policies.entry(&policy.id).or_default()[at] = Some(policy);
        }
    }
    policies.into_iter().filter_map(|(id, policies)| change(id, policies)).collect()
}

fn change(id: &PolicyId, policies: Both<Option<&Policy>>) -> Option<PolicyChange> {
    let tier = policies[1].or(policies[0])?.tier.clone();
    let change = match policies {
        [None, _] => Change::Added,
        [_, None] => Change::Removed,
        _ => Change::Changed,
    };
    let fields = if change == Change::Changed { field_changes(policies) } else { Vec::new() };
    let directions = [PolicyType::Ingress, PolicyType::Egress];
    let rules: Vec<RuleChange> = directions
        .into_iter()
        .flat_map(|direction| {
            let [before, after] =
                policies.map(|policy| policy.and_then(|p| p.rules(direction)).unwrap_or_default());
            rule_changes(direction, before, after)
        })
        .collect();
    let differs = change != Change::Changed || !fields.is_empty() || !rules.is_empty();
    differs.then(|| PolicyChange { policy: id.clone(), tier, change, fields, rules })
}

fn field_changes(policies: Both<Option<&Policy>>) -> Vec<FieldChange> {
    let [before, after] = policies.map(|policy| policy.map(fields).unwrap_or_default());
    let names: std::collections::BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let differs = |field: &&str| before.get(field) != after.get(field);
    let told = |field: &str| FieldChange {
        field: field.to_owned(),
        before: before.get(field).cloned(),
        after: after.get(field).cloned(),
    };
    names.into_iter().filter(differs).map(told).collect()
}

fn fields(policy: &Policy) -> BTreeMap<&'static str, String> {
    let mut fields = BTreeMap::from([("tier", policy.tier.clone())]);
    fields.extend(policy.order.map(|order| ("order", order.to_string())));
    fields.extend(policy.subject_selectors().map(|(field, _, s)| (field, s.source().to_owned())));
    let types = [(PolicyType::Ingress, "Ingress"), (PolicyType::Egress, "Egress")];
    let types = types.into_iter().filter(|(direction, _)| policy.rules(*direction).is_some());
    fields.insert("types", types.map(|(_, name)| name).collect::<Vec<_>>().join(", "));
    let flavour = match policy.flavour {
        Flavour::Normal => None,
        Flavour::ApplyOnForward => Some("applyOnForward"),
        Flavour::PreDnat => Some("preDNAT"),
        Flavour::Untracked => Some("doNotTrack"),
    };
    fields.extend(flavour.map(|field| (field, "true".to_owned())));
    fields
}

fn rule_changes(direction: PolicyType, before: &[RuleEntry], after: &[RuleEntry]) -> Vec<RuleChange> {
    let [before, after] =
        [before, after].map(|list| list.iter().map(|entry| &entry.rule).collect::<Vec<&Rule>>());
    let at = |list: &[&Rule], index: usize| RuleAt { index, rule: rule_line(list[index]) };
    let mut changes = Vec::new();
    let (mut old, mut new) = (0, 0);
    // Between two rules that stay, what went is told beside what came.
    for (stays_old, stays_new) in common(&before, &after).into_iter().chain([(before.len(), after.len())]) {
        while old < stays_old || new < stays_new {
            let went = (old < stays_old).then(|| at(&before, old));
            let came = (new < stays_new).then(|| at(&after, new));
            old += usize::from(went.is_some());
            new += usize::from(came.is_some());
            changes.push(RuleChange { direction, before: went, after: came });
        }
        (old, new) = (stays_old + 1, stays_new + 1);
    }
    changes
}

/// The longest common subsequence, as pairs of places.
fn common(before: &[&Rule], after: &[&Rule]) -> Vec<(usize, usize)> {
    let same = |(a, b): &(&&Rule, &&Rule)| a == b;
    let head = before.iter().zip(after).take_while(same).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    // lengths[i][j]: of the longest one of what follows.
    let mut lengths = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i][j] = if old[i] == new[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|at| (at, at)).collect();
    let (mut i, mut j) = (0, 0);
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            pairs.push((head + i, head + j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs.extend((0..tail).map(|at| (before.len() - tail + at, after.len() - tail + at)));
    pairs
}

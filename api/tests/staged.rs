//! Staged policies: what is taken, what is filled in, what is refused and where.

use serde_json::{Value, json};
use tortie_api::policy::PolicyType::{Egress, Ingress};
use tortie_api::resource::{FieldError, Resource};
use tortie_api::staged::StagedAction;
use tortie_api::{Metadata, Object, convert};

const KINDS: [&str; 3] =
    ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"];

fn read(kind: &str, spec: &Value) -> Result<Resource, FieldError> {
    Resource::from_value(&json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": "a"},
        "spec": spec,
    }))
}

#[track_caller]
fn refused(kind: &str, spec: &Value) -> String {
    read(kind, spec).expect_err("it was taken").to_string()
}

fn action_of(resource: &Resource) -> StagedAction {
    match resource {
        Resource::StagedNetworkPolicy(o) => o.spec.staged_action,
        Resource::StagedGlobalNetworkPolicy(o) => o.spec.staged_action,
        Resource::StagedKubernetesNetworkPolicy(o) => o.spec.staged_action,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_staged_policy_that_names_no_action_is_to_be_set() {
    for kind in KINDS {
        for spec in [json!({}), json!({"stagedAction": null}), json!({"stagedAction": "Set"})] {
            assert_eq!(action_of(&read(kind, &spec).unwrap()), StagedAction::Set, "{kind} {spec}");
        }
        for (text, action) in [
            ("Delete", StagedAction::Delete),
            ("Learn", StagedAction::Learn),
            ("Ignore", StagedAction::Ignore),
        ] {
            assert_eq!(action_of(&read(kind, &json!({"stagedAction": text})).unwrap()), action, "{kind}");
        }
    }
}

#[test]
fn other_actions_are_refused() {
    for kind in KINDS {
        assert_eq!(
            refused(kind, &json!({"stagedAction": "set"})),
            "spec.stagedAction: unknown variant `set`, expected one of `Set`, `Delete`, `Learn`, `Ignore`"
        );
        assert_eq!(
            refused(kind, &json!({"stagedAction": 1})),
            "spec.stagedAction: invalid type: integer `1`, expected a string"
        );
    }
    let enforced = refused("NetworkPolicy", &json!({"stagedAction": "Set"}));
    assert!(enforced.starts_with("spec.stagedAction: unknown field `stagedAction`"), "{enforced}");
}

#[test]
fn the_rest_is_read_and_filled_in_as_in_an_enforced_policy() {
    let rules = json!([{"action": "Allow"}]);
    let Resource::StagedNetworkPolicy(o) =
        read("StagedNetworkPolicy", &json!({"stagedAction": "Learn", "egress": rules, "order": 3})).unwrap()
    else {
        panic!("another kind")
    };
    assert_eq!((o.spec.policy.tier.as_str(), o.spec.policy.order), ("default", Some(3.0)));
    assert_eq!(o.spec.policy.types, [Egress]);
    let Resource::StagedGlobalNetworkPolicy(o) =
        read("StagedGlobalNetworkPolicy", &json!({"ingress": rules, "egress": rules, "tier": "security"}))
            .unwrap()
    else {
        panic!("another kind")
    };
    assert_eq!((o.spec.policy.tier.as_str(), o.spec.policy.types), ("security", vec![Ingress, Egress]));
    let Resource::StagedKubernetesNetworkPolicy(o) =
        read("StagedKubernetesNetworkPolicy", &json!({"podSelector": {}, "egress": [{}]})).unwrap()
    else {
        panic!("another kind")
    };
    assert_eq!(o.spec.policy.policy_types, [Ingress, Egress]);
}

#[test]
fn faults_of_the_rest_are_named_as_in_an_enforced_policy() {
    assert!(
        refused("StagedNetworkPolicy", &json!({"stagedAction": "Set", "preDNAT": true}))
            .starts_with("spec.preDNAT: unknown field `preDNAT`")
    );
    assert_eq!(
        refused("StagedGlobalNetworkPolicy", &json!({"preDNAT": true})),
        "spec.applyOnForward: must be true for a policy with preDNAT or doNotTrack"
    );
    assert_eq!(
        refused("StagedKubernetesNetworkPolicy", &json!({"podSelector": {}, "ingress": [{"from": [{}]}]})),
        "spec.ingress[0].from[0]: needs podSelector, namespaceSelector or ipBlock"
    );
    assert!(
        refused("StagedKubernetesNetworkPolicy", &json!({"podSelector": {}, "tier": "default"}))
            .starts_with("spec.tier: unknown field `tier`")
    );
}

#[test]
fn a_deletion_takes_no_field_but_the_tier() {
    let message = "cannot stand beside stagedAction Delete, which takes no field but tier";
    let rules = json!([{"action": "Allow"}]);
    for (field, value) in [
        ("order", json!(1)),
        ("selector", json!("all()")),
        ("ingress", rules.clone()),
        ("egress", rules),
        ("types", json!(["Ingress"])),
        ("serviceAccountSelector", json!("all()")),
        ("performanceHints", json!(["AssumeNeededOnEveryNode"])),
    ] {
        for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] {
            let spec = json!({"stagedAction": "Delete", "tier": "security", field: value});
            assert_eq!(refused(kind, &spec), format!("spec.{field}: {message}"), "{kind}");
        }
    }
    let spec = json!({"stagedAction": "Delete", "applyOnForward": true});
    assert_eq!(refused("StagedGlobalNetworkPolicy", &spec), format!("spec.applyOnForward: {message}"));
    for (field, value) in [
        ("podSelector", json!({"matchLabels": {"a": "1"}})),
        ("policyTypes", json!(["Egress"])),
        ("ingress", json!([{}])),
    ] {
        let spec = json!({"stagedAction": "Delete", field: value});
        assert_eq!(refused("StagedKubernetesNetworkPolicy", &spec), format!("spec.{field}: {message}"));
    }
    let empty =
        json!({"stagedAction": "Delete", "tier": "security", "selector": "", "ingress": [], "types": null});
    let Resource::StagedNetworkPolicy(o) = read("StagedNetworkPolicy", &empty).unwrap() else { panic!() };
    assert_eq!((o.spec.policy.tier.as_str(), o.spec.policy.types), ("security", vec![]));
    let empty = json!({"stagedAction": "Delete", "podSelector": {}});
    assert!(read("StagedKubernetesNetworkPolicy", &empty).is_ok());
}

#[test]
fn names_have_the_form_of_the_enforced_twin() {
    for (kind, name, is_good) in [
        ("StagedNetworkPolicy", "tier.a", true),
        ("StagedNetworkPolicy", "knp.default.a.b", true),
        ("StagedNetworkPolicy", "a.b.c", false),
        ("StagedGlobalNetworkPolicy", "a.b.c", false),
        ("StagedKubernetesNetworkPolicy", "a.b.c", true),
    ] {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": {}});
        let error = Resource::from_value(&value).err().map(|error| error.field);
        assert_eq!(error.as_deref(), (!is_good).then_some("metadata.name"), "{kind} {name}");
    }
}

#[test]
fn a_staged_policy_of_the_classic_group_loses_the_prefix_of_its_tier() {
    for (kind, name) in [
        ("StagedNetworkPolicy", "web"),
        ("StagedGlobalNetworkPolicy", "web"),
        ("StagedKubernetesNetworkPolicy", "default.web"),
    ] {
        let value = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": kind,
            "metadata": {"name": "default.web", "annotations": {"projectcalico.org/metadata": "{}"}},
            "spec": {},
        });
        assert_eq!(Resource::from_value(&value).unwrap().metadata().name, name, "{kind}");
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    let spec = json!({
        "stagedAction": "Learn",
        "tier": "security",
        "order": 7.5,
        "selector": "a == '1'",
        "types": ["Ingress"],
        "ingress": [{"action": "Deny", "protocol": "TCP"}],
    });
    let Resource::StagedNetworkPolicy(o) = read("StagedNetworkPolicy", &spec).unwrap() else { panic!() };
    assert_eq!(serde_json::to_value(&o.spec).unwrap(), spec);
}

#[test]
fn a_staged_kubernetes_policy_converts_as_the_enforced_one() {
    let spec = json!({"podSelector": {"matchLabels": {"a": "1"}}, "ingress": [{"ports": [{"port": 80}]}]});
    let Resource::StagedKubernetesNetworkPolicy(staged) =
        read("StagedKubernetesNetworkPolicy", &spec).unwrap()
    else {
        panic!("another kind")
    };
    let enforced = Object { metadata: Metadata::default(), spec: staged.spec.policy.clone() };
    let converted = convert::staged_network_policy(&staged);
    assert_eq!(converted, convert::network_policy(&enforced));
    let (spec, notes) = converted;
    assert_eq!((spec.tier.as_str(), spec.order, notes.len()), ("default", Some(1000.0), 0));
    assert_eq!(spec.selector.unwrap().source(), "projectcalico.org/orchestrator == 'k8s' && a == '1'");
}

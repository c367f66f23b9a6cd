//! `tortiectl delete`.

use std::fs;

use crate::support::{Folders, run};

const TIER: &str = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\n";
const NAMESPACES: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {team: blue}}
";

fn policies(namespace: &str) -> String {
    ["projectcalico.org/v3", "networking.k8s.io/v1"]
        .map(|api| {
            let spec = if api == "networking.k8s.io/v1" { "{podSelector: {}}" } else { "{}" };
            format!(
                "apiVersion: {api}\nkind: NetworkPolicy\nmetadata: {{name: deny, namespace: {namespace}}}\nspec: {spec}\n"
            )
        })
        .join("---\n")
}

#[test]
fn an_object_is_deleted_by_its_name() {
    let folders = Folders::new();
    folders.apply(TIER);
    folders.run("delete tier security").prints("tier.projectcalico.org \"security\" deleted\n");
    folders.run("get tiers").says(0, "No resources found\n");
    assert!(folders.files().is_empty());
    folders.run("delete tier security").says(1, "error: tiers.projectcalico.org \"security\" not found\n");
    folders.run("delete tier security --ignore-not-found").prints("");
}

#[test]
fn the_other_documents_of_a_file_stay() {
    let folders = Folders::new();
    let file = folders.put("all.yaml", &format!("{TIER}---\n{NAMESPACES}"));
    folders
        .run("delete ns/bank tier/security")
        .prints("namespace \"bank\" deleted\ntier.projectcalico.org \"security\" deleted\n");
    folders.run("get all -o name").prints("namespace/shop\n");
    assert!(fs::read_to_string(file).unwrap().contains("team: red"));
}

#[test]
fn the_objects_of_manifests_are_deleted_and_what_is_missing_is_reported() {
    let folders = Folders::new();
    folders.apply(TIER);
    let file = folders.write("x.yaml", &format!("{NAMESPACES}---\n{TIER}---\nkind: [\n"));
    let ran = run(folders.command(["delete", "-f"]).arg(&file));
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "tier.projectcalico.org \"security\" deleted\n"));
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.err);
    assert!(lines[0].starts_with(&format!("error: {}:1", file.display())), "{}", lines[0]);
    assert_eq!(lines[1], format!("error: {}:1: namespaces \"shop\" not found", file.display()));
    assert_eq!(lines[2], format!("error: {}:5: namespaces \"bank\" not found", file.display()));

    let good = folders.write("y.yaml", NAMESPACES);
    run(folders.command(["delete", "--ignore-not-found", "-f"]).arg(&good)).prints("");
}

#[test]
fn a_name_that_means_two_objects_deletes_neither() {
    let folders = Folders::new();
    folders.apply(&policies("shop"));
    folders.run("delete policy deny -n shop").says(
        1,
        "error: policy/deny could be networkpolicy.projectcalico.org/deny or networkpolicy.networking.k8s.io/deny: \
         name one of them\n",
    );
    folders.run("delete netpol deny -n shop").prints("networkpolicy.networking.k8s.io \"deny\" deleted\n");
    folders.run("delete policy deny -n shop").prints("networkpolicy.projectcalico.org \"deny\" deleted\n");
    folders.run("delete policy deny -n shop").says(1, "error: policy/deny not found\n");
}

#[test]
fn labels_and_all_delete_what_they_select() {
    let folders = Folders::new();
    folders.apply(NAMESPACES);
    folders.apply(&policies("shop"));
    folders.apply(&policies("bank"));
    folders.run("delete ns -l team=blue").prints("namespace \"bank\" deleted\n");
    folders.run("delete netpol --all -n shop").prints("networkpolicy.networking.k8s.io \"deny\" deleted\n");
    folders.run("delete netpol --all -n shop").says(0, "No resources found\n");
    folders.run("get all -A -o name").prints(
        "\
networkpolicy.projectcalico.org/deny
networkpolicy.projectcalico.org/deny
networkpolicy.networking.k8s.io/deny
namespace/shop
",
    );
    folders.run("delete np --all -A").prints(
        "networkpolicy.projectcalico.org \"deny\" deleted\nnetworkpolicy.projectcalico.org \"deny\" deleted\n",
    );
}

#[test]
fn deleting_much_by_a_vague_word_is_refused() {
    let folders = Folders::new();
    folders.apply(TIER);
    for line in ["delete all --all", "delete policies --all", "delete tiers", "delete tier x --all", "delete"]
    {
        let ran = folders.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{line}: {}", ran.err);
    }
    folders.run("get tiers -o name").prints("tier.projectcalico.org/security\n");
}

#[test]
fn a_broken_document_can_be_deleted() {
    let folders = Folders::new();
    folders.put("x.yaml", &format!("{TIER}spec: {{order: first}}\n"));
    folders.run("delete tier security").prints("tier.projectcalico.org \"security\" deleted\n");
    assert!(folders.files().is_empty());
}

#[test]
fn policies_of_every_kind_are_applied_shown_and_deleted() {
    let object = |api: &str, kind: &str, name: &str, spec: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let (calico, kube) = ("projectcalico.org/v3", "policy.networking.k8s.io");
    let subject = "subject: {namespaces: {}}";
    let objects = [
        object(calico, "StagedNetworkPolicy", "a", "{stagedAction: Delete}"),
        object(calico, "StagedGlobalNetworkPolicy", "a", "{order: 1}"),
        object(calico, "StagedKubernetesNetworkPolicy", "a", "{podSelector: {}}"),
        object(
            &format!("{kube}/v1alpha2"),
            "ClusterNetworkPolicy",
            "a",
            &format!("{{tier: Admin, priority: 1, {subject}}}"),
        ),
        object(
            &format!("{kube}/v1alpha1"),
            "AdminNetworkPolicy",
            "a",
            &format!("{{priority: 1, {subject}}}"),
        ),
        object(
            &format!("{kube}/v1alpha1"),
            "BaselineAdminNetworkPolicy",
            "default",
            &format!("{{{subject}}}"),
        ),
    ];
    let words = [
        "stagednetworkpolicy.projectcalico.org",
        "stagedglobalnetworkpolicy.projectcalico.org",
        "stagedkubernetesnetworkpolicy.projectcalico.org",
        "clusternetworkpolicy.policy.networking.k8s.io",
        "adminnetworkpolicy.policy.networking.k8s.io",
        "baselineadminnetworkpolicy.policy.networking.k8s.io",
    ];
    let folders = Folders::new();
    let ran = folders.apply(&objects.join("---\n"));
    assert_eq!((ran.code, ran.out.lines().count(), ran.err.as_str()), (Some(0), 6, ""), "{}", ran.out);
    let names = words.map(|word| format!("{word}/{}\n", if word.starts_with('b') { "default" } else { "a" }));
    folders.run("get policies -o name").prints(&names.concat());
    for name in &names {
        let ran = folders.run(&format!("delete {name}"));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{name}");
    }
    assert!(folders.files().is_empty(), "{:?}", folders.files());
}

#[test]
fn a_policy_that_is_refused_is_reported_with_its_field() {
    let folders = Folders::new();
    let file = folders.write(
        "x.yaml",
        "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - action: Deny
    to:
    - networks: [10.0.0.0/33]
",
    );
    let ran = run(folders.command(["apply", "-f"]).arg(&file));
    let expected = format!(
        "error: {}:11: ClusterNetworkPolicy/a: spec.egress[0].to[0].networks[0]: \"10.0.0.0/33\" is no IP address and no \
         CIDR like 10.0.0.0/8 or fd00::/8\n",
        file.display()
    );
    assert_eq!((ran.code, ran.err), (Some(1), expected));
}

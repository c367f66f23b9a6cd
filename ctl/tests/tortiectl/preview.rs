use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Folders, Ran, run, tortiectl};

fn shop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop")
}

/// Lets prometheus ask the database, which may be pinged by anybody.
const OPEN: &str = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: open-db, namespace: shop}\n\
spec:\n  order: 10\n  selector: app == 'database'\n  types: [Ingress]\n  ingress:\n  \
- {action: Allow, protocol: TCP, source: {selector: app == 'prometheus', namespaceSelector: all()}, destination: {ports: [postgres]}}\n";

/// Previews a change of `examples/shop`.
fn of_shop(change: &str, words: &[&str]) -> Ran {
    let folders = Folders::new();
    let file = folders.write("change.yaml", change);
    run(tortiectl().arg("preview").arg("-R").arg("--against").arg(shop()).arg("-f").arg(file).args(words))
}

fn json(ran: &Ran) -> Value {
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn a_new_policy_is_told_with_its_rules_its_endpoints_and_what_it_opens() {
    of_shop(OPEN, &[]).prints(
        "\
Policies in force:
  NetworkPolicy shop/open-db in tier default comes
    ingress[0] comes: Allow TCP from app == 'prometheus' and namespaces with all() to port postgres
Endpoints:
  pod shop/database:
    ingress: NetworkPolicy shop/open-db in tier default begins to apply
Traffic:
  becomes allowed: TCP to port 5432
    from pod monitoring/prometheus
    to pod shop/database
",
    );
}

#[test]
fn a_deleted_policy_is_told_with_what_it_closes() {
    let frontend = shop().join("policies/frontend.yaml");
    let ran =
        run(tortiectl().args(["preview", "--delete", "-R", "-f"]).arg(frontend).arg("--against").arg(shop()));
    ran.prints(
        "\
Policies in force:
  KubernetesNetworkPolicy shop/frontend in tier default goes
    ingress[0] goes: Allow TCP from 0.0.0.0/0 but not 10.65.0.0/16 to port http
    egress[0] goes: Allow TCP to projectcalico.org/orchestrator == 'k8s' && app == 'backend' port api
Endpoints:
  pod shop/frontend:
    ingress: KubernetesNetworkPolicy shop/frontend in tier default ceases to apply
    egress: KubernetesNetworkPolicy shop/frontend in tier default ceases to apply
Traffic:
  becomes denied: TCP to port 8000
    from pod shop/frontend
    to pod shop/backend
  becomes denied: TCP to port 8080, if they are on different nodes
    from node node-1, node node-2
    to pod shop/frontend
  becomes denied: TCP to port 8080
    from addresses outside of the cluster (but not in 10.65.0.0/16, 192.0.2.66/32, 203.0.113.0/24)
    to pod shop/frontend
",
    );
}

#[test]
fn the_report_as_data_has_everything_in_it() {
    let report = json(&of_shop(OPEN, &["-o", "json"]));
    assert_eq!(report["objects"][0]["kind"], "NetworkPolicy");
    assert_eq!(report["objects"][0]["change"], "added");
    assert_eq!(report["policies"][0]["policy"]["name"], "open-db");
    assert_eq!(report["policies"][0]["rules"][0]["direction"], "Ingress");
    assert_eq!(report["policies"][0]["rules"][0]["after"]["index"], 0);
    assert_eq!(report["endpoints"][0]["endpoints"][0]["workload"]["name"], "database");
    assert_eq!(report["endpoints"][0]["ingress"]["begin"][0]["policy"]["name"], "open-db");
    assert_eq!(report["endpoints"][0]["ingress"]["after"][1]["policy"]["name"], "open-db");
    let verdict = &report["verdicts"][0];
    assert_eq!(verdict["becomes"], "allow");
    assert_eq!(verdict["sources"][0]["workload"]["namespace"], "monitoring");
    assert_eq!(verdict["traffic"][0]["protocol"], "TCP");
    assert_eq!(verdict["traffic"][0]["ports"][0]["first"], 5432);
    let yaml = of_shop(OPEN, &["-o", "yaml"]);
    assert!(yaml.out.contains("- becomes: allow\n"), "{}", yaml.out);
}

#[test]
fn nothing_that_changes_is_said_as_well() {
    let ran = run(tortiectl().args(["preview", "-R", "-f"]).arg(shop()).arg("--against").arg(shop()));
    ran.prints("Nothing changes.\n");
}

#[test]
fn labels_network_sets_and_tiers_are_changes_too() {
    let set = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: blocklist, labels: {threat: blocklist}}\n\
               spec: {nets: [192.0.2.66/32, 192.0.2.0/28]}\n";
    let ran = of_shop(set, &[]);
    let told = "    nets: `203.0.113.0/24` becomes `192.0.2.0/28`\n";
    assert!(ran.out.contains(told), "{}", ran.out);
    let denied = "  becomes denied: everything\n    from pod monitoring/prometheus\n    to addresses outside of the cluster in 192.0.2.0/28\n";
    assert!(ran.out.contains(denied), "{}", ran.out);
    let allowed = "  becomes allowed: everything\n    from pod monitoring/prometheus\n    to addresses outside of the cluster in 203.0.113.0/24\n";
    assert!(ran.out.contains(allowed), "{}", ran.out);

    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: monitoring, labels: {team: nobody}}\n";
    let ran = of_shop(namespace, &[]);
    assert!(ran.out.contains("    labels.team: `operations` becomes `nobody`\n"), "{}", ran.out);
    let denied =
        "  becomes denied: TCP to port 9100\n    from pod monitoring/prometheus\n    to pod shop/backend\n";
    assert!(ran.out.ends_with(denied), "{}", ran.out);

    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\nspec: {order: 100, defaultAction: Deny}\n";
    let ran = of_shop(tier, &[]);
    assert!(ran.out.contains("    defaultAction: `Pass` becomes `Deny`\n"), "{}", ran.out);
    assert!(
        ran.out.contains("  becomes denied: TCP to port 8000\n    from pod shop/frontend\n"),
        "{}",
        ran.out
    );
}

/// The shop's datastore with `extra` in it.
fn store(extra: &str) -> Folders {
    let folders = Folders::new();
    let mut copy = |file: &str| {
        let text = std::fs::read_to_string(shop().join(file)).unwrap();
        folders.put(file, &text);
    };
    ["cluster.yaml", "namespaces.yaml", "pods.yaml", "policies/database.yaml"]
        .into_iter()
        .for_each(&mut copy);
    folders.put("extra.yaml", extra);
    folders
}

#[test]
fn a_manifest_without_status_changes_a_pod_as_apply_does() {
    let folders = store("");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: frontend, namespace: shop, labels: {app: backend}}\n\
               spec:\n  nodeName: node-1\n  serviceAccountName: frontend\n  containers: [{name: frontend, image: i}]\n";
    let file = folders.write("pod.yaml", pod);
    let ran = run(folders.command(["preview", "-f"]).arg(&file));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(
        ran.out.contains("  Pod shop/frontend (v1) changes\n    labels.app: `frontend` becomes `backend`\n"),
        "{}",
        ran.out
    );
    let allowed =
        "  becomes allowed: TCP to port 5432\n    from pod shop/frontend\n    to pod shop/database\n";
    assert!(ran.out.ends_with(allowed), "{}", ran.out);
    // Nothing was applied.
    assert!(run(folders.command(["preview", "-f"]).arg(&file)).out == ran.out);
}

#[test]
fn staged_policies_are_previewed_as_if_they_were_in_force() {
    let staged = "apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: lock, namespace: shop}\n\
                  spec:\n  order: 1\n  selector: app == 'database'\n  types: [Ingress]\n  ingress: [{action: Deny}]\n\
                  ---\napiVersion: projectcalico.org/v3\nkind: StagedKubernetesNetworkPolicy\nmetadata: {name: database, namespace: shop}\n\
                  spec: {stagedAction: Delete}\n";
    let folders = store(staged);
    let ran = folders.run("preview --staged");
    assert!(
        ran.out.starts_with(
            "\
Policies in force:
  KubernetesNetworkPolicy shop/database in tier default goes
    ingress[0] goes: Allow TCP from projectcalico.org/orchestrator == 'k8s' && app == 'backend' to port postgres
  NetworkPolicy shop/lock in tier default comes
    ingress[0] comes: Deny
Endpoints:
  pod shop/database:
    ingress: NetworkPolicy shop/lock in tier default begins to apply
    ingress: KubernetesNetworkPolicy shop/database in tier default ceases to apply
"
        ),
        "{}",
        ran.out
    );
    let denied = "  becomes denied: TCP to port 5432\n    from pod shop/backend\n    to pod shop/database\n";
    assert!(ran.out.ends_with(denied), "{}", ran.out);
    let file = folders.write("staged.yaml", staged);
    let ran = run(tortiectl().args(["preview", "--staged", "--against"]).arg(file));
    assert!(ran.out.ends_with("No traffic becomes allowed or denied.\n"), "{}", ran.out);
}

#[test]
fn a_broken_change_is_an_error_that_names_file_and_field() {
    let folders = store("");
    let broken = OPEN.replace("protocol: TCP", "protocol: TPC");
    let file = folders.write("broken.yaml", &broken);
    let ran = run(folders.command(["preview", "-f"]).arg(&file));
    let told = format!("error: {}:9: NetworkPolicy/shop/open-db: spec.ingress[0].protocol: ", file.display());
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.starts_with(&told), "{}", ran.err);

    let file = folders.write("open.yaml", OPEN);
    let ran = run(folders.command(["preview", "--delete", "-f"]).arg(&file));
    let told = format!(
        "error: {}:1: networkpolicies.projectcalico.org \"open-db\" not found in namespace shop\n",
        file.display()
    );
    ran.says(1, &told);

    let felix = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {vxlanPort: 123456}\n";
    let file = folders.write("felix.yaml", felix);
    let ran = run(folders.command(["preview", "-f"]).arg(&file));
    ran.says(1, "error: FelixConfiguration default: spec.vxlanPort: 123456 is not a port\n");
    folders.run("preview -f /nowhere").says(1, "error: cannot read /nowhere: No such file or directory\n");
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    let folders = store("");
    for line in [
        "preview",
        "preview --delete",
        "preview --staged -f x.yaml",
        "preview --staged --delete",
        "preview -f x.yaml -o wide",
    ] {
        let ran = folders.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{line}: {}", ran.err);
    }
}

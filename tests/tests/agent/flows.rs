//! What policy means to connections that exist, and which address the world sees.

use std::net::IpAddr;

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;
use tortie_tests::lab::{Lab, LabBuilder};

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, expect_line};
use crate::shop::{self, CLIENT, OTHER, WEB, allow_to, namespace, pod};
use crate::watch::{Mirror, Talk, Watch, ask};

/// What every user of Calico finds in the table `nat`.
const MASQUERADE: &str = r#"-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully"#;

pub(crate) fn trials() -> Vec<Trial> {
    crate::on_both(
        "flows",
        &[
            ("a_new_policy_is_for_new_connections_and_established_ones_go_on", established),
            ("a_policy_that_takes_anothers_place_in_one_file_opens_nothing_meanwhile", replaced_policy),
            ("a_policy_and_what_it_refers_to_in_one_file_come_into_force_together", together),
            ("pods_go_out_with_their_nodes_address_and_to_pods_with_their_own", outgoing),
        ],
    )
}

fn established(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let mut talk = Talk::open(&scene, CLIENT, WEB)?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    scene.expect(&[(CLIENT, WEB, false)])?;
    talk.goes_on()?;
    // Nor does closing the way of the sender end it.
    scene.apply(
        "client.yaml",
        shop::policy("client-out", "  selector: app == 'client'\n  types: [Egress]\n"),
    )?;
    scene.expect(&[(CLIENT, WEB, false), (CLIENT, "shop/vault", false)])?;
    talk.goes_on()
}

/// One change of one file is one change: between the old policy and the new one there is no moment without any.
fn replaced_policy(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let by = |api: &str, kind: &str, name: &str, namespace: &str, spec: &str| {
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\nspec: {{{spec}}}\n")
    };
    let (calico, shop) = ("projectcalico.org/v3", ", namespace: shop");
    let closing = "selector: app == 'web', types: [Ingress]";
    let versions = [
        by(calico, "GlobalNetworkPolicy", "web-in", "", closing),
        by("networking.k8s.io/v1", "NetworkPolicy", "web-in", shop, "podSelector: {matchLabels: {app: web}}"),
        by(calico, "NetworkPolicy", "web-in", shop, closing),
        by(calico, "NetworkPolicy", "web-a", shop, closing),
        by(calico, "NetworkPolicy", "web-z", shop, closing),
    ];
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    for _ in 0..25 {
        for version in &versions {
            scene.apply("web.yaml", version)?;
            scene.expect_problem(Area::Datastore, &[])?;
        }
    }
    closed.end()
}

/// A policy is not in force before the network set or the pod's label that it relies on, if one file brings both.
fn together(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    scene.remove("web.yaml")?;
    let policy = |ingress: &str| {
        format!(
            "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: web-in}}
spec: {{selector: app == 'web', types: [Ingress], ingress: [{ingress}]}}
---
"
        )
    };
    let listed = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: listed, labels: {list: all}}
spec: {nets: [10.65.1.4]}
---
";
    let allowed_but_listed = policy("{action: Allow, source: {notSelector: list == 'all'}}");
    let allowed_but_labelled = policy("{action: Allow, source: {notSelector: is == 'bad'}}");
    let labelled = shop::pods().replace("{app: other}", "{app: other, is: bad}");
    let versions = [
        policy("") + &shop::pods(),
        allowed_but_listed + listed + &shop::pods(),
        policy("") + &shop::pods(),
        allowed_but_labelled + &labelled,
    ];
    scene.remove("pods.yaml")?;
    scene.apply("all.yaml", &versions[0])?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    for _ in 0..25 {
        for version in &versions {
            scene.apply("all.yaml", version)?;
        }
    }
    closed.end()
}

/// Two nodes with a pod each, and a host outside.
fn two_nodes() -> LabBuilder {
    Lab::builder()
        .node(NODE, "172.18.0.11")
        .node("node-2", "172.18.0.12")
        .pod("shop", "client", NODE, "10.65.1.3")
        .pod("shop", "near", NODE, "10.65.1.4")
        .pod("shop", "remote", "node-2", "10.65.2.2")
        .external("outside", "192.0.2.10")
}

/// The address that each of some receivers sees the client at.
fn seen_by(scene: &Scene, receivers: &[&str]) -> Result<Vec<String>, Failed> {
    let mut seen = Vec::new();
    for receiver in receivers {
        let host = scene.lab.host(&receiver.parse()?)?;
        let address = host.addresses().v4.ok_or("no IPv4 address")?;
        let _mirror = Mirror::open(host.netns(), 53)?;
        let from = ask(&scene.netns(CLIENT)?, IpAddr::V4(address), 53)?;
        seen.push(from.map_or_else(|| "nobody".to_owned(), |ip| ip.to_string()));
    }
    Ok(seen)
}

fn outgoing(backend: Backend) -> Outcome {
    let mut scene = Scene::new(two_nodes(), backend)?;
    let pool = |nat: bool| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool}}\nspec: {{cidr: 10.65.0.0/16, natOutgoing: {nat}}}\n"
        )
    };
    let pods =
        [("client", NODE, "10.65.1.3"), ("near", NODE, "10.65.1.4"), ("remote", "node-2", "10.65.2.2")];
    let pods: String = pods.map(|(name, node, address)| pod("shop", name, node, address, "a: b")).concat();
    scene.write("pods.yaml", namespace("shop", "a: b") + &pods)?;
    scene.write("pool.yaml", pool(true))?;
    scene.start()?;
    expect_line(&scene.iptables(NODE, "iptables-save -t nat")?, MASQUERADE)?;
    let receivers = ["ext:outside", "shop/near", "shop/remote", "node:node-2"];
    assert_eq!(seen_by(&scene, &receivers)?, ["172.18.0.11", "10.65.1.3", "10.65.1.3", "172.18.0.11"]);
    scene.apply("pool.yaml", pool(false))?;
    assert_eq!(seen_by(&scene, &receivers)?, ["10.65.1.3"; 4]);
    scene.apply("pool.yaml", pool(true))?;
    expect_line(&scene.iptables(NODE, "iptables-save -t nat")?, MASQUERADE)?;
    assert_eq!(seen_by(&scene, &receivers)?, ["172.18.0.11", "10.65.1.3", "10.65.1.3", "172.18.0.11"]);
    scene.remove("pool.yaml")?;
    scene.settle()?;
    assert_eq!(seen_by(&scene, &receivers)?, ["10.65.1.3"; 4]);
    Ok(())
}

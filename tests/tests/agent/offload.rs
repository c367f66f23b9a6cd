//! Connections that skip the rules, in nftables mode.

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;
use tortie_tests::lab::{Family, Lab};

use crate::Outcome;
use crate::line::Line;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, CLIENT, OTHER, SHOP, namespace, pod, policy};
use crate::watch::Talk;

const CLIENT_AT: &str = "10.65.1.3";
const OTHER_AT: &str = "10.65.1.4";
const REMOTE: &str = "shop/remote";

/// What makes an endpoint keep to the rules.
const MARKED: &str = r#"qos.projectcalico.org/dscp: "46""#;

/// For any kernel.
pub(crate) fn trials_here() -> Vec<Trial> {
    crate::named(
        "offload",
        &[("where_the_kernel_cannot_do_it_that_is_said_and_policies_are_in_force", missing)],
    )
}

fn missing() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.set_env("FELIX_NFTABLESMODE", "Enabled");
    scene.set_env("FELIX_NFTABLESFLOWTABLEOFFLOAD", "All");
    scene.start()?;
    scene.expect(&SHOP)?;
    let has_table = scene.run(NODE, "nft list table ip calico")?.contains("flowtable calico");
    let words = ["NFTablesFlowTableOffload", "this kernel has no flowtables"];
    scene.expect_problem(Area::Setting, if has_table { &[] } else { &words })
}

/// For a kernel with flowtables.
pub(crate) fn trials() -> Vec<Trial> {
    crate::in_both_layouts(
        "offload",
        &[
            ("connections_skip_the_rules_unless_these_have_work_with_each_packet", offload),
            ("tcp_and_udp_of_both_ip_versions_skip_the_rules", each),
        ],
    )
}

fn pods(client: &str) -> String {
    let annotated = |pod: String, annotations: &str| {
        pod.replace("metadata: {", &format!("metadata: {{annotations: {{{annotations}}}, "))
    };
    namespace("shop", "a: b")
        + &annotated(pod("shop", "client", NODE, CLIENT_AT, "app: client"), client)
        + &annotated(pod("shop", "other", NODE, OTHER_AT, "app: other"), MARKED)
        + &pod("shop", "remote", "node-2", "10.65.2.2", "app: remote")
}

/// The node's connection from an address, in `conntrack`'s words.
fn connection(scene: &Scene, address: &str) -> Result<Option<String>, Failed> {
    let text = scene.run(NODE, "conntrack -L -p tcp")?;
    Ok(text.lines().find(|line| line.contains(&format!("src={address} "))).map(str::to_owned))
}

/// Packets of known connections that came to the rules of the node.
fn seen(scene: &Scene, family: &str) -> Result<String, Failed> {
    let text = scene.run(NODE, &format!("nft list chain {family} calico filter-cali-FORWARD"))?;
    let line = text.lines().find(|line| line.contains("flow add @calico"));
    let line = line.ok_or_else(|| format!("nothing skips the rules of\n{text}"))?;
    let count = line.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(count.ok_or("no counter")?.to_owned())
}

/// Keeps talking until the connection skips the rules, or no longer does.
fn expect_offload(scene: &Scene, talk: &mut Talk, address: &str, is_wanted: bool) -> Outcome {
    eventually(&format!("connection of {address} offloaded: {is_wanted}"), || {
        talk.goes_on()?;
        let line = connection(scene, address)?.ok_or("a connection that is not tracked")?;
        Ok((line.contains("[OFFLOAD]") == is_wanted).then_some(()))
    })?;
    (0..10).try_for_each(|_| talk.goes_on())
}

fn offload(layout: &str) -> Outcome {
    let builder = Lab::builder()
        .node(NODE, "172.18.0.11")
        .node("node-2", "172.18.0.12")
        .pod("shop", "client", NODE, CLIENT_AT)
        .pod("shop", "other", NODE, OTHER_AT)
        .pod("shop", "remote", "node-2", "10.65.2.2");
    let mut scene = Scene::new(builder, Backend::Nft)?;
    scene.set_env("FELIX_NFTABLESMODE", "Enabled");
    scene.set_env("FELIX_NFTABLESLAYOUT", layout);
    scene.set_env("FELIX_NFTABLESFLOWTABLEOFFLOAD", "All");
    scene.set_env("FELIX_NFTABLESFLOWTABLEDATAIFACEPATTERN", "^eth0$");
    scene.write("pods.yaml", pods(""))?;
    scene.start()?;
    let mut talk = Talk::open(&scene, CLIENT, REMOTE)?;
    expect_offload(&scene, &mut talk, CLIENT_AT, true)?;
    // The rules see none of it any more, in neither direction.
    let before = seen(&scene, "ip")?;
    (0..10).try_for_each(|_| talk.goes_on())?;
    assert_eq!(seen(&scene, "ip")?, before);
    let mut marked = Talk::open(&scene, OTHER, REMOTE)?;
    expect_offload(&scene, &mut marked, OTHER_AT, false)?;
    // A new policy is for new connections.
    scene.apply("client.yaml", policy("client-out", "  selector: app == 'client'\n  types: [Egress]\n"))?;
    scene.expect(&[(CLIENT, REMOTE, false)])?;
    expect_offload(&scene, &mut talk, CLIENT_AT, true)?;
    // Excluded, the connection comes back to the rules, and goes on.
    scene.apply("pods.yaml", pods(MARKED))?;
    expect_offload(&scene, &mut talk, CLIENT_AT, false)?;
    scene.apply("pods.yaml", pods(""))?;
    expect_offload(&scene, &mut talk, CLIENT_AT, true)?;
    // Who gets the address next does not get the connection.
    scene.remove("pods.yaml")?;
    eventually("an address without connections", || {
        Ok(connection(&scene, CLIENT_AT)?.is_none().then_some(()))
    })?;
    Ok(())
}

/// Whether a connection to a port skips the rules.
fn is_offloaded(scene: &Scene, family: &str, port: u16) -> Result<bool, Failed> {
    let text = scene.run(NODE, &format!("conntrack -L -f {family}"))?;
    let line = text.lines().find(|line| line.contains(&format!(" dport={port} ")));
    Ok(line.ok_or_else(|| format!("no connection to port {port} in\n{text}"))?.contains("[OFFLOAD]"))
}

fn each(layout: &str) -> Outcome {
    let at = |number: u8, ip: &str| format!("10.65.{number}.{ip},fd00:65::{number}:{ip}");
    let (client, other, remote) = (at(1, "3"), at(1, "4"), at(2, "2"));
    let builder = Lab::builder()
        .node(NODE, "172.18.0.11,fd00::ac12:11")
        .node("node-2", "172.18.0.12,fd00::ac12:12")
        .pod("shop", "client", NODE, client.as_str())
        .pod("shop", "other", NODE, other.as_str())
        .pod("shop", "remote", "node-2", remote.as_str());
    let mut scene = Scene::new(builder, Backend::Native)?;
    scene.set_env("FELIX_IPV6SUPPORT", "true");
    scene.set_env("FELIX_NFTABLESLAYOUT", layout);
    scene.set_env("FELIX_NFTABLESFLOWTABLEOFFLOAD", "All");
    scene.set_env("FELIX_NFTABLESFLOWTABLEDATAIFACEPATTERN", "^eth0$");
    let both = |name: &str, node: &str, addresses: &str, annotations: &str| {
        let (v4, v6) = addresses.split_once(',').unwrap_or((addresses, ""));
        let pod = pod("shop", name, node, v4, &format!("app: {name}"));
        pod.replace("metadata: {", &format!("metadata: {{annotations: {{{annotations}}}, "))
            .replace(&format!("{{ip: {v4}}}"), &format!("{{ip: {v4}}}, {{ip: \"{v6}\"}}"))
    };
    let pods = namespace("shop", "a: b")
        + &both("client", NODE, &client, "")
        + &both("other", NODE, &other, MARKED)
        + &both("remote", "node-2", &remote, "");
    scene.write("pods.yaml", pods)?;
    scene.start()?;
    let mut lines = Vec::new();
    for (family, name, table) in [(Family::V4, "ipv4", "ip"), (Family::V6, "ipv6", "ip6")] {
        for is_tcp in [true, false] {
            let mut line = Line::of(&scene, CLIENT, REMOTE, (is_tcp, family))?;
            eventually(&format!("{name}, TCP {is_tcp}: offloaded"), || {
                line.goes_on()?;
                Ok(is_offloaded(&scene, name, line.port)?.then_some(()))
            })?;
            let before = seen(&scene, table)?;
            (0..10).try_for_each(|_| line.goes_on())?;
            assert_eq!(seen(&scene, table)?, before, "{name}, TCP {is_tcp}");
            let mut marked = Line::of(&scene, OTHER, REMOTE, (is_tcp, family))?;
            (0..10).try_for_each(|_| marked.goes_on())?;
            assert!(!is_offloaded(&scene, name, marked.port)?, "{name}, TCP {is_tcp}");
            lines.push((line, name));
        }
    }
    scene.apply("client.yaml", policy("client-out", "  selector: app == 'client'\n  types: [Egress]\n"))?;
    scene.expect(&[(CLIENT, REMOTE, false)])?;
    for (line, name) in &mut lines {
        line.goes_on()?;
        assert!(is_offloaded(&scene, name, line.port)?, "{name}");
    }
    Ok(())
}

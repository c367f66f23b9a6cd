//! Faults of Felix that are not to be had here. Each test fails where the rules are as Felix writes them, which those
//! that can say so prove: they put its rendering in the place of ours.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tortie_api::control::{Apply, Area};

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB};
use crate::wire::{END_PORT, Ear, say};

pub(crate) fn trials() -> Vec<Trial> {
    crate::on_both(
        "faults",
        &[
            ("the_third_and_the_fourth_match_block_of_a_rule_count", match_blocks),
            ("denying_with_an_answer_leaves_the_other_tables_in_force", reject),
            ("what_is_listed_in_any_order_is_written_once", written_once),
        ],
    )
}

/// Whether a word comes through to the port of a pod.
fn is_heard(scene: &Scene, from: &str, to: &str) -> Result<bool, Failed> {
    let address = |of: &str| -> Result<IpAddr, Failed> {
        let address = scene.lab.host(&of.parse()?)?.addresses().v4;
        Ok(address.ok_or("no IPv4 address")?.into())
    };
    let (sender, target) = (scene.netns(from)?, address(to)?);
    let ear = Ear::open(&scene.netns(to)?)?;
    say(&sender, None, target, &["word"])?;
    Ok(!ear.words(|end| say(&sender, None, target, &[end]))?.is_empty())
}

/// A rule for UDP with as many blocks of alternatives: ports, sources, destinations, and what not to come from.
fn blocks(destinations: &str) -> String {
    let ports: Vec<String> = (6990..7010).map(|port| port.to_string()).collect();
    shop::policy(
        "web-in",
        &format!(
            "  selector: app == 'web'
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: UDP
    source:
      nets: [10.65.1.3/32, 10.65.1.200/32]
      ports: [\"1:65535\", \"1:2\", \"3:4\", \"5:6\", \"7:8\", \"9:10\", \"11:12\", \"13:14\"]
    destination:
      nets: [{destinations}]
      ports: [{}]
  - action: Allow
    protocol: UDP
    destination:
      ports: [{END_PORT}]
",
            ports.join(", ")
        ),
    )
}

fn match_blocks(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    scene.apply("web.yaml", blocks("10.65.1.2/32, 10.65.1.201/32"))?;
    assert!(is_heard(&scene, CLIENT, WEB)?, "all four blocks match");
    assert!(!is_heard(&scene, OTHER, WEB)?, "the sources do not match");
    scene.apply("web.yaml", blocks("10.65.1.201/32, 10.65.1.202/32"))?;
    assert!(!is_heard(&scene, CLIENT, WEB)?, "the destinations do not match");
    // As Felix has it, nothing clears the bit of a block for the next one.
    scene.lab.stop_agent(NODE)?;
    let chain = "cali-pi-np/shop/web-in";
    let rules = scene.iptables(NODE, &format!("iptables -S {chain}"))?;
    let clearing =
        |rules: &str| rules.lines().position(|line| line.ends_with("-j MARK --set-xmark 0x0/0x100000"));
    let mut left = rules;
    // Line 0 names the chain; rules are counted from 1.
    while let Some(at) = clearing(&left) {
        scene.iptables(NODE, &format!("iptables -D {chain} {at}"))?;
        left = scene.iptables(NODE, &format!("iptables -S {chain}"))?;
    }
    assert!(is_heard(&scene, CLIENT, WEB)?, "Felix's rendering is not caught by this test:\n{left}");
    Ok(())
}

fn reject(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_IPTABLESFILTERDENYACTION", "REJECT");
    scene.set_env("FELIX_NFTABLESFILTERDENYACTION", "REJECT");
    let host = "apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {host: here}}
spec: {node: node-1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec: {selector: has(host), preDNAT: true, applyOnForward: true, types: [Ingress], ingress: [{action: Deny, protocol: UDP, destination: {ports: [6999]}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: normal}
spec: {selector: has(host), types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Deny, protocol: UDP, destination: {ports: [6999]}}, {action: Allow}]}
";
    scene.write("host.yaml", host)?;
    scene.start()?;
    for area in [Area::Kernel, Area::Policy] {
        scene.expect_problem(area, &[])?;
    }
    scene.expect(&SHOP)?;
    // What is denied is told so.
    let at = SocketAddr::new("10.65.1.2".parse()?, 80);
    let refused = scene.netns(OTHER)?.enter(|| TcpStream::connect_timeout(&at, Duration::from_secs(5)))?;
    assert_eq!(refused.map_err(|e| e.kind()).err(), Some(std::io::ErrorKind::ConnectionRefused));
    // The table `raw` is in force: what comes from an address that is not the sender's is dropped.
    let netns = scene.netns(CLIENT)?;
    netns.check("ip", &["addr", "add", "203.0.113.7/32", "dev", "lo"], "")?;
    let ear = Ear::open(&scene.netns(OTHER)?)?;
    let target: IpAddr = "10.65.1.4".parse()?;
    say(&netns, Some("203.0.113.7".parse()?), target, &["spoofed"])?;
    assert_eq!(ear.words(|end| say(&netns, None, target, &[end]))?, []);
    // Which it would not be with the rule that Felix writes.
    let line = "iptables -t raw -A cali-rpf-skip -m rpfilter --invert --validmark -j REJECT";
    assert!(scene.iptables(NODE, line).is_err(), "the kernel takes REJECT in the table raw");
    Ok(())
}

/// Annotations, sources, floating addresses and marks, all in many and unsorted.
fn many_of_all() -> String {
    let plain = "metadata: {name: client, namespace: shop,";
    let annotations = r#"cni.projectcalico.org/allowedSourcePrefixes: '["203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/28", "192.0.2.64/28"]', cni.projectcalico.org/floatingIPs: '["198.51.100.9", "198.51.100.10"]', qos.projectcalico.org/dscp: AF11"#;
    let pods = shop::pods();
    assert!(pods.contains(plain));
    let one = "podIPs: [{ip: 10.65.1.3}]";
    let two = "podIPs: [{ip: 10.65.1.33}, {ip: 10.65.1.3}]";
    let pods = pods.replace(plain, &format!("{plain} annotations: {{{annotations}}},")).replace(one, two);
    let policy = shop::policy(
        "noted",
        "  selector: app == 'vault'
  ingress:
  - action: Allow
    metadata: {annotations: {z: last, a: first, m: middle, b: second, y: nearly, k: inside}}
    source: {selector: app == 'client'}
",
    );
    pods + &policy
}

/// Felix sorts none of them, so that its next process writes most of it anew; and a rule for two addresses is never what
/// the kernel made of it.
fn written_once(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_WORKLOADSOURCESPOOFING", "Any");
    scene.set_env("FELIX_FLOATINGIPS", "Enabled");
    scene.write("pods.yaml", many_of_all())?;
    scene.start()?;
    let before = scene.kernel(NODE)?;
    for part in [
        "-A cali-egress-dscp -s 10.65.1.33/32",
        "-A cali-rpf-skip -s 192.0.2.64/28",
        "-A cali-fip-dnat -d 198.51.100.10/32",
    ] {
        assert!(before.iter().any(|line| line.contains(part)), "{part}: {before:#?}");
    }
    for _ in 0..3 {
        scene.lab.stop_agent(NODE)?;
        scene.start()?;
        let status = scene.status(NODE)?;
        assert_eq!((status.applies, status.last_apply), (0, Apply::default()));
        crate::scene::expect_same(&before, &scene.kernel(NODE)?)?;
    }
    scene.expect(&[(CLIENT, VAULT, true), (OTHER, VAULT, false)])
}

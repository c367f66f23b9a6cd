//! Host endpoints: their chains come and go with the host's interfaces, on a running agent.

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually, expect_line};
use crate::shop::{self, SHOP};

pub(crate) fn trials() -> Vec<Trial> {
    crate::on_both(
        "hosts",
        &[
            ("a_host_endpoint_is_in_force_while_its_interface_is_there", follows_interface),
            ("an_excluded_interface_has_no_host_endpoint", excluded_interface),
            ("failsafe_ports_change_in_flight", failsafe_ports),
        ],
    )
}

/// A host endpoint of the node and a policy for it, of every flavour.
fn host_endpoint(place: &str) -> String {
    let policy = |name: &str, flavour: &str| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{selector: has(host), {flavour} types: [Ingress], ingress: [{{action: Allow}}]}}\n"
        )
    };
    format!(
        "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: late, labels: {{host: here}}}}\n\
         spec: {{node: {NODE}, {place}}}\n{}{}{}",
        policy("plain", ""),
        policy("early", "preDNAT: true, applyOnForward: true,"),
        policy("raw", "doNotTrack: true, applyOnForward: true,"),
    )
}

/// Tables that hold a chain `cali-fh-late0`.
fn tables(scene: &Scene) -> Result<Vec<&'static str>, Failed> {
    let mut found = Vec::new();
    for table in ["raw", "mangle", "filter"] {
        let text = scene.iptables(NODE, &format!("iptables-save -t {table}"))?;
        if text.lines().any(|line| line.starts_with(":cali-fh-late0 ")) {
            found.push(table);
        }
    }
    Ok(found)
}

fn expect_tables(scene: &Scene, wanted: &[&str]) -> Outcome {
    let look = || Ok((tables(scene)? == wanted).then_some(()));
    eventually(&format!("chains of late0 in {wanted:?}"), look)
}

fn add_interface(scene: &Scene) -> Outcome {
    scene.run(NODE, "ip link add late0 type veth peer name late1")?;
    scene.run(NODE, "ip addr add 192.0.2.77/24 dev late0")?;
    Ok(())
}

fn follows_interface(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let before = scene.kernel(NODE)?;
    scene.apply("host.yaml", host_endpoint("expectedIPs: [192.0.2.77]"))?;
    let idle = ["HostEndpoint late", "no interface of this node has one of these addresses"];
    scene.expect_problem(Area::Policy, &idle)?;
    add_interface(&scene)?;
    expect_tables(&scene, &["raw", "mangle", "filter"])?;
    eventually("no problem is left", || Ok(scene.problems(Area::Policy)?.is_empty().then_some(())))?;
    scene.expect(&SHOP)?;
    scene.run(NODE, "ip addr del 192.0.2.77/24 dev late0")?;
    expect_tables(&scene, &[])?;
    eventually("the problem is back", || Ok((!scene.problems(Area::Policy)?.is_empty()).then_some(())))?;
    scene.expect_problem(Area::Policy, &idle)?;
    scene.apply("host.yaml", host_endpoint("interfaceName: late0"))?;
    expect_tables(&scene, &["raw", "mangle", "filter"])?;
    scene.run(NODE, "ip link del late0")?;
    scene.remove("host.yaml")?;
    scene.expect_kernel(NODE, &before)
}

fn excluded_interface(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_INTERFACEEXCLUDE", "kube-ipvs0,/^late/");
    scene.start()?;
    add_interface(&scene)?;
    scene.apply("host.yaml", host_endpoint("interfaceName: late0"))?;
    assert_eq!(tables(&scene)?, Vec::<&str>::new());
    let own = scene.run(NODE, "ipset list cali40this-host")?;
    assert!(!own.contains("192.0.2.77"), "{own}");
    Ok(())
}

fn failsafe_ports(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    add_interface(&scene)?;
    scene.write("host.yaml", host_endpoint("interfaceName: late0"))?;
    scene.start()?;
    let felix = |ports: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\n\
             spec: {{failsafeInboundHostPorts: [{ports}]}}\n"
        )
    };
    let listed = |scene: &Scene| scene.iptables(NODE, "iptables -S cali-failsafe-in");
    assert_eq!(listed(&scene)?.lines().count(), 1 + 9);
    scene.apply("felix.yaml", felix("{protocol: TCP, port: 2222, net: 10.0.0.0/8}"))?;
    let text = eventually("one failsafe port", || {
        let text = listed(&scene)?;
        Ok((text.lines().count() == 2).then_some(text))
    })?;
    assert!(text.contains("-s 10.0.0.0/8 -p tcp") && text.contains("--dports 2222 -j ACCEPT"), "{text}");
    scene.apply("felix.yaml", felix("{protocol: SCTP, port: 1}"))?;
    scene.expect_problem(Area::Setting, &["failsafeInboundHostPorts", "tcp or udp", "stays in force"])?;
    assert_eq!(listed(&scene)?, text, "nobody is locked out by a slip");
    scene.remove("felix.yaml")?;
    let text = eventually("the built-in ports", || {
        let text = listed(&scene)?;
        Ok((text.lines().count() == 10).then_some(text))
    })?;
    expect_line(&text, "-N cali-failsafe-in")
}

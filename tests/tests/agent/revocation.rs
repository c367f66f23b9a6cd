//! Policy that is tightened ends established connections at once, in nftables mode and where that is asked for.

use std::io;

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;
use tortie_tests::lab::Lab;

use crate::Outcome;
use crate::line::{BLOCKED_WAIT, Ends, Line, PASS_WAIT, Stream, To, entry};
use crate::scene::{Backend, NODE, Scene, eventually, native_lines};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, allow_to, policy};

/// Ours of a connection's mark.
const MASK: u32 = 0xffff_0000;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::in_both_layouts(
        "revocation",
        &[
            (
                "a_connection_that_policy_no_longer_allows_ends_in_both_directions_and_others_lose_nothing",
                tightened,
            ),
            ("closing_the_way_of_the_sender_ends_its_connections", sender),
            ("a_pod_that_leaves_a_set_loses_its_connections", member),
            ("generations_go_round_and_no_packet_is_lost", round),
            ("what_changes_while_no_agent_runs_ends_connections_when_the_next_one_begins", restart),
            ("turned_on_and_off_in_flight_it_cuts_nothing_that_is_allowed", turned),
            ("connections_to_a_service_and_out_of_the_cluster_end_as_others_do", translated),
            ("connections_of_a_host_end_but_for_failsafe_ports", host),
            ("where_rules_drop_with_an_answer_it_is_given", rejected),
        ],
    );
    trials.extend(crate::named(
        "revocation",
        &[
            ("without_the_setting_connections_go_on_and_carry_no_mark", unasked),
            ("in_iptables_mode_the_setting_is_named_as_without_effect", iptables),
            ("with_it_connections_keep_to_the_rules_and_that_is_said", no_offload),
        ],
    ));
    trials
}

/// The shop before its agent is started.
fn stocked(layout: &str) -> Result<Scene, Failed> {
    let mut scene = shop::stocked(Backend::Native)?;
    scene.set_env("FELIX_NFTABLESLAYOUT", layout);
    scene.set_env("FELIX_NFTABLESINSTANTREVOCATION", "Enabled");
    Ok(scene)
}

fn open(layout: &str) -> Result<Scene, Failed> {
    let mut scene = stocked(layout)?;
    scene.start()?;
    scene.expect(&SHOP)?;
    Ok(scene)
}

/// TCP and UDP of a client with the web server.
fn lines(scene: &Scene) -> Result<[Line; 2], Failed> {
    Ok([Line::tcp(scene, CLIENT, WEB)?, Line::udp(scene, CLIENT, WEB)?])
}

/// The number of the generation that is in force.
fn generation(scene: &Scene) -> Result<String, Failed> {
    let text = scene.run(NODE, "nft list chain ip calico cali-conn-passed")?;
    let line = text.lines().find(|line| line.ends_with("comment \"Came through\""));
    let line = line.ok_or_else(|| format!("no generation in\n{text}"))?;
    let word = line.split(" | ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(word.ok_or("no number")?.to_owned())
}

fn tightened(layout: &str) -> Outcome {
    let mut scene = open(layout)?;
    // Another program of the node marks connections as well.
    scene.run(NODE, "nft add table ip other")?;
    scene.run(NODE, "nft add chain ip other marks { type filter hook prerouting priority -190 ; }")?;
    scene.run(NODE, "nft add rule ip other marks ct mark set ct mark | 0x00000005")?;
    let stream = Stream::open(&scene, CLIENT, VAULT)?;
    let mut kept = Line::tcp(&scene, CLIENT, VAULT)?;
    let [mut tcp, mut udp] = lines(&scene)?;
    let before = [tcp.port, udp.port, kept.port].map(|port| entry(&scene, port));
    scene.apply("web.yaml", allow_to("web", "other"))?;
    tcp.is_cut(&scene)?;
    udp.is_cut(&scene)?;
    kept.goes_on()?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true), (CLIENT, VAULT, true)])?;
    // What has nothing to do with it opens nothing.
    let ports = |action: &str| {
        policy(
            "other-out",
            &format!("  selector: app == 'other'\n  types: [Egress]\n  egress: [{{action: {action}}}]\n"),
        )
    };
    let number = generation(&scene)?;
    scene.apply("other.yaml", ports("Allow"))?;
    assert_ne!(generation(&scene)?, number);
    assert!(!udp.arrives(To::Back, BLOCKED_WAIT)? && !udp.arrives(To::There, BLOCKED_WAIT)?);
    scene.apply("web.yaml", allow_to("web", "client"))?;
    tcp.resumes()?;
    udp.resumes()?;
    kept.goes_on()?;
    for (port, before) in [tcp.port, udp.port, kept.port].into_iter().zip(before) {
        let (before, after) = (before?, entry(&scene, port)?);
        assert_eq!(after.id, before.id, "nothing was taken out of conntrack");
        assert_eq!((before.mark & !MASK, after.mark & !MASK), (5, 5));
    }
    stream.end(&scene)?;
    // A plan after an apply is empty: reading the kernel again begins nothing.
    let number = generation(&scene)?;
    let lines = native_lines(&scene.run(NODE, "nft list ruleset")?);
    scene.write("unrelated.yaml", shop::namespace("elsewhere", "a: b"))?;
    scene.settle()?;
    assert_eq!(native_lines(&scene.run(NODE, "nft list ruleset")?), lines);
    assert_eq!(generation(&scene)?, number);
    Ok(())
}

fn sender(layout: &str) -> Outcome {
    let mut scene = open(layout)?;
    let stream = Stream::open(&scene, OTHER, CLIENT)?;
    let [mut tcp, mut udp] = lines(&scene)?;
    let out =
        |rest: &str| policy("client-out", &format!("  selector: app == 'client'\n  types: [Egress]\n{rest}"));
    scene.apply("client.yaml", out(""))?;
    tcp.is_cut(&scene)?;
    udp.is_cut(&scene)?;
    scene.apply("client.yaml", out("  egress: [{action: Allow}]\n"))?;
    tcp.resumes()?;
    udp.resumes()?;
    // The client answers although it may begin nothing.
    stream.end(&scene)
}

fn member(layout: &str) -> Outcome {
    let mut scene = open(layout)?;
    let stream = Stream::open(&scene, CLIENT, VAULT)?;
    let mut udp = Line::udp(&scene, OTHER, CLIENT)?;
    let [mut tcp, _] = lines(&scene)?;
    scene.apply(
        "vault.yaml",
        shop::policy("vault-in", "  selector: app == 'vault'\n  ingress: [{action: Allow}]\n"),
    )?;
    scene.apply("guard.yaml", shop::policy("guard", "  selector: app == 'none'\n"))?;
    // No rule changes: a set does, or an element of a map.
    scene.apply("pods.yaml", shop::pods().replace("{app: client}", "{app: gone}"))?;
    tcp.is_cut(&scene)?;
    udp.goes_on()?;
    scene.apply("pods.yaml", shop::pods())?;
    tcp.resumes()?;
    stream.end(&scene)
}

fn round(layout: &str) -> Outcome {
    let mut scene = stocked(layout)?;
    // Six bits: 58 generations.
    scene.set_env("FELIX_NFTABLESMARKMASK", "0x003f0000");
    scene.start()?;
    scene.expect(&SHOP)?;
    let stream = Stream::open(&scene, CLIENT, VAULT)?;
    // Says nothing for a whole round, and then is what no longer may be.
    let mut idle = Line::tcp(&scene, OTHER, CLIENT)?;
    let first = generation(&scene)?;
    let mark = entry(&scene, idle.port)?.mark;
    assert_eq!(mark, u32::from_str_radix(first.trim_start_matches("0x"), 16)?);
    let mut seen = vec![first.clone()];
    while seen.len() == 1 || seen.last() != Some(&first) {
        assert!(seen.len() < 70, "{seen:?}");
        let number = seen.len() % 2;
        let egress = "{action: Allow, destination: {nets: [10.9.9.0/24]}}";
        let spec =
            format!("  selector: app == 'web'\n  order: {number}\n  types: [Egress]\n  egress: [{egress}]\n");
        let text = policy("web-out", &spec.replace("10.9.9", if number == 0 { "10.9.8" } else { "10.9.9" }));
        scene.apply("web-out.yaml", text)?;
        seen.push(generation(&scene)?);
    }
    assert_eq!(seen.len(), 59, "{seen:?}");
    assert_eq!(entry(&scene, idle.port)?.mark, 0, "it has the mark of now from a round before");
    scene
        .apply("client-in.yaml", policy("client-in", "  selector: app == 'client'\n  types: [Ingress]\n"))?;
    assert!(!idle.arrives(To::There, BLOCKED_WAIT)?);
    stream.end(&scene)
}

fn restart(layout: &str) -> Outcome {
    let mut scene = open(layout)?;
    let stream = Stream::open(&scene, CLIENT, VAULT)?;
    let [mut tcp, mut udp] = lines(&scene)?;
    // A new agent that finds all as it should be.
    scene.start()?;
    tcp.goes_on()?;
    scene.lab.stop_agent(NODE)?;
    let number = generation(&scene)?;
    scene.write("web.yaml", allow_to("web", "other"))?;
    udp.goes_on()?;
    scene.start()?;
    assert_ne!(generation(&scene)?, number);
    tcp.is_cut(&scene)?;
    udp.is_cut(&scene)?;
    // Cut it stays, whoever runs.
    scene.start()?;
    assert!(!udp.arrives(To::Back, BLOCKED_WAIT)?);
    stream.end(&scene)
}

fn turned(layout: &str) -> Outcome {
    let mut scene = shop::stocked(Backend::Native)?;
    scene.set_env("FELIX_NFTABLESLAYOUT", layout);
    scene.start()?;
    let stream = Stream::open(&scene, CLIENT, VAULT)?;
    let [mut tcp, mut udp] = lines(&scene)?;
    let felix = |word: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\n\
             spec: {{nftablesInstantRevocation: {word}}}\n"
        )
    };
    // Policy has changed since they were begun: they are judged when it is turned on.
    let mut old = Line::udp(&scene, CLIENT, WEB)?;
    scene.apply("web.yaml", shop::policy("web-in", &format!(
        "  selector: app == 'web'\n  ingress:\n  - action: Deny\n    protocol: UDP\n    destination: {{ports: [{}]}}\n  - action: Allow\n",
        old.port
    )))?;
    old.goes_on()?;
    scene.apply("felix.yaml", felix("Enabled"))?;
    eventually("generations", || Ok(generation(&scene).ok()))?;
    scene.settle()?;
    old.is_cut(&scene)?;
    tcp.goes_on()?;
    udp.goes_on()?;
    scene.apply("felix.yaml", felix("Disabled"))?;
    eventually("no generations", || Ok(generation(&scene).is_err().then_some(())))?;
    scene.settle()?;
    tcp.goes_on()?;
    udp.goes_on()?;
    old.goes_on()?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    tcp.goes_on()?;
    udp.goes_on()?;
    stream.end(&scene)
}

/// Connections whose addresses the node translates, on either side.
fn translated(layout: &str) -> Outcome {
    let builder = shop::builder().external("outside", "192.0.2.10");
    let mut scene = Scene::new(builder, Backend::Native)?;
    scene.set_env("FELIX_NFTABLESLAYOUT", layout);
    scene.set_env("FELIX_NFTABLESINSTANTREVOCATION", "Enabled");
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool}\n\
                spec: {cidr: 10.65.0.0/16, natOutgoing: true}\n";
    scene.write("pods.yaml", shop::pods() + "---\n" + pool)?;
    scene.write("web.yaml", allow_to("web", "client"))?;
    scene.start()?;
    scene.run(NODE, "nft add table ip services")?;
    scene.run(NODE, "nft add chain ip services to { type nat hook prerouting priority dstnat ; }")?;
    scene.run(NODE, "nft add rule ip services to ip daddr 10.96.0.1 dnat to 10.65.1.2")?;
    let mut inside = Line::tcp_by(&scene, CLIENT, WEB, "10.96.0.1:8800".parse()?)?;
    let mut out = [Line::tcp(&scene, CLIENT, "ext:outside")?, Line::udp(&scene, CLIENT, "ext:outside")?];
    let mut kept = Line::udp(&scene, OTHER, "ext:outside")?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    inside.is_cut(&scene)?;
    out.iter_mut().try_for_each(Line::goes_on)?;
    scene.apply("web.yaml", allow_to("web", "client"))?;
    inside.resumes()?;
    let nets = "  egress: [{action: Allow, destination: {nets: [10.0.0.0/8]}}]\n";
    scene.apply(
        "client.yaml",
        policy("client-out", &format!("  selector: app == 'client'\n  types: [Egress]\n{nets}")),
    )?;
    out.iter_mut().try_for_each(|line| line.is_cut(&scene))?;
    inside.goes_on()?;
    kept.goes_on()
}

/// A host that talks with one outside, and with itself.
fn host(layout: &str) -> Outcome {
    let builder = Lab::builder().node(NODE, "172.18.0.11").external("outside", "192.0.2.10");
    let mut scene = Scene::new(builder, Backend::Native)?;
    scene.set_env("FELIX_NFTABLESLAYOUT", layout);
    scene.set_env("FELIX_NFTABLESINSTANTREVOCATION", "Enabled");
    let policies = |ingress: &str, egress: &str, early: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {{name: all, labels: {{host: here}}}}\n\
             spec: {{node: {NODE}, interfaceName: '*'}}\n---\n\
             apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: plain}}\n\
             spec: {{selector: has(host), types: [Ingress, Egress], ingress: [{ingress}], egress: [{egress}]}}\n---\n\
             apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: early}}\n\
             spec: {{selector: has(host), order: 1, preDNAT: true, applyOnForward: true, types: [Ingress], \
             ingress: [{early}{{action: Pass}}]}}\n"
        )
    };
    let (node, outside) = (&format!("node:{NODE}"), "ext:outside");
    let allow = "{action: Allow}";
    scene.write("host.yaml", policies(allow, allow, ""))?;
    scene.start()?;
    let mut ssh = Line::tcp_to(&scene, outside, node, 22)?;
    let ways = [(outside, node.as_str()), (node.as_str(), outside)];
    // Comes in again where it went out.
    let mut own = [Line::tcp(&scene, node, node)?, Line::udp(&scene, node, node)?];
    let mut open = Vec::new();
    for (from, to) in ways {
        open.push([Line::tcp(&scene, from, to)?, Line::udp(&scene, from, to)?]);
    }
    let [mut to_us, mut from_us] = <[[Line; 2]; 2]>::try_from(open).map_err(|_| "two ways")?;
    let only =
        |line: &Line| format!("{{action: Deny, protocol: UDP, destination: {{ports: [{}]}}}},", line.port);
    let goes_on = |lines: &mut [Line; 2]| lines.iter_mut().try_for_each(Line::goes_on);
    // One of the host's own way out, and nothing else.
    scene.apply("host.yaml", policies(allow, &format!("{}{allow}", only(&from_us[1])), ""))?;
    from_us[1].is_cut(&scene)?;
    from_us[0].goes_on()?;
    goes_on(&mut to_us)?;
    goes_on(&mut own)?;
    scene.apply("host.yaml", policies(allow, allow, ""))?;
    from_us[1].goes_on()?;
    // Before addresses are translated.
    scene.apply("host.yaml", policies(allow, allow, &only(&to_us[1])))?;
    to_us[1].is_cut(&scene)?;
    to_us[0].goes_on()?;
    goes_on(&mut from_us)?;
    scene.apply("host.yaml", policies(allow, allow, ""))?;
    goes_on(&mut to_us)?;
    // Nothing any more, but what keeps the host reachable, and answers to what it asks.
    scene.apply("host.yaml", policies("", allow, ""))?;
    to_us.iter_mut().try_for_each(|line| line.is_cut(&scene))?;
    own.iter_mut().try_for_each(|line| line.is_cut(&scene))?;
    goes_on(&mut from_us)?;
    ssh.goes_on()
}

/// The error that says "denied" is about the connection that it cuts.
fn rejected(layout: &str) -> Outcome {
    let mut scene = stocked(layout)?;
    scene.set_env("FELIX_NFTABLESFILTERDENYACTION", "REJECT");
    scene.start()?;
    let udp = Line::udp(&scene, CLIENT, WEB)?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    let Ends::Udp(near, _) = &udp.ends else { return Err("UDP".into()) };
    near.set_read_timeout(Some(PASS_WAIT))?;
    for number in 0..3 {
        near.send(b"?")?;
        let error = near.recv(&mut [0]).expect_err("no answer");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{number}: {error}");
    }
    Ok(())
}

fn unasked() -> Outcome {
    let mut scene = shop::open(Backend::Native)?;
    let [mut tcp, mut udp] = lines(&scene)?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    scene.expect(&[(CLIENT, WEB, false)])?;
    tcp.goes_on()?;
    udp.goes_on()?;
    assert_eq!([entry(&scene, tcp.port)?.mark, entry(&scene, udp.port)?.mark], [0, 0]);
    assert!(!scene.run(NODE, "nft list ruleset")?.contains("cali-conn-"));
    Ok(())
}

fn iptables() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.set_env("FELIX_NFTABLESINSTANTREVOCATION", "Enabled");
    scene.start()?;
    scene.expect_problem(Area::Setting, &["NftablesInstantRevocation", "not in nftables mode"])
}

fn no_offload() -> Outcome {
    let mut scene = stocked("Chains")?;
    scene.set_env("FELIX_NFTABLESFLOWTABLEOFFLOAD", "All");
    scene.start()?;
    scene.expect(&SHOP)?;
    assert!(!scene.run(NODE, "nft list ruleset")?.contains("flow add"));
    scene.expect_problem(Area::Setting, &["NFTablesFlowTableOffload", "NftablesInstantRevocation"])
}

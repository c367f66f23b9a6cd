//! What single endpoints ask for: to send from other addresses, to be reached by others, limits, marks.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;
use tortie_tests::lab::{Lab, LabBuilder, Netns};

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, namespace};
use crate::watch::{Mirror, ask, exchange};
use crate::wire::{Ear, Heard, say};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    crate::on_both(
        "endpoints",
        &[
            ("a_pod_may_send_from_the_listed_networks_only_and_a_new_list_takes_the_olds_place", spoofing),
            ("allowed_sources_need_the_nodes_consent_which_may_be_given_and_taken_in_flight", consent),
            ("a_floating_address_leads_to_its_pod_from_everywhere_and_from_the_pod_itself", floating),
            ("packets_over_the_rate_are_dropped_in_each_direction", packet_rate),
            ("the_connection_above_the_limit_is_reset_until_another_has_ended", connections),
            ("what_leaves_the_cluster_is_marked_and_what_stays_is_not", dscp),
            ("limits_that_make_no_sense_are_reported_and_all_else_is_in_force", senseless),
        ],
    )
}

/// The shop's pods, one of them with annotations; as YAML writes them between braces.
fn annotated(pod: &str, annotations: &str) -> String {
    let plain = format!("metadata: {{name: {pod}, namespace: shop,");
    let pods = shop::pods();
    assert!(pods.contains(&plain), "{pods}");
    pods.replace(&plain, &format!("{plain} annotations: {{{annotations}}},"))
}

fn felix(settings: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{settings}}}\n"
    )
}

fn address(scene: &Scene, endpoint: &str) -> Result<IpAddr, Failed> {
    let address = scene.lab.host(&endpoint.parse()?)?.addresses().v4;
    Ok(address.ok_or("no IPv4 address")?.into())
}

/// Gives a pod more addresses, as a router or a virtual machine in it would have them.
fn add_addresses(netns: &Netns, addresses: &[&str]) -> Outcome {
    for address in addresses {
        netns.check("ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"], "")?;
    }
    Ok(())
}

/// Which sources a pod gets through with to another.
fn sources_heard(scene: &Scene, from: &str, to: &str, sources: &[&str]) -> Result<Vec<String>, Failed> {
    let (sender, target, own) = (scene.netns(from)?, address(scene, to)?, address(scene, from)?);
    let ear = Ear::open(&scene.netns(to)?)?;
    for source in sources {
        say(&sender, Some(source.parse()?), target, &["spoofed"])?;
    }
    let heard = ear.words(|end| say(&sender, Some(own), target, &[end]))?;
    Ok(heard.iter().map(|word| word.from.to_string()).collect())
}

const ELSEWHERE: [&str; 3] = ["203.0.113.7", "198.51.100.7", "198.51.100.200"];

fn spoofer(list: &str) -> String {
    annotated("client", &format!("cni.projectcalico.org/allowedSourcePrefixes: '[{list}]'"))
}

fn spoofing(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    // Strict by default: only the agent takes the kernel's own filter away where the pod may do more.
    scene.run(NODE, "sysctl -w net.ipv4.conf.default.rp_filter=1")?;
    for pod in [CLIENT, VAULT] {
        add_addresses(&scene.netns(pod)?, &ELSEWHERE)?;
    }
    scene.set_env("FELIX_WORKLOADSOURCESPOOFING", "Any");
    scene.write("pods.yaml", spoofer(r#""203.0.113.0/24""#))?;
    scene.start()?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, ["203.0.113.7"]);
    assert_eq!(sources_heard(&scene, VAULT, OTHER, &ELSEWHERE)?, [""; 0]);
    // From one list to another, neither of them empty.
    scene.apply("pods.yaml", spoofer(r#""198.51.100.0/25", "192.0.2.0/24""#))?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, ["198.51.100.7"]);
    scene.apply("pods.yaml", spoofer(r#""198.51.100.0/24""#))?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, ["198.51.100.7", "198.51.100.200"]);
    // Policy still asks for the sender's address.
    assert_eq!(sources_heard(&scene, CLIENT, WEB, &ELSEWHERE)?, [""; 0]);
    scene.apply("pods.yaml", shop::pods())?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, [""; 0]);
    scene.expect(&SHOP)
}

fn consent(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    add_addresses(&scene.netns(CLIENT)?, &ELSEWHERE)?;
    scene.write("pods.yaml", spoofer(r#""203.0.113.0/24""#))?;
    scene.start()?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, [""; 0]);
    scene.apply("felix.yaml", felix("workloadSourceSpoofing: Any"))?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, ["203.0.113.7"]);
    scene.apply("felix.yaml", felix("workloadSourceSpoofing: Disabled"))?;
    assert_eq!(sources_heard(&scene, CLIENT, OTHER, &ELSEWHERE)?, [""; 0]);
    scene.expect(&SHOP)
}

/// The floating address that tests use, on no interface of the lab.
const FLOATING: &str = "198.51.100.5";

/// The shop's node, another one, and a host outside.
fn beyond() -> LabBuilder {
    shop::builder().node("node-2", "172.18.0.12").external("outside", "192.0.2.10")
}

fn floating(backend: Backend) -> Outcome {
    let mut scene = Scene::new(beyond(), backend)?;
    // As a router would learn it.
    scene.run("node-2", &format!("ip route add {FLOATING} via 172.18.0.11"))?;
    let of = |pod: &str| annotated(pod, &format!("cni.projectcalico.org/floatingIPs: '[\"{FLOATING}\"]'"));
    scene.write("pods.yaml", of("client"))?;
    scene.write("felix.yaml", felix("floatingIPs: Enabled"))?;
    scene.start()?;
    let target: IpAddr = FLOATING.parse()?;
    let seen_from = |scene: &Scene, from: &str| -> Result<String, Failed> {
        let netns = scene.lab.host(&from.parse()?)?.netns().clone();
        Ok(ask(&netns, target, 53)?.map_or_else(|| "nobody".to_owned(), |source| source.to_string()))
    };
    let mirror = Mirror::open(&scene.netns(CLIENT)?, 53)?;
    assert_eq!(seen_from(&scene, "node:node-2")?, "172.18.0.12");
    assert_eq!(seen_from(&scene, OTHER)?, "10.65.1.4");
    // The host itself, and the pod, which would not know itself by its own address.
    assert_eq!(seen_from(&scene, "node:node-1")?, "169.254.1.1");
    assert_eq!(seen_from(&scene, CLIENT)?, FLOATING);
    let flow = scene.lab.node("node-2")?.netns().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    expect_answer(&flow, target)?;
    drop(mirror);
    // To another pod, and what the kernel remembers of flows does not hold it back.
    scene.apply("pods.yaml", of("other"))?;
    let mirror = Mirror::open(&scene.netns(OTHER)?, 53)?;
    expect_answer(&flow, target)?;
    assert_eq!(seen_from(&scene, "node:node-2")?, "172.18.0.12");
    assert_eq!(seen_from(&scene, OTHER)?, FLOATING);
    drop(mirror);
    scene.apply("felix.yaml", felix("floatingIPs: Disabled"))?;
    let ear = Ear::open(&scene.netns(OTHER)?)?;
    let (sender, own) = (scene.netns(CLIENT)?, address(&scene, OTHER)?);
    say(&sender, None, target, &["floating"])?;
    assert_eq!(ear.words(|end| say(&sender, None, own, &[end]))?, []);
    let rules = scene.iptables(NODE, "iptables-save -t nat")?;
    assert!(!rules.contains(FLOATING), "{rules}");
    scene.expect(&[(CLIENT, OTHER, true)])
}

/// That a [`Mirror`] answers a flow, whether or not one did before.
fn expect_answer(flow: &UdpSocket, to: IpAddr) -> Outcome {
    exchange(flow, SocketAddr::new(to, 53))?.ok_or("no answer")?;
    Ok(())
}

/// Twenty words, and how many of them come through.
fn of_twenty(scene: &Scene, from: &str, to: &str) -> Result<usize, Failed> {
    let (sender, target) = (scene.netns(from)?, address(scene, to)?);
    let ear = Ear::open(&scene.netns(to)?)?;
    say(&sender, None, target, &["word"; 20])?;
    Ok(ear.words(|end| say(&sender, None, target, &[end]))?.len())
}

fn packet_rate(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    for (direction, from, to) in [("ingress", OTHER, CLIENT), ("egress", CLIENT, OTHER)] {
        assert_eq!(of_twenty(&scene, from, to)?, 20, "{direction}");
        let limit = format!(
            "qos.projectcalico.org/{direction}PacketRate: \"1\", qos.projectcalico.org/{direction}PacketBurst: \"3\""
        );
        scene.apply("pods.yaml", annotated("client", &limit))?;
        let came = of_twenty(&scene, from, to)?;
        assert!((3..20).contains(&came), "{direction}: {came}");
        scene.expect(&[(OTHER, VAULT, false), (OTHER, WEB, false)])?;
        scene.apply("pods.yaml", shop::pods())?;
        assert_eq!(of_twenty(&scene, from, to)?, 20, "{direction}");
    }
    scene.expect_problem(Area::Policy, &[])
}

fn connect(from: &Netns, to: SocketAddr) -> Result<Option<TcpStream>, Failed> {
    match from.enter(|| TcpStream::connect_timeout(&to, PATIENCE))? {
        Ok(stream) => {
            // Closing ends the connection at once.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(format!("neither accepted nor reset: {error}").into()),
    }
}

fn connections(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    for (direction, from, to) in [("ingress", OTHER, CLIENT), ("egress", CLIENT, OTHER)] {
        let limit = format!("qos.projectcalico.org/{direction}MaxConnections: \"2\"");
        scene.apply("pods.yaml", annotated("client", &limit))?;
        let (sender, at) = (scene.netns(from)?, SocketAddr::new(address(&scene, to)?, 6998));
        let _listener = scene.netns(to)?.enter(|| TcpListener::bind(at))??;
        let first = connect(&sender, at)?.ok_or("the first connection is refused")?;
        let _second = connect(&sender, at)?.ok_or("the second connection is refused")?;
        assert!(connect(&sender, at)?.is_none(), "{direction}: the third connection is there");
        drop(first);
        let _third = eventually("room for another connection", || connect(&sender, at))?;
        assert!(connect(&sender, at)?.is_none(), "{direction}: the fourth connection is there");
        // Only TCP is counted, and only of this pod.
        assert_eq!(of_twenty(&scene, from, to)?, 20);
        scene.expect(&[(OTHER, VAULT, false), (CLIENT, VAULT, direction == "ingress")])?;
    }
    Ok(())
}

/// DSCP values of what comes through from a pod to another end.
fn dscp_heard(scene: &Scene, from: &str, sources: &[&str], to: &str) -> Result<Vec<u8>, Failed> {
    let (sender, target) = (scene.netns(from)?, address(scene, to)?);
    let ear = Ear::open(scene.lab.host(&to.parse()?)?.netns())?;
    for source in sources {
        say(&sender, Some(source.parse()?), target, &["word"])?;
    }
    let heard: Vec<Heard> = ear.words(|end| say(&sender, None, target, &[end]))?;
    Ok(heard.iter().map(|word| word.dscp).collect())
}

fn dscp(backend: Backend) -> Outcome {
    let mut scene = Scene::new(beyond(), backend)?;
    add_addresses(&scene.netns(CLIENT)?, &["10.65.1.33"])?;
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool}\nspec: {cidr: 10.65.0.0/16, natOutgoing: true}\n";
    scene.write("pool.yaml", pool)?;
    let marked = |value: &str| {
        let one = "podIPs: [{ip: 10.65.1.3}]";
        let pods = annotated("client", &format!("qos.projectcalico.org/dscp: {value}"));
        assert!(pods.contains(one));
        pods.replace(one, "podIPs: [{ip: 10.65.1.3}, {ip: 10.65.1.33}]")
    };
    scene.write("pods.yaml", marked("EF"))?;
    scene.start()?;
    let sources = ["10.65.1.3", "10.65.1.33"];
    assert_eq!(dscp_heard(&scene, CLIENT, &sources, "ext:outside")?, [46, 46]);
    assert_eq!(dscp_heard(&scene, CLIENT, &sources, OTHER)?, [0, 0]);
    assert_eq!(dscp_heard(&scene, OTHER, &["10.65.1.4"], "ext:outside")?, [0]);
    scene.apply("pods.yaml", marked("\"10\""))?;
    assert_eq!(dscp_heard(&scene, CLIENT, &sources, "ext:outside")?, [10, 10]);
    scene.apply("pods.yaml", shop::pods())?;
    assert_eq!(dscp_heard(&scene, CLIENT, &sources[..1], "ext:outside")?, [0]);
    Ok(())
}

fn senseless(backend: Backend) -> Outcome {
    let endpoint = |qos: &str| {
        format!(
            "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {{name: node--1-k8s-lone-eth0, namespace: shop, labels: {{app: lone}}}}
spec:
  node: {NODE}
  orchestrator: k8s
  pod: lone
  endpoint: eth0
  interfaceName: {}
  ipNetworks: [10.65.1.9/32]
  profiles: [kns.shop]
  qosControls: {{{qos}}}
",
            tortie_tests::lab::host_interface("shop", "lone")
        )
    };
    let builder = Lab::builder().node(NODE, "172.18.0.11").pod("shop", "lone", NODE, "10.65.1.9").pod(
        "shop",
        "client",
        NODE,
        "10.65.1.3",
    );
    let mut scene = Scene::new(builder, backend)?;
    scene.write(
        "pods.yaml",
        namespace("shop", "team: a") + &shop::pod("shop", "client", NODE, "10.65.1.3", "app: client"),
    )?;
    scene.write(
        "lone.yaml",
        endpoint("ingressPacketRate: 20000, ingressPacketBurst: 0, egressPacketRate: lots, dscp: 99, egressMaxConnections: 7"),
    )?;
    scene.start()?;
    for (field, words) in [("ingressPacketRate", "20000"), ("egressPacketRate", "lots"), ("dscp", "99")] {
        scene.expect_problem(Area::Policy, &["lone.yaml:", &format!("spec.qosControls.{field}"), words])?;
    }
    let cells = [(CLIENT, "shop/lone", true), ("shop/lone", CLIENT, true)];
    scene.expect(&cells)?;
    let interface = tortie_tests::lab::host_interface("shop", "lone");
    let rules = scene.iptables(NODE, &format!("iptables -S cali-tw-{interface}"))?;
    assert!(rules.contains("--limit 10000/sec"), "{rules}");
    let rules = scene.iptables(NODE, &format!("iptables -S cali-fw-{interface}"))?;
    assert!(rules.contains("--connlimit-above 7") && !rules.contains("--limit "), "{rules}");
    scene.apply("lone.yaml", endpoint("ingressPacketRate: 500"))?;
    scene.expect_problem(Area::Policy, &[])?;
    scene.expect(&cells)
}

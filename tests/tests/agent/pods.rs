//! Pods that come, go, move and change, as the cluster reports them, and interfaces that do so when they like.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tortie_tests::lab::{Lab, LabBuilder, PodSpec, host_interface};

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, CLIENT, OTHER, SHOP, WEB, allow_to, namespace, pod, pod_in_phase, policy};
use crate::watch::{Mirror, Watch, receive};

const FAR: &str = "node-2";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::named(
        "pods",
        &[
            ("a_pod_that_moves_to_another_node_takes_its_policy_along", moves),
            ("a_pod_replaced_by_one_of_its_name_leaves_nothing_of_its_address", replaced),
            ("two_pods_that_swap_labels_swap_their_rights", swap_labels),
            ("two_pods_that_swap_addresses_are_told_apart", swap_addresses),
            ("an_address_that_changes_hands_takes_no_connection_along", handed_over),
            ("a_workload_endpoint_document_overrides_the_pod", document_overrides),
            ("a_pod_that_is_being_deleted_keeps_its_policy_until_it_has_ended", ending),
            ("labels_of_namespaces_and_service_accounts_decide_who_belongs", inherited_labels),
            ("a_pod_that_nobody_knows_reaches_nobody", unknown_pod),
        ],
    );
    trials.extend(crate::on_both(
        "pods",
        &[
            ("an_interface_later_than_its_pod_is_enforced_from_its_first_packet", late_interface),
            ("an_interface_that_goes_down_and_up_gets_its_routes_back", flap),
        ],
    ));
    trials
}

fn spec(name: &str, node: &str, address: &str) -> Result<PodSpec, Failed> {
    let (namespace, name) = ("shop".to_owned(), name.to_owned());
    Ok(PodSpec { namespace, name, node: node.to_owned(), addresses: address.try_into()? })
}

/// Client and other on one node, another node to move to.
fn two_nodes() -> LabBuilder {
    Lab::builder()
        .node(NODE, "172.18.0.11")
        .node(FAR, "172.18.0.12")
        .pod("shop", "client", NODE, "10.65.1.3")
        .pod("shop", "other", FAR, "10.65.2.4")
}

fn two_node_scene() -> Result<Scene, Failed> {
    let scene = Scene::new(two_nodes(), Backend::Nft)?;
    scene.write("shop.yaml", namespace("shop", "team: a"))?;
    scene.write("client.yaml", pod("shop", "client", NODE, "10.65.1.3", "app: client"))?;
    scene.write("other.yaml", pod("shop", "other", FAR, "10.65.2.4", "app: other"))?;
    scene.write("web-policy.yaml", allow_to("web", "client"))?;
    Ok(scene)
}

fn late_interface(backend: Backend) -> Outcome {
    let mut scene = Scene::new(two_nodes(), backend)?;
    let pods = [("web", "10.65.1.2"), ("client", "10.65.1.3"), ("other", "10.65.1.4")];
    scene.write("pods.yaml", pods.map(|(n, ip)| pod("shop", n, NODE, ip, &format!("app: {n}"))).concat())?;
    scene.write("shop.yaml", namespace("shop", "team: a"))?;
    scene.write("web.yaml", allow_to("web", "client"))?;
    scene.lab.remove_pod("shop", "other")?;
    scene.lab.add_pod(&spec("other", NODE, "10.65.1.4")?)?;
    scene.start()?;
    let interface = host_interface("shop", "web");
    assert_eq!(scene.status(NODE)?.pending_interfaces, [interface.as_str()]);
    let said = scene.lab.ctl(NODE, &["wait", "--applied"])?;
    assert!(said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.contains(&interface), "{said}");
    scene.lab.add_pod(&spec("web", NODE, "10.65.1.2")?)?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    scene.expect_soon(&[(CLIENT, WEB, true)])?;
    scene.expect(&[(OTHER, WEB, false), (WEB, OTHER, true)])?;
    closed.end()?;
    eventually("no interface is waited for", || {
        Ok(scene.status(NODE)?.pending_interfaces.is_empty().then_some(()))
    })
}

fn flap(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let interface = host_interface("shop", "web");
    let wanted = scene.kernel(NODE)?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    for round in 0..3 {
        scene.run(NODE, &format!("ip link set {interface} down"))?;
        if round == 1 {
            // Long enough for the agent to see it down.
            eventually("the interface is waited for", || {
                Ok((scene.status(NODE)?.pending_interfaces == [interface.as_str()]).then_some(()))
            })?;
        }
        scene.run(NODE, &format!("ip link set {interface} up"))?;
        scene.expect_kernel(NODE, &wanted)?;
        scene.expect_soon(&SHOP)?;
    }
    closed.end()?;
    scene.settle()
}

fn moves() -> Outcome {
    let mut scene = two_node_scene()?;
    scene.lab.add_pod(&spec("web", NODE, "10.65.1.2")?)?;
    scene.write("web.yaml", pod("shop", "web", NODE, "10.65.1.2", "app: web"))?;
    scene.start()?;
    let wanted = [(CLIENT, WEB, true), (OTHER, WEB, false), (WEB, OTHER, true)];
    scene.expect(&wanted)?;
    // With its address, as a virtual machine does.
    scene.lab.remove_pod("shop", "web")?;
    scene.lab.add_pod(&spec("web", FAR, "10.65.1.2")?)?;
    scene.apply("web.yaml", pod("shop", "web", FAR, "10.65.1.2", "app: web"))?;
    scene.expect(&wanted)?;
    let interface = host_interface("shop", "web");
    let left: Vec<String> =
        scene.kernel(NODE)?.into_iter().filter(|line| line.contains(&interface)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!([scene.status(NODE)?.policies, scene.status(FAR)?.policies], [0, 1]);
    // And back, with a new one.
    scene.lab.remove_pod("shop", "web")?;
    scene.lab.add_pod(&spec("web", NODE, "10.65.1.9")?)?;
    scene.apply("web.yaml", pod("shop", "web", NODE, "10.65.1.9", "app: web"))?;
    scene.expect(&wanted)?;
    assert_eq!([scene.status(NODE)?.policies, scene.status(FAR)?.policies], [1, 0]);
    Ok(())
}

fn replaced() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.lab.remove_pod("shop", "client")?;
    scene.lab.add_pod(&spec("client", NODE, "10.65.1.33")?)?;
    let new =
        shop::pods().replace("10.65.1.3}", "10.65.1.33}").replace("podIP: 10.65.1.3,", "podIP: 10.65.1.33,");
    scene.apply("pods.yaml", new)?;
    scene.expect(&SHOP)?;
    expect_forgotten(&scene, "10.65.1.3")
}

/// That nothing in the kernel names an address any more. Only a route may stay a while: on an interface that has
/// just appeared, routes are left alone at first.
fn expect_forgotten(scene: &Scene, address: &str) -> Outcome {
    let is_about = |line: &String| line.split([' ', ':', '/', ',']).any(|word| word == address);
    let left: Vec<String> = scene.kernel(NODE)?.into_iter().filter(is_about).collect();
    assert!(left.iter().all(|line| line.contains(" route show ")), "{left:#?}");
    eventually("its route goes", || Ok((!scene.kernel(NODE)?.iter().any(is_about)).then_some(())))
}

fn swap_labels() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let swapped = shop::pods()
        .replace("{app: client}", "{app: third}")
        .replace("{app: other}", "{app: client}")
        .replace("{app: third}", "{app: other}");
    scene.apply("pods.yaml", swapped)?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true), (CLIENT, OTHER, true)])?;
    // Of the protected one as well: now web may be reached by all, and other by client's label only.
    let swapped = shop::pods()
        .replace("{app: web}", "{app: third}")
        .replace("{app: other}", "{app: web}")
        .replace("{app: third}", "{app: other}");
    scene.apply("pods.yaml", swapped)?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, true), (CLIENT, OTHER, true), (WEB, OTHER, false)])?;
    scene.apply("pods.yaml", shop::pods())?;
    scene.expect(&SHOP)
}

fn swap_addresses() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    for name in ["client", "other"] {
        scene.lab.remove_pod("shop", name)?;
    }
    scene.lab.add_pod(&spec("client", NODE, "10.65.1.4")?)?;
    scene.lab.add_pod(&spec("other", NODE, "10.65.1.3")?)?;
    let swapped =
        shop::pods().replace("10.65.1.3", "x").replace("10.65.1.4", "10.65.1.3").replace('x', "10.65.1.4");
    scene.apply("pods.yaml", swapped)?;
    scene.expect(&SHOP)
}

/// What the kernel remembers of the old owner's connections must not let the new one through.
fn handed_over() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let mirror = Mirror::open(&scene.netns(WEB)?, 7)?;
    let web = IpAddr::from([10, 65, 1, 2]);
    assert!(ask_from_port(&scene, CLIENT, web)?, "the owner is let through");
    for name in ["client", "other"] {
        scene.lab.remove_pod("shop", name)?;
    }
    scene.lab.add_pod(&spec("other", NODE, "10.65.1.3")?)?;
    let pods: String = shop::pods().replace("10.65.1.3", "10.65.1.33").replace("10.65.1.4", "10.65.1.3");
    scene.apply("pods.yaml", pods)?;
    let before = mirror.seen();
    assert!(
        !ask_from_port(&scene, OTHER, web)?,
        "the new owner of the address goes on with the old one's flow"
    );
    assert_eq!(mirror.seen(), before);
    Ok(())
}

/// Whether a datagram from always the same port is answered.
fn ask_from_port(scene: &Scene, from: &str, to: IpAddr) -> Result<bool, Failed> {
    let socket = scene.netns(from)?.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000)))??;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to(b"?", (to, 7))?;
    Ok(receive(&socket, &mut [0; 64])?.is_some())
}

fn document_overrides() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let document = |app: &str, address: &str, interface: &str| {
        format!(
            "apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: node--1-k8s-web-eth0
  namespace: shop
  labels: {{app: {app}, projectcalico.org/namespace: shop, projectcalico.org/orchestrator: k8s}}
spec:
  orchestrator: k8s
  node: {NODE}
  pod: web
  endpoint: eth0
  interfaceName: {interface}
  ipNetworks: [{address}/32]
  profiles: [kns.shop]
"
        )
    };
    let usual = host_interface("shop", "web");
    // Other labels than the pod's: the policy for web is not for it.
    scene.apply("endpoint.yaml", document("free", "10.65.1.2", &usual))?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, true)])?;
    scene.apply("endpoint.yaml", document("web", "10.65.1.2", &usual))?;
    scene.expect(&SHOP)?;
    // Another interface: a name that Calico would not have derived.
    scene.run(NODE, &format!("ip link set {usual} down"))?;
    scene.run(NODE, &format!("ip link set {usual} name caliweb"))?;
    scene.run(NODE, "ip link set caliweb up")?;
    scene.apply("endpoint.yaml", document("web", "10.65.1.2", "caliweb"))?;
    scene.expect_soon(&SHOP)?;
    let of_usual: Vec<String> =
        scene.kernel(NODE)?.into_iter().filter(|line| line.contains(&usual)).collect();
    assert!(of_usual.is_empty(), "{of_usual:#?}");
    // Without it the pod counts again, and its interface is the usual one.
    scene.remove("endpoint.yaml")?;
    scene.settle()?;
    scene.expect(&[(CLIENT, WEB, false), (WEB, CLIENT, false)])?;
    scene.run(NODE, "ip link set caliweb down")?;
    scene.run(NODE, &format!("ip link set caliweb name {usual}"))?;
    scene.run(NODE, &format!("ip link set {usual} up"))?;
    scene.expect_soon(&SHOP)
}

fn ending() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let in_phase = |app: &str, phase: &str, more: &str| {
        let (alive, address) = (format!("app: {app}"), if app == "web" { "10.65.1.2" } else { "10.65.1.3" });
        let old = pod("shop", app, NODE, address, &alive);
        let new = pod_in_phase("shop", app, NODE, address, &alive, phase);
        let new =
            new.replace(&format!("{{name: {app}, namespace"), &format!("{{name: {app}, {more}namespace"));
        assert_ne!(new, old);
        shop::pods().replace(&old, &new)
    };
    let deleted = "deletionTimestamp: '2026-01-01T00:00:00Z', ";
    scene.apply("pods.yaml", in_phase("client", "Running", deleted))?;
    scene.expect(&SHOP)?;
    scene.apply("pods.yaml", in_phase("web", "Running", deleted))?;
    scene.expect(&SHOP)?;
    // Its address may be another's by now: it is a member of nothing and reaches nothing.
    for phase in ["Succeeded", "Failed"] {
        scene.apply("pods.yaml", in_phase("client", phase, ""))?;
        scene.expect(&[
            (CLIENT, WEB, false),
            (CLIENT, OTHER, false),
            (OTHER, CLIENT, false),
            (OTHER, WEB, false),
        ])?;
        expect_forgotten(&scene, "10.65.1.3")?;
        scene.apply("pods.yaml", shop::pods())?;
        scene.expect(&SHOP)?;
    }
    Ok(())
}

fn inherited_labels() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let rule = |source: &str| {
        policy(
            "web-in",
            &format!("  selector: app == 'web'\n  ingress:\n  - action: Allow\n    source: {{{source}}}\n"),
        )
    };
    let with_team = |team: &str| shop::pods().replace("team: a", &format!("team: {team}"));
    scene.apply("web.yaml", rule("namespaceSelector: team == 'b'"))?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, false)])?;
    scene.apply("pods.yaml", with_team("b"))?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, true)])?;
    scene.apply("pods.yaml", with_team("c"))?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, false)])?;
    let account = |name: &str, role: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: shop, labels: {{role: {role}}}}}\n---\n"
        )
    };
    scene.write("accounts.yaml", account("client", "reader") + &account("other", "none"))?;
    scene.apply("web.yaml", rule("serviceAccounts: {selector: role == 'reader'}"))?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])?;
    scene.apply("accounts.yaml", account("client", "none") + &account("other", "reader"))?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true)])?;
    // The policy itself may be for the pods of an account.
    let for_account = policy("client-in", "  serviceAccountSelector: role == 'none'\n  types: [Ingress]\n");
    scene.apply("by-account.yaml", for_account)?;
    scene.expect(&[(OTHER, CLIENT, false)])?;
    scene.apply("accounts.yaml", account("client", "reader") + &account("other", "none"))?;
    scene.expect(&[(OTHER, CLIENT, true), (CLIENT, OTHER, false)])
}

fn unknown_pod() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.lab.add_pod(&spec("stranger", NODE, "10.65.1.77")?)?;
    scene.settle()?;
    scene.expect(&[("shop/stranger", OTHER, false), (OTHER, "shop/stranger", false), (CLIENT, WEB, true)])?;
    let known = shop::pods() + &pod("shop", "stranger", NODE, "10.65.1.77", "app: client");
    scene.apply("pods.yaml", known)?;
    scene.expect_soon(&[
        ("shop/stranger", OTHER, true),
        (OTHER, "shop/stranger", true),
        ("shop/stranger", WEB, true),
    ])?;
    scene.apply("pods.yaml", shop::pods())?;
    scene.expect(&[
        ("shop/stranger", OTHER, false),
        (OTHER, "shop/stranger", false),
        ("shop/stranger", WEB, false),
    ])
}

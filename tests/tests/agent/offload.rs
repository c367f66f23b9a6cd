//! Connections that skip the rules, in nftables mode.

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;
use tortie_tests::lab::Lab;

use crate::Outcome;
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
    crate::named(
        "offload",
        &[("connections_skip_the_rules_unless_these_have_work_with_each_packet", offload)],
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
fn seen(scene: &Scene) -> Result<String, Failed> {
    let text = scene.run(NODE, "nft list chain ip calico filter-cali-FORWARD")?;
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

fn offload() -> Outcome {
    let builder = Lab::builder()
        .node(NODE, "172.18.0.11")
        .node("node-2", "172.18.0.12")
        .pod("shop", "client", NODE, CLIENT_AT)
        .pod("shop", "other", NODE, OTHER_AT)
        .pod("shop", "remote", "node-2", "10.65.2.2");
    let mut scene = Scene::new(builder, Backend::Nft)?;
    scene.set_env("FELIX_NFTABLESMODE", "Enabled");
    scene.set_env("FELIX_NFTABLESFLOWTABLEOFFLOAD", "All");
    scene.set_env("FELIX_NFTABLESFLOWTABLEDATAIFACEPATTERN", "^eth0$");
    scene.write("pods.yaml", pods(""))?;
    scene.start()?;
    let mut talk = Talk::open(&scene, CLIENT, REMOTE)?;
    expect_offload(&scene, &mut talk, CLIENT_AT, true)?;
    // The rules see none of it any more, in neither direction.
    let before = seen(&scene)?;
    (0..10).try_for_each(|_| talk.goes_on())?;
    assert_eq!(seen(&scene)?, before);
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

//! Agents beside each other: many on one datastore, two on one socket.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tortie_tests::lab::{Lab, Programs};

use crate::Outcome;
use crate::scene::{Backend, DEADLINE, NODE, Scene, expect_same};
use crate::shop::{self, CLIENT, OTHER, SHOP, WEB, allow_to, namespace, pod};

pub(crate) fn trials() -> Vec<Trial> {
    crate::named(
        "sharing",
        &[
            ("agents_of_several_nodes_share_one_datastore", one_datastore),
            ("a_second_agent_on_a_used_socket_says_so_and_harms_nothing", used_socket),
            ("a_socket_that_a_killed_agent_left_is_replaced", stale_socket),
            ("a_file_that_is_no_socket_is_not_replaced", other_file),
            ("a_datastore_that_is_not_there_is_named", no_datastore),
        ],
    )
}

fn one_datastore() -> Outcome {
    let places =
        [("web", "node-1", "10.65.1.2"), ("client", "node-2", "10.65.2.2"), ("other", "node-3", "10.65.3.2")];
    let nodes = Lab::builder()
        .node("node-1", "172.18.0.11")
        .node("node-2", "172.18.0.12")
        .node("node-3", "172.18.0.13");
    let builder = places.iter().fold(nodes, |b, (name, node, address)| b.pod("shop", name, node, *address));
    let mut scene = Scene::new(builder, Backend::Nft)?;
    let pods = places.map(|(name, node, address)| pod("shop", name, node, address, &format!("app: {name}")));
    scene.write("pods.yaml", namespace("shop", "team: a") + &pods.concat())?;
    scene.write("web.yaml", allow_to("web", "client"))?;
    scene.start()?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false), (WEB, OTHER, true)])?;
    scene.write("web.yaml", allow_to("web", "other"))?;
    scene.apply("other.yaml", allow_to("other", "client"))?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true), (WEB, OTHER, false), (CLIENT, OTHER, true)])?;
    for node in ["node-1", "node-2", "node-3"] {
        let status = scene.status(node)?;
        let policies = usize::from(node != "node-2");
        assert_eq!((status.node.as_str(), status.endpoints, status.policies), (node, 1, policies));
        assert!(status.applied && status.problems.is_empty(), "{status:?}");
    }
    // One of them gone, the others go on.
    scene.lab.stop_agent("node-2")?;
    scene.apply("web.yaml", allow_to("web", "client"))?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])
}

/// Runs a second agent on the first one's node until it ends by itself; its exit code and what it said.
fn second_agent(scene: &Scene, datastore: &str) -> Result<(Option<i32>, String), libtest_mimic::Failed> {
    let socket = scene.lab.dir().join(format!("{NODE}.sock"));
    let mut command = Command::new(Programs::locate()?.agent);
    command.args(["--node", "node-9", "--datastore", datastore, "--socket"]).arg(socket);
    command.envs(scene.options().env.iter().map(|(name, value)| (name, value)));
    command.env("FELIX_HEALTHPORT", "9100");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = scene.lab.node(NODE)?.netns().spawn(&mut command)?.wait_with_output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn used_socket() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let before = scene.kernel(NODE)?;
    let (code, said) = second_agent(&scene, &format!("local:{}", scene.datastore().display()))?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("node-1.sock") && said.contains("another agent serves there"), "{said}");
    expect_same(&before, &scene.kernel(NODE)?)?;
    assert_eq!(scene.status(NODE)?.node, NODE);
    scene.apply("web.yaml", allow_to("web", "other"))?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true)])
}

fn stale_socket() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let agent = scene.lab.agent_mut(NODE)?;
    agent.signal(Signal::SIGKILL)?;
    agent.wait_for_end(DEADLINE)?;
    assert!(scene.lab.agent(NODE)?.socket().exists());
    scene.start()?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true)])
}

fn other_file() -> Outcome {
    let scene = shop::stocked(Backend::Nft)?;
    let path = scene.lab.dir().join(format!("{NODE}.sock"));
    std::fs::write(&path, "precious")?;
    let (code, said) = second_agent(&scene, &format!("local:{}", scene.datastore().display()))?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("node-1.sock"), "{said}");
    assert_eq!(std::fs::read_to_string(&path)?, "precious");
    Ok(())
}

fn no_datastore() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.lab.stop_agent(NODE)?;
    let (code, said) = second_agent(&scene, "local:/nowhere")?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("local:/nowhere"), "{said}");
    // What the last agent programmed stays in force.
    scene.expect(&SHOP)
}

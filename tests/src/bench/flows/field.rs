//! One node between two cables: a client outside, and a pod that policies protect.
//!
//! ```text
//! client eth0 ── up0 node caliXXXXXXXXXXX ── eth0 pod
//! ```
//!
//! What the node holds is what an agent wrote that has ended since; or a floor to compare that with. The neighbours
//! are fixed. The pod's has a wrong address, so that the pod's kernel drops what it gets before it looks into it.

use std::net::{IpAddr, SocketAddrV4};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, bail, ensure};

use super::super::by_hand;
use super::policies::{
    CLIENTS, CLOSED_PORT, MEMBERS, NODE, NODE_ADDRESS, POD, POD_ADDRESS, client_address, cluster, policy, set,
};
use super::rules::Rules;
use super::traffic::{Cable, Frame, Mac};
use crate::lab::{AgentOptions, Lab, LocalRoutes, Netns, host_interface};
use crate::manifests::ManifestDir;

/// What Calico gives the host's side of every pod.
const POD_HOST_MAC: Mac = [0xee; 6];
const UPLINK: &str = "up0";
const UPLINK_MAC: Mac = [2, 0xfa, 0, 3, 0, 1];
/// Of nobody.
const WRONG_MAC: &str = "02:fa:00:03:00:99";
/// Who is said to know the way to them.
const GATEWAY: &str = "169.254.7.1";
/// Established flows.
const STREAMS: usize = 10;
const STREAM_PORT: u16 = 1024;
const FIRST_SOURCE_PORT: u16 = 2048;
/// Measurements that are given a chance.
const TRIES: usize = 5;
/// Frames that show whether the rules do what they should.
const TRIAL: usize = 20;
/// How long an agent may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long the kernel may take to notice that a cable works.
const LINK: Duration = Duration::from_secs(20);
const ENVIRONMENT: [(&str, &str); 2] = [("FELIX_IPV6SUPPORT", "false"), ("FELIX_HEALTHENABLED", "false")];
/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) rules: Rules,
    /// How many; the last rule of the last is the one that lets the client in.
    pub(super) policies: usize,
    lab: Lab,
    client: Cable,
    pod: Cable,
}

impl Field {
    /// Makes it, and shows that its rules let through what they should and nothing else.
    pub(super) fn build(rules: Rules, policies: usize) -> anyhow::Result<Self> {
        let has_agent = Rules::OURS.contains(&rules);
        let mut lab = Lab::builder()
            .node(NODE, NODE_ADDRESS)
            .pod(POD.0, POD.1, NODE, IpAddr::from(POD_ADDRESS))
            .local_routes(if has_agent { LocalRoutes::Agent } else { LocalRoutes::Lab })
            .build()?;
        [lab.node(NODE)?.netns(), lab.pod(POD.0, POD.1)?.netns()].into_iter().try_for_each(silence)?;
        let client = add_client(lab.node(NODE)?.netns())?;
        if has_agent {
            apply(&mut lab, rules, policies)?;
        } else {
            lab.node(NODE)?.check("nft", &["-f", "-"], &rules.floor())?;
        }
        fix_pod(lab.node(NODE)?.netns())?;
        let client = Cable::open(&client, "eth0")?;
        let pod = Cable::open(lab.pod(POD.0, POD.1)?.netns(), "eth0")?;
        let field = Self { rules, policies, lab, client, pod };
        field.wait_for_cables()?;
        field.check_verdicts(has_agent && policies > 0)?;
        Ok(field)
    }

    /// What it costs to let in `count` packets, each the first of a connection; per packet.
    pub(super) fn new_flows(&self, count: usize) -> anyhow::Result<Duration> {
        let frames: Vec<Frame> = (0..count).map(|number| self.frame(number, self.open_port())).collect();
        self.measure(&frames, || Ok(()))
    }

    /// The same of `count` packets of connections that are established.
    pub(super) fn established(&self, count: usize) -> anyhow::Result<Duration> {
        let streams: Vec<(Frame, Frame)> = (0..STREAMS).map(|number| self.stream(number)).collect();
        let (to, back): (Vec<Frame>, Vec<Frame>) = streams.into_iter().unzip();
        let frames: Vec<Frame> = to.iter().cycle().take(count).cloned().collect();
        self.measure(&frames, || {
            self.send(&to, to.len())?;
            let before = self.client.received()?;
            self.pod.send(&back)?;
            let answers = self.client.wait_for(before, back.len())?;
            ensure!(answers == STREAMS as u64, "{answers} answers of {STREAMS} came back");
            Ok(())
        })
    }

    /// What each of `frames` costs the thread, all of which must arrive; nothing is known of any connection before
    /// `prepare`. Under load, another thread of the kernel's may do a part of the work: such a measurement is repeated.
    fn measure(
        &self,
        frames: &[Frame],
        prepare: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        for _ in 0..TRIES {
            self.lab.forget_connections()?;
            prepare()?;
            let sent = self.send(frames, frames.len());
            self.lab.forget_connections()?;
            let Sent { cost, is_late } = sent?;
            if !is_late {
                return cost.checked_div(u32::try_from(frames.len())?).context("nothing was sent");
            }
        }
        bail!("{}: packets are always late", self.rules)
    }

    /// Sends to the pod, which must get so many.
    fn send(&self, frames: &[Frame], expected: usize) -> anyhow::Result<Sent> {
        let before = self.pod.received()?;
        let cost = self.client.send(frames)?;
        let is_late = self.pod.received()? - before != expected as u64;
        let arrived = self.pod.wait_for(before, expected)?;
        let (rules, policies, all) = (self.rules, self.policies, frames.len());
        ensure!(
            arrived == expected as u64,
            "{rules}, {policies} policies: {arrived} of {all} packets arrived, not {expected}"
        );
        Ok(Sent { cost, is_late })
    }

    fn check_verdicts(&self, denies: bool) -> anyhow::Result<()> {
        let trial = |port| -> Vec<Frame> { (0..TRIAL).map(|number| self.frame(number, port)).collect() };
        self.send(&trial(self.open_port()), TRIAL)?;
        if denies {
            self.send(&trial(CLOSED_PORT), 0)?;
        }
        Ok(self.lab.forget_connections()?)
    }

    /// The first packet of connection number `number`, from one of the members of the last set.
    fn frame(&self, number: usize, port: u16) -> Frame {
        let source = client_address(self.last_policy(), number % MEMBERS);
        let source_port = FIRST_SOURCE_PORT + u16::try_from(number / MEMBERS % 60_000).unwrap_or_default();
        let to = SocketAddrV4::new(POD_ADDRESS, port);
        Frame::new(UPLINK_MAC, SocketAddrV4::new(source, source_port), to)
    }

    /// A packet and its answer.
    fn stream(&self, number: usize) -> (Frame, Frame) {
        let client = client_address(self.last_policy(), number % MEMBERS);
        let from = SocketAddrV4::new(client, STREAM_PORT);
        let to = SocketAddrV4::new(POD_ADDRESS, self.open_port());
        (Frame::new(UPLINK_MAC, from, to), Frame::new(POD_HOST_MAC, to, from))
    }

    /// The number of the last policy; that of the first where there is none.
    fn last_policy(&self) -> usize {
        self.policies.saturating_sub(1)
    }

    fn open_port(&self) -> u16 {
        self.rules.ports().last(self.last_policy())
    }

    /// A cable drops everything until the kernel has noticed that its other end is there.
    fn wait_for_cables(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LINK;
        let before = self.pod.received()?;
        while self.pod.received()? == before {
            ensure!(Instant::now() < deadline, "{}: nothing comes through", self.rules);
            self.client.send(&[self.frame(0, self.open_port())])?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// What came of sending.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// The time of the processor that it took this thread.
    cost: Duration,
    /// Not everything was there at once.
    is_late: bool,
}

/// A cable from the node to a new namespace, and the way to all clients over it.
fn add_client(node: &Netns) -> anyhow::Result<Netns> {
    let client = Netns::new("the client", &[])?;
    silence(&client)?;
    let (mac, peer) = (text(UPLINK_MAC), client.path().display().to_string());
    let lines = [
        format!("link add {UPLINK} address {mac} type veth peer name eth0 netns {peer}"),
        format!("link set {UPLINK} up"),
        format!("neigh add {GATEWAY} lladdr {WRONG_MAC} dev {UPLINK} nud permanent"),
        format!("route add {CLIENTS} via {GATEWAY} dev {UPLINK} onlink"),
    ];
    node.check("ip", &["-batch", "-"], &by_hand::lines("", lines))?;
    client.check("ip", &["link", "set", "eth0", "up"], "")?;
    Ok(client)
}

/// Switches IPv6 off, as its talk with neighbours would be counted among the packets.
fn silence(netns: &Netns) -> anyhow::Result<()> {
    netns
        .enter(|| {
            for which in ["all", "default"] {
                match fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1") {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    // Or there is no IPv6.
                    _ => {}
                }
            }
            Ok(())
        })?
        .with_context(|| format!("switch IPv6 off in {}", netns.label()))
}

/// Fixes the neighbour that packets go to.
fn fix_pod(node: &Netns) -> anyhow::Result<()> {
    let (address, interface) = (POD_ADDRESS.to_string(), host_interface(POD.0, POD.1));
    let neighbour =
        ["neigh", "replace", &address, "lladdr", WRONG_MAC, "dev", &interface, "nud", "permanent"];
    node.check("ip", &neighbour, "")?;
    Ok(())
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Has an agent write the rules of so many policies, and ends it.
fn apply(lab: &mut Lab, rules: Rules, policies: usize) -> anyhow::Result<()> {
    let mut manifests = ManifestDir::create(&lab.dir().join("datastore"))?;
    cluster().iter().try_for_each(|object| manifests.apply(object))?;
    for number in 0..policies {
        manifests.apply(&set(number))?;
        manifests.apply(&policy(number, rules.ports()))?;
    }
    let env = ENVIRONMENT.iter().chain(rules.settings());
    let options = AgentOptions {
        datastore: manifests.path().to_owned(),
        env: env.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..AgentOptions::default()
    };
    lab.start_agent_with(NODE, &options)?;
    lab.wait_applied(PATIENCE)?;
    let status = lab.stop_agent(NODE)?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

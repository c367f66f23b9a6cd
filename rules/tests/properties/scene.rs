//! A cluster both ways: as policy that is read, and as rules that are run.

use std::fmt::Write as _;

use serde_json::Value;
use tortie_api::net::IpVersion;
use tortie_api::resource::Resource;
use tortie_rules::compile::classic::{Classic, TableContent};
use tortie_rules::compile::config::{AllowAction, Config, DenyAction, EndpointToHostAction, MarkUses, Marks};
use tortie_rules::compile::fast::Fast;
use tortie_rules::eval::ruleset::{Machine, Packet, Sets};
use tortie_rules::eval::{Cluster, HostAction, Place, Settings, Verdict};
use tortie_rules::graph::{Graph, Options};
use tortie_rules::random::{NODE, Probe, interfaces, resources};
use tortie_rules::render::iptables::Features;

/// A way to configure the agent.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) config: Config,
    suppress_covered: bool,
    compiler: Compiler,
}

/// What makes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    Classic,
    Fast,
}

impl Compiler {
    pub(crate) const ALL: [Self; 2] = [Self::Classic, Self::Fast];
}

impl Variant {
    /// One of several, by number. The first is the default.
    pub(crate) fn number(number: u64, compiler: Compiler) -> Self {
        let mut config = Config::default();
        match number % 6 {
            0 | 1 => {}
            2 => {
                config.filter_allow = AllowAction::Return;
                config.mangle_allow = AllowAction::Return;
                config.endpoint_to_host = EndpointToHostAction::Return;
            }
            3 => {
                config.filter_deny = DenyAction::Reject;
                config.endpoint_to_host = EndpointToHostAction::Reject;
                config.disable_conntrack_invalid_check = true;
                config.flow_logs = true;
            }
            4 => {
                config.marks = Marks::from_mask(0x0101_1110).expect("five bits");
                config.endpoint_to_host = EndpointToHostAction::Accept;
                config.vxlan_port = 8080;
            }
            _ => {
                config.allow_vxlan_from_workloads = true;
                config.allow_ipip_from_workloads = true;
                config.floating_ips = true;
                let uses = MarkUses { revocation: true, ..MarkUses::default() };
                config.marks = Marks::with(0xffff_0000, uses).expect("sixteen bits");
            }
        }
        Self { config, suppress_covered: number.is_multiple_of(2), compiler }
    }

    /// A graph that is told of the node's interfaces.
    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::new(Options {
            node: NODE.to_owned(),
            interface_prefixes: vec!["cali".to_owned()],
            suppress_covered: self.suppress_covered,
        });
        for (name, addresses) in interfaces() {
            graph.set_host_interface(name, Some(&addresses));
        }
        graph
    }

    pub(crate) fn settings(&self) -> Settings {
        let config = &self.config;
        Settings {
            endpoint_to_host: match config.endpoint_to_host {
                EndpointToHostAction::Drop | EndpointToHostAction::Reject => HostAction::Deny,
                EndpointToHostAction::Accept | EndpointToHostAction::Return => HostAction::Allow,
            },
            allow_vxlan_from_workloads: config.allow_vxlan_from_workloads,
            allow_ipip_from_workloads: config.allow_ipip_from_workloads,
            vxlan_port: config.vxlan_port,
            ..Settings::default()
        }
    }

    const fn own_bits(&self) -> u32 {
        self.config.marks.all() | self.config.marks.drop
    }

    /// A mark that a packet may bring along: any bits of others, and those of ours that are cleared at the door.
    pub(crate) const fn foreign_mark(&self, random: u32) -> u32 {
        random & !(self.config.marks.drop | self.config.marks.known)
    }

    pub(crate) const fn is_foreign_mark_kept(&self, before: u32, after: u32) -> bool {
        before & !self.own_bits() == after & !self.own_bits()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) variant: Variant,
    pub(crate) policy: Cluster,
    machines: [Machine; 2],
}

impl Scene {
    /// Fails if an object is not valid, or if the kernel would refuse the rules.
    pub(crate) fn new(manifests: &[Value], variant: &Variant) -> Result<Self, String> {
        let resources = resources(manifests).map_err(|e| e.to_string())?;
        let mut graph = variant.graph();
        resources.iter().for_each(|resource| graph.set(resource));
        let events = graph.flush();
        let mut sets = Sets::default();
        let tables: [Vec<TableContent>; 2] = match variant.compiler {
            Compiler::Classic => {
                let mut classic = Classic::new(variant.config.clone(), Features::default());
                events.iter().for_each(|event| classic.handle(event));
                classic.poll_sets().iter().for_each(|change| sets.apply(change));
                IpVersion::BOTH.map(|version| classic.tables(version))
            }
            Compiler::Fast => {
                let mut fast = Fast::new(variant.config.clone());
                events.iter().for_each(|event| fast.handle(event));
                fast.poll().sets.iter().for_each(|change| sets.apply(change));
                IpVersion::BOTH.map(|version| fast.tables(version))
            }
        };
        let machine =
            |version, tables| Machine::new(version, tables, &sets).map_err(|e| format!("{version}: {e}"));
        let [v4, v6] = &tables;
        let machines = [machine(IpVersion::V4, v4)?, machine(IpVersion::V6, v6)?];
        let mut policy = Cluster::new(resources).with_settings(variant.settings());
        for (name, addresses) in interfaces() {
            policy.set_interface(NODE, name, &addresses);
        }
        Ok(Self { variant: variant.clone(), policy, machines })
    }

    pub(crate) fn machine(&self, packet: &Packet) -> &Machine {
        &self.machines[usize::from(packet.source.is_ipv6())]
    }

    pub(crate) fn policy_verdict(&self, probe: &Probe) -> Verdict {
        self.policy.verdict_on(NODE, &probe.flow)
    }

    pub(crate) fn has_untracked_policy(&self) -> bool {
        let is_untracked =
            |r: &Resource| matches!(r, Resource::GlobalNetworkPolicy(policy) if policy.spec.do_not_track);
        self.policy.resources().values().any(is_untracked)
    }

    /// Whether the workloads of a probe are there, on the interfaces that its packet uses.
    pub(crate) fn has_place(&self, probe: &Probe) -> bool {
        let (flow, packet) = (&probe.flow, &probe.packet);
        let ends = [(&flow.source, &packet.in_interface), (&flow.destination, &packet.out_interface)];
        ends.into_iter().all(|(party, interface)| match &party.place {
            Place::Workload { namespace, name } => self.policy.workloads().any(|w| {
                (w.namespace, w.name, w.node, Some(w.interface))
                    == (namespace, name, NODE, interface.as_deref())
            }),
            _ => true,
        })
    }

    /// All that one needs to see why they disagree.
    pub(crate) fn describe(&self, manifests: &[Value], probe: &Probe) -> String {
        let mut text = String::from("policy and compiled rules disagree\n");
        for manifest in manifests {
            let yaml = serde_saphyr::to_string(manifest).unwrap_or_else(|_| manifest.to_string());
            let _ = write!(text, "---\n{yaml}"); // Writing to a String cannot fail.
        }
        let (outcome, steps) = self.machine(&probe.packet).trace(&probe.packet);
        let _ = write!(
            text,
            "\n{:?}\n{:?}\n\npolicy: {:?}\n",
            self.variant,
            probe.packet,
            self.policy_verdict(probe)
        );
        let _ = write!(text, "{}\n\nrules: {outcome:?}\n", self.policy.explain(&probe.flow));
        for step in steps {
            let _ = writeln!(text, "{step}");
        }
        text
    }
}

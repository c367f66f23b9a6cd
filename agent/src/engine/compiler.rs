//! The compiler of this mode, behind one face.

use ipnet::IpNet;
use tortie_rules::compile::Config;
use tortie_rules::compile::classic::{BrokenSets, Classic};
use tortie_rules::compile::fast::{Changes, Fast};
use tortie_rules::graph::model::Event;
use tortie_rules::render::iptables::Features;

use super::kernel::Kernel;
use crate::config::NftablesLayout;

/// How rules are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As text for iptables.
    Text,
    /// Typed, for nftables, in this layout.
    Typed(NftablesLayout),
}

/// See the module's documentation.
pub(super) enum Compiler {
    /// Felix's chains, for iptables.
    Text(Box<Classic>),
    /// The same chains, for nftables.
    Chains(Box<Classic>),
    /// Tables instead of the chains of workloads. What it said last is kept until rules are delivered.
    Tables(Box<Fast>, Changes),
}

impl Compiler {
    /// Of a form, without endpoints.
    pub(super) fn new(form: Form, config: Config, features: Features) -> Self {
        match form {
            Form::Text => Self::Text(Box::new(Classic::new(config, features))),
            Form::Typed(NftablesLayout::Chains) => Self::Chains(Box::new(Classic::new(config, features))),
            Form::Typed(NftablesLayout::Tables) => {
                Self::Tables(Box::new(Fast::new(config)), Changes::default())
            }
        }
    }

    /// Takes a change of the desired state.
    pub(super) fn handle(&mut self, event: &Event) {
        match self {
            Self::Text(classic) | Self::Chains(classic) => classic.handle(event),
            Self::Tables(fast, _) => fast.handle(event),
        }
    }

    /// Sets this host's own addresses.
    pub(super) fn set_host_addresses(&mut self, addresses: &[IpNet]) {
        match self {
            Self::Text(classic) | Self::Chains(classic) => classic.set_host_addresses(addresses),
            Self::Tables(fast, _) => fast.set_host_addresses(addresses),
        }
    }

    /// Notes whether kube-proxy uses IPVS on this node.
    pub(super) fn set_ipvs(&mut self, is_ipvs: bool) {
        match self {
            Self::Text(classic) | Self::Chains(classic) => classic.set_ipvs(is_ipvs),
            Self::Tables(fast, _) => fast.set_ipvs(is_ipvs),
        }
    }

    /// Endpoints that could not be given a mark.
    pub(super) fn unmarked_endpoints(&self) -> Vec<String> {
        match self {
            Self::Text(classic) | Self::Chains(classic) => classic.unmarked_endpoints(),
            Self::Tables(fast, _) => fast.unmarked_endpoints(),
        }
    }

    /// Tells the kernel what changed of sets.
    pub(super) fn deliver_sets(&mut self, kernel: &mut Kernel) {
        let sets = match self {
            Self::Text(classic) | Self::Chains(classic) => classic.poll_sets(),
            Self::Tables(fast, changes) => {
                let mut new = fast.poll();
                let sets = std::mem::take(&mut new.sets);
                changes.tables.append(&mut new.tables);
                sets
            }
        };
        sets.into_iter().for_each(|change| kernel.change_set(change));
    }

    /// Tells the kernel what changed of rules, given the sets that are not as wanted.
    pub(super) fn deliver_rules(&mut self, broken: &BrokenSets, kernel: &mut Kernel) {
        match self {
            Self::Text(classic) => {
                classic.set_broken_sets(broken);
                classic.poll_tables().into_iter().for_each(|update| kernel.change_table(update));
            }
            Self::Chains(classic) => {
                let changes = classic.poll_typed();
                changes.iter().for_each(|(version, table, change)| {
                    kernel.change_rules(*version, *table, change);
                });
            }
            Self::Tables(_, changes) => {
                for update in changes.tables.drain(..) {
                    kernel.change_rules(update.version, update.table, &update.change);
                }
            }
        }
    }
}

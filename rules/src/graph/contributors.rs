//! What endpoints, network sets and nodes contribute to sets, in as few bytes as it needs.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tortie_api::net::Protocol;

use super::convert::PortProtocol;
use super::cover;
use super::label_index::ItemId;
use super::model::Member;
use super::pool::Pool;
use super::slab::Pages;

/// A port of an endpoint that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamedPort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// What of an item counts.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    Addresses,
    /// Addresses of nodes, which no other filter lets through.
    Nodes,
    NamedPort(PortProtocol, Arc<str>),
}

/// Networks and named ports of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contributor<'a> {
    /// Addresses and networks.
    pub(crate) nets: &'a [IpNet],
    /// Named ports.
    pub(crate) ports: &'a [NamedPort],
    /// A node of the cluster: only sets of nodes have it as a member, and they have nothing else.
    pub(crate) is_node: bool,
}

/// Almost everything has one IPv4 address.
#[derive(Debug, PartialEq, Eq)]
enum Nets {
    Host(u32),
    Other(Box<OtherNets>),
}

#[derive(Debug, PartialEq, Eq)]
enum OtherNets {
    Hosts(Vec<u32>),
    Mixed(Vec<IpNet>),
}

impl Nets {
    fn new(nets: &[IpNet]) -> Self {
        match nets {
            [one] if let Some(host) = cover::host(one) => Self::Host(host),
            nets => Self::Other(Box::new(match nets.iter().map(cover::host).collect() {
                Some(hosts) => OtherNets::Hosts(hosts),
                None => OtherNets::Mixed(nets.into()),
            })),
        }
    }

    fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        let (hosts, mixed) = match self {
            Self::Host(host) => (std::slice::from_ref(host), &[][..]),
            Self::Other(other) => match &**other {
                OtherNets::Hosts(hosts) => (hosts.as_slice(), &[][..]),
                OtherNets::Mixed(nets) => (&[][..], nets.as_slice()),
            },
        };
        let hosts = hosts.iter().map(|host| IpNet::V4(Ipv4Net::from(Ipv4Addr::from(*host))));
        hosts.chain(mixed.iter().copied())
    }
}

/// A list of ports that no port of is named.
const NO_PORTS: u32 = u32::MAX;
/// What nodes have in place of a list of ports.
const OF_NODE: u32 = u32::MAX - 1;

/// What one item contributes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    nets: Nets,
    ports: u32,
}

impl Held {
    pub(crate) fn nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.nets.iter()
    }

    /// Whether it is a node of the cluster.
    pub(crate) const fn is_node(&self) -> bool {
        self.ports == OF_NODE
    }
}

/// What all items contribute. Pods of one template have equal ports, which are kept once.
#[derive(Debug, Default)]
pub(crate) struct Contributors {
    items: Pages<Held>,
    ports: Pool<Box<[NamedPort]>>,
}

impl Contributors {
    /// Takes what an item contributes now. What it did before, if that was something else: it is to be given back
    /// by [`Self::forget`].
    pub(crate) fn set(&mut self, id: ItemId, contributor: Contributor<'_>) -> Option<Held> {
        let Contributor { nets, ports, is_node } = contributor;
        if self
            .items
            .get(id)
            .is_some_and(|held| held.nets.iter().eq(nets.iter().copied()) && self.ports_of(held) == ports)
        {
            return None;
        }
        let ports = match ports {
            _ if is_node => OF_NODE,
            [] => NO_PORTS,
            ports => self.ports.acquire(ports, || ports.into()).0,
        };
        self.items.insert(id, Held { nets: Nets::new(nets), ports })
    }

    pub(crate) fn get(&self, id: ItemId) -> Option<&Held> {
        self.items.get(id)
    }

    pub(crate) fn remove(&mut self, id: ItemId) {
        if let Some(held) = self.items.remove(id) {
            self.forget(&held);
        }
    }

    /// Nobody needs any more what an item contributed.
    pub(crate) fn forget(&mut self, held: &Held) {
        if !matches!(held.ports, NO_PORTS | OF_NODE) {
            self.ports.release::<[NamedPort]>(held.ports);
        }
    }

    pub(crate) fn ports_of(&self, held: &Held) -> &[NamedPort] {
        if matches!(held.ports, NO_PORTS | OF_NODE) { &[] } else { &self.ports[held.ports] }
    }

    /// Calls `visit` with what of it a filter lets through.
    pub(crate) fn members(&self, held: &Held, filter: &Filter, mut visit: impl FnMut(Member)) {
        match filter {
            Filter::Addresses | Filter::Nodes => {
                if held.is_node() == matches!(filter, Filter::Nodes) {
                    held.nets.iter().for_each(|net| visit(Member::Net(net)));
                }
            }
            Filter::NamedPort(protocol, name) => {
                let ports = self.ports_of(held).iter();
                for port in ports.filter(|p| p.name == *name && protocol.admits(p.protocol)) {
                    let member =
                        |net: IpNet| Member::AddressPort(net.addr(), port.protocol.number(), port.port);
                    held.nets.iter().for_each(|net| visit(member(net)));
                }
            }
        }
    }
}

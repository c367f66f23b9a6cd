//! The terms of a rule, as far as they do not hold for a flow.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use tortie_api::net::{IpVersion, Port, Protocol};

/// A side of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// `source`
    Source,
    /// `destination`
    Destination,
}

/// A term of a rule that does not hold, with what is there instead.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "term")]
pub enum Miss {
    /// The rule is for the other IP version.
    IpVersion {
        /// The one that it is for.
        wanted: IpVersion,
    },
    /// `http`: cannot be looked at, so the rule allows nothing.
    Http,
    /// `protocol`
    Protocol {
        /// The flow's.
        have: u8,
        /// The rule's.
        wanted: Protocol,
    },
    /// `notProtocol`
    NotProtocol {
        /// The rule's, and the flow's.
        unwanted: Protocol,
    },
    /// `icmp`
    Icmp {
        /// The flow's type and code.
        have: Option<(u8, u8)>,
        /// The rule's type.
        wanted_type: u8,
        /// The rule's code.
        wanted_code: Option<u8>,
    },
    /// `notICMP`
    NotIcmp {
        /// The rule's type, and the flow's.
        unwanted_type: u8,
        /// The rule's code, and the flow's.
        unwanted_code: Option<u8>,
    },
    /// `nets`
    Nets {
        /// Which side.
        side: Side,
        /// The flow's address there.
        address: IpAddr,
        /// The rule's networks.
        nets: Vec<IpNet>,
    },
    /// `notNets`
    NotNets {
        /// Which side.
        side: Side,
        /// The flow's address there.
        address: IpAddr,
        /// The network that it is in.
        net: IpNet,
    },
    /// `ports`
    Ports {
        /// Which side.
        side: Side,
        /// The flow's port there.
        have: Option<u16>,
        /// The rule's ports.
        wanted: Vec<Port>,
    },
    /// `notPorts`
    NotPorts {
        /// Which side.
        side: Side,
        /// The flow's port there.
        have: Option<u16>,
        /// The rule's port that it is.
        unwanted: Port,
    },
    /// Selectors: nothing known has the address, so nothing is selected.
    Unknown {
        /// Which side.
        side: Side,
        /// The flow's address there.
        address: IpAddr,
    },
    /// One clause of what selects endpoints and network sets.
    Selection {
        /// Which side.
        side: Side,
        /// What has the address: `Pod shop/db`.
        subject: String,
        /// The clause.
        clause: Clause,
    },
    /// `notSelector` on a side that selects nothing else.
    NotSelector {
        /// Which side.
        side: Side,
        /// What has the address and is selected.
        subject: String,
        /// The selector.
        selector: String,
    },
    /// `services`
    Service {
        /// Which side.
        side: Side,
        /// The flow's address there.
        address: IpAddr,
        /// The service's namespace.
        namespace: String,
        /// The service.
        name: String,
    },
}

/// A clause of what selects endpoints and network sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Clause {
    /// It is in the policy's own namespace.
    Namespace(String),
    /// `namespaceSelector`
    NamespaceSelector(String),
    /// `selector`
    Selector(String),
    /// `notSelector`
    NotSelector(String),
    /// `nodes` of a cluster-wide policy
    Nodes(String),
    /// `serviceAccounts.names`
    ServiceAccountNames(Vec<String>),
    /// `serviceAccounts.selector`
    ServiceAccountSelector(String),
}

//! Settings that become options of the compiler together with others.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use tortie_rules::compile::config::{LogLimit, MarkError, OpenStack};
use tortie_rules::compile::{Config as CompileConfig, MarkUses, Marks};

/// What marks the node as one of OpenStack, in `ClusterType`; and the prefix of its interfaces.
const OPENSTACK: &str = "openstack";
const OPENSTACK_PREFIX: &str = "tap";

/// Where the metadata server of OpenStack is by default.
const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
const METADATA_PORT: u16 = 8775;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Derived {
    /// `LogActionRateLimit`
    pub(super) log_rate: Option<String>,
    /// `LogActionRateLimitBurst`
    pub(super) log_burst: u32,
    /// `IptablesMarkMask`
    pub(super) mark_mask: u32,
    /// `NftablesInstantRevocation`, in nftables mode.
    pub(super) has_revocation: bool,
    /// `FlowLogsLocalReporter`
    pub(super) has_flow_reporter: bool,
    /// `FlowLogsGoldmaneServer` is given.
    pub(super) has_flow_server: bool,
    /// `IstioAmbientMode`
    pub(super) is_ambient: bool,
    /// `IstioDSCPMark`
    pub(super) istio_dscp: u8,
    /// `ClusterType`, in lower case.
    pub(super) cluster_type: String,
    /// `MetadataAddr`
    pub(super) metadata_address: Option<Ipv4Addr>,
    /// `MetadataPort`
    pub(super) metadata_port: u16,
    /// Which of the `PrometheusMetrics…` settings ask for TLS.
    pub(super) metrics_tls: BTreeSet<&'static str>,
}

impl Default for Derived {
    fn default() -> Self {
        Self {
            log_rate: None,
            log_burst: 5,
            mark_mask: 0xffff_0000,
            has_revocation: false,
            has_flow_reporter: false,
            has_flow_server: false,
            is_ambient: false,
            istio_dscp: 23,
            cluster_type: String::new(),
            metadata_address: Some(METADATA_ADDRESS),
            metadata_port: METADATA_PORT,
            metrics_tls: BTreeSet::new(),
        }
    }
}

impl Derived {
    /// Fills in the options.
    ///
    /// # Errors
    /// When the mark mask has no bit for WireGuard, which then is off.
    pub(super) fn apply(&self, compile: &mut CompileConfig) -> Result<(), MarkError> {
        let burst = self.log_burst;
        compile.log_limit = self.log_rate.clone().map(|rate| LogLimit { rate, burst });
        compile.flow_logs = self.has_flow_reporter || self.has_flow_server;
        compile.istio_dscp = self.is_ambient.then_some(self.istio_dscp);
        compile.openstack = self.openstack(&compile.interface_prefixes);
        self.set_marks(compile)
    }

    fn openstack(&self, prefixes: &[String]) -> Option<OpenStack> {
        let is_openstack = self.cluster_type.contains(OPENSTACK)
            || self.metadata_address != Some(METADATA_ADDRESS)
            || self.metadata_port != METADATA_PORT
            || prefixes.iter().any(|prefix| prefix == OPENSTACK_PREFIX);
        let metadata = self.metadata_address.map(|address| SocketAddrV4::new(address, self.metadata_port));
        is_openstack.then_some(OpenStack { metadata })
    }

    /// Whether the mask has a bit for instant revocation, with that for WireGuard.
    ///
    /// # Errors
    /// How many bits it lacks.
    pub(super) fn fits_revocation(&self, compile: &CompileConfig) -> Result<(), MarkError> {
        let uses = MarkUses { wireguard: compile.has_wireguard(), revocation: true };
        Marks::with(self.mark_mask, uses).map(|_| ())
    }

    /// Takes the marks' bits from the mask.
    ///
    /// # Errors
    /// As [`Derived::apply`].
    pub(super) fn set_marks(&self, compile: &mut CompileConfig) -> Result<(), MarkError> {
        // A mask with too few bits for anything was refused when it was read.
        let uses = MarkUses { wireguard: compile.has_wireguard(), revocation: self.has_revocation };
        match Marks::with(self.mark_mask, uses) {
            Ok(marks) => {
                compile.marks = marks;
                Ok(())
            }
            Err(error) => {
                (compile.wireguard_v4.is_enabled, compile.wireguard_v6.is_enabled) = (false, false);
                compile.marks = Marks::from_mask(self.mark_mask).unwrap_or_default();
                Err(error)
            }
        }
    }
}

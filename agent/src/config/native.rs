//! Settings of nftables mode.

use std::time::Duration;

use tortie_rules::compile::Marks;
use tortie_rules::compile::config::{AllowAction, DenyAction};

use super::Settings;
use super::hosts::Pattern;
use super::values::{duration, mask, one_of};

/// Whether rules go into tables of nftables' own, not through iptables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NftablesMode {
    /// If kube-proxy does so on this node.
    #[default]
    Auto,
    /// No.
    Disabled,
    /// Yes.
    Enabled,
}

/// How rules are laid out in nftables mode. Felix has no such setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NftablesLayout {
    /// A chain for each policy, as in iptables mode.
    Chains,
    /// Tables of what policies say, so that their number costs packets nothing.
    #[default]
    Tables,
}

/// What has settings of its own in nftables mode.
#[derive(Clone, Debug, PartialEq)]
pub struct NftablesOptions {
    /// `NftablesFilterAllowAction`
    pub filter_allow: AllowAction,
    /// `NftablesMangleAllowAction`
    pub mangle_allow: AllowAction,
    /// `NftablesFilterDenyAction`
    pub filter_deny: DenyAction,
    /// `NftablesMarkMask`
    pub mark_mask: u32,
    /// `NftablesRefreshInterval`; zero turns it off.
    pub refresh: Duration,
    /// `NftablesLayout`
    pub layout: NftablesLayout,
    /// `NftablesInstantRevocation`: whether established connections end when policy no longer allows them. Felix has no
    /// such setting.
    pub instant_revocation: bool,
    /// `NFTablesFlowTableOffload`: whether established connections skip the rules.
    pub offload: bool,
    /// `NFTablesFlowTableDataIfacePattern`: interfaces of the host from which they do, beside those of workloads and
    /// tunnels.
    pub offload_interfaces: Pattern,
}

impl Default for NftablesOptions {
    fn default() -> Self {
        Self {
            filter_allow: AllowAction::Accept,
            mangle_allow: AllowAction::Accept,
            filter_deny: DenyAction::Drop,
            mark_mask: 0xffff_0000,
            refresh: Duration::from_mins(3),
            layout: NftablesLayout::default(),
            instant_revocation: false,
            offload: false,
            offload_interfaces: Pattern::default(),
        }
    }
}

const ALLOW: &[(&str, AllowAction)] = &[("ACCEPT", AllowAction::Accept), ("RETURN", AllowAction::Return)];
const DENY: &[(&str, DenyAction)] = &[("DROP", DenyAction::Drop), ("REJECT", DenyAction::Reject)];

pub(super) fn mode(s: &mut Settings, value: &str) -> Result<(), String> {
    use NftablesMode::{Auto, Disabled, Enabled};
    s.nftables_mode = one_of(value, &[("Auto", Auto), ("Disabled", Disabled), ("Enabled", Enabled)])?;
    Ok(())
}

pub(super) fn filter_allow(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.filter_allow = one_of(value, ALLOW)?;
    Ok(())
}

pub(super) fn mangle_allow(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.mangle_allow = one_of(value, ALLOW)?;
    Ok(())
}

pub(super) fn filter_deny(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.filter_deny = one_of(value, DENY)?;
    Ok(())
}

pub(super) fn mark_mask(s: &mut Settings, value: &str) -> Result<(), String> {
    let mask = mask(value)?;
    Marks::from_mask(mask).map_err(|error| error.to_string())?;
    s.nftables.mark_mask = mask;
    Ok(())
}

pub(super) fn refresh(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.refresh = duration(value, 1.0)?;
    Ok(())
}

pub(super) fn layout(s: &mut Settings, value: &str) -> Result<(), String> {
    let choices = [("Chains", NftablesLayout::Chains), ("Tables", NftablesLayout::Tables)];
    s.nftables.layout = one_of(value, &choices)?;
    Ok(())
}

pub(super) fn instant_revocation(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.instant_revocation = one_of(value, &[("Enabled", true), ("Disabled", false)])?;
    Ok(())
}

pub(super) fn offload(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.offload = one_of(value, &[("All", true), ("Disabled", false)])?;
    Ok(())
}

pub(super) fn offload_interfaces(s: &mut Settings, value: &str) -> Result<(), String> {
    s.nftables.offload_interfaces = Pattern::parse(value)?;
    Ok(())
}

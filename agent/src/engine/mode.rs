//! Iptables mode or nftables mode.
//!
//! By default the node's kube-proxy decides: rules are where its rules are. It is looked at again now and then, since
//! kube-proxy may be started after us, or in another mode; twice, since it may be about to write its table anew.

use std::time::{Duration, Instant};

use tortie_dataplane::nft::Socket;
use tortie_rules::ruleset::nft::{Family, TableId};

use crate::config::{NftablesMode, SettingProblem, Settings};

/// How often kube-proxy is looked at.
const EVERY: Duration = Duration::from_secs(15);
/// How soon again when it seems to have changed.
const AGAIN: Duration = Duration::from_secs(2);

/// kube-proxy's table in its nftables mode.
const KUBE_PROXY: &str = "kube-proxy";

/// Which mode this node is in.
pub(super) struct ModeWatch {
    is_native: bool,
    /// When kube-proxy is looked at, and with what; not at all when the mode is configured.
    looks: Option<(Instant, Socket)>,
    /// It seemed to have changed the last time.
    is_doubted: bool,
}

impl ModeWatch {
    /// Finds out.
    pub(super) fn open(settings: &Settings) -> Self {
        let mut looks = None;
        let is_native = match settings.nftables_mode {
            NftablesMode::Enabled => true,
            NftablesMode::Disabled => false,
            NftablesMode::Auto => {
                let mut socket = Socket::new();
                let is_native = has_kube_proxy(&mut socket);
                looks = Some((Instant::now() + EVERY, socket));
                is_native
            }
        };
        tracing::info!(nftables = is_native, setting = ?settings.nftables_mode, "mode of the rules");
        Self { is_native, looks, is_doubted: false }
    }

    /// Nftables mode.
    pub(super) const fn is_native(&self) -> bool {
        self.is_native
    }

    /// The settings that count in this mode.
    pub(super) fn effective(&self, settings: &Settings, problems: &mut Vec<SettingProblem>) -> Settings {
        if !self.is_native {
            return settings.clone();
        }
        let (settings, problem) = settings.for_nftables();
        problems.extend(problem.map(|message| SettingProblem {
            source: "all layers".to_owned(),
            name: "NftablesMarkMask".to_owned(),
            message,
        }));
        settings
    }

    /// Whether the other mode is due.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        let Some((next, socket)) = &mut self.looks else { return false };
        if *next > now {
            return false;
        }
        let differs = has_kube_proxy(socket) != self.is_native;
        *next = now + if differs { AGAIN } else { EVERY };
        let is_sure = differs && self.is_doubted;
        self.is_doubted = differs;
        is_sure
    }

    /// When kube-proxy is looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.looks.as_ref().map(|(next, _)| *next)
    }
}

/// Whether kube-proxy has chains of nftables' own.
fn has_kube_proxy(socket: &mut Socket) -> bool {
    [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .any(|family| socket.chains(&TableId::new(family, KUBE_PROXY)).is_ok_and(|chains| !chains.is_empty()))
}

//! Connections that skip the rules, in nftables mode: whether the kernel has that, and for which interfaces.

use tortie_api::net::IpVersion;
use tortie_dataplane::link::LinkEvent;
use tortie_dataplane::nft::lacks_flowtables;
use tortie_dataplane::steer::chain;

use super::family::Family;
use crate::config::{Pattern, SettingProblem, Settings};

/// Tunnels of Calico that are no WireGuard; how that one is called is a setting.
const TUNNELS: [&str; 3] = ["vxlan.calico", "vxlan-v6.calico", "tunl0"];

/// Interfaces between which connections skip the rules.
#[derive(Debug)]
pub(super) struct Offload {
    prefixes: Vec<String>,
    tunnels: Vec<String>,
    data: Pattern,
}

impl Offload {
    /// If that is wanted and the kernel has it. If it has not, everything is as without the setting, but slower than
    /// asked for.
    pub(super) fn open(
        settings: &Settings,
        is_native: bool,
        families: &mut [Family],
    ) -> (Option<Self>, Option<SettingProblem>) {
        if !(is_native && settings.nftables.offload) {
            return (None, None);
        }
        let wanted = || settings.compile.versions.iter().copied();
        if let Some(why) = wanted().find_map(missing) {
            let message =
                format!("connections go on through the rules: this kernel has no flowtables: {why}");
            let (source, name) = ("this node".to_owned(), "NFTablesFlowTableOffload".to_owned());
            return (None, Some(SettingProblem { source, name, message }));
        }
        let families = families.iter_mut().filter(|family| wanted().any(|version| version == family.version));
        families.filter_map(|family| family.native.as_mut()).for_each(|native| native.driver.want_offload());
        let wireguard = [&settings.compile.wireguard_v4, &settings.compile.wireguard_v6];
        let wireguard = wireguard.map(|wireguard| wireguard.interface.clone());
        let offload = Self {
            prefixes: settings.compile.interface_prefixes.clone(),
            tunnels: TUNNELS.map(str::to_owned).into_iter().chain(wireguard).collect(),
            data: settings.nftables.offload_interfaces.clone(),
        };
        (Some(offload), None)
    }

    /// Takes in what happened to an interface.
    pub(super) fn take_link(&self, event: &LinkEvent, families: &mut [Family]) {
        for native in families.iter_mut().filter_map(|family| family.native.as_mut()) {
            match event {
                LinkEvent::Changed(link) if self.holds(&link.name) => native.driver.offload_from(&link.name),
                LinkEvent::Removed { name, .. } => native.driver.offload_gone(name),
                LinkEvent::Changed(_) | LinkEvent::Resynced => {}
            }
        }
    }

    fn holds(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
            || self.tunnels.iter().any(|tunnel| tunnel == name)
            || self.data.holds(name)
    }
}

/// Why an IP version lacks it.
fn missing(version: IpVersion) -> Option<String> {
    lacks_flowtables(version)
        .unwrap_or_else(|error| Some(chain(&error)))
        .map(|why| format!("{why} ({version})"))
}

//! Policy that is tightened ends established connections, in nftables mode: whether that is wanted, and can be.

use tortie_dataplane::link::LinkEvent;
use tortie_dataplane::nft::lacks_connection_marks;
use tortie_dataplane::steer::chain;
use tortie_rules::render::nft::established::Revocation;

use super::family::Family;
use super::feed::IPVS_INTERFACE;
use crate::config::{SettingProblem, Settings};

/// The setting's name.
pub(super) const SETTING: &str = "NftablesInstantRevocation";

/// Begins with it, if it is wanted and possible. Where it is not, established connections go on, as without the setting.
pub(super) fn open(
    settings: &Settings,
    is_native: bool,
    families: &mut [Family],
) -> (bool, Option<SettingProblem>) {
    let problem = |why: String| {
        let message = format!("established connections go on when policy changes: {why}");
        Some(SettingProblem { source: "this node".to_owned(), name: SETTING.to_owned(), message })
    };
    if !is_native {
        let is_wanted = settings.nftables.instant_revocation;
        return (false, is_wanted.then(|| problem("rules are not in nftables mode".to_owned())).flatten());
    }
    let Some(revocation) = Revocation::new(&settings.compile.marks) else { return (false, None) };
    for version in &settings.compile.versions {
        let missing = lacks_connection_marks(*version).unwrap_or_else(|error| Some(chain(&error)));
        if let Some(why) = missing {
            return (false, problem(format!("this kernel cannot mark connections: {why} ({version})")));
        }
    }
    let wanted = families.iter_mut().filter(|family| family.is_wanted);
    wanted.filter_map(|family| family.native.as_mut()).for_each(|n| n.driver.want_revocation(revocation));
    (true, None)
}

/// Takes in what happened to an interface: one of them says that kube-proxy uses IPVS.
pub(super) fn take_link(event: &LinkEvent, families: &mut [Family]) {
    let is_ipvs = match event {
        LinkEvent::Changed(link) if link.name == IPVS_INTERFACE => true,
        LinkEvent::Removed { name, .. } if name == IPVS_INTERFACE => false,
        _ => return,
    };
    families.iter_mut().filter_map(|family| family.native.as_mut()).for_each(|n| n.driver.set_ipvs(is_ipvs));
}

//! Ip sets in the terms of the drivers.

use tortie_dataplane::ipset::{InvalidSet, IpSets, Member, SetSpec, SetType};
use tortie_dataplane::nft::driver::NftTable;
use tortie_dataplane::steer::Steered;
use tortie_rules::compile::classic::{self, SetChange};
use tortie_rules::graph::model;

/// Tells the driver of ip sets what changes. Returns the set's name as well.
pub(super) fn change(
    sets: &mut IpSets,
    change: SetChange,
    max_elements: u32,
) -> (String, Result<(), InvalidSet>) {
    match change {
        SetChange::Want { name, version, set_type, members } => {
            let set_type = kernel_type(set_type);
            let spec = SetSpec { name: name.clone(), family: version, set_type, max_elements };
            let members = members.into_iter().map(|m| member(m, set_type));
            (name, sets.set_wanted(spec, members))
        }
        SetChange::Update { name, set_type, added, removed } => {
            let set_type = kernel_type(set_type);
            let convert = |m: model::Member| member(m, set_type);
            let (added, removed) = (added.into_iter().map(convert), removed.into_iter().map(convert));
            let outcome = sets.update_members(&name, added, removed);
            (name, outcome)
        }
        SetChange::Unwant { name } => {
            sets.unwant(&name);
            (name, Ok(()))
        }
    }
}

/// The same in nftables mode, where a set belongs to the table of its IP version.
pub(super) fn change_native<'a>(tables: impl Iterator<Item = &'a mut Steered<NftTable>>, change: &SetChange) {
    for table in tables {
        let is_its = match change {
            SetChange::Want { version, .. } => *version == table.driver.version(),
            // Names are different in each, and who does not know one has nothing to do.
            SetChange::Update { .. } | SetChange::Unwant { .. } => true,
        };
        if is_its {
            table.driver.change_set(change);
        }
    }
}

fn kernel_type(set_type: classic::SetType) -> SetType {
    match set_type {
        classic::SetType::Address => SetType::HashIp,
        classic::SetType::Net => SetType::HashNet,
        classic::SetType::AddressPort => SetType::HashIpPort,
    }
}

fn member(member: model::Member, set_type: SetType) -> Member {
    match member {
        model::Member::Net(net) if set_type == SetType::HashIp => Member::Addr(net.addr()),
        model::Member::Net(net) => Member::Net(net),
        model::Member::AddressPort(addr, protocol, port) => Member::AddrPort { addr, protocol, port },
    }
}

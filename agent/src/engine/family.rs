//! The drivers of one IP version.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tortie_api::net::IpVersion;
use tortie_dataplane::conntrack::Conntrack;
use tortie_dataplane::feature::{self, Backend};
use tortie_dataplane::iptables::{self, IptablesTable, Tools, Writers};
use tortie_dataplane::nft::Ear;
use tortie_dataplane::nft::driver::NftTable;
use tortie_dataplane::reconcile::Phase;
use tortie_dataplane::route::{Routes, RoutesConfig};
use tortie_dataplane::steer::apart::Apart;
use tortie_dataplane::steer::{Steer as _, Steered, chain};
use tortie_rules::render::Table;

use crate::config::Settings;

/// How long routes of others stay on a workload interface that has just appeared: the CNI plugin makes them
/// before the datastore knows the endpoint.
const ROUTE_GRACE: Duration = Duration::from_secs(10);

/// Everything of one IP version.
pub(super) struct Family {
    pub(super) version: IpVersion,
    /// Whether it is enforced. A family that is not is kept clean of what an agent left there before.
    pub(super) is_wanted: bool,
    pub(super) tables: BTreeMap<Table, Apart<IptablesTable>>,
    /// Apart from that of the other family: connections go once the rules of theirs are in force.
    pub(super) conntrack: Steered<Conntrack>,
    /// In nftables mode, instead of the tables of iptables.
    pub(super) native: Option<Steered<NftTable>>,
    pub(super) routes: Option<Steered<Routes>>,
}

impl Family {
    /// Nothing is read or written yet. Tables are read again `check` after a write.
    pub(super) fn open(
        version: IpVersion,
        is_wanted: bool,
        tools: &Tools,
        options: &iptables::Options,
        (settings, check): (&Settings, Duration),
    ) -> Self {
        let refresh = settings.iptables_refresh;
        let table = |table| {
            let driver = IptablesTable::new(version, table, tools.clone(), options.clone());
            (table, Apart::new(Steered::new(driver, refresh, check)))
        };
        let routes = open_routes(version, is_wanted, settings);
        let conntrack = Steered::new(Conntrack::new(), Duration::ZERO, Duration::ZERO);
        Self { version, is_wanted, tables: Table::ALL.map(table).into(), native: None, conntrack, routes }
    }

    /// The same in nftables mode.
    pub(super) fn open_native(
        version: IpVersion,
        is_wanted: bool,
        options: &iptables::Options,
        (settings, check): (&Settings, Duration),
        ear: Option<Ear>,
    ) -> Self {
        let mut driver = NftTable::new(version, options.workload_interfaces.clone());
        if let Some(ear) = ear {
            driver.close_in_bulk(ear);
        }
        let native = Some(Steered::new(driver, settings.iptables_refresh, check));
        let routes = open_routes(version, is_wanted, settings);
        let conntrack = Steered::new(Conntrack::new(), Duration::ZERO, Duration::ZERO);
        Self { version, is_wanted, tables: BTreeMap::new(), native, conntrack, routes }
    }

    /// Connections that could not be deleted since they skip the rules are brought back to these; they are deleted
    /// when that is tried again.
    pub(super) fn recall_offloaded(&mut self) {
        if self.conntrack.driver.take_met_offloaded()
            && let Some(native) = &mut self.native
        {
            native.driver.recall_offloaded();
        }
    }

    /// Whether all its rules are in force.
    pub(super) fn is_enforced(&self) -> bool {
        self.tables.values().all(|t| t.is_settled(Phase::Enforce))
            && self.native.iter().all(|table| table.is_settled(Phase::Enforce))
    }
}

fn open_routes(version: IpVersion, is_wanted: bool, settings: &Settings) -> Option<Steered<Routes>> {
    (!settings.route_sync_disabled).then(|| {
        let driver = Routes::new(version, routes_config(is_wanted, settings), Box::new(Instant::now));
        Steered::new(driver, settings.route_refresh, settings.route_refresh)
    })
}

/// The programs of an IP version, tried out, or why it cannot be enforced here.
pub(super) fn usable_tools(
    version: IpVersion,
    backend: Backend,
    features: feature::Features,
    options: &iptables::Options,
    writers: &Writers,
) -> Result<Tools, String> {
    let mut tools = Tools::find(version, backend, features).ok_or_else(|| {
        format!("no iptables-{backend}-save and -restore for {version}; on Debian: apt-get install iptables")
    })?;
    tools.writers = writers.clone();
    tools.try_out(options).map_err(|error| chain(&error))?;
    Ok(tools)
}

/// Of a family that is not wanted only our own routes are removed.
fn routes_config(is_wanted: bool, settings: &Settings) -> RoutesConfig {
    let mut protocols = vec![tortie_dataplane::route::PROTOCOL, settings.route_protocol];
    protocols.dedup();
    RoutesConfig {
        workload_prefixes: settings.compile.interface_prefixes.clone(),
        remove_external_routes: is_wanted && settings.remove_external_routes,
        protocols,
        grace: ROUTE_GRACE,
    }
}

//! All drivers of this node, and one pass over them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tortie_api::control::Apply;
use tortie_api::net::IpVersion;
use tortie_dataplane::feature::{self, Backend, SystemProbe};
use tortie_dataplane::ipset::{IpSets, Member, SetSpec, SetType};
use tortie_dataplane::iptables::{self, IptablesTable, Tools, sweep_other_backend};
use tortie_dataplane::link::{Link, LinkEvent, Links, MacAddr};
use tortie_dataplane::reconcile::Problem;
use tortie_dataplane::route::{RouteSpec, Routes, RoutesConfig};
use tortie_dataplane::steer::{Steer, Steered, pass};
use tortie_dataplane::sysctl::{InterfaceSettings, Sysctls};
use tortie_rules::compile::classic::{self, SetChange, TableUpdate};
use tortie_rules::graph::model;
use tortie_rules::render::Table;
use tortie_rules::render::iptables::Features;

use crate::config::Settings;

/// How long routes of others stay on a workload interface that has just appeared: the CNI plugin makes them
/// before the datastore knows the endpoint.
const ROUTE_GRACE: Duration = Duration::from_secs(10);

/// What a pass did.
#[derive(Debug, Default)]
pub(super) struct PassReport {
    pub(super) calls: usize,
    pub(super) restores: usize,
    pub(super) changed: usize,
    pub(super) problems: Vec<Problem>,
}

impl PassReport {
    pub(super) fn as_status(&self, took: Duration) -> Apply {
        let millis = took.as_secs_f64() * 1e3;
        Apply { millis, calls: self.calls, restores: self.restores, changed: self.changed }
    }
}

/// See the module's documentation.
pub(super) struct Kernel {
    prefixes: Vec<String>,
    backend: Backend,
    features: feature::Features,
    sets: Steered<IpSets>,
    tables: BTreeMap<(IpVersion, Table), Steered<IptablesTable>>,
    routes: Vec<Steered<Routes>>,
    sysctls: Steered<Sysctls>,
    links: Links,
    refused: BTreeMap<String, Problem>,
    max_set_size: u32,
}

impl Kernel {
    /// Finds out what this node has, and opens what is needed. Nothing is written.
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let detection = feature::detect_backend(settings.iptables_backend, &mut SystemProbe);
        if let Some(warning) = &detection.warning {
            tracing::warn!("{warning}");
        }
        tracing::info!(backend = %detection.backend, reason = detection.reason, "iptables back end");
        let backend = detection.backend;
        let (features, errors) = feature::detect_features(backend).with_overrides(&settings.feature_override);
        errors.iter().for_each(|error| tracing::warn!(%error, "FeatureDetectOverride"));
        let options = iptables::Options {
            lock_probe_interval: settings.iptables_lock_probe,
            workload_interfaces: settings
                .compile
                .interface_prefixes
                .iter()
                .map(|p| format!("{p}+"))
                .collect(),
            ..iptables::Options::default()
        };
        sweep_other_backend(backend, features, &options);
        let mut tables = BTreeMap::new();
        for version in &settings.compile.versions {
            let tools = Tools::find(*version, backend, features).with_context(|| {
                format!("no iptables-{backend}-save and -restore for {version}; on Debian: apt-get install iptables")
            })?;
            for table in Table::ALL {
                let driver = IptablesTable::new(*version, table, tools.clone(), options.clone());
                let (refresh, check) = (settings.iptables_refresh, settings.iptables_post_write_check);
                tables.insert((*version, table), Steered::new(driver, refresh, check));
            }
        }
        let links = Links::open().context("cannot watch this node's interfaces")?;
        let mut kernel = Self {
            prefixes: settings.compile.interface_prefixes.clone(),
            backend,
            features,
            sets: Steered::new(IpSets::new(), settings.ipsets_refresh, settings.ipsets_refresh),
            tables,
            routes: if settings.route_sync_disabled { Vec::new() } else { routes(settings) },
            sysctls: Steered::new(sysctls(settings), Duration::ZERO, Duration::ZERO),
            links,
            refused: BTreeMap::new(),
            max_set_size: settings.compile.max_set_size,
        };
        let links: Vec<Link> = kernel.links.iter().cloned().collect();
        links.into_iter().for_each(|link| kernel.take_link(&LinkEvent::Changed(link)));
        Ok(kernel)
    }

    /// `legacy` or `nft`.
    pub(super) fn backend(&self) -> String {
        self.backend.to_string()
    }

    /// What changes the text of rules.
    pub(super) fn features(&self) -> Features {
        Features {
            masquerade_random: self.features.masq_fully_random,
            snat_random: self.features.snat_fully_random,
        }
    }

    /// Readable when an interface changed.
    pub(super) fn links_fd(&self) -> BorrowedFd<'_> {
        self.links.as_fd()
    }

    /// The interfaces as of the last poll.
    pub(super) fn all_links(&self) -> Vec<Link> {
        self.links.iter().cloned().collect()
    }

    /// Takes in what happened to interfaces.
    pub(super) fn poll_links(&mut self) -> Vec<LinkEvent> {
        match self.links.poll_events() {
            Ok(events) => {
                events.iter().for_each(|event| self.take_link(event));
                events
            }
            Err(error) => {
                tracing::warn!(error = tortie_dataplane::steer::chain(&error), "interfaces");
                Vec::new()
            }
        }
    }

    fn take_link(&mut self, event: &LinkEvent) {
        self.routes.iter_mut().for_each(|r| r.driver.handle_link(event));
        match event {
            LinkEvent::Changed(link) if link.up && self.is_workload(&link.name) => {
                self.sysctls.driver.interface_up(&link.name, InterfaceSettings::default());
            }
            LinkEvent::Removed { name, .. } => self.sysctls.driver.interface_gone(name),
            LinkEvent::Changed(_) | LinkEvent::Resynced => {}
        }
    }

    fn is_workload(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Wants a change of an ip set.
    pub(super) fn change_set(&mut self, change: SetChange) {
        let (name, outcome) = match change {
            SetChange::Want { name, version, set_type, members } => {
                let set_type = match set_type {
                    classic::SetType::Address => SetType::HashIp,
                    classic::SetType::Net => SetType::HashNet,
                    classic::SetType::AddressPort => SetType::HashIpPort,
                };
                let spec = SetSpec {
                    name: name.clone(),
                    family: version,
                    set_type,
                    max_elements: self.max_set_size,
                };
                let members = members.into_iter().map(|m| member(m, set_type));
                (name, self.sets.driver.set_wanted(spec, members))
            }
            SetChange::Update { name, added, removed } => {
                let set_type = |m: &model::Member| match m {
                    model::Member::Net(_) => SetType::HashNet,
                    model::Member::AddressPort(..) => SetType::HashIpPort,
                };
                let convert = |m: model::Member| member(m, set_type(&m));
                let (added, removed) = (added.into_iter().map(convert), removed.into_iter().map(convert));
                let outcome = self.sets.driver.update_members(&name, added, removed);
                (name, outcome)
            }
            SetChange::Unwant { name } => {
                self.sets.driver.unwant(&name);
                (name, Ok(()))
            }
        };
        match outcome {
            Ok(()) => self.refused.remove(&name),
            Err(error) => {
                let problem = Problem { object: format!("set {name}"), error: error.to_string() };
                self.refused.insert(name, problem)
            }
        };
    }

    /// Wants a change of a table.
    pub(super) fn change_table(&mut self, update: TableUpdate) {
        if let Some(table) = self.tables.get_mut(&(update.version, update.table)) {
            table.driver.change(update.change);
        }
    }

    /// Wants routes and neighbours on an endpoint's interface.
    pub(super) fn want_interface(
        &mut self,
        name: &str,
        routes: &[RouteSpec],
        neighbours: &[(std::net::IpAddr, MacAddr)],
    ) {
        for driver in &mut self.routes {
            driver.driver.set_interface(name, routes.to_vec(), neighbours.to_vec());
        }
    }

    /// Wants nothing on an interface any more.
    pub(super) fn forget_interface(&mut self, name: &str) {
        self.routes.iter_mut().for_each(|r| r.driver.remove_interface(name));
    }

    /// Brings the kernel in line.
    pub(super) fn pass(&mut self, now: Instant) -> PassReport {
        let before = self.restores();
        let report = pass(&mut self.drivers(), now);
        let restores = self.restores() - before;
        PassReport { calls: report.calls, restores, changed: report.changed, problems: report.problems }
    }

    /// What could not be programmed.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let tables = self.tables.values().flat_map(Steer::problems);
        let routes = self.routes.iter().flat_map(Steer::problems);
        let rest = self.sets.problems().into_iter().chain(self.sysctls.problems());
        tables.chain(routes).chain(rest).chain(self.refused.values().cloned()).collect()
    }

    /// Interfaces of endpoints that are not there or not running.
    pub(super) fn pending_interfaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self.routes.iter().flat_map(|r| r.driver.pending()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// When the next pass is due though nothing happens.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let tables = self.tables.values().filter_map(|t| t.next_deadline(now));
        let routes = self
            .routes
            .iter()
            .filter_map(|r| r.next_deadline(now).into_iter().chain(r.driver.next_deadline()).min());
        let rest = [self.sets.next_deadline(now), self.sysctls.next_deadline(now)];
        tables.chain(routes).chain(rest.into_iter().flatten()).min()
    }

    fn restores(&self) -> usize {
        self.tables.values().map(|t| t.driver.restores_run()).sum()
    }

    fn drivers(&mut self) -> Vec<&mut dyn Steer> {
        let mut all: Vec<&mut dyn Steer> = vec![&mut self.sets];
        all.extend(self.tables.values_mut().map(|t| t as &mut dyn Steer));
        all.push(&mut self.sysctls);
        all.extend(self.routes.iter_mut().map(|r| r as &mut dyn Steer));
        all
    }
}

fn routes(settings: &Settings) -> Vec<Steered<Routes>> {
    let mut protocols = vec![tortie_dataplane::route::PROTOCOL, settings.route_protocol];
    protocols.dedup();
    let config = RoutesConfig {
        workload_prefixes: settings.compile.interface_prefixes.clone(),
        remove_external_routes: settings.remove_external_routes,
        protocols,
        grace: ROUTE_GRACE,
    };
    let versions = settings.compile.versions.iter();
    versions
        .map(|version| {
            let driver = Routes::new(*version, config.clone(), Box::new(Instant::now));
            Steered::new(driver, settings.route_refresh, settings.route_refresh)
        })
        .collect()
}

fn sysctls(settings: &Settings) -> Sysctls {
    Sysctls::new("/proc/sys").with_forwarding(settings.ip_forwarding)
}

fn member(member: model::Member, set_type: SetType) -> Member {
    match member {
        model::Member::Net(net) if set_type == SetType::HashIp => Member::Addr(net.addr()),
        model::Member::Net(net) => Member::Net(net),
        model::Member::AddressPort(addr, protocol, port) => Member::AddrPort { addr, protocol, port },
    }
}

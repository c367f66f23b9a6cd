//! All drivers of this node, and one pass over them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tortie_api::control::{Apply, Counters};
use tortie_api::net::IpVersion;
use tortie_dataplane::feature::{self, Backend, Features as Detected, SystemProbe};
use tortie_dataplane::ipset::IpSets;
use tortie_dataplane::iptables::{self, Writers};
use tortie_dataplane::link::{Link, LinkEvent, Links, MacAddr};
use tortie_dataplane::reconcile::{Phase, Problem, Report};
use tortie_dataplane::route::RouteSpec;
use tortie_dataplane::steer::apart::{Apart, Wake, await_back, send_out, work};
use tortie_dataplane::steer::{Steer, Steered, chain, pass};
use tortie_dataplane::sysctl::{InterfaceSettings, Sysctls};
use tortie_rules::compile::Change;
use tortie_rules::compile::classic::{BrokenSets, SetChange, TableUpdate};
use tortie_rules::render::Table;
use tortie_rules::render::iptables::Features;

use super::compiler::Form;
use super::family::{Family, usable_tools};
use super::offload::Offload;
use super::sweep::{Place, Sweep};
use super::watch::RulesWatch;
use super::{revocation, sets};
use crate::config::{NftablesLayout, SettingProblem, Settings};

/// How long a pass waits for tables. One that takes longer is awaited apart, and the others go on without it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same for table `raw` when an agent begins: what was there before stays in force as long.
const LEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How often and at what distance reading the interfaces is tried.
const LINK_TRIES: u32 = 20;
const LINK_PAUSE: Duration = Duration::from_millis(100);

/// What a pass did.
#[derive(Debug, Default)]
pub(super) struct PassReport {
    pub(super) done: Report,
    pub(super) restores: usize,
}

impl PassReport {
    pub(super) fn as_status(&self, took: Duration) -> Apply {
        let millis = took.as_secs_f64() * 1e3;
        Apply { millis, calls: self.done.calls, restores: self.restores, changed: self.done.changed }
    }
}

/// See the module's documentation.
pub(super) struct Kernel {
    prefixes: Vec<String>,
    features: Detected,
    layout: NftablesLayout,
    sets: Steered<IpSets>,
    families: Vec<Family>,
    sysctls: Steered<Sysctls>,
    links: Links,
    /// Of what nf_tables holds; the legacy back end tells nobody.
    rules: Option<RulesWatch>,
    /// Interfaces of workloads that may send from addresses that are not their own.
    spoofers: BTreeSet<String>,
    refused: BTreeMap<String, Problem>,
    /// The restores that run.
    writers: Writers,
    /// Called when a table that took long is done.
    wake: Wake,
    max_set_size: u32,
    has_more_to_withdraw: bool,
    /// Nothing has been enforced yet: what an older release left may be in force.
    is_taking_over: bool,
    /// How often others have changed our tables.
    foreign_changes: u64,
    sweep: Sweep,
    /// Connections may skip the rules.
    offload: Option<Offload>,
    /// Established connections meet policy again when it changes.
    has_revocation: bool,
    /// Why a family that is wanted is left out.
    pub(super) left_out: Vec<SettingProblem>,
}

impl Kernel {
    /// Finds out what this node has, and opens what is needed. Nothing is written.
    pub(super) fn open(settings: &Settings, is_native: bool, wake: Wake) -> anyhow::Result<Self> {
        let (place, features, mut left_out) = choose_place(settings, is_native);
        let prefixes = settings.compile.interface_prefixes.iter();
        let options = iptables::Options {
            lock_probe_interval: settings.iptables_lock_probe,
            workload_interfaces: prefixes.map(|p| format!("{p}+")).collect(),
            ..iptables::Options::default()
        };
        // Before the first reading, so that nothing falls between the two.
        let writers = Writers::default();
        let rules = RulesWatch::open(place, &writers);
        // Where the kernel tells of what others write, looking for it after each write of our own finds nothing.
        let check = if rules.is_some() { Duration::MAX } else { settings.iptables_post_write_check };
        let mut families = Vec::new();
        for version in IpVersion::BOTH {
            let is_wanted = settings.compile.versions.contains(&version);
            let Place::Iptables(backend) = place else {
                let ear = rules.as_ref().and_then(RulesWatch::ear);
                families.push(Family::open_native(version, is_wanted, &options, (settings, check), ear));
                continue;
            };
            match usable_tools(version, backend, features, &options, &writers) {
                Ok(tools) => {
                    families.push(Family::open(version, is_wanted, &tools, &options, (settings, check)));
                }
                Err(why) if version == IpVersion::V4 => anyhow::bail!(why),
                Err(why) if is_wanted => left_out.push(left_out_setting("Ipv6Support", &why)),
                Err(_) => {}
            }
        }
        let (has_revocation, missing) = revocation::open(settings, is_native, &mut families);
        left_out.extend(missing);
        let (offload, missing) = Offload::open(settings, is_native && !has_revocation, &mut families);
        left_out.extend(missing);
        if has_revocation && settings.nftables.offload {
            let why = format!("with {}, rules see each packet of a connection", revocation::SETTING);
            left_out.push(left_out_setting("NFTablesFlowTableOffload", &why));
        }
        let links = open_links()?;
        let mut kernel = Self {
            prefixes: settings.compile.interface_prefixes.clone(),
            features,
            layout: settings.nftables.layout,
            sets: Steered::new(IpSets::new(), settings.ipsets_refresh, settings.ipsets_refresh),
            families,
            // Like routes, they connect endpoints, and are refused or changed by others as those are.
            sysctls: Steered::new(sysctls(settings), settings.route_refresh, settings.route_refresh),
            links,
            rules,
            spoofers: BTreeSet::new(),
            refused: BTreeMap::new(),
            writers,
            wake,
            max_set_size: settings.compile.max_set_size,
            has_more_to_withdraw: false,
            is_taking_over: true,
            foreign_changes: 0,
            sweep: Sweep::new(place, features, options, settings.iptables_refresh),
            offload,
            has_revocation,
            left_out,
        };
        let links: Vec<Link> = kernel.links.iter().cloned().collect();
        links.into_iter().for_each(|link| kernel.take_link(&LinkEvent::Changed(link)));
        Ok(kernel)
    }

    /// The IP versions that are enforced.
    pub(super) fn versions(&self) -> Vec<IpVersion> {
        self.families.iter().filter(|f| f.is_wanted).map(|f| f.version).collect()
    }

    /// `legacy` or `nft`, or `nftables` in that mode.
    pub(super) fn backend(&self) -> String {
        match self.sweep.place {
            Place::Iptables(backend) => backend.to_string(),
            Place::Native => "nftables".to_owned(),
        }
    }

    /// Nftables mode.
    fn is_native(&self) -> bool {
        self.sweep.place == Place::Native
    }

    /// What changes the text of rules.
    pub(super) fn features(&self) -> Features {
        Features {
            masquerade_random: self.features.masq_fully_random,
            snat_random: self.features.snat_fully_random,
            nflog_size: self.features.nflog_size,
        }
    }

    /// Readable when an interface changed.
    pub(super) fn links_fd(&self) -> BorrowedFd<'_> {
        self.links.as_fd()
    }

    /// Readable when somebody changed rules; there is none where the kernel does not tell.
    pub(super) fn rules_fd(&self) -> Option<BorrowedFd<'_>> {
        self.rules.as_ref().map(AsFd::as_fd)
    }

    /// Takes in what others have changed in our tables; the next pass mends it.
    pub(super) fn poll_rules(&mut self, now: Instant) {
        if let Some(rules) = &mut self.rules {
            self.foreign_changes += rules.poll(&mut self.families, now);
        }
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
                tracing::warn!(error = chain(&error), "interfaces");
                Vec::new()
            }
        }
    }

    fn take_link(&mut self, event: &LinkEvent) {
        if let Some(offload) = &self.offload {
            offload.take_link(event, &mut self.families);
        }
        revocation::take_link(event, &mut self.families);
        let routes = self.families.iter_mut().filter_map(|f| f.routes.as_mut());
        routes.for_each(|r| r.driver.handle_link(event));
        match event {
            LinkEvent::Changed(link) if link.up && self.is_workload(&link.name) => {
                let source_spoofing = self.spoofers.contains(&link.name);
                self.sysctls.driver.interface_up(&link.name, InterfaceSettings { source_spoofing });
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
        if self.is_native() {
            let natives = self.families.iter_mut().filter_map(|f| f.native.as_mut());
            sets::change_native(natives, &change);
            return;
        }
        let (name, outcome) = sets::change(&mut self.sets.driver, change, self.max_set_size);
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
        let family = self.families.iter_mut().find(|f| f.version == update.version);
        if let Some(table) = family.and_then(|f| f.tables.get_mut(&update.table)) {
            table.tell(move |steered| steered.driver.change(update.change));
        }
    }

    /// How rules are wanted: by [`Kernel::change_table`], or typed by [`Kernel::change_rules`].
    pub(super) fn form(&self) -> Form {
        if self.is_native() { Form::Typed(self.layout) } else { Form::Text }
    }

    /// Whether connections may skip the rules: wanted, and possible here.
    pub(super) const fn has_offload(&self) -> bool {
        self.offload.is_some()
    }

    /// Whether established connections meet policy again when it changes: wanted, and possible here.
    pub(super) const fn has_revocation(&self) -> bool {
        self.has_revocation
    }

    /// Wants a change of what would be one of iptables' tables.
    pub(super) fn change_rules(&mut self, version: IpVersion, table: Table, change: &Change) {
        let family = self.families.iter_mut().find(|f| f.version == version);
        if let Some(native) = family.and_then(|f| f.native.as_mut()) {
            native.driver.change(table, change);
        }
    }

    /// Wants routes and neighbours on an endpoint's interface.
    pub(super) fn want_interface(
        &mut self,
        name: &str,
        routes: &[RouteSpec],
        neighbours: &[(IpAddr, MacAddr)],
    ) {
        for driver in self.families.iter_mut().filter(|f| f.is_wanted).filter_map(|f| f.routes.as_mut()) {
            driver.driver.set_interface(name, routes.to_vec(), neighbours.to_vec());
        }
    }

    /// Wants nothing on an interface any more.
    pub(super) fn forget_interface(&mut self, name: &str) {
        let routes = self.families.iter_mut().filter_map(|f| f.routes.as_mut());
        routes.for_each(|r| r.driver.remove_interface(name));
    }

    /// Whether the workload of an interface may send from addresses that are not its own: then the kernel's reverse
    /// path filter is off there, and our rules say what may pass.
    pub(super) fn allow_spoofing(&mut self, name: &str, source_spoofing: bool) {
        let is_changed =
            if source_spoofing { self.spoofers.insert(name.to_owned()) } else { self.spoofers.remove(name) };
        if is_changed && self.links.iter().any(|link| link.name == name && link.up) {
            self.sysctls.driver.interface_up(name, InterfaceSettings { source_spoofing });
        }
    }

    /// Forgets connections of an address that has lost its owner, before somebody else gets it.
    pub(super) fn forget_connections(&mut self, address: IpAddr) {
        if let Some(family) = self.family_of(address) {
            family.conntrack.driver.forget([address]);
        }
    }

    /// The same for a floating address.
    pub(super) fn forget_floating(&mut self, address: IpAddr) {
        if let Some(family) = self.family_of(address) {
            family.conntrack.driver.forget_floating([address]);
        }
    }

    fn family_of(&mut self, address: IpAddr) -> Option<&mut Family> {
        let version = IpVersion::of_addr(&address);
        self.families.iter_mut().find(|family| family.version == version)
    }

    /// Brings the sets in line. Returns those that are not as wanted.
    pub(super) fn provide(&mut self, now: Instant) -> (Report, BrokenSets) {
        if self.is_native() {
            // Sets come with the rules.
            return (Report::default(), BrokenSets::default());
        }
        let report = pass(&mut [&mut self.sets], &[Phase::Provide], now);
        let sets = &self.sets.driver;
        (report, BrokenSets { incomplete: sets.incomplete(), strange: sets.strange() })
    }

    /// Brings the rest in line: rules, and where they are in force, what connects endpoints. A family that cannot be
    /// enforced holds up no other.
    pub(super) fn enforce(&mut self, now: Instant) -> PassReport {
        let before = self.writes();
        let mut done = Report::default();
        if std::mem::take(&mut self.is_taking_over) && !self.is_native() {
            done.merge(self.lead(now));
        }
        let families = self.families.iter_mut();
        let mut groups: Vec<Vec<_>> = families.map(|f| f.tables.values_mut().collect()).collect();
        done.merge(send_out(&mut groups, Phase::Enforce, now, &self.wake));
        done.merge(self.pass_native(Phase::Enforce, now));
        let deadline = Instant::now() + PATIENCE;
        for family in &mut self.families {
            done.merge(await_back(family.tables.values_mut(), deadline));
            if family.is_enforced() {
                let mut connect: Vec<&mut dyn Steer> = vec![&mut self.sysctls, &mut family.conntrack];
                connect.extend(family.routes.as_mut().map(|r| r as &mut dyn Steer));
                done.merge(pass(&mut connect, &[Phase::Connect], now));
                family.recall_offloaded();
            }
        }
        if self.families.iter().all(Family::is_enforced) {
            self.withdraw(now, &mut done);
        }
        // Word of our own writes has come; it wakes nobody.
        self.poll_rules(now);
        PassReport { done, restores: self.writes() - before }
    }

    /// A phase of the tables of nftables' own, if there are any. Each by itself: none holds up another.
    fn pass_native(&mut self, phase: Phase, now: Instant) -> Report {
        let mut done = Report::default();
        for native in self.families.iter_mut().filter_map(|f| f.native.as_mut()) {
            done.merge(pass(&mut [native], &[phase], now));
        }
        done
    }

    /// Takes away what no rule uses any more.
    fn withdraw(&mut self, now: Instant, done: &mut Report) {
        done.merge(self.pass_native(Phase::Withdraw, now));
        // In nftables mode ip sets are leftovers, and of use to the rules that are swept with them.
        let is_swept = self.sweep.run(now);
        if self.is_native() && !is_swept && !self.has_more_to_withdraw {
            return;
        }
        let withdrawn = pass(&mut [&mut self.sets], &[Phase::Withdraw], now);
        // A pass destroys only so many sets, so that it holds up no change; the next one follows at once.
        self.has_more_to_withdraw = withdrawn.changed > 0 && !self.sets.is_settled(Phase::Withdraw);
        done.merge(withdrawn);
    }

    /// Brings table `raw` in line before the others, and takes away what is ours of it in the other back end. Packets
    /// come through it first, and up to release 3.29 Felix marks there with the bit that has meant "drop" since: rules
    /// of today would drop what these let pass. The other way round nothing is misunderstood.
    fn lead(&mut self, now: Instant) -> Report {
        let families = self.families.iter_mut();
        let mut groups: Vec<Vec<_>> =
            families.map(|f| f.tables.get_mut(&Table::Raw).into_iter().collect()).collect();
        let done = work(&mut groups, Phase::Enforce, now, LEAD_PATIENCE, &self.wake);
        let mut tables = self.families.iter().filter_map(|f| f.tables.get(&Table::Raw));
        if tables.all(|table| table.is_settled(Phase::Enforce)) {
            self.sweep.tables(&[Table::Raw]);
        }
        done
    }

    /// Restores and transactions so far.
    fn writes(&self) -> usize {
        let natives = self.families.iter().filter_map(|f| f.native.as_ref());
        self.writers.count() + natives.map(|native| native.driver.commits().0).sum::<usize>()
    }

    /// For the status.
    pub(super) fn counters(&self, problems: usize) -> Counters {
        let native = |version| self.families.iter().find(|f| f.version == version)?.native.as_ref();
        let natives = self.families.iter().filter_map(|f| f.native.as_ref());
        let refused: usize = natives.map(|native| native.driver.commits().1).sum();
        Counters {
            restores: self.writes() as u64,
            restore_errors: (self.writers.failures() + refused) as u64,
            ip_sets: IpVersion::BOTH.map(|version| match native(version) {
                Some(native) => native.driver.set_count(),
                None => self.sets.driver.count(version),
            }),
            foreign_changes: self.foreign_changes,
            quarantined: problems as u64,
        }
    }

    /// Whether a table is still being written.
    pub(super) fn is_busy(&self) -> bool {
        self.families.iter().flat_map(|f| f.tables.values()).any(Apart::is_behind)
    }

    /// Waits for the tables that are still being written: what is older must not come after what is newer.
    pub(super) fn join(&mut self) {
        self.families.iter_mut().flat_map(|f| f.tables.values_mut()).for_each(Apart::join);
    }

    /// What could not be programmed.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let tables = self.families.iter().flat_map(|f| f.tables.values()).flat_map(Apart::problems);
        let routes = self.families.iter().filter_map(|f| f.routes.as_ref()).flat_map(Steer::problems);
        let connections = self.families.iter().flat_map(|f| f.conntrack.problems());
        let natives = self.families.iter().filter_map(|f| f.native.as_ref()).flat_map(Steer::problems);
        // What is wrong with leftovers is no reason not to be ready.
        let sets = if self.is_native() { Vec::new() } else { self.sets.problems() };
        let rest = [sets, self.sysctls.problems()];
        let known = self.refused.values().chain(&self.sweep.problems).cloned();
        let tables = tables.chain(natives).chain(routes).chain(connections);
        tables.chain(rest.into_iter().flatten()).chain(known).collect()
    }

    /// What is not as it should be and yet cuts nothing that policy allows: the node is as ready as without it.
    pub(super) fn notes(&self) -> Vec<Problem> {
        let natives = self.families.iter().filter_map(|f| f.native.as_ref());
        let mut notes = self.sysctls.driver.notes();
        notes.extend(natives.flat_map(|native| native.driver.offload_notes()));
        notes
    }

    /// Interfaces of endpoints that are not there or not running.
    pub(super) fn pending_interfaces(&self) -> Vec<String> {
        let routes = self.families.iter().filter_map(|f| f.routes.as_ref());
        let names: BTreeSet<String> = routes.flat_map(|r| r.driver.pending()).collect();
        names.into_iter().collect()
    }

    /// When the next pass is due though nothing happens.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let tables =
            self.families.iter().flat_map(|f| f.tables.values()).filter_map(|t| t.next_deadline(now));
        // What waits for rules to be in force is not due before: it would be due again and again.
        let connected = self.families.iter().filter(|f| f.is_enforced());
        let has_connected = connected.clone().next().is_some();
        let connections = connected.clone().filter_map(|f| f.conntrack.next_deadline(now));
        let routes = connected.filter_map(|f| f.routes.as_ref());
        let routes = routes.flat_map(|r| r.next_deadline(now).into_iter().chain(r.driver.next_deadline()));
        let natives = self.families.iter().filter_map(|f| f.native.as_ref()?.next_deadline(now));
        let rest = [
            self.sets.next_deadline(now).filter(|_| !self.is_native()),
            self.sysctls.next_deadline(now).filter(|_| has_connected),
            self.sweep.next.filter(|_| self.families.iter().all(Family::is_enforced)),
            self.has_more_to_withdraw.then_some(now),
        ];
        let tables = tables.chain(natives).chain(connections);
        tables.chain(routes).chain(rest.into_iter().flatten()).min()
    }
}

/// Begins to watch interfaces. While many come up at once, the kernel may not let anybody read them in one go.
fn open_links() -> anyhow::Result<Links> {
    for _ in 1..LINK_TRIES {
        match Links::open() {
            Ok(links) => return Ok(links),
            Err(error) => tracing::warn!(error = chain(&error), "cannot watch interfaces; trying again"),
        }
        std::thread::sleep(LINK_PAUSE);
    }
    Links::open().context("cannot watch this node's interfaces")
}

/// Where rules go, what changes their text there, and which settings cannot be followed.
fn choose_place(settings: &Settings, is_native: bool) -> (Place, Detected, Vec<SettingProblem>) {
    let backend = if is_native {
        Backend::Nft
    } else {
        let detection = feature::detect_backend(settings.iptables_backend, &mut SystemProbe);
        if let Some(warning) = &detection.warning {
            tracing::warn!("{warning}");
        }
        tracing::info!(backend = %detection.backend, reason = detection.reason, "iptables back end");
        detection.backend
    };
    let (features, errors) = feature::detect_features(backend).with_overrides(&settings.feature_override);
    let place = if is_native { Place::Native } else { Place::Iptables(backend) };
    (place, features, errors.iter().map(|e| left_out_setting("FeatureDetectOverride", e)).collect())
}

fn left_out_setting(name: &str, why: &impl std::fmt::Display) -> SettingProblem {
    SettingProblem { source: "this node".to_owned(), name: name.to_owned(), message: why.to_string() }
}

fn sysctls(settings: &Settings) -> Sysctls {
    Sysctls::new("/proc/sys")
        .with_forwarding(settings.ip_forwarding)
        .with_ipv6(settings.compile.versions.contains(&IpVersion::V6))
}

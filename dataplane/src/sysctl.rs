//! Kernel settings (`/proc/sys`) of workload interfaces and of the node.
//!
//! A setting is read first and written only when it differs. One that is missing belongs to a kernel without that part,
//! or to an interface that has gone again: that is no problem. One that has the wanted value is none either, even where
//! nobody may write it (`/proc/sys` is read-only in many a container).
//!
//! One that differs and cannot be set lets nothing through that policy denies: rules close, not settings. But some carry
//! what policy allows. Where such a one is refused (`Need::Traffic`), it is a problem of the apply, which counts as
//! not done; it is tried again after a while, as all failures are. The others (`Need::Comfort`) are
//! [told](Sysctls::notes) and tried again when the settings are next read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::reconcile::{Driver, DriverError, Phase, Plan, Problem, Report};

/// What depends on a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Without it some traffic that policy allows does not get through.
    Traffic,
    /// Without it something is slower, not counted, or less well guarded by the kernel itself.
    Comfort,
}

/// A setting that is wanted: file below the root, value, and what for.
type Wanted = (String, String, Need);

/// What a workload interface needs beyond the settings that all of them get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// The workload may send from addresses that are not its own: no reverse path filter.
    pub source_spoofing: bool,
}

/// A setting that differs from what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    value: String,
    need: Need,
}

/// A setting that could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    error: String,
    need: Need,
}

/// The driver of the settings.
#[derive(Debug)]
pub struct Sysctls {
    root: PathBuf,
    is_forwarding: bool,
    /// Whether IPv6 is to get through.
    has_ipv6: bool,
    interfaces: BTreeMap<String, InterfaceSettings>,
    /// Interfaces whose settings have to be read; `None` stands for the node.
    unread: BTreeSet<Option<String>>,
    /// Settings that were read and differ.
    writes: BTreeMap<PathBuf, Write>,
    /// Files that could not be read or written when that was tried last.
    failed: BTreeMap<PathBuf, Failure>,
}

impl Sysctls {
    /// A driver for the files below `root`: `/proc/sys` but in tests. They are those of the network namespace
    /// of the thread that calls `observe` and `apply`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            is_forwarding: true,
            has_ipv6: true,
            interfaces: BTreeMap::new(),
            unread: BTreeSet::from([None]),
            writes: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Whether the node is made to forward packets (`IPForwarding`); it is unless told otherwise. What is there
    /// stays as it is when not.
    pub fn with_forwarding(mut self, is_forwarding: bool) -> Self {
        self.is_forwarding = is_forwarding;
        self
    }

    /// Whether traffic of IPv6 depends on its settings; it does unless told otherwise. They are made all the same.
    pub fn with_ipv6(mut self, has_ipv6: bool) -> Self {
        self.has_ipv6 = has_ipv6;
        self
    }

    /// What could not be set though it should, and holds up nobody.
    pub fn notes(&self) -> Vec<Problem> {
        self.failures(Need::Comfort)
    }

    /// A workload interface has appeared or come up. Its settings are looked at in the next apply, even when
    /// they were before: the kernel begins with defaults when an interface is made anew.
    pub fn interface_up(&mut self, name: &str, settings: InterfaceSettings) {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return;
        }
        self.forget_failures(name);
        self.interfaces.insert(name.to_owned(), settings);
        self.unread.insert(Some(name.to_owned()));
    }

    /// The interface is no longer there, or no workload's.
    pub fn interface_gone(&mut self, name: &str) {
        self.interfaces.remove(name);
        self.unread.remove(&Some(name.to_owned()));
        self.forget_failures(name);
        self.writes.retain(|path, _| !concerns(path, name));
    }

    fn forget_failures(&mut self, name: &str) {
        self.failed.retain(|path, _| !concerns(path, name));
    }

    /// What could not be set, as an administrator names it.
    fn failures(&self, need: Need) -> Vec<Problem> {
        let failures = self.failed.iter().filter(|(_, failure)| failure.need == need);
        failures
            .map(|(path, failure)| Problem {
                object: format!("sysctl {}", self.words(path)),
                error: failure.error.clone(),
            })
            .collect()
    }

    /// `net/ipv4/conf/cali1/proxy_arp (interface cali1)`: with slashes, since an interface's name may have dots in it.
    fn words(&self, path: &Path) -> String {
        let name = path.strip_prefix(&self.root).unwrap_or(path).display();
        match self.interfaces.keys().find(|interface| concerns(path, interface)) {
            Some(interface) => format!("{name} (interface {interface})"),
            None => name.to_string(),
        }
    }

    /// Reads the settings that have not been read.
    fn read_unread(&mut self) {
        for name in std::mem::take(&mut self.unread) {
            let wanted = match &name {
                None => self.wanted_of_node(),
                Some(name) => self.wanted(name),
            };
            for (file, value, need) in wanted {
                self.read(self.root.join(file), Write { value, need });
            }
        }
    }

    /// What IPv6 depends on, if it is to get through.
    fn need_of_ipv6(&self) -> Need {
        if self.has_ipv6 { Need::Traffic } else { Need::Comfort }
    }

    fn wanted_of_node(&self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        if self.is_forwarding {
            wanted.push(("net/ipv4/ip_forward".to_owned(), "1".to_owned(), Need::Traffic));
            let need = self.need_of_ipv6();
            wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned(), need));
        }
        // Byte counters of connections.
        wanted.push(("net/netfilter/nf_conntrack_acct".to_owned(), "1".to_owned(), Need::Comfort));
        wanted
    }

    fn wanted(&self, name: &str) -> Vec<Wanted> {
        let Some(settings) = self.interfaces.get(name) else { return Vec::new() };
        let reverse_path_filter = if settings.source_spoofing {
            Some(("0".to_owned(), Need::Traffic))
        } else {
            // What the administrator chose for new interfaces. Our own rules look at source addresses in any case.
            let chosen = fs::read_to_string(self.root.join("net/ipv4/conf/default/rp_filter")).ok();
            chosen.map(|value| (value.trim().to_owned(), Need::Comfort))
        };
        let ipv6 = self.need_of_ipv6();
        let fixed = [
            // DNAT to 127.0.0.0/8 reaches the node from workloads; few have any.
            (format!("net/ipv4/conf/{name}/route_localnet"), "1", Need::Comfort),
            // Answer ARP at once.
            (format!("net/ipv4/neigh/{name}/proxy_delay"), "0", Need::Comfort),
            // The node answers for every address: workloads have a /32 and a gateway that does not exist.
            (format!("net/ipv4/conf/{name}/proxy_arp"), "1", Need::Traffic),
            (format!("net/ipv4/conf/{name}/forwarding"), "1", Need::Traffic),
            // Where the interface forwards, the kernel heeds no advertisement anyway.
            (format!("net/ipv6/conf/{name}/accept_ra"), "0", Need::Comfort),
            (format!("net/ipv6/conf/{name}/proxy_ndp"), "1", ipv6),
            (format!("net/ipv6/conf/{name}/forwarding"), "1", ipv6),
        ];
        let mut wanted: Vec<Wanted> =
            fixed.into_iter().map(|(file, value, need)| (file, value.to_owned(), need)).collect();
        if let Some((value, need)) = reverse_path_filter {
            wanted.push((format!("net/ipv4/conf/{name}/rp_filter"), value, need));
        }
        wanted
    }

    fn read(&mut self, path: PathBuf, write: Write) {
        self.writes.remove(&path);
        match fs::read_to_string(&path) {
            Ok(present) if present.trim() == write.value => {
                self.failed.remove(&path);
            }
            Ok(_) => {
                self.writes.insert(path, write);
            }
            Err(error) => self.fail(path, "read", &write, &error),
        }
    }

    /// Notes a failure; one that stays is logged once.
    fn fail(&mut self, path: PathBuf, verb: &str, write: &Write, error: &io::Error) {
        // An interface that has gone again, or a kernel without that part.
        if error.kind() == io::ErrorKind::NotFound {
            tracing::debug!(path = %path.display(), "no such setting");
            self.failed.remove(&path);
            return;
        }
        let error = format!("cannot {verb} it, {:?} is wanted: {error}", write.value);
        let failure = Failure { error, need: write.need };
        if self.failed.get(&path) != Some(&failure) {
            tracing::warn!(path = %path.display(), "{}", failure.error);
            self.failed.insert(path, failure);
        }
    }
}

/// Whether a file is about this interface: it lies in a folder of its name.
fn concerns(path: &Path, name: &str) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|folder| folder == name)
}

impl Driver for Sysctls {
    fn name(&self) -> String {
        "sysctl".to_owned()
    }

    fn observe(&mut self) -> Result<(), DriverError> {
        self.unread.insert(None);
        self.unread.extend(self.interfaces.keys().cloned().map(Some));
        self.read_unread();
        Ok(())
    }

    fn plan(&self, phase: Phase) -> Box<dyn Plan> {
        if phase != Phase::Connect {
            return Box::new(SysctlPlan(Vec::new()));
        }
        let mut lines: Vec<String> = self
            .unread
            .iter()
            .map(|name| format!("check settings of {}", name.as_deref().unwrap_or("the node")))
            .collect();
        let writes = self.writes.iter();
        lines.extend(writes.map(|(path, write)| format!("{} = {}", path.display(), write.value)));
        Box::new(SysctlPlan(lines))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        let mut report = Report::default();
        if phase != Phase::Connect {
            return report;
        }
        self.read_unread();
        for (path, write) in std::mem::take(&mut self.writes) {
            report.calls += 1;
            match fs::write(&path, &write.value) {
                Ok(()) => {
                    report.changed += 1;
                    self.failed.remove(&path);
                }
                Err(error) => self.fail(path, "write", &write, &error),
            }
        }
        report.problems = self.failures(Need::Traffic);
        report
    }
}

struct SysctlPlan(Vec<String>);

impl Plan for SysctlPlan {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SysctlPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

//! Kernel settings (`/proc/sys`) of workload interfaces and of the node.
//!
//! A setting is read first and written only when it differs. Some cannot be written without privileges, or
//! are missing in a kernel without IPv6: that is logged once for each file and is no problem of the apply,
//! because nothing that is secured depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::reconcile::{Driver, DriverError, Phase, Plan, Report};

/// Settings of a node that forwards: file below the root, and value.
const FORWARDING: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
/// Byte counters of connections.
const ACCOUNTING: (&str, &str) = ("net/netfilter/nf_conntrack_acct", "1");

/// What a workload interface needs beyond the settings that all of them get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// The workload may send from addresses that are not its own: no reverse path filter.
    pub source_spoofing: bool,
}

/// A setting that differs from what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Write {
    path: PathBuf,
    value: String,
}

/// The driver of the settings.
#[derive(Debug)]
pub struct Sysctls {
    root: PathBuf,
    is_forwarding: bool,
    interfaces: BTreeMap<String, InterfaceSettings>,
    /// Interfaces whose settings have to be read; `None` stands for the node.
    unread: BTreeSet<Option<String>>,
    /// Settings that were read and differ.
    writes: BTreeMap<PathBuf, String>,
    /// Files that cannot be read or written: logged, not tried again.
    failed: BTreeSet<PathBuf>,
}

impl Sysctls {
    /// A driver for the files below `root`: `/proc/sys` but in tests. They are those of the network namespace
    /// of the thread that calls `observe` and `apply`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            is_forwarding: true,
            interfaces: BTreeMap::new(),
            unread: BTreeSet::from([None]),
            writes: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Whether the node is made to forward packets (`IPForwarding`); it is unless told otherwise. What is there
    /// stays as it is when not.
    pub fn with_forwarding(mut self, is_forwarding: bool) -> Self {
        self.is_forwarding = is_forwarding;
        self
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
        self.failed.retain(|path| !concerns(path, name));
    }

    /// Reads the settings that have not been read.
    fn read_unread(&mut self) {
        for name in std::mem::take(&mut self.unread) {
            let wanted = match &name {
                None => self.wanted_of_node(),
                Some(name) => self.wanted(name),
            };
            for (path, value) in wanted {
                self.read(Write { path, value });
            }
        }
    }

    fn wanted_of_node(&self) -> Vec<(PathBuf, String)> {
        let forwarding = FORWARDING.iter().filter(|_| self.is_forwarding);
        forwarding
            .chain([&ACCOUNTING])
            .map(|(file, value)| (self.root.join(file), (*value).to_owned()))
            .collect()
    }

    fn wanted(&self, name: &str) -> Vec<(PathBuf, String)> {
        let Some(settings) = self.interfaces.get(name) else { return Vec::new() };
        let reverse_path_filter = if settings.source_spoofing {
            Some("0".to_owned())
        } else {
            // What the administrator chose for new interfaces.
            fs::read_to_string(self.root.join("net/ipv4/conf/default/rp_filter")).ok()
        };
        let fixed = [
            // DNAT to 127.0.0.0/8 reaches the node from workloads.
            (format!("net/ipv4/conf/{name}/route_localnet"), "1"),
            // Answer ARP at once.
            (format!("net/ipv4/neigh/{name}/proxy_delay"), "0"),
            // The node answers for every address: workloads have a /32 and a gateway that does not exist.
            (format!("net/ipv4/conf/{name}/proxy_arp"), "1"),
            (format!("net/ipv4/conf/{name}/forwarding"), "1"),
            (format!("net/ipv6/conf/{name}/accept_ra"), "0"),
            (format!("net/ipv6/conf/{name}/proxy_ndp"), "1"),
            (format!("net/ipv6/conf/{name}/forwarding"), "1"),
        ];
        let mut wanted: Vec<(PathBuf, String)> =
            fixed.into_iter().map(|(file, value)| (self.root.join(file), value.to_owned())).collect();
        if let Some(value) = reverse_path_filter {
            let path = self.root.join(format!("net/ipv4/conf/{name}/rp_filter"));
            wanted.push((path, value.trim().to_owned()));
        }
        wanted
    }

    fn read(&mut self, write: Write) {
        self.writes.remove(&write.path);
        if self.failed.contains(&write.path) {
            return;
        }
        match fs::read_to_string(&write.path) {
            Ok(present) if present.trim() == write.value => {}
            Ok(_) => {
                self.writes.insert(write.path, write.value);
            }
            Err(error) => self.fail(write.path, "read", &error),
        }
    }

    /// A missing file is an interface that has gone again, or a kernel without that part.
    fn fail(&mut self, path: PathBuf, what: &str, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound {
            tracing::debug!(path = %path.display(), "no such setting");
        } else {
            tracing::warn!(path = %path.display(), %error, "cannot {what} a kernel setting");
        }
        self.failed.insert(path);
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
        lines.extend(self.writes.iter().map(|(path, value)| format!("{} = {value}", path.display())));
        Box::new(SysctlPlan(lines))
    }

    fn apply(&mut self, phase: Phase) -> Report {
        let mut report = Report::default();
        if phase != Phase::Connect {
            return report;
        }
        self.read_unread();
        for (path, value) in std::mem::take(&mut self.writes) {
            report.calls += 1;
            match fs::write(&path, &value) {
                Ok(()) => report.changed += 1,
                Err(error) => self.fail(path, "write", &error),
            }
        }
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

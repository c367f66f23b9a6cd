//! What the numbers were measured on.

use std::fs;
use std::thread;

use nix::sys::utsname::uname;
use serde::Serialize;

/// The machine, as far as it explains numbers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// Processors that this program may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Processes that ran or wanted to, in the last minute before the start (load average).
    pub load: f64,
    /// Whether the namespaces are those of an ordinary user, whose netlink buffers are small.
    pub is_rootless: bool,
}

impl Machine {
    /// This one. What cannot be found out is empty or zero.
    pub(super) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let kib = field(&meminfo, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        let uid_map = read("/proc/self/uid_map");
        Self {
            kernel: uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default(),
            cpu: field(&cpuinfo, "model name").unwrap_or_default().to_owned(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            load: read("/proc/loadavg").split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0.0),
            // The first user namespace maps all ids.
            is_rootless: !uid_map.trim_end().ends_with("4294967295"),
        }
    }
}

/// The value of a `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        assert_eq!(field("a: 1\nmodel name\t: Some CPU\n", "model name"), Some("Some CPU"));
        assert_eq!(field("a: 1\n", "b"), None);
    }
}

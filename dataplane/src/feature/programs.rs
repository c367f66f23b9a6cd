//! Finds programs and asks them: the part of feature detection that touches the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::AccessFlags;
use tortie_api::net::IpVersion;
use tortie_rules::render::Table;

use super::{Backend, BackendProbe, Features, Version};
use crate::iptables::command::{Job, run};

/// Searched after `PATH`: a daemon's `PATH` may lack the administrator's folders.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];
const TIMEOUT: Duration = Duration::from_secs(30);

/// The path of `ip[6]tables-<backend>-<verb>`, else of `ip[6]tables-<verb>`; `verb` is `save` or `restore`.
pub fn find_program(version: IpVersion, backend: Backend, verb: &str) -> Option<PathBuf> {
    find_exact_program(version, backend, verb).or_else(|| find_in_path(&format!("{}-{verb}", stem(version))))
}

/// The path of `ip[6]tables-<backend>-<verb>`, without the fallback.
pub fn find_exact_program(version: IpVersion, backend: Backend, verb: &str) -> Option<PathBuf> {
    find_in_path(&format!("{}-{backend}-{verb}", stem(version)))
}

/// The path of `ip[6]tables-<backend>`, which changes and lists single rules and chains.
pub fn find_main_program(version: IpVersion, backend: Backend) -> Option<PathBuf> {
    find_in_path(&format!("{}-{backend}", stem(version)))
}

fn stem(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "iptables",
        IpVersion::V6 => "ip6tables",
    }
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && nix::unistd::access(file, AccessFlags::X_OK).is_ok()
}

/// The legacy tables that the kernel has loaded in this network namespace. `None` when `ip_tables`, or
/// `ip6_tables`, is not loaded.
pub fn legacy_tables(version: IpVersion) -> Option<Vec<String>> {
    let file = match version {
        IpVersion::V4 => "ip_tables_names",
        IpVersion::V6 => "ip6_tables_names",
    };
    // The thread's own: a thread may be in another network namespace than its process.
    let names = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).ok()?;
    Some(names.lines().map(str::to_owned).collect())
}

/// What `iptables` of this back end and the running kernel can do, before overrides.
pub fn detect_features(backend: Backend) -> Features {
    let program = find_in_path(&format!("iptables-{backend}")).or_else(|| find_in_path("iptables"));
    let answer = program.and_then(|program| output(&program, &["--version"]));
    let release = nix::sys::utsname::uname().ok();
    let kernel = release.and_then(|name| Version::of_kernel(&name.release().to_string_lossy()));
    Features::of(answer.as_deref().and_then(Version::of_iptables), kernel)
}

/// What a program prints; `None` unless it succeeds.
fn output(program: &Path, args: &[&str]) -> Option<String> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut out = Vec::new();
    let job = Job { program, args: &args, stdin: b"", timeout: TIMEOUT, writers: None };
    match run(&job, &mut |piece| out.extend_from_slice(piece)) {
        Ok(outcome) if outcome.status.success() => Some(String::from_utf8_lossy(&out).into_owned()),
        Ok(outcome) => {
            tracing::debug!(program = %program.display(), stderr = outcome.stderr, "failed");
            None
        }
        Err(error) => {
            tracing::debug!(error = error.chain(), "failed");
            None
        }
    }
}

/// Probes the node that it runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemProbe;

impl BackendProbe for SystemProbe {
    fn save(&mut self, backend: Backend, version: IpVersion, table: Option<Table>) -> Option<String> {
        let program = find_program(version, backend, "save")?;
        // Asking for a legacy table makes the kernel create it, and every packet passes through it from then on.
        let is_absent = |table: Table| {
            !legacy_tables(version).is_some_and(|known| known.iter().any(|t| t == table.name()))
        };
        match table {
            Some(table) if backend == Backend::Legacy && is_absent(table) => Some(String::new()),
            Some(table) => output(&program, &["-t", table.name()]),
            None => output(&program, &[]),
        }
    }

    fn is_legacy_loaded(&mut self) -> bool {
        IpVersion::BOTH.into_iter().any(|version| legacy_tables(version).is_some())
    }

    fn node_default(&mut self) -> Option<Backend> {
        let answer = output(&find_in_path("iptables-save")?, &["--version"])?;
        Some(if answer.contains("nf_tables") { Backend::Nft } else { Backend::Legacy })
    }

    fn is_usable(&mut self, backend: Backend) -> bool {
        let Some(program) = find_program(IpVersion::V4, backend, "save") else { return false };
        let answer = output(&program, &["--version"]).unwrap_or_default();
        // Under a generic name there may be the other back end. Before 1.8 there was only legacy, unnamed.
        let is_nft = answer.contains("nf_tables");
        is_nft == (backend == Backend::Nft) && output(&program, &["-t", "filter"]).is_some()
    }
}

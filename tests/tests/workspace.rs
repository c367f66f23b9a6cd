//! The rules of the workspace's architecture, over `cargo metadata`: which crate may depend on which, what the pure
//! ones may not touch, and that every crate keeps the workspace's lints, edition and versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Every crate, and the crates of the workspace that it may depend on, for building and for its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("tortie-api", &[]),
    ("tortie-rules", &["tortie-api"]),
    ("tortie-dataplane", &["tortie-api", "tortie-rules"]),
    ("tortie-datastore", &["tortie-api"]),
    ("tortie-agent", &["tortie-api", "tortie-rules", "tortie-dataplane", "tortie-datastore"]),
    ("tortie-ctl", &["tortie-api", "tortie-rules", "tortie-datastore"]),
    // The lab starts the programs as a user does; the benches drive the kernel drivers themselves; the evaluator is
    // asked for its opinion; one test gives the agent's engine a datastore that is late.
    ("tortie-tests", &["tortie-api", "tortie-dataplane", "tortie-rules", "tortie-agent", "tortie-datastore"]),
];

/// Crates without I/O.
const PURE: [&str; 2] = ["tortie-api", "tortie-rules"];

/// What a pure crate does without, however deep: programs' runtimes, networks, the kernel, other people's code.
const IMPURE: &[&str] = &[
    "async-std",
    "futures-executor",
    "hyper",
    "inotify",
    "kube",
    "libc",
    "mio",
    "nix",
    "notify",
    "polling",
    "reqwest",
    "rtnetlink",
    "rustix",
    "signal-hook",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "wasmtime",
];
/// Beginnings of such names.
const IMPURE_FAMILIES: [&str; 4] = ["kube-", "netlink-", "tokio-", "wasmtime-"];
/// Needs `libc` on some processors to ask what they can do. That is no I/O, and changes no result.
const PROCESSOR_FEATURES: &str = "cpufeatures";

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    // Only of this platform, as only that has been downloaded when the tests were built.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--offline", "--filter-platform", &platform].map(str::to_owned);
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(options)
        .exec()
        .expect("cargo describes the workspace")
}

fn ours(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata.workspace_packages().into_iter().map(|package| (package.name.as_str(), package)).collect()
}

/// The crates of the workspace that a crate depends on, but for itself.
fn arrows_of<'a>(package: &'a Package, ours: &BTreeMap<&str, &Package>) -> BTreeSet<&'a str> {
    let names = package.dependencies.iter().map(|dependency| dependency.name.as_str());
    names.filter(|name| ours.contains_key(name) && *name != package.name.as_str()).collect()
}

#[test]
fn dependencies_point_the_way_that_the_architecture_draws() {
    let metadata = metadata();
    let ours = ours(&metadata);
    for (name, package) in &ours {
        let allowed = ARROWS.iter().find(|(known, _)| known == name).map(|(_, allowed)| allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{name} is not on the map: add it to ARROWS"));
        for to in arrows_of(package, &ours) {
            assert!(allowed.contains(&to), "{name} may not depend on {to}");
        }
    }
    for (name, _) in ARROWS {
        assert!(ours.contains_key(name), "{name} is on the map but not in the workspace");
    }
}

#[test]
fn nothing_depends_on_the_agent_or_the_command_line_but_tests() {
    let metadata = metadata();
    let ours = ours(&metadata);
    for (name, package) in &ours {
        for to in ["tortie-agent", "tortie-ctl", "tortie-tests"] {
            let depends = arrows_of(package, &ours).contains(to);
            assert!(!depends || *name == "tortie-tests", "{name} depends on {to}");
        }
    }
}

/// Everything that a package needs to be built and run, with one way to each: the package that needs it.
fn needed<'a>(metadata: &'a Metadata, root: &'a PackageId) -> BTreeMap<&'a PackageId, &'a PackageId> {
    let nodes = &metadata.resolve.as_ref().expect("dependencies were resolved").nodes;
    let by_id: BTreeMap<&PackageId, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeMap::new();
    let mut queue = vec![root];
    while let Some(from) = queue.pop() {
        if metadata[from].name.as_str() == PROCESSOR_FEATURES {
            continue;
        }
        for dependency in &by_id[from].deps {
            let is_for_tests =
                dependency.dep_kinds.iter().all(|kind| kind.kind == DependencyKind::Development);
            if !is_for_tests && dependency.pkg != *root && !found.contains_key(&dependency.pkg) {
                found.insert(&dependency.pkg, from);
                queue.push(&dependency.pkg);
            }
        }
    }
    found
}

/// `libc` needed by `x`, needed by …: for the message.
fn way(metadata: &Metadata, found: &BTreeMap<&PackageId, &PackageId>, to: &PackageId) -> String {
    let mut at = to;
    let mut names = vec![metadata[at].name.to_string()];
    while let Some(from) = found.get(at) {
        names.push(metadata[*from].name.to_string());
        at = from;
    }
    names.join(", needed by ")
}

#[test]
fn pure_crates_need_nothing_that_does_io() {
    let metadata = metadata();
    let ours = ours(&metadata);
    for name in PURE {
        let found = needed(&metadata, &ours[name].id);
        for id in found.keys() {
            let needs = metadata[*id].name.as_str();
            let is_impure =
                IMPURE.contains(&needs) || IMPURE_FAMILIES.iter().any(|family| needs.starts_with(family));
            assert!(!is_impure, "{name} is pure, but needs {}", way(&metadata, &found, id));
        }
    }
    // The walk sees what is there: a crate that does I/O is found out.
    let found = needed(&metadata, &ours["tortie-dataplane"].id);
    assert!(found.keys().any(|id| IMPURE.contains(&metadata[*id].name.as_str())));
}

/// Crates that wrap a C library or another's program: for tests, as independent readers and as the foreign tool.
const FOREIGN: [&str; 4] = ["nftnl", "mnl", "ipset", "iptables"];

#[test]
fn programs_are_built_without_the_c_libraries_that_tests_read_with() {
    let metadata = metadata();
    let ours = ours(&metadata);
    for package in ours.values() {
        let found = needed(&metadata, &package.id);
        for id in found.keys() {
            let needs = metadata[*id].name.as_str();
            assert!(!FOREIGN.contains(&needs), "{} needs {}", package.name, way(&metadata, &found, id));
        }
    }
    // They are there to be kept out.
    let known: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert!(FOREIGN.iter().all(|name| known.contains(name)), "{known:?}");
}

/// A manifest as written.
fn manifest(package: &Package) -> String {
    fs::read_to_string(&package.manifest_path).expect("cargo has just read it")
}

/// The lines of a manifest, each with the table that it is in.
fn lines(text: &str) -> Vec<(&str, &str)> {
    let mut table = "";
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => table = name,
            None => lines.push((table, line)),
        }
    }
    lines
}

#[test]
fn every_crate_keeps_the_lints_the_edition_and_the_minimum_version_of_the_workspace() {
    let metadata = metadata();
    for (name, package) in ours(&metadata) {
        let text = manifest(package);
        let lines = lines(&text);
        assert!(
            lines.contains(&("lints", "workspace = true")),
            "{name}: [lints] workspace = true is missing"
        );
        for key in ["edition", "rust-version", "version", "license", "publish"] {
            let line = format!("{key}.workspace = true");
            assert!(lines.contains(&("package", line.as_str())), "{name}: {line} is missing");
        }
        assert_eq!(package.edition.to_string(), "2024", "{name}");
    }
}

#[test]
fn every_version_is_in_the_table_of_the_workspace() {
    let metadata = metadata();
    for (name, package) in ours(&metadata) {
        let text = manifest(package);
        for (table, line) in lines(&text) {
            let table = table.rsplit_once('\'').map_or(table, |(_, rest)| rest.trim_start_matches('.'));
            if !["dependencies", "dev-dependencies", "build-dependencies"].contains(&table) {
                let is_own_table = ["dependencies.", "dev-dependencies.", "build-dependencies."]
                    .iter()
                    .any(|prefix| table.starts_with(prefix));
                assert!(!is_own_table, "{name}: [{table}]: write it as one line, so that this test reads it");
                continue;
            }
            let is_of_workspace = line.contains(".workspace = true") || line.contains("workspace = true");
            let has_own = ["version", "path", "git"].iter().any(|key| line.contains(&format!("{key} =")));
            assert!(
                is_of_workspace && !has_own,
                "{name}: {line}: versions belong into [workspace.dependencies]"
            );
        }
    }
}

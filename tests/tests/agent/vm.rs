//! The same agent on another kernel: that of Debian's stable release, in a virtual machine.
//!
//! ```text
//!  this program ──► tests/vm/boot: kernel, initramfs, qemu ──► this program again, there ──► its words on each trial
//! ```
//!
//! All trials there share one machine, which is started when the first of them is asked for. Everything is emulated, so
//! that neither rights nor hardware are needed. Without the kernel or qemu the trials are skipped, and it is said why.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};
use tortie_tests::lab::Programs;

/// Set in the machine: the trials to run, with commas between.
const CHOSEN: &str = "TORTIE_VM_TRIALS";
/// A folder with a kernel; else the one that `tools/fetch-vm-kernel` makes.
const KERNEL: &str = "TORTIE_VM_KERNEL";

/// Tests of other modules that must come out the same on that kernel.
const AGAIN: [&str; 4] = [
    "drift::changed_sets_are_put_right::legacy",
    "flows::pods_go_out_with_their_nodes_address_and_to_pods_with_their_own::nft",
    "revocation::a_connection_that_policy_no_longer_allows_ends_in_both_directions_and_others_lose_nothing::Tables",
    "revocation::generations_go_round_and_no_packet_is_lost::Chains",
];

/// Tests for which the kernel of this machine may lack something: they are run there only.
const THERE: [&str; 4] = [
    "offload::connections_skip_the_rules_unless_these_have_work_with_each_packet::Chains",
    "offload::connections_skip_the_rules_unless_these_have_work_with_each_packet::Tables",
    "offload::tcp_and_udp_of_both_ip_versions_skip_the_rules::Chains",
    "offload::tcp_and_udp_of_both_ip_versions_skip_the_rules::Tables",
];

/// Trials for that machine only: none in this one.
pub(super) fn only_there(trials: fn() -> Vec<Trial>) -> Vec<Trial> {
    if env::var_os(CHOSEN).is_some() { trials() } else { Vec::new() }
}

/// All trials there.
fn all_there() -> impl Iterator<Item = &'static str> {
    AGAIN.into_iter().chain(THERE)
}

/// In the machine: the chosen ones of all trials.
pub(super) fn choose(trials: &mut Vec<Trial>) {
    if let Ok(chosen) = env::var(CHOSEN) {
        let chosen: Vec<&str> = chosen.split(',').collect();
        trials.retain(|trial| chosen.contains(&trial.name()));
    }
}

/// Trials of this machine that ask what came out in the other one.
pub(super) fn trials() -> Vec<Trial> {
    if env::var_os(CHOSEN).is_some() {
        return Vec::new();
    }
    let missing = missing();
    if let Some(missing) = &missing {
        eprintln!("trials in a virtual machine are skipped: {missing}");
    }
    let trial = |name: &'static str| {
        Trial::test(format!("vm::{name}"), move || outcome(name)).with_ignored_flag(missing.is_some())
    };
    all_there().map(trial).collect()
}

/// What keeps the machine from being started.
fn missing() -> Option<String> {
    let kernel = kernel();
    if !kernel.join("vmlinuz").is_file() {
        return Some(format!("no kernel in {}; tools/fetch-vm-kernel fetches one", kernel.display()));
    }
    let runs = |program: &str| Command::new(program).arg("--help").output().is_ok();
    let need = ["qemu-system-x86_64", "busybox"].into_iter().find(|program| !runs(program))?;
    Some(format!("{need} is not installed"))
}

fn kernel() -> PathBuf {
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm-kernel");
    env::var_os(KERNEL).map_or_else(made, PathBuf::from)
}

/// What came out there, from the one run of all of them.
fn outcome(name: &str) -> Result<(), Failed> {
    static CONSOLE: OnceLock<Result<String, String>> = OnceLock::new();
    let console = CONSOLE.get_or_init(|| boot().map_err(|error| format!("{error:#}"))).as_ref()?;
    let is_passed = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words == ["test", name, "...", "ok"]
    };
    if console.lines().any(is_passed) { Ok(()) } else { Err(format!("not passed there:\n{console}").into()) }
}

/// Runs all of them; what the console of the machine showed.
fn boot() -> anyhow::Result<String> {
    let Programs { agent, ctl } = Programs::locate()?;
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/boot"))
        .arg(env::current_exe()?)
        .args(["--test-threads", "1", "--color", "never"])
        .env(KERNEL, kernel())
        .env("TORTIE_VM_FILES", format!("{} {}", agent.display(), ctl.display()))
        .env("TORTIE_VM_ENV", format!("{CHOSEN}={}", all_there().collect::<Vec<_>>().join(",")))
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(text(&output.stdout) + &text(&output.stderr))
}

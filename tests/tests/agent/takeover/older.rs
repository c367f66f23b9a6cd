//! What older releases of Felix leave in the kernel for a state, made of what release 3.32.0 leaves.
//!
//! Names and ids are other than ours, as theirs were; which exactly they are, nothing here depends on.

use std::collections::BTreeSet;

use sha1::{Digest, Sha1};

use super::node::Left;

/// A release of Calico.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Other mark bits (none for DROP), policies called `TIER/NAME`, no DSCP, routes with metric 0; and here a tree of
    /// chains to dispatch to workloads, and what still older releases left.
    V3_27,
    /// 3.31.7: policies called `TIER/NAME`, and another name for the set of pools.
    V3_31,
}

/// What no release of today wants: a chain that accepts everything, a hook to it, sets, and a route.
const LEFTOVER_CHAINS: &str = ":cali-pi-_leftoverleftoverle - [0:0]\n:felix-INPUT - [0:0]\n";
const LEFTOVER_RULES: &str =
    "-A cali-pi-_leftoverleftoverle -m comment --comment \"cali:leftoverleftover\" -j ACCEPT
-A felix-INPUT -s 203.0.113.77/32 -j DROP
-A INPUT -j felix-INPUT\n";
const LEFTOVER_SETS: &str = "create cali40s:leftoverleftoverleftov hash:net family inet
add cali40s:leftoverleftoverleftov 203.0.113.0/24
create cali60s:leftoverleftoverleftov hash:net family inet6
create felix-4-leftover hash:ip family inet\n";
const LEFTOVER_ROUTE: &str = "route replace 10.65.0.77 dev cali5d5d5d5d5d5 scope link";

/// What that release leaves where 3.32.0 leaves `now`.
pub(crate) fn left_by(release: Release, now: &Left) -> Left {
    let mut left = Left {
        rules: [0, 1].map(|version| reidentified(&now.rules[version], &rules(release, &now.rules[version]))),
        sets: sets(release, &now.sets),
        routes: now.routes.clone(),
    };
    if release == Release::V3_27 {
        left.routes.iter_mut().for_each(|route| *route = route.replace(" metric 1024", ""));
        add_leftovers(&mut left);
    }
    left
}

/// Puts beside what is there what nobody wants.
pub(crate) fn add_leftovers(left: &mut Left) {
    let filter = "*filter\n";
    left.rules[0] = left.rules[0].replace(filter, &(filter.to_owned() + LEFTOVER_CHAINS));
    let table = left.rules[0].find(filter).unwrap_or_default();
    if let Some(end) = left.rules[0][table..].find("COMMIT") {
        left.rules[0].insert_str(table + end, LEFTOVER_RULES);
    }
    left.sets.push_str(LEFTOVER_SETS);
    left.routes.push(LEFTOVER_ROUTE.to_owned());
}

fn sets(release: Release, text: &str) -> String {
    let text = match release {
        Release::V3_27 => text.lines().filter(|l| !l.contains("dscp-src-net")).collect::<Vec<_>>().join("\n"),
        Release::V3_31 => text.replace("0all-ipam-pools", "0network-ip-pools"),
    };
    text.trim_end().to_owned() + "\n"
}

/// The rules as that release writes them, with today's ids.
fn rules(release: Release, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.split(' ').map(old_word).collect::<Vec<_>>().join(" ");
        let line = line.replace("GlobalNetworkPolicy web", "Policy default.web");
        if release == Release::V3_31 {
            lines.push(line.replace("0all-ipam-pools", "0network-ip-pools"));
        } else if line == "COMMIT" {
            let table = lines.iter().rposition(|line| line.starts_with('*')).unwrap_or_default();
            let more = subtree(&lines[table..]);
            lines.extend(more);
            lines.push(line);
        } else if !line.contains("cali-egress-dscp") && !line.contains(DROP_MARKED) {
            lines.push(as_subtree(&marked(&line)));
        }
    }
    lines
}

/// Policies were called otherwise; a name that is too long for a chain is a hash.
fn old_word(word: &str) -> String {
    let (colon, name) = word.strip_prefix(':').map_or(("", word), |name| (":", name));
    match name.split_at_checked(8) {
        Some((prefix @ ("cali-pi-" | "cali-po-"), rest)) => {
            format!("{colon}{prefix}_{}", &hash(&format!("default/default.{rest}"))[..19])
        }
        _ => word.to_owned(),
    }
}

/// What today follows a rule that marks packets to be dropped.
const DROP_MARKED: &str = "-m mark --mark 0x40000/0x40000 -j DROP";

/// The marks before there was one for DROP.
fn marked(line: &str) -> String {
    [
        ("0x1b0000", "0xf0000"),
        ("0x1a0000", "0xe0000"),
        ("0x180000", "0xc0000"),
        ("MARK --set-xmark 0x40000/0x40000", "DROP"),
        ("0x80000", "0x40000"),
        ("0x100000", "0x80000"),
    ]
    .iter()
    .fold(line.to_owned(), |line, (now, then)| line.replace(now, then))
}

/// A rule that leads to a workload, as it stands in a chain for all whose names begin alike.
fn as_subtree(line: &str) -> String {
    for (chain, side) in [("cali-from-wl-dispatch", "-i"), ("cali-to-wl-dispatch", "-o")] {
        let start = format!("-A {chain} {side} cali");
        if let Some(digit) = line.strip_prefix(&start).and_then(|rest| rest.chars().next()) {
            return line.replacen(&format!("-A {chain} "), &format!("-A {chain}-{digit} "), 1);
        }
    }
    line.to_owned()
}

/// The rules that lead to such chains, and their last ones, for a table with these lines.
fn subtree(lines: &[String]) -> Vec<String> {
    let mut more = Vec::new();
    for (chain, side) in [("cali-from-wl-dispatch", "-i"), ("cali-to-wl-dispatch", "-o")] {
        let start = format!("-A {chain}-");
        let digits: BTreeSet<char> =
            lines.iter().filter_map(|line| line.strip_prefix(&start)?.chars().next()).collect();
        for digit in digits.iter().rev() {
            let id = "-m comment --comment \"cali:iOqiPUEYxd64PBWx\"";
            // At the top: the last rule of the chain drops what is unknown.
            more.push(format!("-I {chain} {side} cali{digit}+ {id} -g {chain}-{digit}"));
            more.push(format!("-A {chain}-{digit} {id} -j DROP"));
        }
    }
    more
}

/// With other ids in every chain that reads differently, and with the chains that are new.
fn reidentified(now: &str, then: &[String]) -> String {
    let now: BTreeSet<&str> = now.lines().collect();
    let mut table = "";
    let mut changed = BTreeSet::new();
    for line in then {
        if line.starts_with('*') {
            table = line;
        } else if !now.contains(line.as_str()) {
            changed.insert((table.to_owned(), line.split(' ').nth(1).unwrap_or_default().to_owned()));
        }
    }
    let declared: BTreeSet<&str> =
        then.iter().filter_map(|l| l.strip_prefix(':')?.split(' ').next()).collect();
    let mut text = String::new();
    let mut table = "";
    for line in then {
        if line.starts_with('*') {
            table = line;
        }
        let chain = line.split(' ').nth(1).unwrap_or_default();
        let line = if changed.contains(&(table.to_owned(), chain.to_owned())) {
            with_id(line)
        } else {
            line.clone()
        };
        text.push_str(&line);
        text.push('\n');
        if line == "*filter" {
            let is_new = |name: &str| name.starts_with("cali-") && !declared.contains(name);
            for (_, chain) in changed.iter().filter(|(t, name)| t == "*filter" && is_new(name)) {
                text.extend([":", chain, " - [0:0]\n"]);
            }
        }
    }
    text
}

fn with_id(line: &str) -> String {
    let Some((before, rest)) = line.split_once("\"cali:") else { return line.to_owned() };
    let Some((_, after)) = rest.split_once('"') else { return line.to_owned() };
    format!("{before}\"cali:{}\"{after}", &hash(line)[..16])
}

fn hash(text: &str) -> String {
    let digits = Sha1::digest(text).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

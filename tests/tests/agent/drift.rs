//! Others who change our kernel objects: what they did is undone within the refresh intervals, and what is theirs
//! stays as it is.

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually, expect_same};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB};
use crate::watch::Watch;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::on(
        &[Backend::Native],
        "drift",
        &[("a_hundred_foreign_flushes_are_mended_in_one_transaction_each", native_flushes)],
    );
    trials.extend(of_iptables());
    trials
}

fn of_iptables() -> Vec<Trial> {
    crate::on_both(
        "drift",
        &[
            ("changed_chains_and_hooks_are_put_right", rules),
            ("changed_sets_are_put_right", sets),
            ("deleted_routes_are_put_back", routes),
            ("a_hundred_foreign_flushes_are_mended_on_the_kernels_word_or_at_the_refresh", flushes),
        ],
    )
}

/// With the nft back end the kernel tells: nothing is read for any other reason here. Legacy tells nobody.
fn flushes(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    let refresh = if backend == Backend::Nft { "3600" } else { "0.05" };
    scene.set_env("FELIX_IPTABLESREFRESHINTERVAL", refresh);
    scene.set_env("FELIX_IPTABLESPOSTWRITECHECKINTERVALSECS", "3600");
    scene.iptables(NODE, "iptables -N FOREIGN")?;
    scene.iptables(NODE, "iptables -A FORWARD -s 203.0.113.9 -j FOREIGN")?;
    scene.start()?;
    let wanted = scene.kernel(NODE)?;
    let chain = policy_chain(&scene)?;
    // None of the damage cuts it, and mending must not either.
    let open = Watch::open(&scene, CLIENT, VAULT)?;
    let foreign = "FORWARD -s 203.0.113.9 -j FOREIGN";
    let damages = [
        vec!["iptables -F cali-FORWARD".to_owned()],
        vec![format!("iptables -F {chain}")],
        vec![format!("iptables -I {chain} 1 -j ACCEPT")],
        vec!["iptables -D FORWARD 1".to_owned()],
        vec![format!("iptables -D {foreign}"), format!("iptables -I {foreign}")],
        vec!["iptables -t mangle -F".to_owned()],
        vec!["iptables -t nat -F cali-POSTROUTING".to_owned()],
        vec!["iptables -F FORWARD".to_owned(), format!("iptables -A {foreign}")],
    ];
    let mut times = Vec::new();
    for damage in damages.iter().cycle().take(100) {
        for line in damage {
            scene.iptables(NODE, line)?;
        }
        let begun = Instant::now();
        scene.expect_kernel(NODE, &wanted).map_err(|e| format!("after {damage:?}: {e:?}"))?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    // For a person to read; reading the kernel to see it is most of it.
    eprintln!("seen mended after {:?} (median), {:?} (worst) of 100", times[50], times[99]);
    scene.expect(&SHOP)?;
    open.end()
}

/// The table of nftables mode, or parts of it, emptied, deleted and added to.
fn native_flushes(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_NFTABLESREFRESHINTERVAL", "3600");
    scene.run(NODE, "nft add table ip foreign")?;
    scene.start()?;
    let wanted = scene.kernel(NODE)?;
    // None of this damage cuts it, and mending must not either.
    let open = Watch::open(&scene, CLIENT, VAULT)?;
    let damages = [
        "flush table ip calico",
        "flush chain ip calico filter-cali-FORWARD",
        "insert rule ip calico filter-cali-FORWARD accept",
        "flush chain ip calico filter-FORWARD",
        "flush set ip calico cali40all-ipam-pools",
        "add element ip calico cali40this-host { 192.0.2.1 }",
        "add chain ip calico stranger",
        "add set ip calico stranger { type ifname; }",
    ];
    let mut times = mended(&scene, &damages, 80, &wanted)?;
    open.end()?;
    // Who deletes a table with its maps can cut a packet that is under way among its rules and finds the maps empty.
    times.extend(mended(&scene, &["delete table ip calico", "flush ruleset"], 20, &wanted)?);
    times.sort_unstable();
    let counters = scene.status(NODE)?.counters;
    eprintln!(
        "seen mended after {:?} (median), {:?} (worst) of 100; {} transactions",
        times[50], times[99], counters.restores
    );
    scene.expect(&SHOP)
}

/// Does damage with `nft`, so often, and waits each time until it is mended. Returns how long that took.
fn mended(scene: &Scene, damages: &[&str], times: usize, wanted: &[String]) -> Result<Vec<Duration>, Failed> {
    let mend = |damage: &&str| {
        scene.run(NODE, &format!("nft {damage}"))?;
        let begun = Instant::now();
        scene.expect_kernel(NODE, wanted).map_err(|e| format!("after {damage}: {e:?}"))?;
        Ok(begun.elapsed())
    };
    damages.iter().cycle().take(times).map(mend).collect()
}

/// The shop, read again every 200 ms and for no other reason, with objects of others beside ours.
fn open(backend: Backend) -> Result<(Scene, Vec<String>), Failed> {
    let mut scene = shop::stocked(backend)?;
    for name in ["IPTABLESREFRESHINTERVAL", "IPSETSREFRESHINTERVAL", "ROUTEREFRESHINTERVAL"] {
        scene.set_env(&format!("FELIX_{name}"), "0.2");
    }
    scene.set_env("FELIX_IPTABLESPOSTWRITECHECKINTERVALSECS", "3600");
    for line in [
        "ipset create foreign-set hash:ip",
        "ipset create cali-foreign hash:net",
        "ipset add foreign-set 10.65.1.4",
        "ipset add cali-foreign 10.65.0.0/16",
        "ip route add 203.0.113.0/24 dev eth0 proto 99",
    ] {
        scene.run(NODE, line)?;
    }
    for line in [
        "iptables -N FOREIGN",
        "iptables -A FOREIGN -m set --match-set foreign-set src -j RETURN",
        "iptables -A FORWARD -s 203.0.113.9 -j FOREIGN",
        "iptables -t nat -A POSTROUTING -s 203.0.113.9 -j RETURN",
    ] {
        scene.iptables(NODE, line)?;
    }
    scene.start()?;
    let wanted = scene.kernel(NODE)?;
    Ok((scene, wanted))
}

/// Does damage and waits until it is undone.
fn damage(scene: &Scene, wanted: &[String], lines: &[&str]) -> Outcome {
    for line in lines {
        let program = line.split_whitespace().next().unwrap_or_default();
        let ran = if program == "iptables" { scene.iptables(NODE, line) } else { scene.run(NODE, line) };
        ran?;
    }
    scene.expect_kernel(NODE, wanted).map_err(|e| format!("after {lines:?}: {e:?}").into())
}

/// The chain of ours that holds the policy for `web`.
fn policy_chain(scene: &Scene) -> Result<String, Failed> {
    let text = scene.iptables(NODE, "iptables -S")?;
    let mut names = text.lines().filter_map(|line| line.strip_prefix("-N "));
    Ok(names
        .find(|name| name.starts_with("cali-pi-") && name.contains("web"))
        .ok_or(text.clone())?
        .to_owned())
}

fn rules(backend: Backend) -> Outcome {
    let (scene, wanted) = open(backend)?;
    let chain = policy_chain(&scene)?;
    let text = |verb: &str, rest: &str| format!("iptables {verb} {chain} {rest}");
    damage(&scene, &wanted, &["iptables -F cali-FORWARD"])?;
    damage(&scene, &wanted, &[text("-F", "").trim_end()])?;
    // A rule of another in our chain, which would open everything.
    damage(&scene, &wanted, &[&text("-I", "1 -j ACCEPT")])?;
    damage(&scene, &wanted, &[&text("-D", "1")])?;
    damage(&scene, &wanted, &["iptables -D FORWARD 1"])?;
    // Another puts its rule before ours.
    let foreign = "-s 203.0.113.9 -j FOREIGN";
    damage(
        &scene,
        &wanted,
        &[&format!("iptables -D FORWARD {foreign}"), &format!("iptables -I FORWARD 1 {foreign}")],
    )?;
    // A whole table is emptied.
    damage(&scene, &wanted, &["iptables -t mangle -F", "iptables -t mangle -X"])?;
    // One line: a leftover may be gone before there is a second.
    damage(&scene, &wanted, &["iptables -N cali-leftover"])?;
    scene.expect(&SHOP)
}

fn sets(backend: Backend) -> Outcome {
    let (scene, wanted) = open(backend)?;
    let set = scene.set_with(NODE, "10.65.1.3")?;
    damage(&scene, &wanted, &[&format!("ipset del {set} 10.65.1.3")])?;
    damage(&scene, &wanted, &[&format!("ipset add {set} 10.65.1.4")])?;
    damage(&scene, &wanted, &[&format!("ipset flush {set}")])?;
    let refused = scene.lab.node(NODE)?.run("ipset", &["destroy", &set])?;
    assert!(!refused.status.success(), "a set that rules use cannot be destroyed");
    expect_same(&wanted, &scene.kernel(NODE)?)?;
    // Without the rules that use it, it can be. Both come back; in which order the two are noticed is open.
    eventually("the set can be destroyed", || {
        let text = scene.iptables(NODE, "iptables -S")?;
        let users =
            text.lines().filter(|line| line.contains(&set)).filter_map(|l| l.split_whitespace().nth(1));
        for chain in users {
            scene.iptables(NODE, &format!("iptables -F {chain}"))?;
        }
        let destroyed = scene.lab.node(NODE)?.run("ipset", &["destroy", &set])?;
        Ok(destroyed.status.success().then_some(()))
    })?;
    scene.expect_kernel(NODE, &wanted)?;
    // A set of ours that nobody wants goes.
    damage(&scene, &wanted, &["ipset create cali40s:leftover hash:net"])?;
    scene.expect(&SHOP)
}

fn routes(backend: Backend) -> Outcome {
    let (scene, wanted) = open(backend)?;
    damage(&scene, &wanted, &["ip route del 10.65.1.2"])?;
    damage(&scene, &wanted, &["ip route flush proto 80"])?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])
}

//! Kernel settings that nobody may write, as in a container whose `/proc/sys` is read-only.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Failed;
use tortie_api::control::Area;
use tortie_tests::lab::{Programs, host_interface};

use super::{expect_as_fresh, kill};
use crate::Outcome;
use crate::health::get;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, OTHER, SHOP, VAULT};
use crate::watch::Watch;

/// A program that starts the agent where `/proc/sys` is read-only.
fn read_only(scene: &Scene) -> Result<Programs, Failed> {
    let programs = Programs::locate()?;
    let script = scene.lab.dir().join("agent-read-only");
    let inner =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"";
    let text =
        format!("#!/bin/sh\nexec unshare --mount sh -c '{inner}' {} \"$@\"\n", programs.agent.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    Ok(Programs { agent: script, ctl: programs.ctl })
}

/// Makes `/proc/sys` writable for the agent that runs.
fn make_writable(scene: &Scene) -> Outcome {
    let pid = scene.lab.agent(NODE)?.pid();
    scene.run(NODE, &format!("nsenter --mount --target {pid} mount -o remount,bind,rw /proc/sys"))?;
    Ok(())
}

fn sysctl(scene: &Scene, file: &str) -> Result<String, Failed> {
    Ok(scene.run(NODE, &format!("cat /proc/sys/{file}"))?.trim().to_owned())
}

pub(super) fn refused(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_programs(read_only(&scene)?);
    scene.set_env("FELIX_ROUTEREFRESHINTERVAL", "0.2");
    let web = host_interface("shop", "web");
    let proxy_arp = format!("net/ipv4/conf/{web}/proxy_arp");
    let accounting = "net/netfilter/nf_conntrack_acct";
    scene.start_on(NODE)?;
    // Pods reach nobody without it: that is told, and nothing is open that should not be.
    let words = [format!("sysctl {proxy_arp} (interface {web})"), "Read-only file system".to_owned()];
    let words = words.each_ref().map(String::as_str);
    eventually("readiness says why", || {
        let answer = get(&scene, "/readiness")?;
        Ok(answer.filter(|(code, text)| *code == 503 && words.iter().all(|word| text.contains(word))))
    })?;
    scene.expect_problem(Area::Kernel, &words)?;
    let closed = Watch::closed(&scene, OTHER, VAULT)?;
    // Nobody has to tell the agent when it may.
    make_writable(&scene)?;
    scene.settle()?;
    scene.expect_problem(Area::Kernel, &[])?;
    assert_eq!(sysctl(&scene, &proxy_arp)?, "1");
    scene.expect(&SHOP)?;
    // What is as wanted need not be written.
    kill(&mut scene)?;
    scene.start_on(NODE)?;
    scene.settle()?;
    scene.expect_problem(Area::Kernel, &[])?;
    // What nothing depends on is told, and the node is ready.
    kill(&mut scene)?;
    scene.run(NODE, &format!("sysctl -qw {}=0", accounting.replace('/', ".")))?;
    scene.start_on(NODE)?;
    scene.settle()?;
    scene.expect_problem(Area::Kernel, &[&format!("sysctl {accounting}"), "Read-only file system"])?;
    let ready = eventually("readiness", || get(&scene, "/readiness"))?;
    assert_eq!(ready.0, 200, "{}", ready.1);
    make_writable(&scene)?;
    eventually("the setting is made", || Ok((sysctl(&scene, accounting)? == "1").then_some(())))?;
    eventually("nothing is left to tell", || Ok(scene.problems(Area::Kernel)?.is_empty().then_some(())))?;
    closed.end()?;
    expect_as_fresh(&scene, backend)
}

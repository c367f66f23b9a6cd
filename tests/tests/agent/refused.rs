//! What the kernel does not take is reported and stays closed; all else is enforced, and a change puts it right.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;

use crate::Outcome;
use crate::health::get;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, allow_to, policy};
use crate::watch::Watch;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::on_both(
        "refused",
        &[
            ("a_set_that_allows_and_cannot_be_made_is_reported_and_lets_nobody_in", allowing_set),
            ("a_set_that_denies_and_cannot_be_made_leaves_closed_what_it_does_not_hold", denying_set),
            ("a_set_behind_a_negation_that_cannot_be_made_leaves_closed_what_it_does_not_hold", negated_set),
            ("a_set_that_outgrows_its_limit_denies_all_the_time", growing_set),
            ("a_chain_that_is_refused_is_closed_and_the_others_are_enforced", refused_chain),
            ("a_program_that_fails_for_a_while_delays_and_breaks_nothing", failing_program),
        ],
    );
    trials.extend(crate::on_both(
        "refused",
        &[("a_table_whose_program_hangs_holds_up_no_other", hanging_table)],
    ));
    trials.extend(crate::named(
        "refused",
        &[("a_rule_that_the_kernel_refuses_is_closed_and_named", refused_rule)],
    ));
    trials
}

/// A member of the network set and of no other set.
const MARK: &str = "203.0.113.77";

/// A network set with the address of `other` and as many more as are asked for, half of them below it.
fn network_set(more: usize) -> String {
    let (below, above) = (0..more / 2, more / 2..more);
    let below = below.map(|n| format!("10.65.0.{n}, "));
    let above = above.map(|n| format!(", 10.65.2.{n}"));
    let nets: Vec<String> = below.chain([format!("10.65.1.4, {MARK}")]).chain(above).collect();
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {{name: listed, namespace: shop, labels: {{list: all}}}}\nspec: {{nets: [{}]}}\n",
        nets.concat()
    )
}

/// The shop with the network set. The set of this policy's selector cannot be made: its name is that of one of
/// another type, which rules of somebody else use.
fn taken_set(backend: Backend, policy: &str) -> Result<Scene, Failed> {
    let mut scene = shop::stocked(backend)?;
    scene.write("set.yaml", network_set(0))?;
    scene.write("list.yaml", policy)?;
    scene.start()?;
    let name = scene.set_with(NODE, MARK)?;
    scene.remove("list.yaml")?;
    scene.settle()?;
    eventually("the set goes with its policy", || {
        Ok((!scene.run(NODE, "ipset list -n")?.contains(&name)).then_some(()))
    })?;
    scene.run(NODE, &format!("ipset create {name} hash:ip,port"))?;
    scene.iptables(NODE, "iptables -N FOREIGN")?;
    scene.iptables(NODE, &format!("iptables -A FOREIGN -m set --match-set {name} src,src -j RETURN"))?;
    scene.expect(&SHOP)?;
    Ok(scene)
}

/// What is said of that set.
const TAKEN: [&str; 2] = ["set cali40s:", "cannot replace it"];

/// The rules of somebody else go, and a change makes the agent try again at once.
fn free_set(scene: &mut Scene) -> Outcome {
    scene.iptables(NODE, "iptables -F FOREIGN")?;
    scene.write("set.yaml", network_set(1))?;
    expect_mended(scene)
}

/// Waits until the agent says that it is not ready because of something with these words.
fn expect_not_ready(scene: &Scene, words: &[&str]) -> Outcome {
    let mut last = None;
    eventually("readiness says why", || {
        last = get(scene, "/readiness")?;
        let is_told =
            |(code, text): &(u16, String)| *code == 503 && words.iter().all(|word| text.contains(word));
        Ok(last.as_ref().is_some_and(is_told).then_some(()))
    })
    .map_err(|e| format!("{e:?}: {words:?}, last: {last:?}"))?;
    assert_eq!(get(scene, "/liveness")?.map(|(code, _)| code), Some(200));
    scene.expect_problem(Area::Kernel, words)?;
    let waited = scene.lab.ctl(NODE, &["wait", "--applied", "--timeout", "100ms"])?;
    let said =
        String::from_utf8_lossy(&waited.stderr).into_owned() + &String::from_utf8_lossy(&waited.stdout);
    assert!(!waited.status.success(), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    Ok(())
}

/// That changes elsewhere are enforced though something is refused; `guard.yaml` is the shop's when it returns.
fn expect_others_go_on(scene: &Scene) -> Outcome {
    scene.write("guard.yaml", allow_to("vault", "other"))?;
    scene.expect_soon(&[(CLIENT, VAULT, false), (OTHER, VAULT, true)])?;
    scene.write("guard.yaml", allow_to("vault", "client"))?;
    scene.expect_soon(&[(CLIENT, VAULT, true), (OTHER, VAULT, false)])
}

/// Waits until everything is right again.
fn expect_mended(scene: &mut Scene) -> Outcome {
    scene.settle()?;
    scene.expect_problem(Area::Kernel, &[])?;
    let answer = eventually("readiness", || get(scene, "/readiness"))?;
    assert_eq!(answer.0, 200, "{}", answer.1);
    Ok(())
}

fn allowing_set(backend: Backend) -> Outcome {
    let text =
        "  selector: app == 'web'\n  ingress:\n  - action: Allow\n    source: {selector: list == 'all'}\n";
    let mut scene = taken_set(backend, &policy("web-list", text))?;
    scene.write("web.yaml", policy("web-in", text))?;
    expect_not_ready(&scene, &TAKEN)?;
    let closed = [(CLIENT, WEB, false), (VAULT, WEB, false), (CLIENT, VAULT, true), (OTHER, VAULT, false)];
    scene.expect(&closed)?;
    expect_others_go_on(&scene)?;
    free_set(&mut scene)?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true), (CLIENT, VAULT, true), (OTHER, VAULT, false)])
}

/// `web` lets all in but those of the network set.
fn denying_set(backend: Backend) -> Outcome {
    let rules = "  - action: Deny\n    source: {selector: list == 'all'}\n  - action: Allow\n";
    set_that_closes(backend, &policy("web-list", &format!("  selector: app == 'web'\n  ingress:\n{rules}")))
}

/// The same, written otherwise. In a policy of a namespace `notSelector` would mean its pods without the listed.
fn negated_set(backend: Backend) -> Outcome {
    let rules = "  - action: Allow\n    source: {notSelector: list == 'all'}\n";
    set_that_closes(
        backend,
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: web-list}}\nspec:\n  selector: app == 'web'\n  ingress:\n{rules}"
        ),
    )
}

fn set_that_closes(backend: Backend, policy: &str) -> Outcome {
    let mut scene = taken_set(backend, policy)?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    // The old policy goes when the new one is there.
    scene.write("list.yaml", policy)?;
    expect_not_ready(&scene, &TAKEN)?;
    scene.remove("web.yaml")?;
    scene.expect(&[(OTHER, WEB, false), (CLIENT, VAULT, true), (OTHER, VAULT, false)])?;
    expect_others_go_on(&scene)?;
    // A new agent knows no earlier state of the set.
    scene.start_on(NODE)?;
    expect_not_ready(&scene, &TAKEN)?;
    scene.expect(&[(OTHER, WEB, false)])?;
    closed.goes_on()?;
    free_set(&mut scene)?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])?;
    closed.end()
}

/// `web` lets in all but those of a network set that grows beyond the limit of sets, and shrinks again.
fn growing_set(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_MAXIPSETSIZE", "4");
    let rules = "  - action: Deny\n    source: {selector: list == 'all'}\n  - action: Allow\n";
    scene.write("web.yaml", policy("web-in", &format!("  selector: app == 'web'\n  ingress:\n{rules}")))?;
    scene.write("set.yaml", network_set(1))?;
    scene.start()?;
    let (open, closed) = (Watch::open(&scene, CLIENT, WEB)?, Watch::closed(&scene, OTHER, WEB)?);
    let name = scene.set_with(NODE, MARK)?;
    for (more, limit) in [(20, 32), (60, 64), (6, 8), (0, 8)] {
        scene.apply("set.yaml", network_set(more))?;
        scene.expect_problem(Area::Kernel, &[])?;
        let listed = scene.run(NODE, &format!("ipset list {name}"))?;
        assert!(listed.contains(&format!("maxelem {limit} ")), "{more} more: {listed}");
        assert!(listed.contains(&format!("Number of entries: {}\n", more + 2)), "{more} more: {listed}");
    }
    // The next agent makes it as small as it may be.
    scene.start()?;
    assert!(scene.run(NODE, &format!("ipset list -t {name}"))?.contains("maxelem 4 "));
    closed.end()?;
    open.end()
}

/// Puts a program before the real `iptables-BACKEND-restore` that fails when a shell condition on its input, the
/// file `$input`, holds.
pub(crate) fn doctor_restore(scene: &mut Scene, backend: Backend, condition: &str) -> Outcome {
    let name = format!("iptables-{}-restore", backend.name());
    let folder = scene.lab.dir().join("bin");
    fs::create_dir_all(&folder)?;
    let text = format!(
        "#!/bin/sh\ninput=$(mktemp) && cat >\"$input\"\nif {condition}; then\n  echo 'iptables-restore: this is refused' >&2\n  rm \"$input\"\n  exit 1\nfi\n{name} \"$@\" <\"$input\"\ncode=$?\nrm \"$input\"\nexit $code\n"
    );
    let text =
        text.replace("#!/bin/sh\n", &format!("#!/bin/sh\nPATH=${{PATH#*:}} TMPDIR={}\n", folder.display()));
    fs::write(folder.join(&name), text)?;
    fs::set_permissions(folder.join(&name), fs::Permissions::from_mode(0o755))?;
    let path = std::env::var("PATH")?;
    scene.set_env("PATH", &format!("{}:{path}", folder.display()));
    Ok(())
}

fn refused_chain(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    doctor_restore(&mut scene, backend, r#"grep -q 'destination-ports 4242' "$input""#)?;
    scene.start()?;
    scene.expect(&SHOP)?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    let (bad, chain) = (
        "  selector: app == 'web'\n  ingress:\n  - action: Allow\n    protocol: TCP\n    source: {selector: app == 'client'}\n  - action: Allow\n    protocol: TCP\n    destination: {ports: [4242]}\n",
        "web-in",
    );
    scene.write("web.yaml", policy(chain, bad))?;
    expect_not_ready(&scene, &["chain cali-pi-", "this is refused"])?;
    // Closed altogether: what is left of a policy may say something else than the whole.
    scene.expect(&[
        (CLIENT, WEB, false),
        (OTHER, WEB, false),
        (CLIENT, VAULT, true),
        (OTHER, VAULT, false),
    ])?;
    expect_others_go_on(&scene)?;
    // A new agent comes to the same.
    scene.start_on(NODE)?;
    expect_not_ready(&scene, &["chain cali-pi-", "this is refused"])?;
    scene.expect(&[
        (CLIENT, WEB, false),
        (OTHER, WEB, false),
        (CLIENT, VAULT, true),
        (OTHER, VAULT, false),
    ])?;
    scene.write("web.yaml", policy(chain, &bad.replace("4242", "4243")))?;
    expect_mended(&mut scene)?;
    closed.end()?;
    scene.expect(&SHOP)
}

fn failing_program(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    let broken = scene.lab.dir().join("broken");
    doctor_restore(&mut scene, backend, &format!("[ -e {} ]", broken.display()))?;
    // From the start: without rules there are no routes, so nothing is reached.
    fs::write(&broken, "")?;
    scene.start_on(NODE)?;
    eventually("readiness says why", || {
        Ok(get(&scene, "/readiness")?.filter(|(code, text)| *code == 503 && text.contains("this is refused")))
    })?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, false), (OTHER, CLIENT, false)])?;
    fs::remove_file(&broken)?;
    expect_mended(&mut scene)?;
    scene.expect(&SHOP)?;
    // And later.
    let (open, closed) = (Watch::open(&scene, CLIENT, WEB)?, Watch::closed(&scene, OTHER, WEB)?);
    fs::write(&broken, "")?;
    scene.write("guard.yaml", allow_to("vault", "other"))?;
    expect_not_ready(&scene, &["this is refused"])?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])?;
    fs::remove_file(&broken)?;
    expect_mended(&mut scene)?;
    open.end()?;
    closed.end()?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false), (CLIENT, VAULT, false), (OTHER, VAULT, true)])
}

fn hanging_table(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_IPTABLESREFRESHINTERVAL", "0.2");
    let stuck = scene.lab.dir().join("stuck");
    let wait = format!("while [ -e {} ]; do sleep 0.05; done; false", stuck.display());
    doctor_restore(&mut scene, backend, &format!("grep -q '^[*]mangle' \"$input\" && {{ {wait}; }}"))?;
    scene.start()?;
    scene.expect(&SHOP)?;
    let (open, closed) = (Watch::open(&scene, CLIENT, WEB)?, Watch::closed(&scene, OTHER, WEB)?);
    fs::write(&stuck, "")?;
    scene.iptables(NODE, "iptables -t mangle -F cali-PREROUTING")?;
    // Nobody waits for it: the filter table follows its policies at once, again and again.
    expect_others_go_on(&scene)?;
    expect_not_ready(&scene, &["iptables IPv4 mangle", "still at work"])?;
    expect_others_go_on(&scene)?;
    fs::remove_file(&stuck)?;
    expect_mended(&mut scene)?;
    let mended = scene.iptables(NODE, "iptables -t mangle -S cali-PREROUTING")?;
    assert!(mended.contains("-A cali-PREROUTING"), "{mended}");
    open.end()?;
    closed.end()?;
    scene.expect(&SHOP)
}

/// The legacy back end's `limit` cannot count that far; that the kernel says, not the program.
fn refused_rule() -> Outcome {
    let mut scene = shop::stocked(Backend::Legacy)?;
    scene.set_env("FELIX_LOGACTIONRATELIMIT", "1/day");
    scene.set_env("FELIX_LOGACTIONRATELIMITBURST", "9999");
    scene.start()?;
    scene.expect(&SHOP)?;
    let rules = "  selector: app == 'web'\n  ingress:\n  - action: Log\n  - action: Allow\n";
    scene.write("web.yaml", policy("web-in", rules))?;
    expect_not_ready(&scene, &["chain cali-pi-"])?;
    scene.expect(&[
        (CLIENT, WEB, false),
        (OTHER, WEB, false),
        (CLIENT, VAULT, true),
        (OTHER, VAULT, false),
    ])?;
    expect_others_go_on(&scene)?;
    scene.write("web.yaml", allow_to("web", "client"))?;
    expect_mended(&mut scene)?;
    scene.expect(&SHOP)
}

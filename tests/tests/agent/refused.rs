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
            ("a_full_set_that_allows_is_reported_and_lets_nobody_else_in", full_allowing_set),
            ("a_full_set_that_denies_leaves_closed_what_it_does_not_hold", full_denying_set),
            ("a_full_set_behind_a_negation_leaves_closed_what_it_does_not_hold", full_negated_set),
            ("a_chain_that_is_refused_is_closed_and_the_others_are_enforced", refused_chain),
            ("a_program_that_fails_for_a_while_delays_and_breaks_nothing", failing_program),
        ],
    );
    trials.extend(crate::named(
        "refused",
        &[("a_rule_that_the_kernel_refuses_is_closed_and_named", refused_rule)],
    ));
    trials
}

/// Sets may have four members: enough for all sets but the one that a test fills.
fn small_sets(backend: Backend) -> Result<Scene, Failed> {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_MAXIPSETSIZE", "4");
    scene.start()?;
    scene.expect(&SHOP)?;
    Ok(scene)
}

/// A network set with the address of `other` and as many more as are asked for, half of them below it.
fn network_set(more: usize) -> String {
    let (below, above) = (0..more / 2, more / 2..more);
    let below = below.map(|n| format!("10.65.0.{n}, "));
    let above = above.map(|n| format!(", 10.65.2.{n}"));
    let nets: Vec<String> = below.chain(["10.65.1.4".to_owned()]).chain(above).collect();
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {{name: listed, namespace: shop, labels: {{list: all}}}}\nspec: {{nets: [{}]}}\n",
        nets.concat()
    )
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

fn full_allowing_set(backend: Backend) -> Outcome {
    let mut scene = small_sets(backend)?;
    scene.write("set.yaml", network_set(6))?;
    let text =
        "  selector: app == 'web'\n  ingress:\n  - action: Allow\n    source: {selector: list == 'all'}\n";
    scene.write("web.yaml", policy("web-in", text))?;
    expect_not_ready(&scene, &["set cali40s:", "full", "limit of 4"])?;
    scene.expect(&[
        (CLIENT, WEB, false),
        (VAULT, WEB, false),
        (CLIENT, VAULT, true),
        (OTHER, VAULT, false),
    ])?;
    expect_others_go_on(&scene)?;
    scene.write("set.yaml", network_set(3))?;
    expect_mended(&mut scene)?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true), (CLIENT, VAULT, true), (OTHER, VAULT, false)])
}

/// `web` lets all in but those of the network set.
fn full_denying_set(backend: Backend) -> Outcome {
    let rules = "  - action: Deny\n    source: {selector: list == 'all'}\n  - action: Allow\n";
    full_set_that_closes(
        backend,
        &policy("web-list", &format!("  selector: app == 'web'\n  ingress:\n{rules}")),
    )
}

/// The same, written otherwise. In a policy of a namespace `notSelector` would mean its pods without the listed.
fn full_negated_set(backend: Backend) -> Outcome {
    let rules = "  - action: Allow\n    source: {notSelector: list == 'all'}\n";
    full_set_that_closes(
        backend,
        &format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: web-list}}\nspec:\n  selector: app == 'web'\n  ingress:\n{rules}"
        ),
    )
}

fn full_set_that_closes(backend: Backend, policy: &str) -> Outcome {
    let mut scene = small_sets(backend)?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    let full = ["set cali40s:", "full", "limit of 4"];
    // Full from the start, then full after it was not. The old policy goes when the new one is there.
    scene.apply("set.yaml", network_set(20))?;
    scene.write("list.yaml", policy)?;
    expect_not_ready(&scene, &full)?;
    scene.remove("web.yaml")?;
    for more in [20, 6] {
        expect_not_ready(&scene, &full)?;
        scene.expect(&[(OTHER, WEB, false), (CLIENT, VAULT, true), (OTHER, VAULT, false)])?;
        expect_others_go_on(&scene)?;
        // A new agent knows no earlier state of the set.
        scene.start_on(NODE)?;
        expect_not_ready(&scene, &full)?;
        scene.expect(&[(OTHER, WEB, false)])?;
        closed.goes_on()?;
        scene.write("set.yaml", network_set(3))?;
        expect_mended(&mut scene)?;
        scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])?;
        scene.write("set.yaml", network_set(more))?;
    }
    closed.end()
}

/// Puts a program before the real `iptables-BACKEND-restore` that fails when a shell condition on its input, the
/// file `$input`, holds.
fn doctor_restore(scene: &mut Scene, backend: Backend, condition: &str) -> Outcome {
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

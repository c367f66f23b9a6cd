//! Ending, killing and starting agents: the kernel goes on without them, and the next one takes over what is there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;
use tortie_api::control::Apply;

use crate::Outcome;
use crate::scene::{Backend, DEADLINE, NODE, Scene, expect_same};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, allow_to, policy};
use crate::watch::{Talk, Watch};

pub(crate) fn trials() -> Vec<Trial> {
    crate::on_both(
        "lifecycle",
        &[
            ("sigterm_leaves_everything_in_force_and_traffic_as_it_was", sigterm),
            ("an_agent_that_finds_nothing_changed_writes_nothing", nothing_changed),
            ("what_changed_while_no_agent_ran_is_applied_by_the_next", changes_while_away),
            ("agents_killed_at_random_moments_converge_and_never_open_what_is_closed", killed),
        ],
    )
}

fn sigterm(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let (open, closed) = (Watch::open(&scene, CLIENT, WEB)?, Watch::closed(&scene, OTHER, WEB)?);
    let mut talk = Talk::open(&scene, CLIENT, WEB)?;
    let before = scene.kernel(NODE)?;
    let socket = scene.lab.agent(NODE)?.socket().to_owned();
    let status = scene.lab.stop_agent(NODE)?;
    assert!(status.success(), "{status}");
    assert!(!socket.exists());
    open.goes_on()?;
    closed.goes_on()?;
    expect_same(&before, &scene.kernel(NODE)?)?;
    talk.goes_on()?;
    open.end()?;
    closed.end()?;
    scene.expect(&SHOP)
}

fn nothing_changed(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env("FELIX_IPV6SUPPORT", "true");
    scene.start()?;
    scene.expect(&SHOP)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (rules, before) = counters(&scene)?;
        assert!(before.iter().any(|packets| *packets > 0), "{rules:#?}");
        let agent = scene.lab.agent_mut(NODE)?;
        agent.signal(signal)?;
        agent.wait_for_end(DEADLINE)?;
        scene.start()?;
        let status = scene.status(NODE)?;
        assert_eq!((status.applies, status.last_apply), (0, Apply::default()), "{signal}");
        let (rules_now, after) = counters(&scene)?;
        expect_same(&rules, &rules_now)?;
        // A rule that is written again counts from zero. A last packet of a probe may have come late.
        let fell = rules.iter().zip(before.iter().zip(&after)).find(|(_, (before, after))| after < before);
        assert!(fell.is_none(), "{signal}: {fell:?}");
    }
    scene.expect(&SHOP)
}

/// All IPv4 rules, and how many packets each has counted.
fn counters(scene: &Scene) -> Result<(Vec<String>, Vec<u64>), Failed> {
    let text = scene.iptables(NODE, "iptables-save -c")?;
    let rules = text.lines().filter_map(|line| {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] ")?;
        Some((rule.to_owned(), counters.split(':').next()?.parse::<u64>().ok()?))
    });
    Ok(rules.unzip())
}

fn changes_while_away(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let closed = Watch::closed(&scene, OTHER, WEB)?;
    scene.lab.stop_agent(NODE)?;
    scene.remove("guard.yaml")?;
    scene.write("client.yaml", allow_to("client", "web"))?;
    scene.expect(&SHOP)?;
    scene.start()?;
    scene.expect(&[
        (OTHER, VAULT, true),
        (OTHER, CLIENT, false),
        (WEB, CLIENT, true),
        (CLIENT, WEB, true),
    ])?;
    closed.end()
}

/// Moments between changes and kills, different each time.
struct Random(u64);

impl Random {
    fn new() -> Result<Self, Failed> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
        Ok(Self(u64::from(nanos) | 1))
    }

    /// At most `most`, by xorshift.
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }

    fn pause(&mut self, most_millis: u64) {
        thread::sleep(Duration::from_millis(self.up_to(most_millis)));
    }
}

fn killed(backend: Backend) -> Outcome {
    let mut random = Random::new()?;
    let mut scene = shop::open(backend)?;
    let (open, closed) = (Watch::open(&scene, CLIENT, VAULT)?, Watch::closed(&scene, OTHER, VAULT)?);
    let mut state = 0;
    for _ in 0..8 {
        let end = state + random.up_to(12);
        while state < end {
            state += 1;
            write_state(&scene, state)?;
            random.pause(15);
        }
        random.pause(150);
        scene.lab.agent_mut(NODE)?.signal(Signal::SIGKILL)?;
        scene.lab.agent_mut(NODE)?.wait_for_end(DEADLINE)?;
        write_state(&scene, state + 1)?;
        scene.start_on(NODE)?;
    }
    state += 2;
    write_state(&scene, state)?;
    scene.settle()?;
    open.end()?;
    closed.end()?;
    scene.expect_problem(tortie_api::control::Area::Kernel, &[])?;
    // What is in the kernel now is what an agent makes that was never killed.
    let mut fresh = Scene::new(shop::builder(), backend)?;
    for entry in fs::read_dir(scene.datastore())? {
        let path = entry?.path();
        fresh.write(&path.file_name().ok_or("no name")?.to_string_lossy(), fs::read(&path)?)?;
    }
    fresh.start()?;
    scene.expect_kernel(NODE, &fresh.kernel(NODE)?)
}

/// One of many states, in all of which the client reaches the vault and the other does not.
fn write_state(scene: &Scene, state: u64) -> Outcome {
    let rule = |action: &str, source: &str| format!("  - action: {action}\n    source: {{{source}}}\n");
    let rules = match state % 4 {
        0 => rule("Allow", "selector: app == 'client'"),
        1 => rule("Allow", "nets: [10.65.1.3/32]"),
        2 => {
            rule("Deny", "selector: app == 'other'")
                + &rule("Allow", "selector: \"app in {'client', 'other'}\"")
        }
        _ => rule("Allow", "selector: has(app) && app != 'other'"),
    };
    scene.write(
        "guard.yaml",
        policy("vault-in", &format!("  selector: app == 'vault'\n  ingress:\n{rules}")),
    )?;
    write_round(scene, state)
}

/// What changes beside the guard of the vault: another policy that comes and goes, labels of a pod, and policies that
/// follow them.
pub(crate) fn write_round(scene: &Scene, state: u64) -> Outcome {
    match state % 3 {
        0 => scene.write("web.yaml", allow_to("web", "client"))?,
        1 => scene.write("web.yaml", allow_to("web", "other"))?,
        // It may not have been there.
        _ => scene.remove("web.yaml").unwrap_or(()),
    }
    let pods = shop::pods().replace("app: web", &format!("app: web, round: r{}", state % 5));
    scene.write("pods.yaml", pods)?;
    let spec =
        format!("  selector: round == 'r{}'\n  types: [Egress]\n  egress:\n  - action: Allow\n", state % 2);
    scene.write("round.yaml", policy(&format!("round-{}", state % 7), &spec))
}

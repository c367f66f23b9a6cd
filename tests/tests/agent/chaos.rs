//! Everything at once and at the worst moment. Two flows are tried in each direction all the time, each time over a new
//! connection: what all policies that are written on the way allow must never be cut, what all of them deny must never
//! pass. At the end the kernel holds what an agent makes of the same manifests that nothing ever happened to.
//!
//! What is promised of an agent that is dead: all that was in force stays in force, what it allowed too, until the next
//! agent has read the datastore. Then the rules of a table change in one step: nothing that is newly allowed by rules passes before
//! what they no longer allow is closed. Sets change before the rules, member by member; a set of a rule that goes on may
//! hold a new member before an old one of another has gone. Where an agent with another mark mask dies between tables,
//! what is denied stays closed; what is allowed passes if the masks have no bit in common.
//!
//! `TORTIE_CHAOS_ROUNDS` sets how often agents are killed ([`ROUNDS`]); the moments follow from `TORTIE_CHAOS_SEED`
//! ([`SEED`]).

mod disk;
mod gate;
mod marks;
mod settings;

use std::{env, fs};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;
use tortie_api::control::Area;

use self::gate::{Gate, Point};
use crate::Outcome;
use crate::lifecycle::write_round;
use crate::scene::{Backend, DEADLINE, NODE, Scene, eventually};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, allow_to, policy};
use crate::watch::{Talk, Watch};

/// Of all that looks random here.
const SEED: u64 = 0x7071_11e5;
/// Kills of an agent in one run, unless told otherwise.
const ROUNDS: u64 = 15;

pub(crate) fn trials() -> Vec<Trial> {
    crate::on_both(
        "chaos",
        &[
            ("agents_killed_around_and_within_writes_converge_and_open_and_cut_nothing", killed),
            ("agents_killed_between_tables_with_new_marks_open_and_cut_nothing", marks::new),
            ("agents_killed_between_tables_with_marks_that_meant_another_thing_open_nothing", marks::changed),
            ("what_changed_while_no_agent_ran_is_closed_before_it_opens_anything", changed_while_dead),
            ("what_a_dead_agent_has_begun_to_write_is_waited_for_by_the_next", late_write),
            ("a_slow_restore_delays_policy_and_opens_and_cuts_nothing", slow),
            ("restores_that_fail_in_any_way_open_and_cut_nothing", failing),
            ("a_full_disk_loses_no_policy", disk::full),
            (
                "a_socket_that_has_no_room_is_made_when_it_has_and_holds_up_no_policy",
                disk::no_room_for_the_socket,
            ),
            ("a_refused_kernel_setting_is_named_and_set_once_it_can_be", settings::refused),
        ],
    )
}

/// Numbers that look random and are the same in every run: a linear congruential generator, its upper half.
struct Dice(u64);

impl Dice {
    /// Less than `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) % limit
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or_default()]
    }
}

/// What is tried all the time: the client and the vault reach each other, the other and the vault never do.
struct Probes {
    open: [Watch; 2],
    closed: [Watch; 2],
    talk: Talk,
}

impl Probes {
    fn start(scene: &Scene) -> Result<Self, Failed> {
        Ok(Self {
            open: [Watch::open(scene, CLIENT, VAULT)?, Watch::open(scene, VAULT, CLIENT)?],
            closed: [Watch::closed(scene, OTHER, VAULT)?, Watch::closed(scene, VAULT, OTHER)?],
            talk: Talk::open(scene, CLIENT, VAULT)?,
        })
    }

    /// Waits until more of each were tried.
    fn go_on(&mut self) -> Outcome {
        self.open.iter().chain(&self.closed).try_for_each(Watch::goes_on)?;
        self.talk.goes_on()
    }

    /// Whether all went as they must.
    fn end(mut self) -> Outcome {
        self.talk.goes_on()?;
        self.open.into_iter().chain(self.closed).try_for_each(Watch::end)
    }
}

/// One of many states. In all of them [`Probes`] go as they must; no two have the same rules in the table `filter`.
fn write_state(scene: &Scene, state: u64) -> Outcome {
    let unique = format!(
        "  - action: Allow\n    protocol: TCP\n    source: {{selector: app == 'client'}}\n    destination: {{ports: [{}]}}\n",
        10_000 + state
    );
    let rule = |action: &str, way: &str, peer: &str| format!("  - action: {action}\n    {way}: {{{peer}}}\n");
    let both = "selector: \"app in {'client', 'other'}\"";
    let rules = |way: &str| match state % 4 {
        0 => rule("Allow", way, "selector: app == 'client'"),
        1 => rule("Allow", way, "nets: [10.65.1.3/32]"),
        2 => rule("Deny", way, "selector: app == 'other'") + &rule("Allow", way, both),
        _ => rule("Allow", way, "selector: has(app) && app != 'other'"),
    };
    let spec = format!(
        "  selector: app == 'vault'\n  types: [Ingress, Egress]\n  ingress:\n{unique}{}  egress:\n{}",
        rules("source"),
        rules("destination")
    );
    scene.write("guard.yaml", policy("vault-in", &spec))?;
    write_round(scene, state)
}

/// The shop in its first state with probes on, and a gate before its restores.
fn open(backend: Backend) -> Result<(Scene, Gate, Probes), Failed> {
    let mut scene = shop::stocked(backend)?;
    let gate = Gate::put(&mut scene, backend)?;
    write_state(&scene, 0)?;
    scene.set_env("FELIX_IPTABLESMARKMASK", marks::NEW[0]);
    scene.start()?;
    let probes = Probes::start(&scene)?;
    Ok((scene, gate, probes))
}

fn kill(scene: &mut Scene) -> Outcome {
    scene.lab.agent_mut(NODE)?.signal(Signal::SIGKILL)?;
    scene.lab.agent_mut(NODE)?.wait_for_end(DEADLINE)?;
    Ok(())
}

/// That the kernel holds what an agent makes of the same manifests and settings that nothing happened to.
fn expect_as_fresh(scene: &Scene, backend: Backend) -> Outcome {
    scene.expect_problem(Area::Kernel, &[])?;
    let mut fresh = Scene::new(shop::builder(), backend)?;
    for (name, value) in scene.options().env.iter().filter(|(name, _)| name.starts_with("FELIX_")) {
        fresh.set_env(name, value);
    }
    for entry in fs::read_dir(scene.datastore())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            fresh.write(&path.file_name().ok_or("no name")?.to_string_lossy(), fs::read(&path)?)?;
        }
    }
    fresh.start()?;
    scene.expect_kernel(NODE, &fresh.kernel(NODE)?)
}

/// A number from the environment.
fn knob(name: &str, default: u64) -> Result<u64, Failed> {
    match env::var(name) {
        Ok(text) => text.parse().map_err(|e| format!("{name}={text}: {e}").into()),
        Err(_) => Ok(default),
    }
}

fn killed(backend: Backend) -> Outcome {
    let (mut scene, gate, mut probes) = open(backend)?;
    let mut dice = Dice(knob("TORTIE_CHAOS_SEED", SEED)?);
    let mut state = 0;
    for round in 0..knob("TORTIE_CHAOS_ROUNDS", ROUNDS)? {
        let step = kill_round(&mut scene, &gate, &mut dice, &mut state);
        step.and_then(|()| probes.go_on()).map_err(|e| format!("round {round}: {e:?}"))?;
    }
    state += 1;
    write_state(&scene, state)?;
    scene.settle()?;
    probes.end()?;
    expect_as_fresh(&scene, backend)
}

/// Some changes, a kill, changes of policies and settings while no agent runs, the next agent.
fn kill_round(scene: &mut Scene, gate: &Gate, dice: &mut Dice, state: &mut u64) -> Outcome {
    let mut change = |scene: &Scene| {
        *state += 1;
        write_state(scene, *state)
    };
    for _ in 0..dice.below(3) {
        change(scene)?;
    }
    // Without a point the agent may be anywhere: reading what was written last, or still starting.
    let point = dice.pick(&[None, Some(Point::Before), Some(Point::Within), Some(Point::After)]);
    if let Some(point) = point {
        gate.stop_next("filter", point)?;
        change(scene)?;
        gate.wait_stopped()?;
    } else {
        change(scene)?;
    }
    kill(scene)?;
    change(scene)?;
    if dice.below(2) == 0 {
        scene.set_env("FELIX_CHAININSERTMODE", dice.pick(&["Insert", "Append"]));
        scene.set_env("FELIX_IPTABLESMARKMASK", dice.pick(&marks::NEW));
    }
    let is_late = dice.below(2) == 0;
    if point.is_some() && !is_late {
        gate.release()?;
    }
    scene.start_on(NODE)?;
    if point.is_some() && is_late {
        wait_for_its_turn(scene)?;
        gate.release()?;
    }
    if dice.below(2) == 0 {
        scene.settle()?;
    }
    Ok(())
}

/// Waits until the new agent waits for what the one before has started.
fn wait_for_its_turn(scene: &Scene) -> Outcome {
    eventually("the new agent waits", || {
        let Ok(status) = scene.status(NODE) else { return Ok(None) };
        Ok(status.problems.iter().any(|p| p.message.contains("agent before")).then_some(()))
    })
}

/// A policy goes, another comes: while no agent runs the old one counts, and never does the new one count beside it.
fn changed_while_dead(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    let gate = Gate::put(&mut scene, backend)?;
    scene.start()?;
    let probes = (Watch::open(&scene, CLIENT, VAULT)?, Watch::closed(&scene, OTHER, VAULT)?);
    let (before, after) = (
        [(CLIENT, WEB, true), (OTHER, WEB, false), (VAULT, WEB, false)],
        [(CLIENT, WEB, false), (OTHER, WEB, true), (VAULT, WEB, false)],
    );
    let (old, new) = (("web.yaml", allow_to("web", "client")), ("new.yaml", allow_to("web", "other")));
    for point in [Point::Before, Point::Within, Point::After] {
        kill(&mut scene)?;
        scene.remove(old.0)?;
        scene.write(new.0, new.1.replace("web-in", "new-in"))?;
        scene.expect(&before)?;
        gate.stop_next("filter", point)?;
        scene.start_on(NODE)?;
        gate.wait_stopped()?;
        scene.expect(if point == Point::After { &after } else { &before })?;
        gate.release()?;
        scene.settle()?;
        scene.expect(&after)?;
        scene.remove(new.0)?;
        scene.apply(old.0, &old.1)?;
        scene.expect(&before)?;
    }
    probes.0.end()?;
    probes.1.end()?;
    scene.expect(&SHOP)?;
    expect_as_fresh(&scene, backend)
}

/// The manifests are again what the kernel holds when the next agent reads it, but a write of the dead one is to come.
fn late_write(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    let gate = Gate::put(&mut scene, backend)?;
    // Without sets, which would be missing when the late write comes.
    let from = |address: &str| {
        let rules = format!("  - action: Allow\n    source: {{nets: [{address}/32]}}\n");
        policy("web-in", &format!("  selector: app == 'web'\n  ingress:\n{rules}"))
    };
    scene.write("web.yaml", from("10.65.1.3"))?;
    scene.start()?;
    for point in [Point::Before, Point::Within] {
        gate.stop_next("filter", point)?;
        scene.write("web.yaml", from("10.65.1.4"))?;
        gate.wait_stopped()?;
        kill(&mut scene)?;
        scene.write("web.yaml", from("10.65.1.3"))?;
        scene.start_on(NODE)?;
        wait_for_its_turn(&scene)?;
        gate.release()?;
        scene.settle()?;
        scene.expect(&SHOP).map_err(|e| format!("{point:?}: {e:?}"))?;
    }
    expect_as_fresh(&scene, backend)
}

/// Policies change on and on while a restore takes its time.
fn slow(backend: Backend) -> Outcome {
    let (mut scene, gate, mut probes) = open(backend)?;
    let mut dice = Dice(SEED);
    let mut state = 0;
    for point in [Point::Before, Point::Within, Point::After].into_iter().cycle().take(9) {
        gate.stop_next("filter", point)?;
        for _ in 0..=dice.below(4) {
            state += 1;
            write_state(&scene, state)?;
        }
        gate.wait_stopped()?;
        for _ in 0..dice.below(4) {
            state += 1;
            write_state(&scene, state)?;
        }
        probes.go_on()?;
        gate.release()?;
    }
    scene.settle()?;
    probes.end()?;
    expect_as_fresh(&scene, backend)
}

/// Two of three restores fail: at once, killed, or after their work was done.
fn failing(backend: Backend) -> Outcome {
    let (mut scene, gate, mut probes) = open(backend)?;
    gate.set_faulty(true)?;
    let mut failed = 0;
    for state in 1..12 {
        write_state(&scene, state)?;
        // Each state meets a failure before the next is written.
        eventually("a restore that fails", || Ok((gate.failed_runs() > failed).then_some(())))?;
        failed = gate.failed_runs();
        probes.go_on()?;
    }
    kill(&mut scene)?;
    write_state(&scene, 12)?;
    scene.start_on(NODE)?;
    scene.settle()?;
    gate.set_faulty(false)?;
    probes.end()?;
    expect_as_fresh(&scene, backend)
}

//! Readiness and liveness over HTTP, as a kubelet asks for them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::shop::{self, SHOP};

const PORT: u16 = 9099;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::named(
        "health",
        &[
            ("a_port_in_use_is_not_fatal_and_is_served_once_it_is_free", port_in_use),
            ("other_paths_and_methods_are_refused", other_requests),
            ("health_can_be_moved_and_turned_off_in_flight", moved),
        ],
    );
    trials.extend(crate::on_both("health", &[("an_agent_is_ready_only_when_its_rules_are_in_force", ready)]));
    trials
}

/// An answer: its code, and its text.
pub(crate) type Answer = (u16, String);

/// Asks the node's agent; nothing if nobody answers.
pub(crate) fn get(scene: &Scene, path: &str) -> Result<Option<Answer>, Failed> {
    request(scene, PORT, &format!("GET {path}"))
}

fn request(scene: &Scene, port: u16, line: &str) -> Result<Option<Answer>, Failed> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = scene.lab.node(NODE)?.netns().enter(|| TcpStream::connect(at))?;
    let Ok(mut stream) = connected else { return Ok(None) };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    let asked = write!(stream, "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if asked.and_then(|()| stream.read_to_string(&mut text)).is_err() || text.is_empty() {
        return Ok(None);
    }
    let code = text.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or(text.clone())?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Some((code, body)))
}

fn ready(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    assert_eq!(get(&scene, "/readiness")?, None);
    scene.start_on(NODE)?;
    eventually("readiness", || {
        let answer = get(&scene, "/readiness")?;
        if let Some((code, text)) = &answer
            && *code != 200
        {
            assert_eq!((*code, text.is_empty()), (503, false), "{text}");
        }
        Ok(answer.filter(|(code, _)| *code == 200))
    })?;
    // No waiting here: ready means that this holds.
    scene.expect(&SHOP)?;
    assert_eq!(get(&scene, "/liveness")?, Some((200, "live\n".to_owned())));
    assert_eq!(get(&scene, "/readiness")?, Some((200, "ready\n".to_owned())));
    Ok(())
}

fn other_requests() -> Outcome {
    let scene = shop::open(Backend::Nft)?;
    for (line, code) in
        [("GET /", 404), ("GET /metrics", 404), ("POST /readiness", 405), ("HEAD /readiness", 200)]
    {
        let answer = eventually("an answer", || request(&scene, PORT, line))?;
        assert_eq!(answer.0, code, "{line}: {}", answer.1);
    }
    Ok(())
}

fn port_in_use() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.set_env("FELIX_HEALTHHOST", "127.0.0.1");
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let taken = scene.lab.node(NODE)?.netns().enter(|| TcpListener::bind(at))??;
    scene.start()?;
    scene.expect(&SHOP)?;
    let log = scene.lab.agent(NODE)?.log();
    assert!(log.contains("cannot serve health"), "{log}");
    drop(taken);
    let answer = eventually("an answer", || get(&scene, "/readiness"))?;
    assert_eq!(answer.0, 200, "{}", answer.1);
    Ok(())
}

fn moved() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let felix = |settings: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{settings}}}\n"
        )
    };
    scene.apply("felix.yaml", felix("healthPort: 9199"))?;
    let answer = eventually("an answer at the new port", || request(&scene, 9199, "GET /readiness"))?;
    assert_eq!(answer.0, 200, "{}", answer.1);
    scene.apply("felix.yaml", felix("healthEnabled: false"))?;
    eventually("nobody answers", || {
        let answers = [request(&scene, 9199, "GET /readiness")?, get(&scene, "/readiness")?];
        Ok(answers.iter().all(Option::is_none).then_some(()))
    })?;
    scene.expect(&SHOP)
}

//! `tortiectl wait` and `tortiectl status`, with an agent played by the test.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use tempfile::TempDir;
use tortie_api::control::{Apply, Area, Counters, Reply, Request, Status, StatusProblem};

use crate::support::{Ran, run, tortiectl};

/// A folder with the place of a socket.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = tortiectl();
        command.arg("--socket").arg(self.socket()).args(line.split_whitespace());
        command
    }

    /// Runs a command against an agent that gives these answers, one a connection. Returns the questions too.
    fn run(&self, line: &str, answers: Vec<Answer>) -> (Ran, Vec<Request>) {
        let agent = serve(&self.socket(), answers);
        let ran = run(&mut self.command(line));
        (ran, agent.try_iter().collect())
    }
}

/// What the agent does with a question.
enum Answer {
    Reply(Reply),
    Text(&'static str),
    /// Closes the connection without a word, as one that is killed.
    None,
}

/// Plays the agent. The receiver has each question before its answer is given.
fn serve(socket: &Path, answers: Vec<Answer>) -> Receiver<Request> {
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            sender.send(serde_json::from_str(&line).unwrap()).unwrap();
            let text = match answer {
                Answer::Reply(reply) => serde_json::to_string(&reply).unwrap() + "\n",
                Answer::Text(text) => text.to_owned(),
                Answer::None => continue,
            };
            stream.write_all(text.as_bytes()).unwrap();
        }
    });
    receiver
}

fn applied() -> Answer {
    Answer::Reply(Reply::Applied { notes: Vec::new() })
}

fn timeout_millis(request: &Request) -> u64 {
    match request {
        Request::Wait { timeout_millis } => *timeout_millis,
        Request::Status => panic!("asked for the status"),
    }
}

#[test]
fn wait_returns_when_the_agent_has_applied_everything() {
    let (ran, requests) = Place::new().run("wait --applied", vec![applied()]);
    ran.prints("applied\n");
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert!((1..=20_000).contains(&timeout_millis(request)));
}

#[test]
fn wait_prints_notes() {
    let notes = vec!["cali1 does not exist yet".to_owned()];
    let (ran, _) = Place::new().run("wait --applied", vec![Answer::Reply(Reply::Applied { notes })]);
    assert_eq!(
        ran,
        Ran { code: Some(0), out: "applied\n".into(), err: "note: cali1 does not exist yet\n".into() }
    );
}

#[test]
fn wait_says_what_is_missing() {
    let missing = vec!["chain cali-pi-x of table filter".to_owned(), "ip set cali40s:y".to_owned()];
    let (ran, requests) = Place::new()
        .run("wait --applied --timeout 1500ms", vec![Answer::Reply(Reply::NotApplied { missing })]);
    ran.says(
        1,
        "error: not applied within 1.5s\n  missing: chain cali-pi-x of table filter\n  missing: ip set cali40s:y\n",
    );
    assert!(timeout_millis(&requests[0]) <= 1500);
}

#[test]
fn wait_reports_an_agent_that_refuses() {
    let reply = Reply::Error { message: "shutting down".to_owned() };
    let (ran, _) = Place::new().run("wait --applied", vec![Answer::Reply(reply)]);
    ran.says(1, "error: the agent says: shutting down\n");
}

#[test]
fn wait_asks_an_agent_again_that_went_away() {
    let (ran, requests) = Place::new().run("wait --applied", vec![Answer::None, applied()]);
    assert_eq!((ran.code, ran.out.as_str(), requests.len()), (Some(0), "applied\n", 2));
    assert!(ran.err.ends_with(": it closed the connection\n"), "{}", ran.err);
}

/// Starts a command and returns once it has written a line to standard error.
fn spawn_until_it_speaks(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line)
}

#[test]
fn wait_waits_for_an_agent_that_is_not_there_yet() {
    let place = Place::new();
    let (child, line) = spawn_until_it_speaks(place.command("wait --applied --timeout 5m"));
    let socket = place.socket();
    assert_eq!(
        line,
        format!("waiting: cannot reach the agent at {}: No such file or directory\n", socket.display())
    );
    let agent = serve(&socket, vec![applied()]);
    Ran::of(&child.wait_with_output().unwrap()).prints("applied\n");
    assert_eq!(agent.try_iter().count(), 1);
}

#[test]
fn wait_waits_where_an_old_agent_left_its_socket() {
    let place = Place::new();
    drop(UnixListener::bind(place.socket()).unwrap());
    let (child, line) = spawn_until_it_speaks(place.command("wait --applied --timeout 5m"));
    assert!(line.ends_with(": Connection refused\n"), "{line}");
    fs::remove_file(place.socket()).unwrap();
    let agent = serve(&place.socket(), vec![applied()]);
    Ran::of(&child.wait_with_output().unwrap()).prints("applied\n");
    assert_eq!(agent.try_iter().count(), 1);
}

#[test]
fn wait_gives_up_on_an_agent_that_never_comes() {
    let place = Place::new();
    for (timeout, shown) in [("0s", "0s"), ("100ms", "100ms")] {
        let ran = run(&mut place.command(&format!("wait --applied --timeout {timeout}")));
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        let last = ran.err.lines().last().unwrap();
        let expected = format!(
            "error: no agent answered within {shown}: cannot reach the agent at {}: No such file or directory",
            place.socket().display()
        );
        assert_eq!(last, expected);
    }
}

#[test]
fn wait_gives_up_on_an_agent_that_hangs() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).unwrap();
    let ran = run(&mut place.command("wait --applied --timeout 0s"));
    ran.says(1, &format!("error: the agent at {} does not answer\n", place.socket().display()));
    drop(listener);
}

#[test]
fn a_socket_that_can_never_work_is_not_waited_for() {
    let place = Place::new();
    let mut command = tortiectl();
    command.arg("--socket").arg(place.folder.path().join("x".repeat(200)));
    let ran = run(command.args(["wait", "--applied", "--timeout", "5m"]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("error: cannot reach the agent at "), "{}", ran.err);
}

#[test]
fn wait_has_to_be_told_what_for() {
    let place = Place::new();
    for line in ["wait", "wait --applied --timeout soon", "wait --applied --timeout -1s"] {
        assert_eq!(run(&mut place.command(line)).code, Some(2), "{line}");
    }
}

#[test]
fn the_socket_can_come_from_the_environment() {
    let place = Place::new();
    let _agent = serve(&place.socket(), vec![applied()]);
    run(tortiectl().env("TORTIE_SOCKET", place.socket()).args(["wait", "--applied"])).prints("applied\n");
}

fn status() -> Status {
    Status {
        node: "node1".to_owned(),
        version: "0.1.0".to_owned(),
        datastore: "local:/etc/tortie".to_owned(),
        iptables_backend: "nft".to_owned(),
        in_sync: true,
        applied: true,
        endpoints: 3,
        policies: 5,
        ip_sets: 7,
        pending_interfaces: Vec::new(),
        last_apply: Apply { millis: 12.34, calls: 9, restores: 1, changed: 31 },
        applies: 4,
        counters: Counters { restores: 21, foreign_changes: 1, quarantined: 0, ..Counters::default() },
        problems: Vec::new(),
    }
}

#[test]
fn status_reads_well() {
    let reply = Answer::Reply(Reply::Status(Box::new(status())));
    let (ran, requests) = Place::new().run("status", vec![reply]);
    ran.prints(
        "\
Node:          node1
Agent:         0.1.0
Datastore:     local:/etc/tortie
iptables:      nft
In sync:       yes
Applied:       yes
Endpoints:     3
Policies:      5
IP sets:       7
Last change:   12.3 ms, 31 kernel objects, 9 calls, 1 iptables-restore run (changes so far: 4)
Restores:      21 runs
By others:     1 change
Quarantined:   0 kernel objects

No problems.
",
    );
    assert_eq!(requests, [Request::Status]);
}

#[test]
fn status_shows_problems_with_file_and_field_and_is_no_failure() {
    let mut status = status();
    status.iptables_backend = String::new();
    status.applied = false;
    status.applies = 0;
    status.pending_interfaces = vec!["cali1".to_owned(), "cali2".to_owned()];
    status.problems = vec![StatusProblem {
        area: Area::Datastore,
        object: "/etc/tortie/a.yaml:7".to_owned(),
        message: "NetworkPolicy/shop/a: spec.selector: expected a value".to_owned(),
    }];
    let (ran, _) = Place::new().run("status", vec![Answer::Reply(Reply::Status(Box::new(status)))]);
    ran.prints(
        "\
Node:          node1
Agent:         0.1.0
Datastore:     local:/etc/tortie
iptables:      not known yet
In sync:       yes
Applied:       no
Endpoints:     3
Policies:      5
IP sets:       7
Last change:   none yet
Restores:      21 runs
By others:     1 change
Quarantined:   0 kernel objects

Interfaces that are not there or not up:
  cali1
  cali2

Problems:
  datastore: /etc/tortie/a.yaml:7: NetworkPolicy/shop/a: spec.selector: expected a value
",
    );
}

#[test]
fn status_as_json_is_the_agents_own() {
    let reply = || vec![Answer::Reply(Reply::Status(Box::new(status())))];
    let (ran, _) = Place::new().run("status -o json", reply());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(serde_json::from_str::<Status>(&ran.out).unwrap(), status());
    let (ran, _) = Place::new().run("status -o yaml", reply());
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.contains("inSync: true\n") && ran.out.contains("lastApply:\n  calls: 9\n"),
        "{}",
        ran.out
    );
}

#[test]
fn status_does_not_wait_for_an_agent() {
    let place = Place::new();
    let ran = run(&mut place.command("status"));
    let socket = place.socket();
    ran.says(
        1,
        &format!("error: cannot reach the agent at {}: No such file or directory\n", socket.display()),
    );
}

#[test]
fn an_answer_that_is_not_understood_is_an_error() {
    let place = Place::new();
    let (ran, _) = place.run("status", vec![Answer::Text("{\"reply\":\"potato\"}\n")]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.starts_with("error: the agent's answer is not understood: "), "{}", ran.err);
    fs::remove_file(place.socket()).unwrap();
    let (ran, _) = place.run("status", vec![applied()]);
    ran.says(1, "error: the agent did not answer the question; is it of another version?\n");
}

#[test]
fn a_command_that_speaks_goes_on_after_its_reader_left() {
    let place = Place::new();
    let mut child = place
        .command("wait --applied --timeout 5m")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut byte = [0];
    child.stderr.take().unwrap().read_exact(&mut byte).unwrap();
    let _agent = serve(&place.socket(), vec![applied()]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

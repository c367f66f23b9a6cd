//! The lab tested by itself: what it builds lets everything through, and it sees what a rule takes away.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use tortie_tests::cases::{Case, CaseReport, Mode, PlayOptions, cases_dir, play};
use tortie_tests::lab::{
    self, AgentOptions, Cell, Lab, LabBuilder, LabError, LocalRoutes, Matrix, PodSpec, Probe, Programs,
    Traffic,
};

type Outcome = Result<(), Failed>;

/// A test: its name is the sentence that it proves.
type Test = (&'static str, fn() -> Outcome);

const TESTS: [Test; 16] = [
    ("everything_passes_in_an_open_lab", everything_passes),
    ("everything_passes_over_ipv6", everything_passes_over_ipv6),
    ("a_drop_rule_blocks_exactly_its_cells", drop_rule_blocks_its_cells),
    ("a_drop_rule_for_replies_blocks_tcp", drop_of_replies_blocks_tcp),
    ("a_fixed_source_port_is_the_one_that_arrives", fixed_source_port_arrives),
    ("without_local_routes_no_pod_is_reached", no_local_routes_no_pods),
    ("pods_come_and_go", pods_come_and_go),
    ("hosts_are_wired_as_calico_wires_them", wired_as_calico),
    ("a_mistake_in_the_topology_is_named", mistakes_are_named),
    ("a_failing_command_says_where_and_why", failing_command_says_why),
    ("every_cell_of_a_case_passes_when_nothing_is_enforced", open_case_passes),
    ("every_blocked_cell_is_found_wrong_when_nothing_is_enforced", unenforced_case_is_wrong),
    ("rules_made_from_the_truth_make_a_case_right", self_test_is_right),
    ("an_agent_runs_in_its_node_until_it_is_stopped", agent_runs_in_its_node),
    ("an_agent_that_does_not_apply_is_an_error_with_its_log", agent_that_does_not_apply),
    ("nothing_outlives_the_first_process", nothing_outlives_the_first_process),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = lab::enter()
    {
        eprintln!("the lab cannot be used here: {error}");
        return ExitCode::FAILURE;
    }
    if env::var_os(LINGER).is_some() {
        return linger();
    }
    let trials = TESTS.map(|(name, test)| Trial::test(name, test)).into();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Two nodes, three pods, one outside host.
fn cluster() -> LabBuilder {
    Lab::builder()
        .node("node-1", "172.18.0.11,fd00::ac12:b")
        .node("node-2", "172.18.0.12,fd00::ac12:c")
        .pod("shop", "frontend", "node-1", "10.65.1.2,fd00::a41:102")
        .pod("shop", "backend", "node-1", "10.65.1.3,fd00::a41:103")
        .pod("data", "store", "node-2", "10.65.2.2,fd00::a41:202")
        .external("outside", "192.0.2.10,2001:db8::10")
        .local_routes(LocalRoutes::Lab)
}

fn all_of(lab: &Lab, kinds: &[Traffic], is_v6: bool) -> Vec<Probe> {
    let family = if is_v6 { lab::Family::V6 } else { lab::Family::V4 };
    let mut probes = Vec::new();
    for (from, to) in lab.hosts().flat_map(|a| lab.hosts().map(move |b| (a.endpoint(), b.endpoint()))) {
        for &traffic in kinds.iter().filter(|_| from != to) {
            probes.push(Probe { from: from.clone(), to: to.clone(), traffic, family: Some(family) });
        }
    }
    probes
}

fn expect_all_pass(lab: &Lab, probes: &[Probe]) -> Outcome {
    let passed = lab.probe(probes)?;
    let missing: Vec<String> =
        probes.iter().zip(passed).filter(|(_, p)| !p).map(|(p, _)| p.to_string()).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("did not pass: {}", missing.join(", ")).into()) }
}

fn everything_passes() -> Outcome {
    let begin = Instant::now();
    let lab = cluster().build()?;
    eprintln!("6 hosts wired in {:?}", begin.elapsed());
    let kinds = [
        Traffic::tcp(80),
        Traffic::udp(53),
        Traffic::sctp(80),
        Traffic::ping(),
        Traffic::Ip { protocol: 253 },
        Traffic::Udp { port: 80, source_port: Some(5000) },
    ];
    let probes = all_of(&lab, &kinds, false);
    assert_eq!(probes.len(), 6 * 5 * kinds.len());
    expect_all_pass(&lab, &probes)
}

fn everything_passes_over_ipv6() -> Outcome {
    let lab = cluster().build()?;
    let kinds = [
        Traffic::tcp(80),
        Traffic::udp(53),
        Traffic::sctp(80),
        Traffic::ping6(),
        Traffic::Ip { protocol: 253 },
    ];
    expect_all_pass(&lab, &all_of(&lab, &kinds, true))
}

const COLUMNS: [&str; 4] = ["shop/frontend", "shop/backend", "data/store", "ext:outside"];

fn expect_matrix(lab: &Lab, traffic: Traffic, rows: [&str; 4]) -> Outcome {
    let named: Vec<(&str, &str)> = COLUMNS.into_iter().zip(rows).collect();
    let (actual, expected) = (lab.matrix(traffic)?, Matrix::parse(&COLUMNS, &named)?);
    if actual.differences(&expected).is_empty() {
        return Ok(());
    }
    Err(format!("{}\nexpected:\n{}", actual.table(&traffic.to_string(), lab::Style::Signs), expected).into())
}

fn nft(lab: &Lab, node: &str, rules: &str) -> Outcome {
    let table = format!(
        "table inet test {{ chain c {{ type filter hook forward priority 0; policy accept; {rules};\n }}\n}}\n"
    );
    lab.node(node)?.check("nft", &["-f", "-"], &table)?;
    Ok(())
}

fn drop_rule_blocks_its_cells() -> Outcome {
    let lab = cluster().build()?;
    expect_matrix(&lab, Traffic::tcp(80), ["-...", ".-..", "..-.", "...-"])?;
    nft(&lab, "node-2", "ip saddr 10.65.1.2 ip daddr 10.65.2.2 tcp dport 80 drop")?;
    expect_matrix(&lab, Traffic::tcp(80), ["-.X.", ".-..", "..-.", "...-"])?;
    expect_matrix(&lab, Traffic::tcp(81), ["-...", ".-..", "..-.", "...-"])?;
    expect_matrix(&lab, Traffic::udp(80), ["-...", ".-..", "..-.", "...-"])
}

fn drop_of_replies_blocks_tcp() -> Outcome {
    let lab = cluster().build()?;
    nft(&lab, "node-2", "ip saddr 10.65.2.2 tcp sport 80 drop")?;
    expect_matrix(&lab, Traffic::tcp(80), ["-.X.", ".-X.", "..-.", "..X-"])
}

fn fixed_source_port_arrives() -> Outcome {
    let lab = cluster().build()?;
    nft(&lab, "node-2", "tcp sport 5000 drop; udp sport 5000 drop; sctp sport 5000 drop")?;
    for (text, is_blocked) in [
        ("TCP/80;sport=5000", true),
        ("TCP/80;sport=5001", false),
        ("UDP/80;sport=5000", true),
        ("UDP/80;sport=5001", false),
        ("SCTP/80;sport=5000", true),
        ("SCTP/80;sport=5001", false),
    ] {
        let probe = Probe::new("shop/frontend".parse()?, "data/store".parse()?, text.parse()?);
        for round in 0..2 {
            assert_eq!(lab.probe(std::slice::from_ref(&probe))?, [!is_blocked], "{text} round {round}");
        }
    }
    Ok(())
}

fn no_local_routes_no_pods() -> Outcome {
    let mut lab = cluster().local_routes(LocalRoutes::Agent).build()?;
    expect_matrix(&lab, Traffic::tcp(80), ["-XXX", "X-XX", "XX-X", "XXX-"])?;
    lab.add_local_routes()?;
    expect_matrix(&lab, Traffic::tcp(80), ["-...", ".-..", "..-.", "...-"])
}

fn pods_come_and_go() -> Outcome {
    let mut lab = cluster().build()?;
    let (namespace, name, node) = ("shop".to_owned(), "late".to_owned(), "node-2".to_owned());
    lab.add_pod(&PodSpec { namespace, name, node, addresses: "10.65.2.9,fd00::a41:209".try_into()? })?;
    let matrix = lab.matrix(Traffic::udp(53))?;
    let late = "shop/late".parse()?;
    assert_eq!(matrix.get(&"ext:outside".parse()?, &late), Cell::Passes);
    assert_eq!(matrix.get(&late, &"shop/frontend".parse()?), Cell::Passes);
    lab.remove_pod("shop", "late")?;
    assert!(lab.pod("shop", "late").is_err());
    let links = lab.node("node-2")?.check("ip", &["-o", "link"], "")?;
    assert!(!links.contains(&lab::host_interface("shop", "late")), "{links}");
    expect_matrix(&lab, Traffic::tcp(80), ["-...", ".-..", "..-.", "...-"])
}

fn wired_as_calico() -> Outcome {
    let lab = cluster().build()?;
    let routes = lab.pod("shop", "frontend")?.check("ip", &["route"], "")?;
    assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");
    let routes = lab.pod("shop", "frontend")?.check("ip", &["-6", "route"], "")?;
    assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
    let links = lab.node("node-1")?.check("ip", &["-o", "link"], "")?;
    assert!(links.contains(&lab::host_interface("shop", "frontend")), "{links}");
    assert!(links.contains("eth0"), "{links}");
    Ok(())
}

fn mistakes_are_named() -> Outcome {
    cluster().build()?;
    let error = Lab::builder().node("node-1", "10.0.0.1").build().expect_err("an address outside the fabric");
    assert!(error.to_string().contains("node-1"), "{error}");
    let error = cluster().pod("a", "b", "node-9", "10.65.9.9").build().expect_err("a pod on no node");
    assert!(error.to_string().contains("node-9"), "{error}");
    let error = cluster().pod("a", "b", "node-1", "10.65.9").build().expect_err("no address");
    assert!(matches!(error, LabError::BadAddress(_)), "{error}");
    let error = cluster().pod("shop", "frontend", "node-1", "10.65.1.7").build().expect_err("twice");
    assert!(error.to_string().contains("twice"), "{error}");
    Ok(())
}

fn failing_command_says_why() -> Outcome {
    let lab = cluster().build()?;
    let error = lab.node("node-1")?.check("ip", &["link", "show", "nothing0"], "").expect_err("no such link");
    assert!(error.to_string().contains("node:node-1"), "{error}");
    assert!(error.to_string().contains("nothing0"), "{error}");
    Ok(())
}

fn play_as(mode: Mode, name: &str, settle: Duration) -> Result<(Case, CaseReport), Failed> {
    let case = Case::read(&cases_dir().join(name))?;
    let report = play(&case, &PlayOptions { mode, settle, ..PlayOptions::default() });
    Ok((case, report))
}

const SETTLE: Duration = Duration::from_secs(10);

fn open_case_passes() -> Outcome {
    for name in ["k8s-e2e/k8s-e2e-001.yaml", "ipv6/ipv6-001.yaml", "random-hosts/rnd-host-011.yaml"] {
        let (_, report) = play_as(Mode::Open, name, SETTLE)?;
        assert!(report.is_right(), "{}", report.text());
    }
    Ok(())
}

fn unenforced_case_is_wrong() -> Outcome {
    let (case, report) = play_as(Mode::Unenforced, "k8s-e2e/k8s-e2e-001.yaml", Duration::ZERO)?;
    let cells = case.steps[0].expect.cells()?;
    let blocked = cells.iter().filter(|cell| !cell.allow).count();
    assert!(blocked > 100, "{blocked}");
    assert_eq!(report.error, None);
    assert_eq!(report.steps[0].wrong.len(), blocked, "{}", report.text());
    assert!(report.steps[0].wrong.iter().all(|wrong| wrong.passes));
    assert!(report.text().contains("SECURITY"), "{}", report.text());
    Ok(())
}

fn self_test_is_right() -> Outcome {
    for name in ["k8s-e2e/k8s-e2e-001.yaml", "ipv6/ipv6-001.yaml"] {
        let (_, report) = play_as(Mode::SelfTest, name, SETTLE)?;
        assert!(report.is_right(), "{}", report.text());
    }
    Ok(())
}

/// Programs that behave as an agent and its `tortiectl` do to the lab, and say what they were given.
fn stand_ins(lab: &Lab, ctl_exit: u8) -> Result<Programs, Failed> {
    let write = |name: &str, body: &str| -> Result<PathBuf, Failed> {
        let path = lab.dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let agent = "echo \"$@\" \"$FELIX_X\"; ip -o addr show eth0; echo up >&2; trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let ctl = format!("echo no: \"$@\"; exit {ctl_exit}");
    Ok(Programs { agent: write("agent", agent)?, ctl: write("ctl", &ctl)? })
}

/// Looks at a condition until it holds; panics at the caller's line when it does not in time.
#[track_caller]
fn wait_until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SETTLE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(10));
    }
}

fn wait_for_log(lab: &Lab, node: &str, text: &str) -> Outcome {
    let agent = lab.agent(node)?;
    wait_until(|| agent.log().contains(text));
    Ok(())
}

fn agent_runs_in_its_node() -> Outcome {
    let mut lab = cluster().build()?;
    let programs = Some(stand_ins(&lab, 0)?);
    let env = vec![("FELIX_X".to_owned(), "from-env".to_owned())];
    let options = AgentOptions { datastore: "/data".into(), env, programs, ..AgentOptions::default() };
    lab.start_agent_with("node-2", &options)?;
    wait_for_log(&lab, "node-2", "up")?;
    let log = lab.agent("node-2")?.log();
    assert!(log.starts_with("--node node-2 --datastore local:/data --socket "), "{log}");
    assert!(log.contains("from-env"), "{log}");
    assert!(log.contains("172.18.0.12"), "{log}");
    lab.wait_applied(SETTLE)?;
    assert_eq!(lab.stop_agent("node-2")?.code(), Some(7));
    assert!(lab.agent("node-2").is_err());
    Ok(())
}

fn agent_that_does_not_apply() -> Outcome {
    let mut lab = cluster().build()?;
    let programs = Some(stand_ins(&lab, 1)?);
    lab.start_agent_with("node-1", &AgentOptions { programs, ..AgentOptions::default() })?;
    wait_for_log(&lab, "node-1", "up")?;
    let error = lab.wait_applied(Duration::from_secs(2)).expect_err("tortiectl fails").to_string();
    assert!(error.contains("agent on node-1"), "{error}");
    assert!(error.contains("wait --applied --timeout 2000ms"), "{error}");
    assert!(error.contains("172.18.0.11"), "{error}");
    // A tortiectl that waits on, so that it is the agent's end which is seen.
    let patient = lab.dir().join("patient");
    fs::write(&patient, "#!/bin/sh\nexec sleep 1000\n")?;
    fs::set_permissions(&patient, fs::Permissions::from_mode(0o755))?;
    let programs = Some(Programs { agent: "/bin/false".into(), ctl: patient });
    lab.start_agent_with("node-1", &AgentOptions { programs, ..AgentOptions::default() })?;
    let error = lab.wait_applied(SETTLE).expect_err("the agent ends").to_string();
    assert!(error.contains("it has ended (exit status: 1)"), "{error}");
    Ok(())
}

/// Makes this program build a lab, start a process in it, say so, and wait to be killed.
const LINGER: &str = "TORTIE_LAB_TEST_LINGER";

fn linger() -> ExitCode {
    let start = || -> Result<Child, LabError> {
        let lab = cluster().build()?;
        let child = lab.node("node-1")?.netns().spawn(Command::new("sleep").arg("1000"))?;
        std::mem::forget(lab);
        Ok(child)
    };
    match start() {
        Ok(mut child) => {
            let said = writeln!(io::stdout(), "ready");
            let ended = child.wait();
            eprintln!("the lingering process ended: {said:?} {ended:?}");
        }
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}

/// Processes that inherited `LINGER` with this value.
fn lingering(value: &str) -> Vec<u32> {
    let wanted = format!("{LINGER}={value}");
    let has = |pid: &u32| {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has).collect()
}

fn nothing_outlives_the_first_process() -> Outcome {
    for signal in ["KILL", "TERM", "INT"] {
        let mut first = Command::new(env::current_exe()?)
            .env(LINGER, signal)
            .env_remove("TORTIE_LAB_PARENT")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(first.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        assert_eq!(line, "ready\n");
        wait_until(|| lingering(signal).len() == 3); // the first process, the one inside, and its child
        Command::new("kill").args(["-s", signal, &first.id().to_string()]).status()?;
        assert!(!first.wait()?.success());
        wait_until(|| lingering(signal).is_empty());
    }
    Ok(())
}

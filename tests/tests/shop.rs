//! The example shop: its manifests are right, its README tells the truth, and the demo shows it and cleans up.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use tortie_api::manifest::parse_documents;
use tortie_tests::demo::reach::Reach;
use tortie_tests::demo::readme::Table;
use tortie_tests::demo::shop::{OUTSIDE, Shop, files, is_manifest, shop_dir};
use tortie_tests::lab::{self, Addresses, Endpoint, Lab};

type Outcome = Result<(), Failed>;

/// A test: its name is the sentence that it proves.
type Test = (&'static str, fn() -> Outcome);

const TESTS: [Test; 7] = [
    ("every_document_of_the_shop_is_valid", documents_are_valid),
    ("the_readme_names_every_file_of_the_shop", readme_names_every_file),
    ("the_readme_has_the_table_that_the_demo_checks", readme_has_the_table),
    ("the_policies_let_through_what_the_readme_says", policies_hold_in_the_kernel),
    ("the_demo_shows_all_its_steps_and_succeeds", demo_succeeds),
    ("the_demos_shell_is_on_a_node_and_has_its_programs", shell_is_on_a_node),
    ("an_interrupted_demo_leaves_nothing_behind", interrupted_demo_is_gone),
];

/// How long agents may take.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = lab::enter()
    {
        eprintln!("the lab cannot be used here: {error}");
        return ExitCode::FAILURE;
    }
    let trials = TESTS.map(|(name, test)| Trial::test(name, test)).into();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The shop's manifests, those of the policies too.
fn manifests() -> Result<Vec<PathBuf>, Failed> {
    let shop = shop_dir();
    let all = files(&shop)?.into_iter().chain(files(&shop.join("policies"))?);
    Ok(all.filter(|path| is_manifest(path)).collect())
}

fn documents_are_valid() -> Outcome {
    let (mut keys, mut faults) = (BTreeSet::new(), Vec::new());
    for path in manifests()? {
        for document in parse_documents(&fs::read(&path)?) {
            match document.outcome {
                Ok(manifest) if !keys.insert(manifest.key.clone()) => {
                    faults.push(format!("{}: {} is there twice", path.display(), manifest.key));
                }
                Ok(_) => {}
                Err(error) => faults.push(format!("{}: {error}", path.display())),
            }
        }
    }
    assert_eq!(faults, [""; 0]);
    assert!(keys.len() > 20, "only {} documents were found", keys.len());
    Ok(())
}

fn readme_names_every_file() -> Outcome {
    let readme = fs::read_to_string(shop_dir().join("README.md"))?;
    for path in manifests()? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        assert!(readme.contains(&format!("`{name}`")), "the README does not name {name}");
    }
    Ok(())
}

fn readme_has_the_table() -> Outcome {
    let shop = Shop::load(&shop_dir())?;
    let pods = shop.pods().iter().map(|pod| (Endpoint::pod(&pod.namespace, &pod.name), pod.addresses));
    let mut known: Vec<(Endpoint, Addresses)> = pods.collect();
    for (name, address) in OUTSIDE {
        known.push((Endpoint::External(name.to_owned()), Addresses::try_from(address)?));
    }
    let names: Vec<Endpoint> = known.iter().map(|(name, _)| name.clone()).collect();
    let table = Table::parse(&fs::read_to_string(shop_dir().join("README.md"))?, &names)?;
    assert_eq!(table.reach, Reach::with_policies()?);
    let told = table.reach.rows().iter().cloned().zip(table.addresses.iter().map(|ip| Addresses::from(*ip)));
    assert_eq!(told.collect::<Vec<_>>(), known);
    Ok(())
}

fn policies_hold_in_the_kernel() -> Outcome {
    let shop = Shop::load(&shop_dir())?;
    let mut lab = shop.lab().build()?;
    let folder = lab.dir().join("shop");
    shop.copy_without_policies(&folder)?;
    let nodes: Vec<String> = lab.node_names().map(str::to_owned).collect();
    nodes.iter().try_for_each(|node| lab.start_agent(node, &folder))?;
    lab.wait_applied(PATIENCE)?;
    let truth = Reach::with_policies()?;
    expect(&lab, &truth.without_policies())?;
    shop.copy_policies(&folder)?;
    lab.wait_applied(PATIENCE)?;
    expect(&lab, &truth)?;
    fs::rename(folder.join("policies"), lab.dir().join("policies"))?;
    lab.wait_applied(PATIENCE)?;
    expect(&lab, &truth.without_policies())
}

fn expect(lab: &Lab, expected: &Reach) -> Outcome {
    let actual = expected.ask(lab)?;
    let differences = actual.differences(expected);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}

/// The demo, with a mark in its environment by which all its processes can be found.
fn demo(mark: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    // As from a user's shell: in namespaces of its own.
    command.env(MARK, mark).env_remove("TORTIE_LAB_PARENT");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

const MARK: &str = "TORTIE_DEMO_TEST";

fn demo_succeeds() -> Outcome {
    let output = demo("whole").args(["--changes", "3"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{errors}");
    assert_eq!(errors, "");
    assert!(!text.contains('\x1b'), "colours without a terminal:\n{text}");
    let wanted = [
        "42 of 42 connections pass",
        "8 of 42 connections pass",
        "networkpolicy.networking.k8s.io/frontend created",
        "-A cali-tw-cali1f52436dff8 ",
        "cali:flqWnvo8yq4ULQLa",
        "10.65.1.10,tcp:8080",
        "of 3 changes",
        "No problems.",
        "nothing is left behind",
    ];
    for words in wanted {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
    Ok(())
}

fn shell_is_on_a_node() -> Outcome {
    let mut child = demo("shell").args(["--shell", "--changes", "1"]).env("SHELL", "/bin/sh").spawn()?;
    let script = b"ip -o addr show eth0; tortiectl get networkpolicies -n shop; nsenter --net=$BACKEND ip -o addr; exit 3\n";
    child.stdin.take().ok_or("no input")?.write_all(script)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for words in ["172.18.0.11/16", "default-deny", "10.65.2.10/32", "nothing is left behind"] {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
    Ok(())
}

/// Processes that have the mark in their environment.
fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let has = |pid: &u32| {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has).collect()
}

/// Starts the demo and reads what it prints until a line contains `words`.
fn demo_until(command: &mut Command, words: &str) -> Result<Child, Failed> {
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stdout.as_mut().ok_or("no output")?);
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            let mut errors = String::new();
            child.stderr.take().ok_or("no errors")?.read_to_string(&mut errors)?;
            return Err(format!("the demo ended early: {errors}").into());
        }
    }
    Ok(child)
}

fn interrupted_demo_is_gone() -> Outcome {
    let (files, before) = (tempfile::tempdir()?, listing()?);
    for (signal, words) in
        [("INT", "node-2# tortie-agent"), ("TERM", "From a changed file"), ("KILL", "Taken")]
    {
        let mut child =
            demo_until(demo(signal).env("TMPDIR", files.path()).current_dir(files.path()), words)?;
        // It may have come to its end by itself just now, which `kill` then says.
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status()?;
        child.wait()?;
        let deadline = Instant::now() + PATIENCE;
        while !marked(signal).is_empty() {
            assert!(Instant::now() < deadline, "after {signal} there are still {:?}", marked(signal));
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(fs::read_dir(files.path())?.count(), 0, "after {signal}");
    }
    // The shop itself was only read.
    assert_eq!(listing()?, before);
    Ok(())
}

/// All that is in the shop's folders.
fn listing() -> Result<BTreeSet<PathBuf>, Failed> {
    let mut found = BTreeSet::new();
    for dir in [shop_dir(), shop_dir().join("policies")] {
        for entry in fs::read_dir(dir)? {
            found.insert(entry?.path());
        }
    }
    Ok(found)
}

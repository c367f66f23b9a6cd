//! The lab with agents on all nodes and a folder of manifests between them: what every test here begins with.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use similar::{ChangeTag, TextDiff};
use tortie_api::control::{Area, Status};
use tortie_tests::lab::{AgentOptions, Lab, LabBuilder, Netns, Probe, Programs, Traffic};

use crate::Outcome;

/// How long anything may take. Nothing is measured against it; it only ends tests that fail.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How long a probe that must be blocked is waited for.
const BLOCKED_WAIT: Duration = Duration::from_millis(300);
/// How long one that must pass: a busy machine is no policy.
const PASS_WAIT: Duration = Duration::from_secs(5);
/// The same, when it is tried again.
const PASS_TRY: Duration = Duration::from_millis(600);
const POLL: Duration = Duration::from_millis(10);
/// The node that most tests look at.
pub(crate) const NODE: &str = "node-1";

/// Where rules go: into a back end of iptables, or into tables of nftables' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Nft,
    Legacy,
    Native,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
            Self::Native => "nftables",
        }
    }

    /// An agent's environment for it.
    pub(crate) fn env(self) -> [(String, String); 2] {
        let (mode, backend) = match self {
            Self::Native => ("Enabled", "Auto"),
            Self::Nft | Self::Legacy => ("Disabled", self.name()),
        };
        [("FELIX_NFTABLESMODE", mode), ("FELIX_IPTABLESBACKEND", backend)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }
}

/// A lab whose agents share one datastore.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    backend: Backend,
    datastore: PathBuf,
    options: AgentOptions,
}

impl Scene {
    /// A lab with an empty datastore; no agent runs yet. IPv6 is off unless a test turns it on: half the work.
    pub(crate) fn new(builder: LabBuilder, backend: Backend) -> Result<Self, Failed> {
        let lab = builder.build()?;
        let datastore = lab.dir().join("resources");
        fs::create_dir(&datastore)?;
        let mut env = backend.env().to_vec();
        env.push(("FELIX_IPV6SUPPORT".to_owned(), "false".to_owned()));
        let options = AgentOptions { datastore: datastore.clone(), env, ..AgentOptions::default() };
        Ok(Self { lab, backend, datastore, options })
    }

    /// Sets an environment variable of agents that are started from now on.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.options.env.retain(|(known, _)| known != name);
        self.options.env.push((name.to_owned(), value.to_owned()));
    }

    /// No longer sets one.
    pub(crate) fn unset_env(&mut self, name: &str) {
        self.options.env.retain(|(known, _)| known != name);
    }

    /// Starts agents with these programs from now on.
    pub(crate) fn set_programs(&mut self, programs: Programs) {
        self.options.programs = Some(programs);
    }

    /// Gives agents that are started from now on a configuration file.
    pub(crate) fn set_config(&mut self, text: &str) -> Outcome {
        let path = self.lab.dir().join("felix.cfg");
        fs::write(&path, text)?;
        self.options.config = Some(path);
        Ok(())
    }

    /// Starts the agent of one node; one that runs there is killed.
    pub(crate) fn start_on(&mut self, node: &str) -> Outcome {
        Ok(self.lab.start_agent_with(node, &self.options)?)
    }

    /// Starts all agents and waits until they have applied everything.
    pub(crate) fn start(&mut self) -> Outcome {
        let nodes: Vec<String> = self.lab.node_names().map(str::to_owned).collect();
        nodes.iter().try_for_each(|node| self.start_on(node))?;
        self.settle()
    }

    /// Waits with `tortiectl wait --applied`, which must succeed.
    pub(crate) fn settle(&mut self) -> Outcome {
        Ok(self.lab.wait_applied(DEADLINE)?)
    }

    /// Where the manifests are.
    pub(crate) fn datastore(&self) -> &PathBuf {
        &self.datastore
    }

    /// How the agents are started.
    pub(crate) fn options(&self) -> &AgentOptions {
        &self.options
    }

    /// Puts a file into the datastore in one step, as an editor does.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Outcome {
        // On the same disk; no manifest by its name.
        let draft = self.datastore.join(format!(".draft-{name}.new"));
        fs::write(&draft, text)?;
        Ok(fs::rename(&draft, self.datastore.join(name))?)
    }

    /// Takes a file out of the datastore.
    pub(crate) fn remove(&self, name: &str) -> Outcome {
        Ok(fs::remove_file(self.datastore.join(name))?)
    }

    /// Puts a file into the datastore and waits until it is in force.
    pub(crate) fn apply(&mut self, name: &str, text: impl AsRef<[u8]>) -> Outcome {
        self.write(name, text)?;
        self.settle()
    }

    /// What `tortiectl status` says of a node's agent.
    pub(crate) fn status(&self, node: &str) -> Result<Status, Failed> {
        let output = self.lab.ctl(node, &["status", "-o", "json"])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The node's problems of one area, one line each.
    pub(crate) fn problems(&self, area: Area) -> Result<Vec<String>, Failed> {
        let problems = self.status(NODE)?.problems.into_iter().filter(|p| p.area == area);
        Ok(problems.map(|p| format!("{}: {}", p.object, p.message)).collect())
    }

    /// That exactly one problem of an area holds all these words, or that there is none if no words are given.
    pub(crate) fn expect_problem(&self, area: Area, words: &[&str]) -> Outcome {
        let problems = self.problems(area)?;
        let fitting = problems.iter().filter(|p| words.iter().all(|w| p.contains(w))).count();
        let wanted = usize::from(!words.is_empty());
        if fitting == wanted && (wanted == 1 || problems.is_empty()) {
            return Ok(());
        }
        Err(format!("problems: {problems:#?}, wanted: {words:?}").into())
    }

    /// That TCP to port 80 passes (`true`) or does not, from the first to the second of each.
    pub(crate) fn expect(&self, cells: &[(&str, &str, bool)]) -> Outcome {
        let wrong = self.wrong(cells, PASS_WAIT)?;
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    /// The same for what no `wait --applied` covers: looks until it holds.
    pub(crate) fn expect_soon(&self, cells: &[(&str, &str, bool)]) -> Outcome {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let wrong = self.wrong(cells, PASS_TRY)?;
            if wrong.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(wrong.join("\n").into());
            }
        }
    }

    /// The cells that are not as wanted.
    fn wrong(&self, cells: &[(&str, &str, bool)], pass_wait: Duration) -> Result<Vec<String>, Failed> {
        let mut wrong = Vec::new();
        for (wanted, wait) in [(true, pass_wait), (false, BLOCKED_WAIT)] {
            let cells = cells.iter().filter(|(_, _, passes)| *passes == wanted);
            let probes: Vec<Probe> = cells
                .map(|(from, to, _)| Ok(Probe::new(from.parse()?, to.parse()?, Traffic::tcp(80))))
                .collect::<Result<_, Failed>>()?;
            for (probe, passed) in probes.iter().zip(self.lab.probe_within(&probes, wait)?) {
                if passed != wanted {
                    wrong.push(format!("{probe} {}", if passed { "passes" } else { "is blocked" }));
                }
            }
        }
        Ok(wrong)
    }

    /// A pod's namespace, given as `NAMESPACE/NAME`.
    pub(crate) fn netns(&self, endpoint: &str) -> Result<Netns, Failed> {
        Ok(self.lab.host(&endpoint.parse()?)?.netns().clone())
    }

    /// Runs a program on a node; it must succeed.
    pub(crate) fn run(&self, node: &str, line: &str) -> Result<String, Failed> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (program, args) = words.split_first().ok_or("no program")?;
        Ok(self.lab.node(node)?.check(program, args, "")?)
    }

    /// The program `iptables` of the back end, or one of its siblings such as `iptables-save`.
    pub(crate) fn iptables(&self, node: &str, line: &str) -> Result<String, Failed> {
        let (program, args) = line.split_once(' ').unwrap_or((line, ""));
        let (family, suffix) = program.split_once('-').unwrap_or((program, ""));
        // With the lock that the agent takes, as on a real node: without it one of two writers at a time fails.
        let lock = self.lab.dir().join(format!("{node}.xtables.lock"));
        let (dash, wait) = if suffix.is_empty() { ("", "-w") } else { ("-", "") };
        let program = format!("{family}-{}{dash}{suffix}", self.backend.name());
        self.run(node, &format!("env XTABLES_LOCKFILE={} {program} {wait} {args}", lock.display()))
    }

    /// What a node's kernel holds, in lines that are the same whenever it holds the same.
    pub(crate) fn kernel(&self, node: &str) -> Result<Vec<String>, Failed> {
        let mut all = Vec::new();
        if self.backend == Backend::Native {
            all.extend(native_lines(&self.run(node, "nft list ruleset")?));
        }
        let programs = ["iptables-save", "ip6tables-save"].iter().filter(|_| self.backend != Backend::Native);
        for program in programs {
            let text = self.iptables(node, program)?;
            // In which order tables are listed depends on which was used first.
            let mut tables: Vec<&str> = text.split("\n*").skip(1).collect();
            tables.sort_unstable();
            let lines = tables.iter().flat_map(|table| table.lines());
            let lines = lines.filter(|line| !line.starts_with('#') && *line != "COMMIT");
            all.extend(lines.map(|line| format!("{program} {}", without_counters(line))));
        }
        let sets = self.run(node, "ipset save")?;
        let lines: BTreeSet<String> = sets.lines().map(without_initval).collect();
        all.extend(lines);
        for line in
            ["ip -4 route show table all", "ip -6 route show table all", "ip neigh show nud permanent"]
        {
            let text = self.run(node, line)?;
            // The table `local` is the kernel's own, with addresses made of random MAC addresses.
            let lines: BTreeSet<&str> =
                text.lines().map(str::trim_end).filter(|l| !l.contains(" table local ")).collect();
            all.extend(lines.into_iter().map(|l| format!("{line}: {l}")));
        }
        Ok(all)
    }

    /// Looks at the node's kernel until it holds `wanted`.
    pub(crate) fn expect_kernel(&self, node: &str, wanted: &[String]) -> Outcome {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.kernel(node)?;
            if found == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "the kernel (+) is not as it should be (-)\n{}",
                    difference(wanted, &found)
                )
                .into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The name of the only ip set with this member.
    pub(crate) fn set_with(&self, node: &str, member: &str) -> Result<String, Failed> {
        let text = self.run(node, "ipset save")?;
        let mut names = text.lines().filter_map(|line| {
            let (name, found) = line.strip_prefix("add ")?.split_once(' ')?;
            (found == member).then(|| name.to_owned())
        });
        names.next().ok_or_else(|| format!("no set holds {member}:\n{text}").into())
    }
}

/// What `nft list` prints of Calico's tables, in lines that do not depend on the order in which parts were made.
pub(crate) fn native_lines(text: &str) -> Vec<String> {
    let mut parts = BTreeSet::new();
    let mut table = "";
    let mut part = String::new();
    for line in text.lines() {
        match line.strip_prefix("table ") {
            Some(name) => table = name.trim_end_matches(" {"),
            None if !table.ends_with(" calico") || line.starts_with("\tcomment ") => {}
            None if line == "\t}" => {
                parts.insert(format!("{table} {}", part.trim()));
                part.clear();
            }
            None => {
                part.push_str(&without_counts(line));
                part.push('\n');
            }
        }
    }
    parts.iter().flat_map(|part| part.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A rule without what its counter says.
fn without_counts(line: &str) -> String {
    let words: Vec<&str> = line.trim().split(' ').collect();
    let is_count = |at: usize| at > 0 && matches!(words[at - 1], "packets" | "bytes");
    let words = words.iter().enumerate().map(|(at, word)| if is_count(at) { "0" } else { *word });
    words.collect::<Vec<_>>().join(" ")
}

fn without_counters(line: &str) -> &str {
    if line.starts_with(':') { line.split(" [").next().unwrap_or(line) } else { line }
}

fn without_initval(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "initval").unwrap_or(words.len());
    words[..at].join(" ")
}

/// The lines that differ.
fn difference(wanted: &[String], found: &[String]) -> String {
    let (wanted, found) = (wanted.join("\n"), found.join("\n"));
    let diff = TextDiff::from_lines(&wanted, &found);
    let changes = diff.iter_all_changes().filter(|c| c.tag() != ChangeTag::Equal);
    let lines = changes.map(|change| {
        let sign = if change.tag() == ChangeTag::Delete { '-' } else { '+' };
        format!("{sign} {}\n", change.value().trim_end())
    });
    lines.collect()
}

/// That two snapshots are the same.
pub(crate) fn expect_same(wanted: &[String], found: &[String]) -> Outcome {
    if wanted == found { Ok(()) } else { Err(difference(wanted, found).into()) }
}

/// Looks until there is something to see.
pub(crate) fn eventually<T>(
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<T, Failed> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            return Err(format!("waited in vain: {what}").into());
        }
        std::thread::sleep(POLL);
    }
}

/// That a text holds a line.
pub(crate) fn expect_line(text: &str, line: &str) -> Outcome {
    if text.lines().any(|l| l.trim_end() == line) {
        return Ok(());
    }
    Err(format!("no line {line:?} in\n{text}").into())
}

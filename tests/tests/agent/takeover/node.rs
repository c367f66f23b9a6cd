//! A node as a golden state describes it, with its workloads in namespaces of their own, and what Felix left there
//! put in by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use libtest_mimic::Failed;
use serde::Deserialize;
use tortie_api::control::Status;
use tortie_tests::lab::{Netns, Programs};

use crate::Outcome;
use crate::scene::{Backend, DEADLINE, eventually, native_lines};

/// The state of most tests: two workloads, `web` and `db`, and five policies with rules of every kind.
pub(crate) const POLICIES: &str = "04-policies";
/// The interface of the workload that packets go to, and of the one that they come from.
pub(crate) const WEB: &str = "cali0a1b2c3d4e5";
pub(crate) const DB: &str = "cali5d5d5d5d5d5";
/// The address of that one.
pub(crate) const WEB_ADDRESS: &str = "10.65.0.2";

/// Stamped on all counters of what Felix left.
const COUNTED: &str = "[7:420]";

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(path)
}

/// A file of the golden states.
pub(crate) fn read(path: &str) -> Result<String, Failed> {
    let path = golden(path);
    fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()).into())
}

#[derive(Deserialize)]
struct Workloads {
    workloads: Vec<Workload>,
}

#[derive(Deserialize)]
struct Workload {
    name: String,
    mac: String,
}

/// What Felix left, as its own tools print it.
#[derive(Clone)]
pub(crate) struct Left {
    /// `iptables-save` and `ip6tables-save`.
    pub(crate) rules: [String; 2],
    /// `ipset save`.
    pub(crate) sets: String,
    /// Lines for `ip -batch`.
    pub(crate) routes: Vec<String>,
}

impl Left {
    /// That of a golden state.
    pub(crate) fn by_felix(state: &str) -> Result<Self, Failed> {
        let file = |name: &str| read(&format!("felix/{state}/{name}"));
        let text = file("routes.txt")?;
        let lines = text.lines().filter(|l| l.contains(" dev cali"));
        let routes = lines.map(|line| match line.strip_suffix(" PERMANENT") {
            Some(line) => format!("neigh replace {line} nud permanent"),
            // Felix leaves the protocol at what `ip route add` uses.
            None => format!("route replace {line}"),
        });
        Ok(Self {
            rules: [file("iptables-save.txt")?, file("ip6tables-save.txt")?],
            sets: file("ipset-save.txt")?,
            routes: routes.collect(),
        })
    }
}

/// A node with an agent, or none yet.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    /// The namespaces of its workloads, by interface.
    pub(crate) pods: BTreeMap<String, Netns>,
    state: String,
    dir: tempfile::TempDir,
    agent: Option<Child>,
    /// Where agents look for programs, if not where everybody does.
    path: Option<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            // An error says that it has ended already.
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Node {
    /// Wired, with the manifests in place, and nothing programmed.
    pub(crate) fn new(state: &str) -> Result<Self, Failed> {
        let quiet = [
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
        ];
        let netns = Netns::new("node-a", &quiet)?;
        let dir = tempfile::tempdir()?;
        let node =
            Self { netns, pods: BTreeMap::new(), state: state.to_owned(), dir, agent: None, path: None };
        fs::create_dir(node.resources())?;
        for file in ["resources.yaml", "k8s.yaml"] {
            // Only states of Kubernetes have the second one.
            if golden(&format!("felix/{state}/{file}")).exists() {
                node.write(file, &node.file(file)?)?;
            }
        }
        node.wired(&quiet)
    }

    fn wired(mut self, quiet: &[(&str, &str)]) -> Result<Self, Failed> {
        let workloads: Workloads = serde_json::from_str(&self.file("workloads.json")?)?;
        let resources = self.file("resources.yaml")?;
        let interfaces = self.file("interfaces.txt")?;
        let mut near = vec!["link set lo up".to_owned()];
        for line in interfaces.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, "mac", mac, "mtu", _, _, addresses @ ..] = words.as_slice() else {
                return Err(format!("interfaces.txt: {line:?}").into());
            };
            if *name == "lo" {
                continue;
            }
            let workload = workloads.workloads.iter().find(|w| w.name == *name);
            let pod = Netns::new(name, quiet)?;
            let peer = workload.map(|w| format!(" address {}", w.mac)).unwrap_or_default();
            let path = pod.path().display().to_string();
            near.push(format!("link add {name} address {mac} type veth peer name eth0{peer} netns {path}"));
            for address in addresses.iter().filter(|a| !a.starts_with("fe80")) {
                let no_dad = if address.contains(':') { " nodad" } else { "" };
                near.push(format!("addr add {address} dev {name}{no_dad}"));
            }
            near.push(format!("link set {name} up"));
            self.pods.insert((*name).to_owned(), pod);
        }
        self.netns.check("ip", &["-batch", "-"], &(near.join("\n") + "\n"))?;
        for (name, pod) in &self.pods {
            pod.check("ip", &["-batch", "-"], &pod_end(address_of(&resources, name)).join(""))?;
        }
        let sysctls = self.file("sysctls.txt")?;
        let values = sysctls.lines().filter_map(|line| line.split_once(" = "));
        for (name, value) in values {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            // What this machine does not let us set is not what these tests are about.
            let _ = self.netns.enter(|| fs::write(&path, value))?;
        }
        Ok(self)
    }

    /// A file of its golden state.
    fn file(&self, name: &str) -> Result<String, Failed> {
        read(&format!("felix/{}/{name}", self.state))
    }

    fn resources(&self) -> PathBuf {
        self.dir.path().join("resources")
    }

    /// The folder of manifests.
    pub(crate) fn datastore(&self) -> PathBuf {
        self.resources()
    }

    /// Puts a manifest into the datastore in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> Outcome {
        let draft = self.dir.path().join("draft");
        fs::write(&draft, text)?;
        Ok(fs::rename(&draft, self.resources().join(name))?)
    }

    /// Puts into the kernel what Felix left there, all rules with the same counters.
    pub(crate) fn load(&self, left: &Left, backend: Backend) -> Outcome {
        self.netns.check("ipset", &["restore"], &(left.sets.clone() + "\n"))?;
        for (program, text) in ["iptables", "ip6tables"].iter().zip(&left.rules) {
            let program = format!("{program}-{}-restore", backend.name());
            for piece in pieces(&counted(text)) {
                self.netns.check(&program, &["--counters", "--noflush"], &piece)?;
            }
        }
        self.netns.check("ip", &["-batch", "-"], &(left.routes.join("\n") + "\n"))?;
        Ok(())
    }

    /// Has agents write a table slowly from now on.
    pub(crate) fn slow_down(&mut self, table: &str, backend: Backend) -> Outcome {
        let dir = self.dir.path().join("slow");
        fs::create_dir(&dir)?;
        let old = std::env::var("PATH")? + ":/usr/sbin:/sbin";
        for program in ["iptables", "ip6tables"] {
            let name = format!("{program}-{}-restore", backend.name());
            let slow = format!(
                "#!/bin/sh\nPATH={old}\ninput=$(cat)\ncase $input in *'*{table}'*) sleep 0.15;; esac\n\
                 printf '%s\\n' \"$input\" | {name} \"$@\"\n"
            );
            let file = dir.join(name);
            fs::write(&file, slow)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        self.path = Some(format!("{}:{old}", dir.display()));
        Ok(())
    }

    /// Starts an agent without waiting for it; one that runs is killed.
    pub(crate) fn start(&mut self, backend: Option<Backend>) -> Outcome {
        self.stop()?;
        let programs = Programs::locate()?;
        let mut command = Command::new(&programs.agent);
        command.args(["--node", "node-a", "--datastore"]);
        command.arg(format!("local:{}", self.resources().display())).arg("--socket").arg(self.socket());
        command.env("XTABLES_LOCKFILE", self.dir.path().join("xtables.lock"));
        command.env("FELIX_HEALTHENABLED", "false");
        command.envs(self.path.iter().map(|path| ("PATH", path)));
        let env = self.file("felix.env")?;
        let settings = env.lines().filter_map(|line| line.split_once('='));
        command.envs(settings.filter(|(name, _)| *name != "FELIX_IPTABLESBACKEND"));
        command.envs(backend.iter().flat_map(|backend| backend.env()));
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("agent.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.agent = Some(self.netns.spawn(&mut command)?);
        Ok(())
    }

    /// Kills the agent, if there is one.
    pub(crate) fn stop(&mut self) -> Outcome {
        if let Some(mut agent) = self.agent.take() {
            agent.kill()?;
            agent.wait()?;
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Waits until the agent has applied everything.
    pub(crate) fn settle(&self) -> Outcome {
        let output = self.ctl(&["wait", "--applied", "--timeout", "30s"])?;
        if output.status.success() { Ok(()) } else { Err(self.failure(&output.stderr).into()) }
    }

    fn ctl(&self, args: &[&str]) -> Result<std::process::Output, Failed> {
        let mut command = Command::new(Programs::locate()?.ctl);
        Ok(command.arg("--socket").arg(self.socket()).args(args).output()?)
    }

    fn failure(&self, said: &[u8]) -> String {
        let log = fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default();
        format!("{}\n{log}", String::from_utf8_lossy(said))
    }

    /// What `tortiectl status` says.
    pub(crate) fn status(&self) -> Result<Status, Failed> {
        let output = self.ctl(&["status", "-o", "json"])?;
        Ok(serde_json::from_slice(&output.stdout).map_err(|e| self.failure(e.to_string().as_bytes()))?)
    }

    /// `iptables-save -c` of both IP versions: the lines, and what they count.
    pub(crate) fn counters(&self, backend: Backend) -> Result<Vec<(String, String)>, Failed> {
        let mut all = Vec::new();
        for program in ["iptables", "ip6tables"] {
            let text = self.save(program, backend, &["-c"])?;
            let lines = text.lines().filter_map(|line| line.split_once("] "));
            all.extend(lines.map(|(count, rule)| (format!("{program} {rule}"), format!("{count}]"))));
        }
        Ok(all)
    }

    /// What a `save` program says. It fails when a set goes after it has read the rule that named it.
    fn save(&self, program: &str, backend: Backend, args: &[&str]) -> Result<String, Failed> {
        let program = format!("{program}-{}-save", backend.name());
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.netns.check(&program, args, "") {
                Err(error)
                    if error.to_string().contains("in kernel doesn't exist") && Instant::now() < deadline => {
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// All that Felix, or an agent, has in this kernel, but for what the other back end holds: in lines that are the
    /// same whenever it is the same.
    pub(crate) fn kernel(&self, backend: Backend) -> Result<Vec<String>, Failed> {
        let mut all = self.rules(backend)?;
        let sets = self.netns.check("ipset", &["save"], "")?;
        all.extend(sets.lines().map(without_initval).collect::<BTreeSet<_>>());
        for args in
            [&["-4", "route", "show"][..], &["-6", "route", "show"], &["neigh", "show", "nud", "permanent"]]
        {
            let text = self.netns.check("ip", args, "")?;
            let lines: BTreeSet<&str> =
                text.lines().map(str::trim_end).filter(|l| l.contains("dev cali")).collect();
            all.extend(lines.into_iter().map(str::to_owned));
        }
        Ok(all)
    }

    /// The rules and chains of a back end, without what is the kernel's own.
    pub(crate) fn rules(&self, backend: Backend) -> Result<Vec<String>, Failed> {
        if backend == Backend::Native {
            return Ok(native_lines(&self.netns.check("nft", &["list", "ruleset"], "")?));
        }
        let mut all = Vec::new();
        for program in ["iptables", "ip6tables"] {
            let text = self.save(program, backend, &[])?;
            let mut table = "";
            for line in text.lines() {
                let line = line.split(" [").next().unwrap_or(line).trim_end();
                match line.strip_prefix('*') {
                    Some(name) => table = name,
                    None if line.starts_with('#') || line == "COMMIT" => {}
                    // Whether a table that nobody uses is listed depends on who has looked at it.
                    None if line.starts_with(':') && line.ends_with(" ACCEPT") => {}
                    None => all.push(format!("{program} {table} {line}")),
                }
            }
        }
        all.sort_by(|a, b| a.split(' ').take(2).cmp(b.split(' ').take(2)));
        Ok(all)
    }

    /// The random numbers that the kernel gives each set when it is made: another one says that it was made anew.
    pub(crate) fn set_births(&self) -> Result<BTreeMap<String, String>, Failed> {
        let text = self.netns.check("ipset", &["save"], "")?;
        let births = text.lines().filter_map(|line| {
            let name = line.strip_prefix("create ")?.split(' ').next()?;
            let (_, birth) = line.split_once("initval ")?;
            Some((name.to_owned(), birth.trim().to_owned()))
        });
        Ok(births.collect())
    }

    /// Looks until the kernel holds this.
    pub(crate) fn expect_kernel(&self, backend: Backend, wanted: &[String]) -> Outcome {
        let mut found = Vec::new();
        let seen = eventually("the kernel as it should be", || {
            found = self.kernel(backend)?;
            Ok((found == wanted).then_some(()))
        });
        seen.map_err(|_| crate::scene::expect_same(wanted, &found).err().unwrap_or_else(|| "late".into()))
    }
}

/// What an agent makes of the state on a node where nobody was before.
pub(crate) fn untouched(state: &str, backend: Backend) -> Result<Vec<String>, Failed> {
    let mut node = Node::new(state)?;
    node.start(Some(backend))?;
    node.settle()?;
    node.kernel(backend)
}

/// Rules of a piece of what is restored: an ordinary user's netlink socket takes no more at once.
const PIECE: usize = 60;

/// What is to be restored, in pieces that do the same one after the other.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    for table in text.split("COMMIT\n").filter(|table| !table.trim().is_empty()) {
        let name = table.lines().find(|line| line.starts_with('*')).unwrap_or_default();
        let (rules, chains): (Vec<&str>, Vec<&str>) =
            table.lines().filter(|line| !line.starts_with(['*', '#'])).partition(|line| line.contains("-A "));
        let write = |lines: &[&str]| format!("{name}\n{}\nCOMMIT\n", lines.join("\n"));
        pieces.push(write(&chains));
        pieces.extend(rules.chunks(PIECE).map(write));
    }
    pieces
}

/// With all counters at one value: what is written anew counts from zero.
fn counted(save: &str) -> String {
    let lines = save.lines().map(|line| match line.strip_suffix(" [0:0]") {
        Some(chain) if chain.starts_with(':') => format!("{chain} {COUNTED}\n"),
        _ if line.starts_with("-A ") => format!("{COUNTED} {line}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Whether these are the counters that were loaded, or higher ones.
pub(crate) fn is_kept(counters: &str) -> bool {
    let packets = counters.trim_start_matches('[').split(':').next().and_then(|n| n.parse::<u64>().ok());
    packets >= Some(7)
}

/// The IPv4 address of the workload on an interface.
fn address_of<'a>(resources: &'a str, interface: &str) -> Option<&'a str> {
    let document = resources.split("\n---").find(|d| d.contains(&format!("interfaceName: {interface}\n")))?;
    let (_, networks) = document.split_once("ipNetworks:")?;
    networks.split(|c: char| !(c.is_ascii_digit() || c == '.')).find(|word| word.split('.').count() == 4)
}

/// The far end of a cable: a pod with an address, which finds its gateway without asking.
fn pod_end(address: Option<&str>) -> Vec<String> {
    let mut lines = vec!["link set lo up\n".to_owned()];
    lines.extend(address.map(|ip| format!("addr add {ip}/32 dev eth0\n")));
    lines.push("link set eth0 up\n".to_owned());
    if address.is_some() {
        lines.push("route add 169.254.1.1 dev eth0 scope link\n".to_owned());
        lines.push("route add default via 169.254.1.1 dev eth0\n".to_owned());
        lines.push("neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent\n".to_owned());
    }
    lines
}

fn without_initval(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "initval").unwrap_or(words.len());
    words[..at].join(" ")
}

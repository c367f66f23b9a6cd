//! Whole states, as a live Felix v3.32.0 left them in the kernel, against what the agent leaves there.
//!
//! Each folder under `golden/felix` holds the resources that went in and what `iptables-save`, `ip6tables-save`,
//! `ipset save`, `ip route`, `ip neigh` and the sysctls showed afterwards. The comparison is line by line, on both back
//! ends of iptables: Felix's rules are the same whatever the back end. In nftables mode, where rules look different, it
//! is chain by chain, with all members of all sets; what the rules do there is for other tests. Chains
//! that differ on purpose are in the folder's `mended.txt`, which `TORTIE_BLESS=1` writes anew; README.md says why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use ipnet::IpNet;
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use tortie_tests::lab::{self, Netns, Programs};

type Outcome = Result<(), Failed>;

/// Each state is loaded into all, whichever Felix used. The last one is nftables mode.
const BACKENDS: [&str; 3] = ["nft", "legacy", NATIVE];
const NATIVE: &str = "nftables";

/// Chains in which a live Felix does what it should not: it lets traffic through rules with three and more match
/// blocks, and takes network sets for pods where a cluster-wide policy of Kubernetes names namespaces.
const MENDED: [&str; 3] = ["cali-pi-gnp/web-in", "cali-pi-kcnp/base", "cali-pi-kcnp/cluster-deny"];

/// The state with an endpoint that has a DSCP value and two addresses, and the chain with the one rule that Felix writes
/// for both, which the kernel takes apart. Here each address has a rule.
const TWO_ADDRESSES: (&str, &str) = ("17-dscp-two", "cali-egress-dscp");

/// Ends of the names of the sets that go with those chains: Felix's, then ours.
const MENDED_SETS: [&str; 4] = [
    "s:WhiDaTPum_DelPzXrlB8q7s",
    "s:y4vWF2x2GZsaf-fosKy6jrZ",
    "s:yy1OFB_uSD31P0XXJY4Y0Mh",
    "s:5jAhR3OJYTQWNLEZV-MEvC1",
];

/// Devices that Felix makes for tunnels. Ours are not in this release; where a set holds the addresses of one, a
/// stand-in of the same name holds them here.
const TUNNEL_DEVICES: [(&str, &str); 2] = [
    ("12-vxlan", "vxlan.calico mac 66:07:02:c1:cc:60 mtu 1450 up 10.65.0.0/32"),
    ("33-vxlan-v6", "vxlan-v6.calico mac 66:d4:d5:51:3d:42 mtu 1430 up fd00:65::1/128"),
];

/// States whose routes to other nodes' blocks are left out of the comparison, since such routes are not in this
/// release. Those of workloads are compared.
const BLOCK_ROUTES: [&str; 3] = ["12-vxlan", "30-no-encap-blocks", "33-vxlan-v6"];

/// What interfaces of workloads begin with.
const WORKLOADS: [&str; 2] = ["cali", "tap"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/felix")
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = lab::enter()
    {
        eprintln!("the lab cannot be used here: {error}");
        return ExitCode::FAILURE;
    }
    let entries = fs::read_dir(golden()).expect("the golden states are in the repository");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut states: Vec<PathBuf> = paths.filter(|p| p.is_dir()).collect();
    states.sort();
    // A back end that the kernel has not is a skip that is named.
    let usable = BACKENDS.map(|backend| (backend, arguments.list || is_usable(backend)));
    let trials = states.into_iter().flat_map(|state| {
        let name = state.file_name().unwrap_or_default().to_string_lossy().into_owned();
        usable.map(|(backend, is_usable)| {
            let state = state.clone();
            let name = format!("the_kernel_holds_what_felix_left::{name}::{backend}");
            Trial::test(name, move || check(&state, backend)).with_ignored_flag(!is_usable)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn is_usable(backend: &str) -> bool {
    if backend == NATIVE {
        return Netns::new("a probe", &[])
            .and_then(|netns| netns.check("nft", &["list", "ruleset"], ""))
            .is_ok();
    }
    let list = |netns: Netns| netns.check(&format!("iptables-{backend}"), &["-S"], "");
    Netns::new("a probe", &[]).and_then(list).is_ok()
}

#[derive(Deserialize)]
struct Workloads {
    /// Felix's back end.
    backend: String,
    /// What was run while Felix was, and the time that Felix got to find out.
    #[serde(default)]
    after: Vec<String>,
}

/// The part of such a command that waits.
const WAITS: &str = " && sleep ";

/// A node as `interfaces.txt` describes it, with an agent that has applied everything.
struct Node {
    netns: Netns,
    agent: Child,
    backend: &'static str,
    /// Holds the agent's files; the far ends of the links live in `_far`.
    _dir: tempfile::TempDir,
    _far: Netns,
}

impl Drop for Node {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn start(state: &Path, backend: &'static str) -> Result<Node, Failed> {
    let workloads: Workloads = serde_json::from_str(&fs::read_to_string(state.join("workloads.json"))?)?;
    let mut interfaces = fs::read_to_string(state.join("interfaces.txt"))?;
    for (_, device) in TUNNEL_DEVICES.iter().filter(|(name, _)| state.ends_with(name)) {
        interfaces.push_str(device);
        interfaces.push('\n');
    }
    let (netns, far) = wire(&interfaces)?;
    // Before the agent, which so needs no time to find out: how drift is found is for other tests.
    for command in &workloads.after {
        let command = command.split_once(WAITS).map_or(command.as_str(), |(command, _)| command);
        let programs = if backend == NATIVE { "nft" } else { backend };
        let command =
            command.replace(&format!("tables-{}", workloads.backend), &format!("tables-{programs}"));
        netns.check("sh", &["-c", &command], "")?;
    }
    let dir = tempfile::tempdir()?;
    let resources = dir.path().join("resources");
    fs::create_dir(&resources)?;
    for file in ["resources.yaml", "k8s.yaml"] {
        // Only states of Kubernetes have the second one.
        if state.join(file).exists() {
            let mut text = fs::read_to_string(state.join(file))?;
            if backend == NATIVE {
                // Each mode has settings of its own.
                ["Filter", "Mangle", "MarkMask"].iter().for_each(|name| {
                    text = text.replace(&format!("iptables{name}"), &format!("nftables{name}"));
                });
            }
            fs::write(resources.join(file), text)?;
        }
    }
    let programs = Programs::locate()?;
    let (socket, log) = (dir.path().join("agent.sock"), dir.path().join("agent.log"));
    let mut command = Command::new(&programs.agent);
    command.args(["--node", "node-a", "--datastore"]).arg(format!("local:{}", resources.display()));
    command.arg("--socket").arg(&socket);
    command.env("XTABLES_LOCKFILE", dir.path().join("xtables.lock")).env("FELIX_HEALTHENABLED", "false");
    let env = fs::read_to_string(state.join("felix.env"))?;
    command.envs(env.lines().filter_map(|line| line.split_once('=')));
    if backend == NATIVE {
        command.env("FELIX_NFTABLESMODE", "Enabled").env("FELIX_NFTABLESLAYOUT", "Chains");
    } else {
        command.env("FELIX_IPTABLESBACKEND", backend).env("FELIX_NFTABLESMODE", "Disabled");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
    let agent = netns.spawn(&mut command)?;
    let node = Node { netns, agent, backend, _dir: dir, _far: far };
    let mut wait = Command::new(&programs.ctl);
    let output =
        wait.arg("--socket").arg(&socket).args(["wait", "--applied", "--timeout", "20s"]).output()?;
    if output.status.success() {
        return Ok(node);
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    Err(format!("{}\n{log}", String::from_utf8_lossy(&output.stderr)).into())
}

/// The interfaces of `interfaces.txt`, and a namespace for their far ends.
fn wire(interfaces: &str) -> Result<(Netns, Netns), Failed> {
    let no_dad = [("net/ipv6/conf/default/accept_dad", "0"), ("net/ipv6/conf/all/accept_dad", "0")];
    let (netns, far) = (Netns::new("node-a", &no_dad)?, Netns::new("far", &no_dad)?);
    let far_path = far.path().display().to_string();
    let mut near_lines = vec!["link set lo up".to_owned()];
    let mut far_lines = Vec::new();
    for (at, line) in interfaces.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, "mac", mac, "mtu", mtu, up, addresses @ ..] = words.as_slice() else {
            return Err(format!("interfaces.txt: {line:?}").into());
        };
        if *name == "lo" {
            continue;
        }
        let peer = format!("type veth peer name p{at} netns {far_path}");
        near_lines.push(format!("link add {name} address {mac} mtu {mtu} {peer}"));
        for address in addresses.iter().filter(|a| !a.starts_with("fe80")) {
            let no_dad = if address.contains(':') { " nodad" } else { "" };
            near_lines.push(format!("addr add {address} dev {name}{no_dad}"));
        }
        if *up == "up" {
            near_lines.push(format!("link set {name} up"));
            far_lines.push(format!("link set p{at} up"));
        }
    }
    netns.check("ip", &["-batch", "-"], &(near_lines.join("\n") + "\n"))?;
    far.check("ip", &["-batch", "-"], &(far_lines.join("\n") + "\n"))?;
    Ok((netns, far))
}

fn check(state: &Path, backend: &'static str) -> Outcome {
    let node = start(state, backend)?;
    let mut wrong = if backend == NATIVE { native(state, &node)? } else { iptables(state, &node)? };
    let mut felix = felix_routes(&fs::read_to_string(state.join("routes.txt"))?);
    let has_blocks = BLOCK_ROUTES.iter().any(|name| state.ends_with(name));
    felix.retain(|line| !has_blocks || is_of_workload(line));
    wrong += &difference("routes.txt", &felix, &our_routes(&node)?);
    let felix: Vec<String> = sysctls(&fs::read_to_string(state.join("sysctls.txt"))?).collect();
    wrong += &difference("sysctls.txt", &felix, &our_sysctls(&node, &felix)?);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
}

/// What is wrong with the rules and sets of iptables mode.
fn iptables(state: &Path, node: &Node) -> Result<String, Failed> {
    let mut wrong = String::new();
    for (file, program) in [("iptables-save.txt", "iptables"), ("ip6tables-save.txt", "ip6tables")] {
        let felix = fs::read_to_string(state.join(file))?;
        let ours = node.netns.check(&format!("{program}-{}-save", node.backend), &[], "")?;
        let (mut felix, ours) = (tables(&felix), tables(&ours));
        mend(state, file, &mut felix, &ours)?;
        wrong += &difference(file, &felix, &ours);
    }
    let sets = |text: &str| -> Vec<String> {
        text.lines().map(without_initval).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let mut felix = sets(&fs::read_to_string(state.join("ipset-save.txt"))?);
    let ours = sets(&node.netns.check("ipset", &["save"], "")?);
    mend(state, "ipset-save.txt", &mut felix, &ours)?;
    felix.sort();
    wrong += &difference("ipset-save.txt", &felix, &ours);
    Ok(wrong)
}

/// What is wrong with chains and sets of nftables mode. Both of nft's languages must know all that is there, and nft
/// must take back what it lists.
fn native(state: &Path, node: &Node) -> Result<String, Failed> {
    let nft = |args: &[&str], input: &str| node.netns.check("nft", args, input);
    let text = nft(&["list", "ruleset"], "")?;
    nft(&["-c", "-f", "-"], &format!("flush ruleset\n{text}"))?;
    let json: Value = serde_json::from_str(&nft(&["-j", "list", "ruleset"], "")?)?;
    let mut wrong: Vec<String> = Vec::new();
    for (file, family) in [("iptables-save.txt", "ip"), ("ip6tables-save.txt", "ip6")] {
        let mut felix = tables(&fs::read_to_string(state.join(file))?);
        if state.join(format!("mended-{file}")).exists() {
            felix.retain(|line| !MENDED.iter().any(|chain| line.contains(&format!(" {chain} "))));
        }
        let rules = objects(&json, "rule").filter(|rule| rule["family"] == family);
        let mut ours: BTreeMap<&str, usize> = BTreeMap::new();
        rules.for_each(|rule| *ours.entry(rule["chain"].as_str().unwrap_or_default()).or_default() += 1);
        for (chain, count) in count_rules(&felix) {
            let found = ours.get(chain.as_str()).copied().unwrap_or_default();
            if found < count {
                wrong.push(format!("{family} {chain}: {found} rules where Felix has {count}"));
            }
        }
    }
    let felix = fs::read_to_string(state.join("ipset-save.txt"))?;
    let ours: BTreeMap<String, BTreeSet<String>> = objects(&json, "set").map(native_set).collect();
    for (name, members) in felix_sets(&felix) {
        let is_mended = MENDED_SETS.iter().any(|set| name.ends_with(&set.replace(':', "-")));
        if !is_mended && ours.get(&name) != Some(&members) {
            wrong.push(format!("set {name}: {:?} where Felix has {members:?}", ours.get(&name)));
        }
    }
    Ok(wrong.join("\n"))
}

/// The objects of a kind in nft's JSON.
fn objects<'a>(json: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    json["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

/// How many rules each of Felix's chains has, by its name in nftables mode. What Felix takes apart counts once.
fn count_rules(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let is_ours = line.contains("\"cali:");
        if let (Some(table), Some("-A"), Some(chain), true) =
            (words.next(), words.next(), words.next(), is_ours)
        {
            *counts.entry(format!("{table}-{chain}")).or_default() += 1;
        }
    }
    counts
}

/// A set's name and its members as text. Both ends of a range of one network are the network.
fn native_set(set: &Value) -> (String, BTreeSet<String>) {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Object(object) if object.contains_key("prefix") => {
            let (address, len) = (&value["prefix"]["addr"], &value["prefix"]["len"]);
            format!("{}/{len}", address.as_str().unwrap_or_default())
        }
        Value::Object(object) if object.contains_key("concat") => {
            let fields = value["concat"].as_array().into_iter().flatten();
            let fields: Vec<String> =
                fields.map(|field| field.as_str().map_or_else(|| field.to_string(), str::to_owned)).collect();
            format!("{},{}:{}", fields[0], fields[1], fields[2])
        }
        other => other.to_string(),
    };
    let members = set["elem"].as_array().into_iter().flatten().map(text).collect();
    (set["name"].as_str().unwrap_or_default().to_owned(), members)
}

/// The same of `ipset save`. Of networks, those that lie in no other.
fn felix_sets(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["create", name, ..] => drop(sets.entry(name.replace(':', "-")).or_default()),
            ["add", name, member, ..] => {
                sets.entry(name.replace(':', "-")).or_default().insert(member.to_owned());
            }
            _ => {}
        }
    }
    for members in sets.values_mut() {
        let nets: Vec<IpNet> = members.iter().filter_map(|member| member.parse().ok()).collect();
        let is_covered = |net: &IpNet| nets.iter().any(|other| other != net && other.contains(net));
        members.retain(|member| member.parse().map_or(true, |net| !is_covered(&net)));
    }
    sets
}

/// The lines of a save, by table and chain in a fixed order; both back ends list tables as they like.
fn tables(text: &str) -> Vec<String> {
    let mut sorted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines().map(str::trim_end).filter(|l| !l.starts_with('#') && *l != "COMMIT") {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        }
        let line = match line.rsplit_once(" [") {
            Some((chain, _)) if line.starts_with(':') => format!("{chain} [0:0]"),
            _ => line.to_owned(),
        };
        sorted.entry(table.clone()).or_default().push(line);
    }
    sorted
        .into_iter()
        .flat_map(|(table, lines)| lines.into_iter().map(move |l| format!("{table} {l}")))
        .collect()
}

/// Puts our lines in the place of Felix's where Felix is not to be followed.
fn mend(state: &Path, file: &str, felix: &mut Vec<String>, ours: &[String]) -> Outcome {
    let is_taken_apart = |line: &str| {
        state.ends_with(TWO_ADDRESSES.0) && line.starts_with(&format!("mangle -A {} ", TWO_ADDRESSES.1))
    };
    let is_mended = |line: &str| {
        is_taken_apart(line)
            || MENDED.iter().any(|chain| line.starts_with(&format!("filter -A {chain} ")))
            || line.split(' ').nth(1).is_some_and(|name| MENDED_SETS.iter().any(|set| name.ends_with(set)))
    };
    let Some(at) = felix.iter().position(|line| is_mended(line)) else { return Ok(()) };
    let path = state.join(format!("mended-{file}"));
    if std::env::var_os("TORTIE_BLESS").is_some() {
        let lines: Vec<&str> = ours.iter().map(String::as_str).filter(|l| is_mended(l)).collect();
        fs::write(&path, lines.join("\n") + "\n")?;
    }
    let mended = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    felix.retain(|line| !is_mended(line));
    felix.splice(at..at, mended.lines().map(str::to_owned));
    Ok(())
}

fn without_initval(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "initval").unwrap_or(words.len());
    words[..at].join(" ")
}

/// Routes and permanent neighbours of workloads. Felix leaves the protocol at boot (3); ours is 80, which is what
/// tells our routes from others'.
fn felix_routes(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|l| l.contains(" dev ") && !l.starts_with('#'));
    let wanted = lines.filter(|l| !l.starts_with("unreachable") && !l.contains("dev eth0"));
    let mut routes: Vec<String> = wanted
        .map(|line| {
            let line = line.trim_end().trim_end_matches(" pref medium");
            if line.contains("lladdr") { line.to_owned() } else { with_protocol(line) }
        })
        .collect();
    routes.sort();
    routes
}

/// A route as it is printed with our protocol.
fn with_protocol(line: &str) -> String {
    if line.contains(" scope link") {
        line.replacen(" scope link", " proto 80 scope link", 1)
    } else {
        line.replacen(" metric", " proto 80 metric", 1)
    }
}

/// A route or neighbour on the interface of a workload.
fn is_of_workload(line: &str) -> bool {
    WORKLOADS.iter().any(|prefix| line.contains(&format!("dev {prefix}")))
}

fn our_routes(node: &Node) -> Result<Vec<String>, Failed> {
    let mut routes = Vec::new();
    for args in
        [&["-4", "route", "show"][..], &["-6", "route", "show"], &["neigh", "show", "nud", "permanent"]]
    {
        let text = node.netns.check("ip", args, "")?;
        let lines = text.lines().filter(|l| !l.contains("proto kernel") && is_of_workload(l));
        routes.extend(lines.map(|l| l.trim_end().trim_end_matches(" pref medium").to_owned()));
    }
    routes.sort();
    Ok(routes)
}

/// `name = value` lines of workload interfaces and of the node as a whole.
fn sysctls(text: &str) -> impl Iterator<Item = String> {
    let is_ours = |l: &&str| {
        WORKLOADS.iter().any(|prefix| l.contains(&format!(".{prefix}")))
            || l.contains("ip_forward")
            || l.contains("conf.all.forwarding")
            || l.contains("acct")
    };
    text.lines().map(str::trim).filter(|l| l.contains(" = ")).filter(is_ours).map(str::to_owned)
}

fn our_sysctls(node: &Node, like: &[String]) -> Result<Vec<String>, Failed> {
    let mut lines = Vec::new();
    for line in like {
        let name = line.split(" = ").next().unwrap_or_default();
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = node.netns.enter(|| fs::read_to_string(&path))?.map_err(|e| format!("{path}: {e}"))?;
        lines.push(format!("{name} = {}", value.trim()));
    }
    Ok(lines)
}

/// The lines that differ, with their neighbours, or nothing.
fn difference(file: &str, felix: &[String], ours: &[String]) -> String {
    if felix == ours {
        return String::new();
    }
    let (felix, ours) = (felix.join("\n"), ours.join("\n"));
    let diff = TextDiff::from_lines(&felix, &ours);
    let mut text = format!("{file} (- Felix, + ours)\n");
    for change in diff.iter_all_changes().filter(|c| c.tag() != ChangeTag::Equal) {
        let sign = if change.tag() == ChangeTag::Delete { '-' } else { '+' };
        let line = change.value().trim_end();
        text.extend([sign, ' ']);
        text.push_str(line);
        text.push('\n');
    }
    text
}

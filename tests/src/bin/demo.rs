//! Shows policy at work: the shop of `examples/shop` in network namespaces, before and after its policies.
//!
//! Everything lives in namespaces and a tmpfs of this program's own, so nothing is left behind however it ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, bail};
use clap::Parser;
use tortie_tests::demo::reach::Reach;
use tortie_tests::demo::screen::Screen;
use tortie_tests::demo::shop::{OUTSIDE, Shop, shop_dir};
use tortie_tests::demo::{excerpt, stopwatch};
use tortie_tests::lab::{self, Endpoint, Lab, Programs};

/// The node whose kernel is shown.
const NODE: &str = "node-1";
/// How long agents may take to bring the kernel in line.
const PATIENCE: Duration = Duration::from_mins(1);
/// Members of an IP set that are shown.
const MEMBERS: usize = 5;

/// Shows policy at work: a small shop in network namespaces, before and after its policies.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// Open a shell on node-1 at the end, to look around.
    #[arg(long, alias = "keep")]
    shell: bool,
    /// How many changes of a file to measure.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    changes: u16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = lab::enter() {
        eprintln!("demo: {error}");
        return ExitCode::FAILURE;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether somebody stopped reading (`demo | head`), who wants no error about it.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns whether everything was as expected.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let begin = Instant::now();
    let programs = Programs::locate()?;
    let shop = Shop::load(&shop_dir()).context("cannot read the example shop")?;
    let truth = Reach::with_policies()?;
    let mut screen = Screen::stdout();
    let mut demo = Demo::build(&mut screen, shop, &programs)?;
    let mut is_right = demo.check(&truth.without_policies())?;
    demo.apply_policies()?;
    is_right &= demo.check(&truth)?;
    demo.show_rules()?;
    demo.time_changes(arguments.changes)?;
    demo.show_status()?;
    if arguments.shell {
        demo.shell()?;
    }
    demo.clean_up(begin)?;
    Ok(is_right)
}

struct Demo<'a> {
    screen: &'a mut Screen,
    shop: Shop,
    lab: Lab,
    /// The datastore: a copy of the shop.
    folder: PathBuf,
    /// Where the programs are.
    programs: PathBuf,
}

impl<'a> Demo<'a> {
    /// The lab with the shop in it, agents running, no policies yet.
    fn build(screen: &'a mut Screen, shop: Shop, programs: &Programs) -> anyhow::Result<Self> {
        let (nodes, pods, outside) = (shop.node_count(), shop.pods().len(), OUTSIDE.len());
        screen.step(&format!(
            "A cluster: {nodes} nodes, {pods} pods, {outside} hosts outside, and no policies"
        ))?;
        let begin = Instant::now();
        let lab = shop.lab().build().context("cannot build the lab")?;
        let folder = lab.dir().join("shop");
        shop.copy_without_policies(&folder)?;
        let programs = programs.agent.parent().map(Path::to_owned).unwrap_or_default();
        let mut demo = Self { screen, shop, lab, folder, programs };
        let names: Vec<String> = demo.lab.node_names().map(str::to_owned).collect();
        for node in &names {
            // As kubelet leaves a node: by this chain the agent finds the back end that `iptables-save` shows.
            let hint = ["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"];
            demo.lab.node(node)?.check("iptables", &hint, "")?;
            demo.lab.start_agent(node, &demo.folder)?;
            demo.screen.command(
                node,
                &format!("tortie-agent --node {node} --datastore local:{} &", demo.folder.display()),
            )?;
        }
        demo.lab.wait_applied(PATIENCE).context("the agents do not come up")?;
        demo.screen.say(
            "The nodes have kubelet's chain KUBE-IPTABLES-HINT, so agents use the back end of `iptables`.",
        )?;
        demo.screen.say(&format!("Wired and up after {:.1} s.", begin.elapsed().as_secs_f64()))?;
        Ok(demo)
    }

    /// Asks who reaches whom, and compares.
    fn check(&mut self, expected: &Reach) -> anyhow::Result<bool> {
        let actual = expected.ask(&self.lab).context("cannot probe")?;
        let (asked, passed) = actual.counts();
        self.screen.gap()?;
        self.screen.say(&actual.table(self.screen.is_coloured()))?;
        let differences = actual.differences(expected);
        if differences.is_empty() {
            self.screen.good(&format!("{passed} of {asked} connections pass, exactly those that should"))?;
        } else {
            self.screen.bad("this is not what the shop's README says:")?;
            differences.iter().try_for_each(|difference| self.screen.bad(difference))?;
        }
        Ok(differences.is_empty())
    }

    fn apply_policies(&mut self) -> anyhow::Result<()> {
        self.screen.step("The policies of a shop's first week")?;
        self.screen.command(NODE, "tortiectl apply -f examples/shop/policies")?;
        let store = format!("local:{}", self.folder.display());
        let policies = self.shop.policies().display().to_string();
        let begin = Instant::now();
        let output = self.ctl(&["--datastore", &store, "apply", "-f", &policies])?;
        self.screen.output(&output)?;
        self.lab.wait_applied(PATIENCE).context("the agents do not apply the policies")?;
        let took = begin.elapsed().as_millis();
        self.screen.say(&format!("In force on all nodes {took} ms after the command began."))?;
        self.screen
            .say("The datastore is a folder: `git pull` in it, or copying files there, does the same.")?;
        Ok(())
    }

    fn show_rules(&mut self) -> anyhow::Result<()> {
        self.screen.step("What is in the kernel, where a user of Calico looks for it")?;
        let save = self.lab.node(NODE)?.check("iptables-save", &[], "")?;
        let interface = lab::host_interface("shop", "frontend");
        self.show_chain(&save, &format!("cali-tw-{interface}"))?;
        let policy =
            excerpt::find_chain(&save, "cali-pi-", "/frontend").context("no chain of the policy frontend")?;
        let rules = self.show_chain(&save, policy)?;
        if let Some(set) = excerpt::first_set(&rules) {
            self.screen.command(NODE, &format!("ipset list {set}"))?;
            let list = self.lab.node(NODE)?.check("ipset", &["list", set], "")?;
            self.screen.output(&excerpt::shorten_set(&list, MEMBERS).join("\n"))?;
        }
        self.show_chain(&save, "cali-nat-outgoing")?;
        Ok(())
    }

    /// Shows the rules of a chain, of which there must be some.
    fn show_chain<'s>(&mut self, save: &'s str, chain: &str) -> anyhow::Result<Vec<&'s str>> {
        let rules = excerpt::rules(save, chain);
        if rules.is_empty() {
            bail!("{NODE}'s kernel has no rules in the chain {chain}");
        }
        self.screen.command(NODE, &format!("iptables-save | grep -e '-A {chain} '"))?;
        self.screen.output(&rules.join("\n"))?;
        Ok(rules)
    }

    fn time_changes(&mut self, count: u16) -> anyhow::Result<()> {
        self.screen.step("From a changed file to the enforced rule")?;
        let times = stopwatch::measure(&mut self.lab, &self.folder, count)?;
        let millis = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e3;
        self.screen.good(&format!(
            "median {:.1} ms, fastest {:.1} ms, slowest {:.1} ms of {count} changes",
            millis(Some(stopwatch::median(&times))),
            millis(times.iter().min().copied()),
            millis(times.iter().max().copied()),
        ))?;
        self.screen.say(&format!(
            "How: a file with a policy for one UDP port is replaced by one with another port, while the visitor sends a\n\
             packet to the new port every {} µs. Counted from the rename to the first packet that arrives at the pod;\n\
             one change at a time.",
            stopwatch::PACE.as_micros()
        ))?;
        Ok(())
    }

    fn show_status(&mut self) -> anyhow::Result<()> {
        self.lab.wait_applied(PATIENCE)?;
        self.screen.step("How the agent says it stands")?;
        self.screen.command(NODE, "tortiectl status")?;
        let status = self.ctl(&["status"])?;
        self.screen.output(&status)?;
        Ok(())
    }

    /// Runs `tortiectl` on the node; it must succeed.
    fn ctl(&self, args: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.lab.ctl(NODE, args)?;
        if !status.success() {
            bail!("`tortiectl {}` failed: {}", args.join(" "), String::from_utf8_lossy(&stderr).trim());
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// A shell in the node's namespace, until it ends.
    fn shell(&mut self) -> anyhow::Result<()> {
        self.screen.step(&format!("A shell on {NODE}; `exit` ends it, and everything with it"))?;
        self.screen
            .say(&format!("datastore   {} (edit it, and look at the rules)", self.folder.display()))?;
        self.screen.say(
            "other hosts nsenter --net=$BACKEND ip addr; the same for the other names above, and $NODE_2",
        )?;
        self.screen.say(
            "try         tortiectl get networkpolicies -A; iptables-save; ipset list; tortiectl status",
        )?;
        let program = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let mut command = Command::new(&program);
        command.env("TORTIE_DATASTORE", format!("local:{}", self.folder.display()));
        command.env("TORTIE_SOCKET", self.lab.agent(NODE)?.socket());
        command.env("XTABLES_LOCKFILE", self.lab.dir().join(format!("{NODE}.xtables.lock")));
        command.env("PATH", self.path_with_programs()?);
        for host in self.lab.hosts() {
            command.env(variable(host.endpoint()), host.netns().path());
        }
        let mut child = self.lab.node(NODE)?.netns().spawn(&mut command)?;
        child.wait().context("cannot wait for the shell")?; // how it ended is the user's own business
        Ok(())
    }

    fn path_with_programs(&self) -> anyhow::Result<std::ffi::OsString> {
        let path = env::var_os("PATH").unwrap_or_default();
        Ok(env::join_paths([self.programs.clone()].into_iter().chain(env::split_paths(&path)))?)
    }

    /// Takes everything down, and looks whether it is gone.
    fn clean_up(self, begin: Instant) -> anyhow::Result<()> {
        let Self { screen, lab, .. } = self;
        let names: Vec<&str> = lab.node_names().collect();
        let agents: Vec<u32> =
            names.iter().map(|node| Ok(lab.agent(node)?.pid())).collect::<anyhow::Result<_>>()?;
        let dir = lab.dir().to_owned();
        drop(lab);
        screen.step("Taken down")?;
        let is_left =
            dir.exists() || agents.iter().any(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(true));
        if is_left {
            bail!("an agent or {} is still there", dir.display());
        }
        screen.good(&format!(
            "nothing is left behind: namespaces, agents and files were this program's own ({:.0} s in total)",
            begin.elapsed().as_secs_f64()
        ))?;
        Ok(())
    }
}

/// The environment variable with the path of a host's namespace.
fn variable(endpoint: &Endpoint) -> String {
    tortie_tests::demo::reach::short_name(endpoint).to_uppercase().replace('-', "_")
}

//! Agents on the lab's nodes: started as a user starts them, waited for with `tortiectl`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, LabError};

/// How long an agent may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
/// Lines of an agent's log that an error shows.
const LOG_TAIL: usize = 30;

/// Where the programs under test are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `tortie-agent`.
    pub agent: PathBuf,
    /// `tortiectl`.
    pub ctl: PathBuf,
}

impl Programs {
    /// Finds them: `TORTIE_AGENT` and `TORTIECTL` if set, else the target directory that this program is in.
    ///
    /// # Errors
    /// [`LabError::NotBuilt`] when one is not there.
    pub fn locate() -> Result<Self, LabError> {
        Ok(Self { agent: find("tortie-agent", "TORTIE_AGENT")?, ctl: find("tortiectl", "TORTIECTL")? })
    }
}

fn find(name: &'static str, variable: &'static str) -> Result<PathBuf, LabError> {
    let own = env::current_exe().map_err(LabError::io("find this program's file"))?;
    // A test lies in target/PROFILE/deps, a program in target/PROFILE.
    let target = own.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).unwrap_or(Path::new("."));
    let path = env::var_os(variable).map_or_else(|| target.join(name), PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(LabError::NotBuilt { name, variable, looked: path }) }
}

/// How an agent is started, beyond its node's name.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// The directory that is its datastore.
    pub datastore: PathBuf,
    /// Its configuration file, if any.
    pub config: Option<PathBuf>,
    /// Environment variables, such as `FELIX_IPTABLESBACKEND`, in addition to this process's.
    pub env: Vec<(String, String)>,
    /// The programs to use; if `None`, those that [`Programs::locate`] finds.
    pub programs: Option<Programs>,
}

/// A running agent, or one that has ended and left its log. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    node: String,
    child: Child,
    ctl: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Its unix socket, for `tortiectl`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote to standard output and standard error so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::io("look at an agent's process"))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        kill(pid, signal).map_err(LabError::sys("signal an agent"))
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// [`LabError::Agent`] when it has not ended after `timeout`.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<ExitStatus, LabError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self.failure(format!("it has not ended within {timeout:?}")));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for a `tortiectl` that waits for this agent, or for the agent's end.
    fn wait_with(&mut self, ctl: &mut Child) -> Result<(), LabError> {
        loop {
            if let Some(status) = ctl.try_wait().map_err(LabError::io("look at tortiectl"))? {
                return if status.success() { Ok(()) } else { Err(self.gave_up(ctl, status)) };
            }
            if let Some(status) = self.ended()? {
                return Err(self.failure(format!("it has ended ({status})")));
            }
            thread::sleep(POLL);
        }
    }

    /// The error for a `tortiectl` that failed, with what it said.
    fn gave_up(&self, ctl: &mut Child, status: ExitStatus) -> LabError {
        let mut said = String::new();
        // What cannot be read is not shown.
        let _ = ctl.stdout.take().map(|mut pipe| pipe.read_to_string(&mut said));
        let _ = ctl.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said));
        self.failure(format!("`tortiectl wait` gave up ({status}): {}", said.trim()))
    }

    /// An error about this agent with the end of its log.
    fn failure(&self, reason: String) -> LabError {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        LabError::Agent { node: self.node.clone(), reason, log: tail }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // An error says that it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    /// Starts an agent on `node` with `datastore` as its datastore directory; one that runs there is killed first.
    ///
    /// # Errors
    /// When there is no such node or the agent cannot be started.
    pub fn start_agent(&mut self, node: &str, datastore: &Path) -> Result<(), LabError> {
        self.start_agent_with(
            node,
            &AgentOptions { datastore: datastore.to_owned(), ..AgentOptions::default() },
        )
    }

    /// [`start_agent`](Self::start_agent) with more to say.
    ///
    /// # Errors
    /// When there is no such node or the agent cannot be started.
    pub fn start_agent_with(&mut self, node: &str, options: &AgentOptions) -> Result<(), LabError> {
        let programs = options.programs.clone().map_or_else(Programs::locate, Ok)?;
        self.agents.remove(node);
        let log = self.dir().join(format!("{node}.log"));
        let socket = self.dir().join(format!("{node}.sock"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::io(format!("open {}", log.display())))?;
        let errors = output.try_clone().map_err(LabError::io("share an agent's log"))?;
        let mut command = Command::new(&programs.agent);
        command.args(["--node", node, "--datastore"]).arg(format!("local:{}", options.datastore.display()));
        if let Some(config) = &options.config {
            command.arg("--config").arg(config);
        }
        command.arg("--socket").arg(&socket);
        // Nodes are separate machines: they must not wait for each other's iptables.
        command.env("XTABLES_LOCKFILE", self.dir().join(format!("{node}.xtables.lock")));
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = self.node(node)?.netns.spawn(&mut command)?;
        let agent = Agent { node: node.to_owned(), child, ctl: programs.ctl, socket, log };
        self.agents.insert(node.to_owned(), agent);
        Ok(())
    }

    /// The agent on `node`.
    ///
    /// # Errors
    /// When none was started there.
    pub fn agent(&self, node: &str) -> Result<&Agent, LabError> {
        self.agents.get(node).ok_or_else(|| LabError::UnknownEndpoint(format!("agent on {node}")))
    }

    /// The agent on `node`, to signal it or wait for it.
    ///
    /// # Errors
    /// When none was started there.
    pub fn agent_mut(&mut self, node: &str) -> Result<&mut Agent, LabError> {
        self.agents.get_mut(node).ok_or_else(|| LabError::UnknownEndpoint(format!("agent on {node}")))
    }

    /// Ends the agent on `node` with SIGTERM and returns its exit status. What it programmed stays.
    ///
    /// # Errors
    /// When none runs there, or it does not end.
    pub fn stop_agent(&mut self, node: &str) -> Result<ExitStatus, LabError> {
        let agent = self.agent_mut(node)?;
        agent.signal(Signal::SIGTERM)?;
        let status = agent.wait_for_end(STOP_DEADLINE)?;
        self.agents.remove(node);
        Ok(status)
    }

    /// Runs `tortiectl --socket … ARGS` against the agent on `node`.
    ///
    /// # Errors
    /// When no agent runs there or the program cannot be started; its own failure is in the output's status.
    pub fn ctl(&self, node: &str, args: &[&str]) -> Result<Output, LabError> {
        self.spawn_ctl(node, args)?.wait_with_output().map_err(LabError::io("wait for tortiectl"))
    }

    /// Waits until every agent's kernel holds all that was in its datastore when this was called.
    ///
    /// # Errors
    /// [`LabError::Agent`], with the agent's log, for the first node where that did not happen within `timeout`, or
    /// whose agent has ended.
    pub fn wait_applied(&mut self, timeout: Duration) -> Result<(), LabError> {
        let timeout_text = format!("{}ms", timeout.as_millis());
        let args = ["wait", "--applied", "--timeout", &timeout_text];
        let mut waiting: Vec<(String, Child)> = self
            .agents
            .keys()
            .map(|node| Ok((node.clone(), self.spawn_ctl(node, &args)?)))
            .collect::<Result<_, LabError>>()?;
        let mut result = Ok(());
        // After a failure the others are waited for no longer, but they must not be left as zombies.
        while let Some((node, mut ctl)) = waiting.pop() {
            if result.is_ok() {
                result = self.agent_mut(&node)?.wait_with(&mut ctl);
            }
            let _ = ctl.kill();
            let _ = ctl.wait();
        }
        result
    }

    fn spawn_ctl(&self, node: &str, args: &[&str]) -> Result<Child, LabError> {
        let agent = self.agent(node)?;
        let mut command = Command::new(&agent.ctl);
        command.arg("--socket").arg(agent.socket()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.node(node)?.netns.spawn(&mut command)
    }
}

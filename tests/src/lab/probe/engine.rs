//! Running a batch of probes: open the listeners, start the senders, then one loop over all of their sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use super::open::{self, Listen, Opened};
use super::{by_host, packet};
use crate::lab::{Host, LabError, Traffic};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;

/// A probe with everything looked up.
#[derive(Debug)]
pub(super) struct Flow<'a> {
    /// Unique in the lab.
    pub(super) id: u32,
    pub(super) from: &'a Host,
    pub(super) to: &'a Host,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) traffic: Traffic,
}

/// Sends all flows and says for each whether it passed.
pub(super) fn run(flows: &[&Flow<'_>], wait: Duration) -> Result<Vec<bool>, LabError> {
    let mut batch = Batch::new(flows)?;
    batch.open_listeners()?;
    batch.open_senders()?;
    batch.collect(wait).map_err(LabError::io("wait for probes"))?;
    Ok(batch.passed)
}

/// A socket that may have something to say.
#[derive(Debug)]
enum Watched<'a> {
    TcpListener(Socket, &'a Host),
    UdpServer(UdpSocket, &'a Host),
    RawListener(Socket, &'a Host),
    /// A sender, with its flow's index.
    TcpClient(Socket, usize),
    UdpClient(UdpSocket, usize),
}

#[derive(Debug)]
struct Batch<'a> {
    flows: &'a [&'a Flow<'a>],
    by_id: BTreeMap<u32, usize>,
    passed: Vec<bool>,
    epoll: Epoll,
    watched: Vec<Watched<'a>>,
    /// Connections that were answered; they stay open until the batch is over.
    accepted: Vec<Socket>,
}

impl<'a> Batch<'a> {
    fn new(flows: &'a [&'a Flow<'a>]) -> Result<Self, LabError> {
        Ok(Self {
            flows,
            by_id: flows.iter().enumerate().map(|(index, flow)| (flow.id, index)).collect(),
            passed: vec![false; flows.len()],
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
                .map_err(LabError::sys("make an epoll descriptor"))?,
            watched: Vec::new(),
            accepted: Vec::new(),
        })
    }

    /// Visits every destination once and opens what its flows need there.
    fn open_listeners(&mut self) -> Result<(), LabError> {
        let needed = self.flows.iter().map(|flow| (flow.to, (flow.destination, Listen::from(flow.traffic))));
        for (host, wanted) in by_host(needed).into_values() {
            let wanted: BTreeSet<(IpAddr, Listen)> = wanted.into_iter().collect();
            let open =
                || wanted.iter().map(|&(ip, what)| open::listener(what, ip)).collect::<io::Result<Vec<_>>>();
            let failed = LabError::io(format!("listen at {}", host.endpoint()));
            for opened in host.netns().enter(open)?.map_err(failed)? {
                self.watch(match opened {
                    Opened::TcpListener(socket) => Watched::TcpListener(socket, host),
                    Opened::UdpServer(socket) => Watched::UdpServer(socket, host),
                    Opened::RawListener(socket) => Watched::RawListener(socket, host),
                    _ => continue,
                })?;
            }
        }
        Ok(())
    }

    /// Visits every source once and starts its flows.
    fn open_senders(&mut self) -> Result<(), LabError> {
        let starting = self.flows.iter().enumerate().map(|(index, flow)| (flow.from, (index, *flow)));
        for (host, flows) in by_host(starting).into_values() {
            let open = || flows.iter().map(|(_, flow)| open::sender(flow)).collect::<Result<Vec<_>, _>>();
            let all = host.netns().enter(open)??;
            for ((index, _), opened) in flows.iter().zip(all) {
                self.watch(match opened {
                    Opened::TcpClient(socket) => Watched::TcpClient(socket, *index),
                    Opened::UdpClient(socket) => Watched::UdpClient(socket, *index),
                    _ => continue, // told by arrival, or refused
                })?;
            }
        }
        Ok(())
    }

    fn watch(&mut self, socket: Watched<'a>) -> Result<(), LabError> {
        let key = EpollEvent::new(EpollFlags::EPOLLIN, self.watched.len() as u64);
        match &socket {
            Watched::TcpListener(s, _) | Watched::RawListener(s, _) | Watched::TcpClient(s, _) => {
                self.epoll.add(s, key)
            }
            Watched::UdpServer(s, _) | Watched::UdpClient(s, _) => self.epoll.add(s, key),
        }
        .map_err(LabError::sys("watch a socket"))?;
        self.watched.push(socket);
        Ok(())
    }

    /// Serves and listens until every flow passed or the time is over.
    fn collect(&mut self, wait: Duration) -> io::Result<()> {
        let deadline = Instant::now() + wait;
        let mut events = [EpollEvent::empty(); EVENTS];
        while self.passed.contains(&false) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Rounded up: a timeout of 0 would spin.
            let timeout =
                EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                self.handle(usize::try_from(event.data()).unwrap_or(usize::MAX))?;
            }
        }
        Ok(())
    }

    /// One socket has something to say.
    fn handle(&mut self, key: usize) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.watched.get(key) {
            None => {}
            Some(Watched::TcpListener(socket, host)) => {
                if let Ok((connection, _)) = socket.accept() {
                    connection.set_linger(Some(Duration::ZERO))?;
                    // A peer that is gone again does not count as reached.
                    let _ = (&connection).write(host.endpoint().to_string().as_bytes());
                    self.accepted.push(connection);
                }
            }
            Some(Watched::UdpServer(socket, host)) => {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    let reply = udp_reply(host, &buffer[..length]);
                    // An output rule may refuse the reply; then the probe has not passed.
                    let _ = socket.send_to(&reply, peer);
                }
            }
            Some(Watched::RawListener(socket, host)) => {
                let length = (&*socket).read(&mut buffer).unwrap_or(0);
                let index = packet::find_token(&buffer[..length]).and_then(|id| self.by_id.get(&id)).copied();
                // The token also comes in an echo's reply, which reaches the source.
                if let Some(index) = index.filter(|&i| self.flows[i].to.endpoint() == host.endpoint()) {
                    self.passed[index] = true;
                }
            }
            Some(Watched::TcpClient(socket, index)) => {
                let length = (&*socket).read(&mut buffer).unwrap_or(0);
                let name = self.flows[*index].to.endpoint().to_string();
                self.passed[*index] = buffer[..length] == *name.as_bytes();
                self.epoll.delete(socket)?; // answered, or refused and for ever readable
            }
            Some(Watched::UdpClient(socket, index)) => {
                let length = socket.recv(&mut buffer).unwrap_or(0);
                let flow = self.flows[*index];
                if buffer[..length] == udp_reply(flow.to, &flow.id.to_be_bytes()) {
                    self.passed[*index] = true;
                }
            }
        }
        Ok(())
    }
}

/// A server's name and what it was asked.
fn udp_reply(server: &Host, question: &[u8]) -> Vec<u8> {
    [server.endpoint().to_string().as_bytes(), b"|", question].concat()
}

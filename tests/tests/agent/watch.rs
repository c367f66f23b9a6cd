//! Watching traffic while something else happens: flows that must never pass, flows that must always pass, and one
//! long conversation.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libtest_mimic::Failed;
use tortie_tests::lab::Netns;

use crate::Outcome;
use crate::scene::{Scene, eventually};

/// The next port to listen on: each watch has its own. No test's policy names one of them.
static NEXT_PORT: AtomicU16 = AtomicU16::new(7000);
/// Between two flows.
const PACE: Duration = Duration::from_millis(2);
/// How long an answer may take before it counts as lost: the machine may be busy, but nothing here is lost by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

fn next_port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

/// A UDP server in a namespace that answers each datagram with the address that it came from.
pub(crate) struct Mirror {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    pub(crate) fn open(netns: &Netns, port: u16) -> Result<Self, Failed> {
        let socket = netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        socket.set_read_timeout(Some(TICK))?;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), seen.clone());
        let thread = thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
                counter.fetch_add(1, Ordering::Relaxed);
                // A lost answer shows at the one who asked.
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// Datagrams that came in so far.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic in it has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sends one datagram from a new port to a [`Mirror`]; the source address that it saw, if it answered in time.
pub(crate) fn ask(from: &Netns, to: IpAddr, port: u16) -> Result<Option<IpAddr>, Failed> {
    let socket = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    Ok(exchange(&socket, SocketAddr::new(to, port))?)
}

/// Sends one datagram of a flow to a [`Mirror`]; the source address that it saw, if it answered in time.
pub(crate) fn exchange(socket: &UdpSocket, to: SocketAddr) -> io::Result<Option<IpAddr>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", to)?;
    let mut buffer = [0; 64];
    let length = receive(socket, &mut buffer)?;
    Ok(length.and_then(|length| String::from_utf8_lossy(&buffer[..length]).parse().ok()))
}

/// Reads one datagram; `None` when none comes within the socket's timeout.
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match socket.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            // The end of a program that another test ran interrupts waits, and so does a machine's sleep.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
    }
}

/// New flows from one pod to another, one after the other, until it is [`end`](Self::end)ed.
pub(crate) struct Watch {
    name: String,
    must_pass: bool,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    mirror: Mirror,
    thread: JoinHandle<io::Result<u64>>,
}

impl Watch {
    /// Flows that must all pass.
    pub(crate) fn open(scene: &Scene, from: &str, to: &str) -> Result<Self, Failed> {
        Self::start(scene, from, to, true)
    }

    /// Flows none of which may pass.
    pub(crate) fn closed(scene: &Scene, from: &str, to: &str) -> Result<Self, Failed> {
        Self::start(scene, from, to, false)
    }

    fn start(scene: &Scene, from: &str, to: &str, must_pass: bool) -> Result<Self, Failed> {
        let address = scene.lab.host(&to.parse()?)?.addresses().v4.ok_or("no IPv4 address")?;
        let port = next_port();
        let mirror = Mirror::open(&scene.netns(to)?, port)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter, netns) = (stop.clone(), sent.clone(), scene.netns(from)?);
        let target = SocketAddr::new(address.into(), port);
        let thread = thread::spawn(move || {
            let flows = move || send_flows(target, must_pass, &stopped, &counter);
            netns.enter(flows).map_err(io::Error::other)?
        });
        let watch = Self { name: format!("{from} -> {to}"), must_pass, stop, sent, mirror, thread };
        watch.goes_on()?;
        Ok(watch)
    }

    /// Waits until some more flows were tried.
    pub(crate) fn goes_on(&self) -> Outcome {
        let before = self.sent.load(Ordering::Relaxed);
        eventually("more flows", || {
            Ok((self.thread.is_finished() || self.sent.load(Ordering::Relaxed) > before + 20).then_some(()))
        })
    }

    /// Ends it, and says whether all flows went as they must.
    pub(crate) fn end(self) -> Outcome {
        self.goes_on()?;
        self.stop.store(true, Ordering::Relaxed);
        let lost = self.thread.join().map_err(|_| "a watch panicked")??;
        let (sent, seen) = (self.sent.load(Ordering::Relaxed), self.mirror.seen());
        match self.must_pass {
            true if lost > 0 => Err(format!("{}: {lost} of {sent} flows were lost", self.name).into()),
            false if seen > 0 => Err(format!("{}: {seen} of {sent} flows passed", self.name).into()),
            _ => Ok(()),
        }
    }
}

/// Returns how many got no answer, if answers are waited for.
fn send_flows(to: SocketAddr, must_pass: bool, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<u64> {
    let mut lost = 0;
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        if must_pass {
            lost += u64::from(exchange(&socket, to)?.is_none());
        } else {
            socket.send_to(b"?", to)?;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PACE);
    }
    Ok(lost)
}

/// An established TCP connection whose far end repeats what it hears.
pub(crate) struct Talk(TcpStream);

impl Talk {
    pub(crate) fn open(scene: &Scene, from: &str, to: &str) -> Result<Self, Failed> {
        let address = scene.lab.host(&to.parse()?)?.addresses().v4.ok_or("no IPv4 address")?;
        let at = SocketAddr::new(address.into(), next_port());
        let listener = scene.netns(to)?.enter(|| TcpListener::bind(at))??;
        let near = scene.netns(from)?.enter(|| TcpStream::connect_timeout(&at, PATIENCE))??;
        let (mut far, _) = listener.accept()?;
        near.set_read_timeout(Some(PATIENCE))?;
        thread::spawn(move || {
            let mut byte = [0];
            // Ends when the near end is dropped.
            while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        });
        Ok(Self(near))
    }

    /// Says something and waits for the echo.
    pub(crate) fn goes_on(&mut self) -> Outcome {
        self.0.write_all(b"x")?;
        let mut byte = [0];
        self.0.read_exact(&mut byte).map_err(|e| format!("the connection is dead: {e}"))?;
        Ok(())
    }
}

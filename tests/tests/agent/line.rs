//! Connections whose ends a test holds in its hands, and what the kernel knows of them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libtest_mimic::Failed;
use tortie_tests::lab::Family;

use crate::Outcome;
use crate::scene::{NODE, Scene, eventually};
use crate::watch::{Mirror, exchange, receive};

/// How long what must not come is waited for.
pub(crate) const BLOCKED_WAIT: Duration = Duration::from_millis(200);
/// The same for what must.
pub(crate) const PASS_WAIT: Duration = Duration::from_secs(5);
/// Between two datagrams of a stream.
const PACE: Duration = Duration::from_millis(1);
/// Numbers in marks of connections that were cut.
const REVOKED: [u32; 2] = [3, 4];

static NEXT_PORT: AtomicU16 = AtomicU16::new(9000);

/// A connection, of which each end can say something to the other.
pub(crate) struct Line {
    pub(crate) ends: Ends,
    pub(crate) port: u16,
}

pub(crate) enum Ends {
    Udp(UdpSocket, UdpSocket),
    Tcp(TcpStream, TcpStream),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// From who began it.
    There,
    Back,
}

impl Line {
    /// Of either protocol and IP version, to a port of its own.
    pub(crate) fn of(
        scene: &Scene,
        from: &str,
        to: &str,
        (is_tcp, family): (bool, Family),
    ) -> Result<Self, Failed> {
        let at = SocketAddr::new(address(scene, to, family)?, NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        if is_tcp { Self::tcp_by(scene, from, to, at) } else { Self::udp_to(scene, from, to, at) }
    }

    pub(crate) fn tcp(scene: &Scene, from: &str, to: &str) -> Result<Self, Failed> {
        Self::of(scene, from, to, (true, Family::V4))
    }

    pub(crate) fn udp(scene: &Scene, from: &str, to: &str) -> Result<Self, Failed> {
        Self::of(scene, from, to, (false, Family::V4))
    }

    pub(crate) fn tcp_to(scene: &Scene, from: &str, to: &str, port: u16) -> Result<Self, Failed> {
        Self::tcp_by(scene, from, to, SocketAddr::new(address(scene, to, Family::V4)?, port))
    }

    /// To an address that is another's, at the same port.
    pub(crate) fn tcp_by(scene: &Scene, from: &str, to: &str, by: SocketAddr) -> Result<Self, Failed> {
        let port = by.port();
        let family = if by.is_ipv4() { Family::V4 } else { Family::V6 };
        let at = SocketAddr::new(address(scene, to, family)?, port);
        let listener = scene.netns(to)?.enter(|| TcpListener::bind(at))??;
        let near = scene.netns(from)?.enter(|| TcpStream::connect_timeout(&by, PASS_WAIT))??;
        let (far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        Self { ends: Ends::Tcp(near, far), port }.begun()
    }

    fn udp_to(scene: &Scene, from: &str, to: &str, at: SocketAddr) -> Result<Self, Failed> {
        let port = at.port();
        let any = address(scene, from, if at.is_ipv4() { Family::V4 } else { Family::V6 })?;
        let far = scene.netns(to)?.enter(|| UdpSocket::bind(at))??;
        let near = scene.netns(from)?.enter(|| UdpSocket::bind((any, 0)))??;
        near.connect(at)?;
        near.send(b"!")?;
        far.set_read_timeout(Some(PASS_WAIT))?;
        let (_, peer) = far.recv_from(&mut [0])?;
        far.connect(peer)?;
        Self { ends: Ends::Udp(near, far), port }.begun()
    }

    fn begun(mut self) -> Result<Self, Failed> {
        // An answer makes it established.
        self.passes(To::Back)?;
        self.passes(To::There)?;
        Ok(self)
    }

    /// Says something; whether it arrives.
    pub(crate) fn arrives(&mut self, to: To, wait: Duration) -> io::Result<bool> {
        match (&mut self.ends, to) {
            (Ends::Udp(near, far), To::There) => say(near, far, wait),
            (Ends::Udp(near, far), To::Back) => say(far, near, wait),
            (Ends::Tcp(near, far), To::There) => write(near, far, wait),
            (Ends::Tcp(near, far), To::Back) => write(far, near, wait),
        }
    }

    fn passes(&mut self, to: To) -> Outcome {
        if self.arrives(to, PASS_WAIT)? {
            return Ok(());
        }
        Err(format!("port {}: cut {to:?}", self.port).into())
    }

    pub(crate) fn goes_on(&mut self) -> Outcome {
        [To::There, To::Back, To::Back, To::There].into_iter().try_for_each(|to| self.passes(to))
    }

    /// Nothing gets there, and after two packets nothing comes back.
    pub(crate) fn is_cut(&mut self, scene: &Scene) -> Outcome {
        for to in [To::There, To::There] {
            if self.arrives(to, BLOCKED_WAIT)? {
                return Err(format!("port {} goes on", self.port).into());
            }
        }
        // TCP says the second time again what it said the first.
        let number = || Ok(REVOKED.contains(&(entry(scene, self.port)?.mark >> 16)).then_some(()));
        eventually("a connection that is marked as cut", number)?;
        for _ in 0..2 {
            if self.arrives(To::Back, BLOCKED_WAIT)? {
                return Err(format!("port {} is answered", self.port).into());
            }
        }
        Ok(())
    }

    /// It comes to life again, if each end says something.
    pub(crate) fn resumes(&mut self) -> Outcome {
        if let Ends::Tcp(near, far) = &mut self.ends {
            // What was said meanwhile arrives now: three times one way, twice the other.
            near.write_all(b"x")?;
            for (stream, count) in [(far, 3), (near, 2)] {
                stream.set_read_timeout(Some(PASS_WAIT * 2))?;
                stream.read_exact(&mut vec![0; count])?;
            }
        }
        self.goes_on()
    }
}

fn say(from: &UdpSocket, to: &UdpSocket, wait: Duration) -> io::Result<bool> {
    to.set_read_timeout(Some(wait))?;
    match from.send(b"!") {
        // The node's own rules tell its programs at once.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        sent => sent?,
    };
    Ok(receive(to, &mut [0])?.is_some())
}

fn write(from: &mut TcpStream, to: &mut TcpStream, wait: Duration) -> io::Result<bool> {
    to.set_read_timeout(Some(wait))?;
    from.write_all(b"!")?;
    loop {
        return match to.read(&mut [0]) {
            Ok(count) => Ok(count == 1),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(error),
        };
    }
}

fn address(scene: &Scene, name: &str, family: Family) -> Result<IpAddr, Failed> {
    Ok(scene.lab.host(&name.parse()?)?.addresses().get(family).ok_or("no such address")?)
}

/// What the node's kernel knows of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) mark: u32,
}

/// The connection to a port.
pub(crate) fn entry(scene: &Scene, port: u16) -> Result<Entry, Failed> {
    let text = scene.run(NODE, "conntrack -L -o id")?;
    let line = text.lines().find(|line| line.contains(&format!(" dport={port} ")));
    let line = line.ok_or_else(|| format!("no connection to port {port} in\n{text}"))?;
    let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
    let mark = word("mark=").map_or(Ok(0), str::parse)?;
    Ok(Entry { id: word("id=").ok_or("no id")?.to_owned(), mark })
}

/// Datagrams of one flow, each of which must be answered.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<u64>>,
    port: u16,
    id: String,
    _mirror: Mirror,
}

impl Stream {
    pub(crate) fn open(scene: &Scene, from: &str, to: &str) -> Result<Self, Failed> {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let mirror = Mirror::open(&scene.netns(to)?, port)?;
        let target = SocketAddr::new(address(scene, to, Family::V4)?, port);
        let socket = scene.netns(from)?.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), sent.clone());
        let thread = thread::spawn(move || {
            let mut lost = 0;
            while !stopped.load(Ordering::Relaxed) {
                lost += u64::from(exchange(&socket, target)?.is_none());
                counter.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PACE);
            }
            Ok(lost)
        });
        let id = eventually("a stream", || Ok(entry(scene, port).ok()))?.id;
        let stream = Self { stop, sent, thread, port, id, _mirror: mirror };
        stream.goes_on()?;
        Ok(stream)
    }

    fn goes_on(&self) -> Outcome {
        let before = self.sent.load(Ordering::Relaxed);
        eventually("more datagrams", || {
            let is_more = self.sent.load(Ordering::Relaxed) > before + 10;
            Ok((self.thread.is_finished() || is_more).then_some(()))
        })
    }

    /// That nothing was lost, and that it is one connection from the first datagram to the last.
    pub(crate) fn end(self, scene: &Scene) -> Outcome {
        self.goes_on()?;
        self.stop.store(true, Ordering::Relaxed);
        let lost = self.thread.join().map_err(|_| "a stream panicked")??;
        assert_eq!(lost, 0, "of {}", self.sent.load(Ordering::Relaxed));
        assert_eq!(entry(scene, self.port)?.id, self.id);
        Ok(())
    }
}

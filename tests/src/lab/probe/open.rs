//! Opening the sockets of probes, in the namespace that the calling thread is in.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::engine::Flow;
use super::packet;
use crate::lab::{LabError, Traffic};

/// Fresh source ports are taken from here on, above what is served.
const FIRST_SOURCE_PORT: u32 = 20_000;
const SOURCE_PORTS: u32 = 40_000;
/// Ports tried when the fresh one is in use.
const PORT_TRIES: u32 = 200;
/// Connections that may wait for their listener: every probe of a call may be for the same one.
const BACKLOG: i32 = 4096;
const RAW_BUFFER_BYTES: usize = 4 << 20;
/// How long a port to listen on may be in use.
const FREE_DEADLINE: Duration = Duration::from_secs(5);

/// What is listened for at one address. SCTP, ICMP and other protocols are told by arrival, all ports together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listen {
    Tcp(u16),
    Udp(u16),
    Raw(u8),
}

impl From<Traffic> for Listen {
    fn from(traffic: Traffic) -> Self {
        match traffic {
            Traffic::Tcp { port, .. } => Self::Tcp(port),
            Traffic::Udp { port, .. } => Self::Udp(port),
            _ => Self::Raw(traffic.protocol()),
        }
    }
}

/// A socket that will say whether a probe passed, or that had to stay open for it.
#[derive(Debug)]
pub(super) enum Opened {
    TcpListener(Socket),
    UdpServer(UdpSocket),
    RawListener(Socket),
    TcpClient(Socket),
    UdpClient(UdpSocket),
    /// The packet is sent; there is nothing to wait for here.
    Sent,
    /// The kernel refused to send: an output rule, or no route.
    Refused,
}

/// Opens a listener.
pub(super) fn listener(what: Listen, ip: IpAddr) -> io::Result<Opened> {
    let at = |port| SockAddr::from(SocketAddr::new(ip, port));
    match what {
        Listen::Tcp(port) => {
            let socket = new_socket(ip, Type::STREAM, Protocol::TCP)?;
            socket.set_reuse_address(true)?;
            bind_when_free(&socket, &at(port))?;
            socket.listen(BACKLOG)?;
            Ok(Opened::TcpListener(socket))
        }
        Listen::Udp(port) => {
            let socket = new_socket(ip, Type::DGRAM, Protocol::UDP)?;
            bind_when_free(&socket, &at(port))?;
            Ok(Opened::UdpServer(socket.into()))
        }
        Listen::Raw(protocol) => {
            let socket = new_socket(ip, Type::RAW, Protocol::from(i32::from(protocol)))?;
            socket.set_recv_buffer_size(RAW_BUFFER_BYTES)?;
            socket.bind(&at(0))?;
            Ok(Opened::RawListener(socket))
        }
    }
}

/// Opens a probe's sender and sends.
pub(super) fn sender(flow: &Flow<'_>) -> Result<Opened, LabError> {
    let to = |port| SockAddr::from(SocketAddr::new(flow.destination, port));
    match flow.traffic {
        Traffic::Tcp { port, source_port } => {
            let socket =
                bound(flow, Type::STREAM, Protocol::TCP, source_port).map_err(refused("bind", flow))?;
            socket.set_linger(Some(Duration::ZERO)).map_err(refused("setsockopt", flow))?;
            let connected = socket.connect(&to(port));
            tolerate(connected, || Opened::TcpClient(socket)).map_err(refused("connect", flow))
        }
        Traffic::Udp { port, source_port } => {
            let socket =
                bound(flow, Type::DGRAM, Protocol::UDP, source_port).map_err(refused("bind", flow))?;
            if let Err(error) = socket.connect(&to(port)) {
                return tolerate(Err::<(), _>(error), || Opened::Refused).map_err(refused("connect", flow));
            }
            let sent = socket.send(&flow.id.to_be_bytes());
            tolerate(sent, || Opened::UdpClient(socket.into())).map_err(refused("send", flow))
        }
        Traffic::Sctp { source_port, .. } => {
            send_raw(flow, source_port.unwrap_or_else(|| fresh_port(flow.id, 0)))
        }
        Traffic::Icmp { .. } | Traffic::Icmpv6 { .. } | Traffic::Ip { .. } => send_raw(flow, 0),
    }
}

fn send_raw(flow: &Flow<'_>, source_port: u16) -> Result<Opened, LabError> {
    let protocol = Protocol::from(i32::from(flow.traffic.protocol()));
    let socket = new_socket(flow.source, Type::RAW, protocol).map_err(refused("socket", flow))?;
    socket.bind(&SocketAddr::new(flow.source, 0).into()).map_err(refused("bind", flow))?;
    let packet = packet::build(flow.traffic, flow.id, source_port);
    let sent = socket.send_to(&packet, &SocketAddr::new(flow.destination, 0).into());
    tolerate(sent, || Opened::Sent).map_err(refused("sendto", flow))
}

/// For `map_err`: the system call that failed, and for what.
fn refused(call: &'static str, flow: &Flow<'_>) -> impl FnOnce(io::Error) -> LabError {
    let (from, to) = (flow.from.endpoint(), flow.to.endpoint());
    move |error| {
        let (traffic, source, destination) = (flow.traffic, flow.source, flow.destination);
        LabError::io(format!("{call} for {traffic} from {from} ({source}) to {to} ({destination})"))(error)
    }
}

/// Tells what a policy or a missing route does to a sender from a fault of the lab. `EINVAL` (or `ENOBUFS` over IPv4)
/// is one: the machine's table of neighbours is full.
fn tolerate<T>(result: io::Result<T>, opened: impl FnOnce() -> Opened) -> io::Result<Opened> {
    let Err(error) = result else { return Ok(opened()) };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINPROGRESS) => Ok(opened()),
        Some(
            Errno::EPERM | Errno::EACCES | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ECONNREFUSED,
        ) => Ok(Opened::Refused),
        _ => Err(error),
    }
}

/// A socket bound to the probe's source address and to the given or a fresh source port.
fn bound(flow: &Flow<'_>, kind: Type, protocol: Protocol, port: Option<u16>) -> io::Result<Socket> {
    if let Some(port) = port {
        let socket = new_socket(flow.source, kind, protocol)?;
        socket.set_reuse_address(true)?; // for other probes from the same port to other destinations
        socket.bind(&SocketAddr::new(flow.source, port).into())?;
        return Ok(socket);
    }
    let mut last = io::ErrorKind::AddrInUse.into();
    for attempt in 0..PORT_TRIES {
        let socket = new_socket(flow.source, kind, protocol)?;
        match socket.bind(&SocketAddr::new(flow.source, fresh_port(flow.id, attempt)).into()) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A source port that the last some ten thousand probes did not use.
fn fresh_port(id: u32, attempt: u32) -> u16 {
    // The step is coprime to the number of ports, so that a second attempt is not the next probe's first.
    let offset = id.wrapping_add(attempt.wrapping_mul(7919)) % SOURCE_PORTS;
    u16::try_from(FIRST_SOURCE_PORT + offset).unwrap_or(u16::MAX)
}

/// Binds a listener. The one of an earlier call may be open for a moment more: a child process that another thread
/// is starting has copies of all descriptors until it executes its program.
fn bind_when_free(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    let deadline = Instant::now() + FREE_DEADLINE;
    loop {
        match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

fn new_socket(ip: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

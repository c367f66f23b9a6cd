//! Frames put on a cable, many at a time, and counted at the far ends of others.
//!
//! A frame goes through a node that connects two cables within the system call that sends it: the kernel forwards it
//! on the processor, and at the cost, of the thread that sends. That is what makes a packet's cost measurable.

use std::fs;
use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrStorage, bind, sendmmsg, socket,
};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::lab::Netns;

/// Without the check sequence: what Ethernet has at least.
const FRAME_LENGTH: usize = 60;
const ETHERNET_LENGTH: usize = 14;
const IP_LENGTH: usize = 20;
/// Frames of one system call.
const AT_ONCE: usize = 64;
/// How long a frame may be under way.
const TRAVEL: Duration = Duration::from_secs(1);
/// Where in the header of IPv4 its checksum is.
const IP_CHECKSUM: usize = 10;

/// An address of Ethernet.
pub(super) type Mac = [u8; 6];

/// A UDP packet as it is on a cable.
#[derive(Debug, Clone)]
pub(super) struct Frame([u8; FRAME_LENGTH]);

impl Frame {
    /// A packet to the station `to_mac`.
    pub(super) fn new(to_mac: Mac, from: SocketAddrV4, to: SocketAddrV4) -> Self {
        let mut bytes = [0; FRAME_LENGTH];
        let (ethernet, ip) = bytes.split_at_mut(ETHERNET_LENGTH);
        ethernet[..6].copy_from_slice(&to_mac);
        ethernet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        ethernet[12..].copy_from_slice(&[8, 0]); // IPv4
        let [high, low] = length(ip).to_be_bytes();
        // Version and length of the header; type of service; length; id; do not fragment; time to live; UDP.
        ip[..IP_CHECKSUM].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17]);
        ip[12..16].copy_from_slice(&from.ip().octets());
        ip[16..20].copy_from_slice(&to.ip().octets());
        let sum = checksum(&ip[..IP_LENGTH]).to_be_bytes();
        ip[IP_CHECKSUM..12].copy_from_slice(&sum);
        let udp = &mut ip[IP_LENGTH..];
        let [high, low] = length(udp).to_be_bytes();
        udp[..2].copy_from_slice(&from.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&[high, low]); // and no checksum, which IPv4 allows
        Self(bytes)
    }
}

/// All of a frame's parts are short.
fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

/// RFC 1071, of a header whose own checksum is zero.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// One end of a cable.
#[derive(Debug)]
pub(super) struct Cable {
    socket: OwnedFd,
    netns: Netns,
    interface: String,
}

impl Cable {
    /// The end called `interface` in `netns`.
    pub(super) fn open(netns: &Netns, interface: &str) -> anyhow::Result<Self> {
        let socket = netns.enter(|| -> anyhow::Result<OwnedFd> {
            let mut all = getifaddrs()?.filter(|found| found.interface_name == interface);
            let address = all.find_map(|found| found.address.as_ref()?.as_link_addr().copied());
            let address = address.with_context(|| format!("there is no interface {interface}"))?;
            // No protocol: nothing is received by it.
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &address)?;
            Ok(socket)
        })??;
        Ok(Self { socket, netns: netns.clone(), interface: interface.to_owned() })
    }

    /// Sends all `frames` in their order; returns what that cost this thread's processor, and so the kernel's way
    /// with them as far as it was gone at once.
    pub(super) fn send(&self, frames: &[Frame]) -> anyhow::Result<Duration> {
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(&frame.0)]).collect();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(AT_ONCE, None);
        let addresses = [None; AT_ONCE];
        let before = processor_time()?;
        for some in slices.chunks(AT_ONCE) {
            let fd = self.socket.as_raw_fd();
            let sent = sendmmsg(fd, &mut headers, some, &addresses[..some.len()], [], MsgFlags::empty())?;
            ensure!(sent.count() == some.len(), "{} did not take all frames", self.interface);
        }
        Ok(processor_time()?.saturating_sub(before))
    }

    /// Waits for so many frames since there were `before`; returns how many came.
    pub(super) fn wait_for(&self, before: u64, expected: usize) -> anyhow::Result<u64> {
        let deadline = Instant::now() + TRAVEL;
        loop {
            let came = self.received()? - before;
            if came >= expected as u64 || Instant::now() >= deadline {
                return Ok(came);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Frames that came to this end so far.
    pub(super) fn received(&self) -> anyhow::Result<u64> {
        let text = self.netns.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        received(&text, &self.interface).with_context(|| format!("{} does not count", self.interface))
    }
}

/// From the text of `/proc/net/dev`: the second number is that of packets received.
fn received(devices: &str, interface: &str) -> Option<u64> {
    let counters = devices.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    counters.split_whitespace().nth(1)?.parse().ok()
}

/// The time that this thread has had of a processor.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Keeps this thread on one processor, the last of those that it may use.
pub(super) fn stay_on_one_processor() -> anyhow::Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|number| allowed.is_set(*number).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("this thread may use no processor")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_a_valid_udp_packet() {
        let (from, to) = ("198.18.0.1:1025".parse().unwrap(), "10.65.1.2:2019".parse().unwrap());
        let Frame(bytes) = Frame::new([0xee; 6], from, to);
        let ip = &bytes[ETHERNET_LENGTH..];
        // A header with its checksum sums up to all ones.
        assert_eq!(checksum(&ip[..IP_LENGTH]), 0);
        assert_eq!(ip[2..4], [0, 46]);
        assert_eq!(ip[12..20], [198, 18, 0, 1, 10, 65, 1, 2]);
        assert_eq!(ip[20..28], [4, 1, 7, 227, 0, 26, 0, 0]);
    }

    #[test]
    fn the_checksum_agrees_with_a_published_one() {
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&header), 0xb861);
    }

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        let text = "Inter-| Receive\n face |bytes packets\n  eth01:  1 2 0 0\n   eth0: 120  3 0 0\n";
        assert_eq!(received(text, "eth0"), Some(3));
        assert_eq!(received(text, "eth1"), None);
    }
}

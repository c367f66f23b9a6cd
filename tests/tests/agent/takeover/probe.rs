//! One new flow of each kind every millisecond, counted by the kernel of the pod that it goes to.
//!
//! | kind | source | why |
//! |---|---|---|
//! | allowed | port 123 | `web-in` allows UDP from that port |
//! | denied | port 5000 | no rule of `web-in` allows it |
//! | spoofed | 10.1.0.9, to port 53 | policy allows the address, which is not the sender's: table `raw` alone stops it |
//!
//! Each goes to the next port, or comes from the next one, so that connection tracking knows none of them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use tortie_tests::lab::Netns;

use super::node::{DB, Node, WEB, WEB_ADDRESS};
use crate::Outcome;
use crate::scene::eventually;

const PACE: Duration = Duration::from_millis(1);
const SPOOFED: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);
/// The ports that flows go to, one after the other; none of them is that of VXLAN (4789), which workloads must not use.
const PORTS: std::ops::Range<u16> = 5000..65000;
/// Rules that count what comes, at the receiver; in the order of [`Counts`].
const COUNTERS: [&str; 3] = [
    "INPUT -p udp --sport 123 -j DROP",
    "INPUT -p udp --sport 5000 -j DROP",
    "INPUT -p udp -s 10.1.0.9 --dport 53 -j DROP",
];

/// How many packets of each kind have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    pub(crate) spoofed: u64,
}

/// The flows, until they are [`end`](Self::end)ed.
pub(crate) struct Probes {
    receiver: Netns,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<Duration>>,
    begun: Instant,
}

impl Probes {
    /// Sees that all three get through while nothing is programmed. To be called before anything is.
    pub(crate) fn prepare(node: &Node) -> Outcome {
        let (sender, receiver) = (&node.pods[DB], &node.pods[WEB]);
        sender.check("ip", &["addr", "add", &format!("{SPOOFED}/32"), "dev", "lo"], "")?;
        for rule in COUNTERS {
            let words: Vec<&str> = ["-A"].into_iter().chain(rule.split(' ')).collect();
            receiver.check("iptables", &words, "")?;
        }
        for (address, interface) in [(WEB_ADDRESS, WEB), ("10.65.0.3", DB)] {
            let route = ["route", "replace", address, "dev", interface, "scope", "link"];
            node.netns.check("ip", &route, "")?;
        }
        eventually("open wires", || {
            send(sender, &AtomicBool::new(false), &AtomicU64::new(0), 1)?;
            let seen = counts(receiver)?;
            Ok((seen.allowed > 0 && seen.denied > 0 && seen.spoofed > 0).then_some(()))
        })?;
        for address in [WEB_ADDRESS, "10.65.0.3"] {
            node.netns.check("ip", &["route", "del", address], "")?;
        }
        Ok(())
    }

    /// Begins, and waits until some packets were sent. Policy must be in force.
    pub(crate) fn start(node: &Node) -> Result<Self, Failed> {
        let (sender, receiver) = (node.pods[DB].clone(), node.pods[WEB].clone());
        receiver.check("iptables", &["-Z"], "")?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), sent.clone());
        let thread = thread::spawn(move || send(&sender, &stopped, &counter, u64::MAX));
        let probes = Self { receiver, stop, sent, thread, begun: Instant::now() };
        probes.goes_on()?;
        Ok(probes)
    }

    /// Waits until some more packets were sent.
    pub(crate) fn goes_on(&self) -> Outcome {
        let before = self.sent.load(Ordering::Relaxed);
        eventually("more packets", || {
            Ok((self.thread.is_finished() || self.sent.load(Ordering::Relaxed) > before + 50).then_some(()))
        })
    }

    /// Ends, tells the numbers, and says whether every packet went as it must.
    pub(crate) fn end(self, what: &str) -> Outcome {
        self.goes_on()?;
        self.stop.store(true, Ordering::Relaxed);
        let widest = self.thread.join().map_err(|_| "the sender panicked")??;
        let sent = self.sent.load(Ordering::Relaxed);
        let wanted = Counts { allowed: sent, denied: 0, spoofed: 0 };
        // The last one may be under way.
        let settled =
            eventually("the last packet", || Ok((counts(&self.receiver)?.allowed >= sent).then_some(())));
        let seen = counts(&self.receiver)?;
        eprintln!(
            "{what}: {sent} packets of each kind in {:?}, at most {widest:?} apart; {} allowed ones lost, {} denied and \
             {} spoofed ones passed",
            self.begun.elapsed(),
            sent - seen.allowed.min(sent),
            seen.denied,
            seen.spoofed
        );
        if seen == wanted {
            return Ok(());
        }
        Err(format!("{what}: of {sent} packets of each kind came {seen:?} ({settled:?})").into())
    }
}

/// Sends until told to stop, or so many of each kind; returns the longest time between two.
fn send(from: &Netns, stop: &AtomicBool, sent: &AtomicU64, most: u64) -> std::io::Result<Duration> {
    let work = || -> std::io::Result<Duration> {
        let allowed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 123))?;
        let denied = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000))?;
        let to: Ipv4Addr = WEB_ADDRESS.parse().map_err(std::io::Error::other)?;
        let (mut widest, mut last) = (Duration::ZERO, Instant::now());
        let mut due = last;
        for port in PORTS.cycle() {
            if stop.load(Ordering::Relaxed) || sent.load(Ordering::Relaxed) >= most {
                break;
            }
            let spoofed = UdpSocket::bind((SPOOFED, 0))?;
            denied.send_to(b"?", SocketAddr::from((to, port)))?;
            spoofed.send_to(b"?", SocketAddr::from((to, 53)))?;
            allowed.send_to(b"?", SocketAddr::from((to, port)))?;
            sent.fetch_add(1, Ordering::Relaxed);
            due += PACE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            widest = widest.max(last.elapsed());
            last = Instant::now();
        }
        Ok(widest)
    };
    from.enter(work).map_err(std::io::Error::other)?
}

fn counts(receiver: &Netns) -> Result<Counts, Failed> {
    let text = receiver.check("iptables", &["-L", "INPUT", "-v", "-x", "-n"], "")?;
    let numbers: Vec<u64> =
        text.lines().skip(2).filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    let [allowed, denied, spoofed] = numbers[..] else {
        return Err(format!("no counters in\n{text}").into());
    };
    Ok(Counts { allowed, denied, spoofed })
}

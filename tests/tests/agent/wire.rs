//! What comes through a wire, packet by packet: datagrams with a word in them, from any address, and their headers.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use socket2::{Domain, Protocol, Socket, Type};
use tortie_tests::lab::Netns;

use crate::Outcome;
use crate::scene::DEADLINE;

/// The port that words are sent to. No test's policy names it.
pub(crate) const PORT: u16 = 6999;
/// The word that ends listening, and its port: policy that closes the other one can leave this open.
const END: &str = "end";
/// See [`END`].
pub(crate) const END_PORT: u16 = 6989;
/// How long to listen before the last word is said again.
const TICK: Duration = Duration::from_millis(50);

/// A word that came through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) word: String,
    /// The source address.
    pub(crate) from: IpAddr,
    /// The DSCP value.
    pub(crate) dscp: u8,
}

/// All UDP that comes into a namespace, with its headers.
pub(crate) struct Ear(Socket);

impl Ear {
    pub(crate) fn open(netns: &Netns) -> Result<Self, Failed> {
        let socket = netns.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)))??;
        socket.set_read_timeout(Some(TICK))?;
        Ok(Self(socket))
    }

    /// What came before the last word, which `say_end` says and which is said again until it comes: what is not there
    /// by then does not come.
    pub(crate) fn words(&self, say_end: impl Fn(&str) -> Outcome) -> Result<Vec<Heard>, Failed> {
        let deadline = Instant::now() + DEADLINE;
        let mut heard = Vec::new();
        say_end(END)?;
        loop {
            let mut packet = [0; 2048];
            match (&self.0).read(&mut packet) {
                Ok(length) => match parse(&packet[..length]) {
                    Some(last) if last.word == END => return Ok(heard),
                    Some(word) => heard.push(word),
                    None => {}
                },
                // A program that another test ran has ended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Err(format!("the last word does not come; heard {heard:?}").into());
                    }
                    say_end(END)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// An IPv4 packet with UDP to one of our ports.
fn parse(packet: &[u8]) -> Option<Heard> {
    let header = usize::from(*packet.first()? & 0x0f) * 4;
    let (ip, udp) = packet.split_at_checked(header)?;
    if ![PORT, END_PORT].map(u16::to_be_bytes).iter().any(|port| udp.get(2..4) == Some(port)) {
        return None;
    }
    let from: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
    let word = String::from_utf8_lossy(udp.get(8..)?).into_owned();
    Some(Heard { word, from: Ipv4Addr::from(from).into(), dscp: ip[1] >> 2 })
}

/// Sends words from an address of a namespace; `None` leaves the choice to the kernel.
pub(crate) fn say(from: &Netns, source: Option<IpAddr>, to: IpAddr, words: &[&str]) -> Outcome {
    let source = source.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let socket = from.enter(|| UdpSocket::bind((source, 0)))??;
    for word in words {
        let port = if *word == END { END_PORT } else { PORT };
        match socket.send_to(word.as_bytes(), SocketAddr::new(to, port)) {
            // A port that nobody listens at answers, and the kernel tells whoever sends next.
            Err(error) if error.kind() != ErrorKind::ConnectionRefused => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

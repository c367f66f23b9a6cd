//! The time from a changed file to the enforced rule, measured with packets.
//!
//! A NetworkPolicy lets the visitor reach one UDP port of the frontend. For each measurement its file is replaced by
//! one that names another port: the clock starts right before the rename, and stops when the first packet to the new
//! port arrives at the pod. Packets are sent every [`PACE`]; each port is used once, so that connection tracking has
//! nothing to remember, and each change waits until the agents are done with the one before.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::DemoError;
use crate::lab::{Endpoint, Family, Host, Lab, LabError};

/// Time between two packets: no measurement is finer.
pub const PACE: Duration = Duration::from_micros(100);
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a port must be silent before the change that opens it.
const SILENCE: Duration = Duration::from_millis(20);
/// The first port; nothing of the shop is above it.
const FIRST_PORT: u16 = 40_000;

/// Changes the policy `count` times in the datastore directory `dir`, takes it away again, and returns how long each
/// change took, in the order of time. The first writing of the file is not counted.
///
/// # Errors
/// When a file cannot be written, a packet not be sent, or a change does not come into force.
pub fn measure(lab: &mut Lab, dir: &Path, count: u16) -> Result<Vec<Duration>, DemoError> {
    let (path, draft) = (dir.join("stopwatch.yaml"), lab.dir().join("stopwatch.draft"));
    let sender = socket(lab.host(&Endpoint::External("visitor".to_owned()))?, 0)?;
    let mut times = Vec::new();
    for port in FIRST_PORT..=FIRST_PORT.saturating_add(count) {
        // The change before may still be on its way into other tables, such as those of IPv6.
        lab.wait_applied(PATIENCE)?;
        let receiver = socket(lab.pod("shop", "frontend")?, port)?;
        let flow = Flow { sender: &sender, receiver, file: path.clone() };
        flow.expect_silence(port)?;
        fs::write(&draft, policy(port)).map_err(DemoError::file("write", &draft))?;
        let begin = Instant::now();
        fs::rename(&draft, &path).map_err(DemoError::file("replace", &path))?;
        times.push(flow.wait(begin)?);
    }
    fs::remove_file(&path).map_err(DemoError::file("remove", &path))?;
    Ok(times.split_off(1))
}

/// The middle of some times; the mean of the two in the middle when their number is even.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let middle = |at: usize| sorted.get(at).copied().unwrap_or_default();
    match sorted.len() {
        length if length % 2 == 1 => middle(length / 2),
        length => (middle((length / 2).saturating_sub(1)) + middle(length / 2)) / 2,
    }
}

/// Packets on the way to one port.
struct Flow<'a> {
    sender: &'a UdpSocket,
    receiver: UdpSocket,
    file: PathBuf,
}

impl Flow<'_> {
    /// Sends one packet that must not arrive.
    fn expect_silence(&self, port: u16) -> Result<(), DemoError> {
        self.send()?;
        thread::sleep(SILENCE);
        if self.has_arrived()? { Err(DemoError::OpenBefore(port)) } else { Ok(()) }
    }

    /// Sends until a packet arrives.
    fn wait(&self, begin: Instant) -> Result<Duration, DemoError> {
        loop {
            self.send()?;
            if self.has_arrived()? {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > PATIENCE {
                return Err(DemoError::NotEnforced { path: self.file.clone(), within: PATIENCE });
            }
            thread::sleep(PACE);
        }
    }

    fn send(&self) -> Result<(), DemoError> {
        let to = self.receiver.local_addr().map_err(DemoError::socket("name a socket"))?;
        self.sender.send_to(b"?", to).map_err(DemoError::socket("send a packet to the frontend"))?;
        Ok(())
    }

    fn has_arrived(&self) -> Result<bool, DemoError> {
        match self.receiver.recv(&mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(source) => Err(DemoError::Socket { action: "receive at the frontend", source }),
        }
    }
}

/// A socket at a host's IPv4 address. It never waits.
fn socket(host: &Host, port: u16) -> Result<UdpSocket, DemoError> {
    let missing = || LabError::Topology(format!("{} has no IPv4 address", host.endpoint()));
    let address: IpAddr = host.addresses().get(Family::V4).ok_or_else(missing)?;
    let open = || {
        let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
        socket.set_nonblocking(true).map(|()| socket)
    };
    host.netns().enter(open)?.map_err(DemoError::socket("open a socket"))
}

fn policy(port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: stopwatch
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: frontend
  policyTypes:
    - Ingress
  ingress:
    - ports:
        - protocol: UDP
          port: {port}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let millis = |numbers: &[u64]| numbers.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(median(&millis(&[9, 1, 5])), Duration::from_millis(5));
        assert_eq!(median(&millis(&[9, 1, 5, 7])), Duration::from_millis(6));
        assert_eq!(median(&[]), Duration::ZERO);
    }
}
